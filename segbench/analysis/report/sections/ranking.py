"""Ranking: the methods of each task by accuracy, with their usability and time."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import METRIC, TRAINED_ON, Content, Figure, Section, Source, Table
from segbench.analysis.report.wording import count, score


def _build(source: Source) -> Content | None:
    board = source.leaderboard
    if not board.data.height:
        return None
    sentence = _sentence(board.data)
    return Content(
        sentence=sentence,
        frames=(board,),
        figures=(
            Figure(
                kind="bars",
                frame="leaderboard",
                title="Score of each method, by task",
                alt=sentence,
                x=METRIC,
                y="method_title",
                facet="task",
                where={"train_tissue": TRAINED_ON},
                range=(0, 1),
            ),
        ),
        tables=(Table("leaderboard", title="Leaderboard"),),
    )


def _sentence(board: pl.DataFrame) -> str:
    scored = board.filter(pl.col("accuracy").is_not_null())
    if not scored.height:
        return "No method has a score: the test data have no true instances."
    trained_on = "all" if (scored["train_tissue"] == "all").any() else scored["train_tissue"][0]
    scored = scored.filter(pl.col("train_tissue") == trained_on)
    first = scored.filter(pl.col("place") == 1)
    wins = first.group_by("method_title").len().sort("len", "method_title", descending=[True, False])
    title, won = wins.row(0)
    n_tasks = scored["task"].n_unique()
    if n_tasks == 1:
        ranked = scored.sort("place", "method_title")
        best = ranked.row(0, named=True)
        sentence = f"On {best['task']}, {best['method_title']} is first with an accuracy of {score(best['accuracy'])}"
        if ranked.height > 1:
            second = ranked.row(1, named=True)
            sentence += f", ahead of {second['method_title']} with {score(second['accuracy'])}"
    else:
        low, high = first["accuracy"].min(), first["accuracy"].max()
        sentence = (
            f"{title} is first in {won} of {count(n_tasks, 'task')}; the best accuracy of a task lies between "
            f"{score(low)} and {score(high)}"  # type: ignore[arg-type]
        )
    return sentence + " (accuracy is the mean of mAP, AP50, AP75, AR50 and AR75, pooled over the test tissues)."


SECTION = Section(
    key="ranking",
    title="Ranking",
    about="The methods of each task by the chosen metric, scored on the task's own test data.",
    fill="segbench grid launch",
    build=_build,
)
