"""Transfer: models trained on one tissue, tested on every tissue."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import METRIC, METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import (
    answer_frame,
    for_every_metric,
    panel,
    unsure,
)
from segbench.analysis.report.sections._filling import filled_by, missing_transfer
from segbench.analysis.transfer import measure_transfer

_FILTERS = {"method": ("method",), "task": ("task",), "tissue": ("train_tissue", "test_tissue")}


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: measure_transfer(source.answers, metric=metric))
    if not answers.table.height:
        return Missing()
    frames = (
        answer_frame("transfer", _ordered(answers.table, source.order["tissue"]), answers.default, _FILTERS),
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
        warnings=unsure(answers.default),
        frames=tuple(frame for frame in frames if frame.data.height),
        figures=(
            Figure(
                kind="heatmap",
                frame="transfer",
                title="Score by training tissue (rows) and test tissue (columns)",
                alt="A row is what a model was trained on, a column what it was tested on; the colour is the score.",
                x="test_tissue",
                y="train_tissue",
                value="value",
                value_title=METRIC,
                facet="panel",
                where={"metric": METRIC_NAME},
                x_title="tested on",
                y_title="trained on",
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


def _ordered(table: pl.DataFrame, tissues: list[str]) -> pl.DataFrame:
    """Return the matrices' rows with 'all' first and the other tissues in the report's order along both axes."""
    places = {"all": -1, **{name: n for n, name in enumerate(tissues)}}
    place = [
        pl.col(f"{axis}_tissue").replace_strict(places, default=len(tissues), return_dtype=pl.Int64)
        for axis in ("train", "test")
    ]
    keys = ["metric", "task", "method"]
    return table.sort(*keys, place[0], "train_tissue", place[1], "test_tissue").with_columns(panel("task", "title"))


SECTION = Section(
    key="transfer",
    title="Transfer",
    about="How a model trained on one tissue does on the others.",
    fill=filled_by(missing_transfer),
    build=_build,
)
