"""The sections of the report, in the order in which they are read."""

from __future__ import annotations

from segbench.analysis.report.model import Section
from segbench.analysis.report.sections import accuracy, examples, overview, ranking, runs, time

SECTIONS: tuple[Section, ...] = (
    overview.SECTION,
    ranking.SECTION,
    examples.SECTION,
    accuracy.SECTION,
    time.SECTION,
    runs.SECTION,
)
