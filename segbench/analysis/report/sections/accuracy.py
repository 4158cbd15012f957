"""Accuracy by tissue: which method does well where."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import METRIC, TRAINED_ON, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._filling import filled_by, more_runs


def _build(source: Source) -> Content | Missing:
    scores = source.scores
    rows = scores.data.filter((pl.col("own_task") == 1) & pl.col("accuracy").is_not_null())
    if not rows.height:
        return Missing()
    return Content(
        frames=(scores,),
        figures=(
            Figure(
                kind="heatmap",
                frame="scores",
                title="Score by test tissue and method",
                alt="A row is a method, a column a test tissue; the colour is the score.",
                x="test_tissue",
                y="method_title",
                value=METRIC,
                facet="task",
                where={"train_tissue": TRAINED_ON, "own_task": 1},
            ),
        ),
        tables=(Table("scores", title="Every score, by run and test tissue"),),
    )


SECTION = Section(
    key="accuracy",
    title="Accuracy by tissue",
    about="Each method's score on each test tissue of its own task; 'all' is pooled over the tissues.",
    fill=filled_by(more_runs),
    build=_build,
)
