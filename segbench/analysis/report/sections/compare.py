"""Side by side: these results beside another store's, method by method."""

from __future__ import annotations

import polars as pl

from segbench.analysis.report.model import (
    METRIC,
    METRICS,
    TRAINED_ON,
    Content,
    Figure,
    Frame,
    Missing,
    Section,
    Source,
    Table,
)
from segbench.analysis.report.sections._filling import always

_FILTERS = {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}
_KEYS = ["task", "train_tissue", "method"]
_HERE, _THERE = "these results", "the other results"


def _build(source: Source) -> Content | Missing:
    there = source.query_other("select * from leaderboard")
    if there is None:
        return Missing("No other store was given.")
    here = source.leaderboard.data
    shared = here.select(_KEYS).join(there.select(_KEYS), on=_KEYS)
    if not shared.height:
        return Missing("No method was scored in both stores on the same task with the same training tissue.")
    wide = here.join(there, on=_KEYS, suffix="_there").select(
        *_KEYS,
        "method_title",
        *(
            column
            for metric in METRICS
            for column in (
                pl.col(metric),
                pl.col(f"{metric}_there"),
                (pl.col(metric) - pl.col(f"{metric}_there")).alias(f"{metric}_change"),
            )
        ),
    )
    columns = [*_KEYS, "method_title", *METRICS]
    titles = here.select(*_KEYS, "method_title")
    both = pl.concat(
        [
            frame.select(columns).join(shared, on=_KEYS).with_columns(pl.lit(name).alias("store"))
            # a title is marked here alone: both stand in one row
            for frame, name in ((here, _HERE), (there.drop("method_title").join(titles, on=_KEYS), _THERE))
        ]
    )
    how = "-- the leaderboards of both stores, side by side: segbench report --compare OTHER\nselect * from leaderboard"
    return Content(
        frames=(
            Frame("compare", both.sort("task", "method_title"), how, _FILTERS),
            Frame("compare-change", wide, how, _FILTERS),
        ),
        figures=(
            Figure(
                kind="dots",
                frame="compare",
                title="Score in both stores",
                alt="Each method on each task, with a mark for either store.",
                x=METRIC,
                y="method_title",
                group="store",
                facet="task",
                where={"train_tissue": TRAINED_ON},
            ),
        ),
        tables=(Table("compare-change", title="Scores and their change"),),
    )


SECTION = Section(
    key="compare",
    title="Side by side",
    about="The same methods on the same tasks, here and in another store.",
    fill=always(
        "It sets the scores of another folder beside these, by method, task and training tissue.",
        "segbench report --compare OTHER-FOLDER",
    ),
    build=_build,
    optional=True,
)
