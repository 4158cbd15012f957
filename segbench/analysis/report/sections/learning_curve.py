"""How many images a method needs: scores of runs on parts of the training images, and the curves through them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from segbench.analysis.learning_curve import Curve, fit_learning_curves
from segbench.analysis.report.model import (
    METRIC,
    METRIC_NAME,
    TRAINED_ON,
    Content,
    Figure,
    Missing,
    Section,
    Source,
    Table,
)
from segbench.analysis.report.sections._answers import answer_frame, for_every_metric, panel, unsure, why_missing
from segbench.analysis.report.sections._filling import data_of

_FILTERS = {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}
_SHOWN = {"metric": METRIC_NAME, "train_tissue": TRAINED_ON}
_POINTS = 25


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: fit_learning_curves(source.answers, metric=metric))
    sizes, fits = answers.table, answers.parts["fits"]
    if not sizes.height:
        return Missing(why_missing(answers.default))
    measured = Figure(
        kind="lines",
        frame="learning-curve",
        title="Score against training images",
        alt="A line is one method: its score when it was trained on so many images.",
        x="images",
        y="score",
        group="method",
        facet="panel",
        where=_SHOWN,
        x_title="training images, logarithmic",
        y_title=METRIC,
        log_x=True,
        low="low",
        high="high",
    )
    figures = [measured]
    frames = [answer_frame("learning-curve", sizes.with_columns(panel("task")), answers.default, _FILTERS)]
    tables = [Table("learning-curve", title="Score by training images")]
    if fits.height:
        drawn = fitted_lines(fits).with_columns(panel("task"))
        frames += [
            answer_frame("learning-curve-fits", fits, answers.default, _FILTERS),
            answer_frame("learning-curve-lines", drawn, answers.default, _FILTERS),
        ]
        fitted = replace(
            measured,
            frame="learning-curve-lines",
            title="Fitted curves, to twice the images that there were",
            alt="A line is the curve that was fitted to one method's scores, drawn on to twice as many images.",
            low=None,
            high=None,
        )
        figures.append(fitted)
        tables.append(Table("learning-curve-fits", title="Ceilings, and where more annotation stops to pay"))
    return Content(warnings=unsure(answers.default), frames=tuple(frames), figures=tuple(figures), tables=tuple(tables))


def fitted_lines(fits: pl.DataFrame) -> pl.DataFrame:
    """Return points (images, score) of the curves that were fitted against images, by task, method and metric."""
    rows = []
    for row in fits.filter(pl.col("against") == "images").iter_rows(named=True):
        # through the score at twice the largest: what the fit tells of itself
        lost = (row["ceiling"] - row["doubled"]) * (2 * row["largest"]) ** row["exponent"]
        curve = Curve(row["ceiling"], lost, row["exponent"])
        for images in np.geomspace(max(1.0, row["largest"] / 64), 2 * row["largest"], _POINTS):
            keys = {name: row[name] for name in ("task", "method", "train_tissue", "metric")}
            rows.append(keys | {"images": float(images), "score": float(np.clip(curve.at(images), 0, 1))})
    return pl.DataFrame(rows)


def _fill(source: Source) -> Missing:
    data = data_of(source)
    tasks = "" if data is None else f" on {data.name}"
    return Missing(f"Launch a grid{tasks} with train_images: [5, 10, 20, 50, all].")


SECTION = Section(
    key="learning-curve",
    title="How many images",
    about="Each method trained on ever more of the training images, and from how many on more stop to pay.",
    fill=_fill,
    build=_build,
    optional=True,
)
