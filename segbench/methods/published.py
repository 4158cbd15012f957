"""What the published study says of its methods, for the cards: one place for the sources."""

from __future__ import annotations

from segbench.methods.card import Usability

SEGGAL = "SegGal site, scores table of the study (column usability); its sub-scores are not published there"
SCRIPTS = "scripts: BoomStarcuc/Cell-Segmentation-Benchmark at b57865b"


def usability(composite: float) -> Usability:
    """Return the study's usability composite (0..1) with its source; the sub-scores are unknown."""
    return Usability(composite=composite, source=SEGGAL)
