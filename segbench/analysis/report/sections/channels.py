"""Channels: what a second input channel brings."""

from __future__ import annotations

from segbench.analysis.channels import compare_channels
from segbench.analysis.report.model import METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import (
    answer_frame,
    for_every_metric,
    panel,
    told,
    unsure,
    why_missing,
)

_FILTERS = {"method": ("method",), "tissue": ("test_tissue",)}


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: compare_channels(source.answers, metric=metric))
    if not answers.table.height:
        return Missing(why_missing(answers.default))
    sentence, findings = told(answers.default)
    frame = answer_frame("channels", answers.table.with_columns(panel("dataset", "target")), answers.default, _FILTERS)
    return Content(
        sentence=sentence,
        findings=findings,
        warnings=unsure(answers.default),
        frames=(frame,),
        figures=(
            Figure(
                kind="dots",
                frame="channels",
                title="Gain of two channels over one, pooled over the test tissues, with 95 % intervals",
                alt=sentence,
                x="gain",
                y="title",
                facet="panel",
                where={"metric": METRIC_NAME, "test_tissue": "all"},
                x_title="gain in score",
                low="gain_low",
                high="gain_high",
            ),
            Figure(
                kind="heatmap",
                frame="channels",
                title="Gain by test tissue",
                alt=sentence,
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
    fill="segbench grid launch --preset paper",
    build=_build,
)
