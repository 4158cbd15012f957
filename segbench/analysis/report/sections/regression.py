"""Regression: what the number of training images and the cells' size and shape have to do with a method's score."""

from __future__ import annotations

import polars as pl

from segbench.analysis.regression import fit_regressions
from segbench.analysis.report.model import METRIC, METRIC_NAME, Content, Figure, Missing, Section, Source, Table
from segbench.analysis.report.sections._answers import answer_frame, for_every_metric, unsure, why_missing
from segbench.analysis.report.sections._filling import filled_by, missing_regression

_FILTERS = {"method": ("method",), "task": ("task",)}
_NAMES = {"N": "training images (N)", "S": "cell size (S)", "E": "elongation (E)"}


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: fit_regressions(source.answers, metric=metric))
    fitted = answers.table.filter(pl.col("term").is_in(list(_NAMES)))
    if not fitted.height:
        return Missing(why_missing(answers.default))
    terms = fitted.with_columns(pl.col("term").replace(_NAMES).alias("predictor"))
    points = answers.parts["points"]
    return Content(
        warnings=unsure(answers.default),
        frames=(
            answer_frame("regression", terms, answers.default, _FILTERS),
            answer_frame("regression-points", points, answers.default, _FILTERS | {"tissue": ("tissue",)}),
        ),
        figures=(
            Figure(
                kind="dots",
                frame="regression",
                title="Change of the score from the least to the greatest value of each predictor, with 95 % intervals",
                alt="A point is a coefficient of one method's fit, with its interval.",
                x="coefficient",
                y="title",
                group="predictor",
                facet="task",
                where={"metric": METRIC_NAME},
                x_title="coefficient",
                signed=True,
                low="low",
                high="high",
            ),
            Figure(
                kind="scatter",
                frame="regression-points",
                title="Score of each test tissue against its number of training images",
                alt="A point is one method on one test tissue.",
                x="n_train_images",
                y="value",
                group="title",
                facet="task",
                where={"metric": METRIC_NAME},
                x_title="training images",
                whole=True,
                y_title=METRIC,
                label="tissue",
            ),
        ),
        tables=(
            Table("regression", title="Coefficients"),
            Table("regression-points", title="What was fitted"),
        ),
    )


SECTION = Section(
    key="regression",
    title="Regression",
    about=(
        "Least squares of the score over the test tissues on training images, cell size and elongation, "
        "each scaled to 0..1."
    ),
    fill=filled_by(missing_regression),
    build=_build,
)
