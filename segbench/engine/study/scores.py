"""The published study's scores, as reference data: accuracy, usability and running hours of its 138 models.

Source: the scores table of the SegGal site (the study's own companion site), brought to segbench's names of
methods, tasks and tissues; the study's repository is BoomStarcuc/Cell-Segmentation-Benchmark. Rows stand in the table's
own order, in which the methods are sorted by the study's overall score. The figures are the table's, rounded to two
decimals (hours to whole ones) as it gives them; what it does not give (hours of the models of one tissue) is None.
"""

from __future__ import annotations

import csv
import functools
import importlib.resources
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedScore:
    """One row of the published table: a method trained on a task's training tissue."""

    method: str
    """The method's name in segbench."""
    task: str
    """The task's name in segbench: one of five."""
    train_tissue: str
    """``all``, or the one tissue or cell type trained on."""
    accuracy: float
    """Mean of mAP, AP50, AP75, AR50 and AR75 over the test set, 0..1."""
    usability: float
    """The study's composite of three usability scores, 0..1; its sub-scores are not published in the table."""
    hours: float | None
    """Standardised running time in hours, 0 for a method that is not trained; None where the table has none."""


@functools.cache
def scores() -> tuple[PublishedScore, ...]:
    """Return the published table's 138 rows, in its order.

    Examples
    --------
    >>> len(scores())
    138
    >>> scores()[2]
    PublishedScore(method='cellpose', task='tissuenet-nuclear-2ch', train_tissue='all',
                   accuracy=0.83, usability=0.67, hours=25.0)
    """
    text = (importlib.resources.files("segbench.engine.study") / "scores.csv").read_text()
    return tuple(
        PublishedScore(
            method=row["method"],
            task=row["task"],
            train_tissue=row["train_tissue"],
            accuracy=float(row["accuracy"]),
            usability=float(row["usability"]),
            hours=float(row["hours"]) if row["hours"] else None,
        )
        for row in csv.DictReader(text.splitlines())
    )
