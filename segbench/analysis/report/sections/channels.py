"""Channels: what a second input channel brings."""

from __future__ import annotations

from segbench.analysis.channels import compare_channels
from segbench.analysis.report.model import METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import (
    answer_frame,
    for_every_metric,
    panel,
    unsure,
)
from segbench.analysis.report.sections._filling import filled_by, missing_channels

_FILTERS = {"method": ("method",), "tissue": ("test_tissue",)}


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: compare_channels(source.answers, metric=metric))
    if not answers.table.height:
        return Missing()
    frame = answer_frame("channels", answers.table.with_columns(panel("dataset", "target")), answers.default, _FILTERS)
    return Content(
        warnings=unsure(answers.default),
        frames=(frame,),
        figures=(
            Figure(
                kind="dots",
                frame="channels",
                title="Gain of two channels over one, pooled over the test tissues, with 95 % intervals",
                alt="A point is what a second channel brings to one method.",
                x="gain",
                y="title",
                facet="panel",
                where={"metric": METRIC_NAME, "test_tissue": "all"},
                x_title="gain in score",
                signed=True,
                low="gain_low",
                high="gain_high",
            ),
            Figure(
                kind="heatmap",
                frame="channels",
                title="Gain by test tissue",
                alt="A row is a method, a column a test tissue; the colour is the gain.",
                x="test_tissue",
                y="title",
                value="gain",
                facet="panel",
                where={"metric": METRIC_NAME},
                diverging=True,
            ),
        ),
        tables=(Table("channels", title="One and two channels"),),
    )


SECTION = Section(
    key="channels",
    title="Channels",
    about="The same method trained on the target's own channel, and on both.",
    fill=filled_by(missing_channels),
    build=_build,
)
