"""Modality: models trained on nuclei asked for whole cells, and the other way round."""

from __future__ import annotations

import polars as pl

from segbench.analysis.modality import compare_modalities
from segbench.analysis.report.model import METRIC, METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, for_every_metric, told, unsure, why_missing

_FILTERS = {"method": ("method",), "tissue": ("test_tissue",)}


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: compare_modalities(source.answers, metric=metric))
    if not answers.table.height:
        return Missing(why_missing(answers.default))
    sentence, findings = told(answers.default)
    direction = pl.format("{}: trained on {}, tested on {}", "dataset", "target", "test_target").alias("panel")
    return Content(
        sentence=sentence,
        findings=findings,
        warnings=unsure(answers.default),
        frames=(answer_frame("modality", answers.table.with_columns(direction), answers.default, _FILTERS),),
        figures=(
            Figure(
                kind="dots",
                frame="modality",
                title="Change against the same method trained on what it is tested on, with 95 % intervals",
                alt=sentence,
                x="change",
                y="title",
                facet="panel",
                where={"metric": METRIC_NAME, "test_tissue": "all"},
                x_title="change of the score",
                low="change_low",
                high="change_high",
            ),
            Figure(
                kind="heatmap",
                frame="modality",
                title="Score on the other target, by test tissue",
                alt=sentence,
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
    fill="segbench grid launch --preset paper",
    build=_build,
)
