"""Ranking: the methods by accuracy, usability and scalability, with how sure each rank is."""

from __future__ import annotations

import polars as pl

from segbench.analysis.ranking import rank_methods
from segbench.analysis.report.model import METRIC, TRAINED_ON, Content, Figure, Frame, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, unsure
from segbench.analysis.report.sections._filling import filled_by, more_runs
from segbench.analysis.report.wording import count
from segbench.analysis.scores import LEVEL

_FILTERS = {"method": ("method",)}
_CONTROLS_SQL = "select * from controls where test_tissue = 'all' order by task, title"


def _build(source: Source) -> Content | Missing:
    board = source.leaderboard
    if not board.data.height:
        return Missing()
    controls = Frame("controls", source.query(_CONTROLS_SQL), _CONTROLS_SQL, {"task": ("task",)})
    lined = (controls,) if controls.data.height else ()
    result = rank_methods(source.answers)
    by_task = Figure(
        kind="bars",
        frame="leaderboard",
        title="Score of each method, by task",
        alt="A bar is a method; its length is the score.",
        x=METRIC,
        y="method_title",
        facet="task",
        where={"train_tissue": TRAINED_ON},
        range=(0, 1),
        reference="controls" if lined else "",
    )
    if not result.table.height:
        return Content(frames=(board, *lined), figures=(by_task,), tables=(Table("leaderboard", title="Leaderboard"),))
    ranking = answer_frame("ranking", result.table.with_columns(pl.col("complete").cast(pl.Int8)), result, _FILTERS)
    # The study's figure 2a: every component of the overall score, and the overall score before them. Where a component
    # is missing, the overall score is made of others than the rest's: it cannot stand among theirs
    overall = result.table.select(
        "suite",
        "method",
        "title",
        pl.lit("overall").alias("component"),
        pl.when("complete").then("overall").alias("value"),
    )
    components = answer_frame("components", pl.concat([overall, result.parts["components"]]), result, _FILTERS)
    friedman = answer_frame("friedman", result.parts["friedman"], result, {})
    figures = [
        by_task,
        Figure(
            kind="heatmap",
            frame="components",
            title="What makes the overall score: accuracy per task, usability, scalability",
            alt="A row is a method, a column a component; the colour is its value.",
            x="component",
            y="title",
            value="value",
            value_title="score",
            facet="suite",
            lacking="No method here has a component of the overall score.",
        ),
    ]
    if result.table.filter("complete")["rank_low"].is_not_null().any():
        figures.append(
            Figure(
                kind="dots",
                frame="ranking",
                title="Rank by the overall score among all methods of these results that have every component",
                alt="A point is a method's rank, with its interval.",
                x="rank",
                y="title",
                facet="suite",
                where={"complete": 1},
                x_title="rank (1 is best), with its 95 % interval by resampling test images (or tissues) and seeds",
                low="rank_low",
                high="rank_high",
                whole=True,
            )
        )
    return Content(
        findings=_tests(friedman.data),
        warnings=unsure(result),
        frames=(board, *lined, ranking, components, *([friedman] if friedman.data.height else [])),
        figures=tuple(figures),
        tables=(
            Table("leaderboard", title="Leaderboard"),
            Table("ranking", title="Ranking by the overall score"),
            Table("components", title="Components of the overall score"),
            *([Table("friedman", title="Friedman's test")] if friedman.data.height else []),
            *([Table("controls", title="Controls: what needs no method")] if lined else []),
        ),
    )


def _tests(friedman: pl.DataFrame) -> tuple[str, ...]:
    return tuple(
        f"{row['suite']}: by Friedman's test over {count(row['n_blocks'], 'block')} ({row['blocks']}) the accuracies "
        f"of all {row['n_methods']} methods {'differ' if row['p'] < 1 - LEVEL else 'cannot be told apart'} "
        f"(p = {row['p']:.2g}); two of them differ where their mean ranks are more than "
        f"{row['critical_difference']:.2f} apart (Nemenyi)."
        for row in friedman.iter_rows(named=True)
    )


SECTION = Section(
    key="ranking",
    title="Ranking",
    about=(
        "The methods of each task by the chosen metric, pooled over the test tissues, and of each suite by the study's "
        "overall score: accuracy, usability, scalability. In every figure of this report methods and tissues stand by "
        "their mean accuracy."
    ),
    fill=filled_by(more_runs),
    build=_build,
)
