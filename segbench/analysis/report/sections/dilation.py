"""Dilation and erosion: nuclei grown into cells and cells shrunk to nuclei, and the best radius for it."""

from __future__ import annotations

import polars as pl

from segbench.analysis.dilation import measure_dilation
from segbench.analysis.report.model import METRIC, METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, for_every_metric, unsure
from segbench.analysis.report.sections._filling import filled_by, missing_crossed


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: measure_dilation(source.answers, metric=metric))
    if not answers.table.height:
        return Missing()
    direction = pl.format("{}: {} against {}", "operation", "task", "test_task").alias("panel")
    return Content(
        warnings=unsure(answers.default),
        frames=(
            answer_frame("dilation", answers.table.with_columns(direction), answers.default),
            answer_frame("dilation-curves", answers.parts["curves"].with_columns(direction), answers.default),
        ),
        figures=(
            Figure(
                kind="lines",
                frame="dilation-curves",
                title="Score against radius, pooled over the test tissues",
                alt="A line is one method: its score after growing or shrinking its cells by so many pixels.",
                x="radius",
                y="value",
                group="title",
                facet="panel",
                where={"metric": METRIC_NAME, "test_tissue": "all"},
                x_title="radius, pixels",
                y_title=METRIC,
                best=True,
                whole=True,
            ),
            Figure(
                kind="heatmap",
                frame="dilation",
                title="Best radius in pixels, by test tissue",
                alt="A row is a method, a column a test tissue; the colour is the best radius.",
                x="test_tissue",
                y="title",
                value="best_radius",
                value_title="radius",
                facet="panel",
                where={"metric": METRIC_NAME},
                whole=True,
            ),
        ),
        tables=(Table("dilation", title="Best radius"), Table("dilation-curves", title="Curves")),
    )


SECTION = Section(
    key="dilation",
    title="Dilation and erosion",
    about=(
        "Predicted nuclei dilated and scored as whole cells, predicted cells eroded and scored as nuclei; "
        "rings mark the best radius."
    ),
    fill=filled_by(missing_crossed),
    build=_build,
)
