"""Modality: models trained on nuclei asked for whole cells, and the other way round."""

from __future__ import annotations

import polars as pl

from segbench.analysis.modality import compare_modalities
from segbench.analysis.report.model import METRIC, METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, for_every_metric, unsure
from segbench.analysis.report.sections._filling import filled_by, missing_crossed

_FILTERS = {"method": ("method",), "tissue": ("test_tissue",)}


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: compare_modalities(source.answers, metric=metric))
    if not answers.table.height:
        return Missing()
    direction = pl.format("{}: trained on {}, tested on {}", "dataset", "target", "test_target").alias("panel")
    return Content(
        warnings=unsure(answers.default),
        frames=(answer_frame("modality", answers.table.with_columns(direction), answers.default, _FILTERS),),
        figures=(
            Figure(
                kind="dots",
                frame="modality",
                title="Change against the same method trained on what it is tested on, with 95 % intervals",
                alt="A point is the change of one method's score.",
                x="change",
                y="title",
                facet="panel",
                where={"metric": METRIC_NAME, "test_tissue": "all"},
                x_title="change of the score",
                signed=True,
                lacking=(
                    "No method here was trained on these images itself, so there is nothing to measure the change "
                    "against; the scores stand below."
                ),
                low="change_low",
                high="change_high",
            ),
            Figure(
                kind="heatmap",
                frame="modality",
                title="Score on the other target, by test tissue",
                alt="A row is a method, a column a test tissue; the colour is the score.",
                x="test_tissue",
                y="title",
                value="cross",
                value_title=METRIC,
                facet="panel",
                where={"metric": METRIC_NAME},
            ),
        ),
        tables=(Table("modality", title="Across targets"),),
    )


SECTION = Section(
    key="modality",
    title="Modality",
    about="Single-channel models on images of the other target, against models trained on these.",
    fill=filled_by(missing_crossed),
    build=_build,
)
