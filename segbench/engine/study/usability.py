"""How usable the published study found its methods."""

from __future__ import annotations

import functools

from segbench.engine.study.scores import scores
from segbench.methods.card import Usability

SOURCE = "SegGal site, scores table of the study (column usability); its sub-scores are not published there"


@functools.cache
def study_usability() -> dict[str, Usability]:
    """Return the study's composite of each of its methods, 0..1; the sub-scores are unknown.

    Examples
    --------
    >>> study_usability()["segment-anything"].composite
    0.78
    """
    return {row.method: Usability(composite=row.usability, source=SOURCE) for row in scores()}
