"""Ranking: the methods by accuracy, usability and scalability, with how sure each rank is."""

from __future__ import annotations

import polars as pl

from segbench.analysis.ranking import rank_methods
from segbench.analysis.report.model import METRIC, TRAINED_ON, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, told, unsure
from segbench.analysis.report.wording import count, score

_FILTERS = {"method": ("method",)}


def _build(source: Source) -> Content | Missing:
    board = source.leaderboard
    if not board.data.height:
        return Missing()
    sentence = _sentence(board.data)
    result = rank_methods(source.answers)
    by_task = Figure(
        kind="bars",
        frame="leaderboard",
        title="Score of each method, by task",
        alt=sentence,
        x=METRIC,
        y="method_title",
        facet="task",
        where={"train_tissue": TRAINED_ON},
        range=(0, 1),
    )
    if not result.table.height:
        return Content(
            sentence, frames=(board,), figures=(by_task,), tables=(Table("leaderboard", title="Leaderboard"),)
        )
    first, more = told(result)
    ranking = answer_frame("ranking", result.table, result, _FILTERS)
    # The study's figure 2a: every component of the overall score, and the overall score before them
    overall = result.table.select(
        "suite", "method", "title", pl.lit("overall").alias("component"), pl.col("overall").alias("value")
    )
    components = answer_frame("components", pl.concat([overall, result.parts["components"]]), result, _FILTERS)
    figures = [
        by_task,
        Figure(
            kind="heatmap",
            frame="components",
            title="What makes the overall score: accuracy per task, usability, scalability",
            alt=first,
            x="component",
            y="title",
            value="value",
            value_title="score",
            facet="suite",
            order="given",
        ),
    ]
    if result.table["rank_low"].is_not_null().any():
        figures.append(
            Figure(
                kind="dots",
                frame="ranking",
                title="Overall rank, with its 95 % interval by resampling test images (or tissues) and seeds",
                alt=first,
                x="rank",
                y="title",
                facet="suite",
                x_title="rank (1 is best)",
                low="rank_low",
                high="rank_high",
                whole=True,
                rising=True,
            )
        )
    return Content(
        sentence=sentence,
        findings=(first, *more),
        warnings=unsure(result),
        frames=(board, ranking, components),
        figures=tuple(figures),
        tables=(
            Table("leaderboard", title="Leaderboard"),
            Table("ranking", title="Ranking by the overall score"),
            Table("components", title="Components of the overall score"),
        ),
    )


def _sentence(board: pl.DataFrame) -> str:
    scored = board.filter(pl.col("accuracy").is_not_null())
    if not scored.height:
        return "No method has a score: the test data have no true instances."
    trained_on = "all" if (scored["train_tissue"] == "all").any() else scored["train_tissue"][0]
    scored = scored.filter(pl.col("train_tissue") == trained_on)
    first = scored.filter(pl.col("place") == 1)
    n_tasks = scored["task"].n_unique()
    if n_tasks == 1:
        ranked = scored.sort("place", "method_title")
        best = ranked.row(0, named=True)
        sentence = f"On {best['task']}, {best['method_title']} is first with an accuracy of {score(best['accuracy'])}"
        if ranked.height > 1:
            second = ranked.row(1, named=True)
            sentence += f", ahead of {second['method_title']} with {score(second['accuracy'])}"
    else:
        wins = first.group_by("method_title").len().sort("len", "method_title", descending=[True, False])
        title, won = wins.row(0)
        top = first["accuracy"].to_list()
        sentence = (
            f"{title} is first in {won} of {count(n_tasks, 'task')}; the best accuracy of a task lies between "
            f"{score(min(top))} and {score(max(top))}"
        )
    return sentence + " (accuracy is the mean of mAP, AP50, AP75, AR50 and AR75, pooled over the test tissues)."


SECTION = Section(
    key="ranking",
    title="Ranking",
    about=(
        "The methods of each task by the chosen metric, and by the study's overall score: "
        "accuracy, usability, scalability."
    ),
    fill="segbench grid launch",
    build=_build,
)
