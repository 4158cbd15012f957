"""The sections of the report, in the order in which they are read."""

from __future__ import annotations

from segbench.analysis.report.model import Section
from segbench.analysis.report.sections import (
    accuracy,
    channels,
    compare,
    diagnosis,
    dilation,
    examples,
    learning_curve,
    methods,
    modality,
    morphology,
    overview,
    published,
    ranking,
    recommendation,
    regression,
    robustness,
    runs,
    time,
    transfer,
)

SECTIONS: tuple[Section, ...] = (
    overview.SECTION,
    ranking.SECTION,
    examples.SECTION,
    accuracy.SECTION,
    diagnosis.SECTION,
    regression.SECTION,
    morphology.SECTION,
    channels.SECTION,
    transfer.SECTION,
    modality.SECTION,
    dilation.SECTION,
    robustness.SECTION,
    learning_curve.SECTION,
    time.SECTION,
    recommendation.SECTION,
    compare.SECTION,
    published.SECTION,
    runs.SECTION,
    methods.SECTION,
)
