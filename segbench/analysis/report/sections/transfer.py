"""Transfer: models trained on one tissue, tested on every tissue."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import METRIC, METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import (
    answer_frame,
    for_every_metric,
    panel,
    told,
    unsure,
    why_missing,
)
from segbench.analysis.transfer import measure_transfer

_FILTERS = {"method": ("method",), "task": ("task",), "tissue": ("train_tissue", "test_tissue")}
_KEYS = ["metric", "task", "method"]


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: measure_transfer(source.answers, metric=metric))
    if not answers.table.height:
        return Missing(why_missing(answers.default))
    sentence, findings = told(answers.default)
    frames = (
        answer_frame("transfer", _clustered(answers.table, answers.parts["order"]), answers.default, _FILTERS),
        answer_frame(
            "transferability",
            answers.parts["transferability"],
            answers.default,
            _FILTERS | {"tissue": ("train_tissue",)},
        ),
        answer_frame(
            "best-training-tissue", answers.parts["best"], answers.default, _FILTERS | {"tissue": ("test_tissue",)}
        ),
    )
    return Content(
        sentence=sentence,
        findings=findings,
        warnings=unsure(answers.default),
        frames=tuple(frame for frame in frames if frame.data.height),
        figures=(
            Figure(
                kind="heatmap",
                frame="transfer",
                title="Score by training tissue (rows) and test tissue (columns), alike tissues beside each other",
                alt=sentence,
                x="test_tissue",
                y="train_tissue",
                value="value",
                value_title=METRIC,
                facet="panel",
                where={"metric": METRIC_NAME},
                x_title="tested on",
                y_title="trained on",
                order="given",
            ),
        ),
        tables=tuple(
            Table(frame.name, title=title)
            for frame, title in zip(
                frames, ("Matrices", "How well each training tissue transfers", "Best training tissue"), strict=True
            )
            if frame.data.height
        ),
    )


def _clustered(table: pl.DataFrame, order: pl.DataFrame) -> pl.DataFrame:
    """Return the matrices' rows with 'all' first and tissues in their clustered order along both axes."""
    for axis in ("train", "test"):
        places = order.filter(pl.col("axis") == axis).select(
            *_KEYS, pl.col("tissue").alias(f"{axis}_tissue"), pl.col("position").alias(f"{axis}_place")
        )
        table = table.join(places, on=[*_KEYS, f"{axis}_tissue"], how="left")
        first = pl.when(pl.col(f"{axis}_tissue") == "all").then(-1).otherwise(pl.col(f"{axis}_place"))
        table = table.with_columns(first.alias(f"{axis}_place"))
    places_of = ["train_place", "train_tissue", "test_place", "test_tissue"]
    return table.sort(*_KEYS, *places_of, nulls_last=True).with_columns(panel("task", "title"))


SECTION = Section(
    key="transfer",
    title="Transfer",
    about="How a model trained on one tissue does on the others.",
    fill="segbench grid launch --preset paper",
    build=_build,
)
