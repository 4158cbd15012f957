"""Accuracy by tissue: which method does well where."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import METRIC, TRAINED_ON, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.wording import score


def _build(source: Source) -> Content | Missing:
    scores = source.scores
    rows = scores.data.filter((pl.col("own_task") == 1) & pl.col("accuracy").is_not_null())
    if not rows.height:
        return Missing()
    sentence = _sentence(rows)
    return Content(
        sentence=sentence,
        frames=(scores,),
        figures=(
            Figure(
                kind="heatmap",
                frame="scores",
                title="Score by test tissue and method",
                alt=sentence,
                x="test_tissue",
                y="method_title",
                value=METRIC,
                facet="task",
                where={"train_tissue": TRAINED_ON, "own_task": 1},
                range=(0, 1),
            ),
        ),
        tables=(Table("scores", title="Every score, by run and test tissue"),),
    )


def _sentence(rows: pl.DataFrame) -> str:
    tissues = (
        rows.filter(pl.col("test_tissue") != "all")
        .group_by("test_tissue")
        .agg(pl.col("accuracy").mean())
        .sort("accuracy", "test_tissue", descending=[True, False])
    )
    if tissues.height < 2:
        return f"Over one test tissue the mean accuracy of the methods is {score(rows['accuracy'].mean())}."  # type: ignore[arg-type]
    easy, hard = tissues.row(0), tissues.row(-1)
    return (
        f"Averaged over methods and tasks, {easy[0]} is the easiest of {tissues.height} test tissues (accuracy "
        f"{score(easy[1])}) and {hard[0]} the hardest ({score(hard[1])}); rows and columns are ordered by their mean."
    )


SECTION = Section(
    key="accuracy",
    title="Accuracy by tissue",
    about="Each method's score on each test tissue of its own task; 'all' is pooled over the tissues.",
    fill="segbench grid launch",
    build=_build,
)
