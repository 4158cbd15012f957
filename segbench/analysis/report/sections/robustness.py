"""Robustness: what is left of each method's score on degraded test images."""

from __future__ import annotations

import polars as pl

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
from segbench.analysis.report.sections._filling import command
from segbench.analysis.robustness import measure_robustness

_FILTERS = {"method": ("method",), "task": ("task",), "train": ("train_tissue",)}
_SHOWN = {"metric": METRIC_NAME, "train_tissue": TRAINED_ON}


def _build(source: Source) -> Content | Missing:
    answers = for_every_metric(lambda metric: measure_robustness(source.answers, metric=metric))
    curves, numbers = answers.table, answers.parts["methods"]
    if not curves.height:
        return Missing(why_missing(answers.default))
    # a curve begins with the images as they are
    first = curves.filter(pl.col("step") == 1).with_columns(
        pl.lit(0, pl.Int64).alias("step"), pl.col("clean").alias("score"), pl.lit(1.0).alias("kept"),
        *(pl.lit(None, pl.Float64).alias(name) for name in ("amount", "low", "high", "kept_low", "kept_high")),
    )  # fmt: skip
    drawn = pl.concat([first, curves]).sort("task", "kind", "title", "train_tissue", "metric", "step")
    return Content(
        warnings=unsure(answers.default),
        frames=(
            answer_frame("robustness", numbers.with_columns(panel("task")), answers.default, _FILTERS),
            answer_frame("robustness-curves", drawn.with_columns(panel("task", "kind")), answers.default, _FILTERS),
        ),
        figures=(
            Figure(
                kind="dots",
                frame="robustness",
                title="Share of the score that is left on degraded images, over all kinds",
                alt="Each method with the share of its score that is left, and its interval.",
                x="robustness",
                y="title",
                facet="panel",
                where=_SHOWN,
                x_title="share that is left",
                low="low",
                high="high",
            ),
            Figure(
                kind="lines",
                frame="robustness-curves",
                title="Score as images become worse, step by step",
                alt="A line is one method: its score on the images as they are (0), then on ever worse ones.",
                x="step",
                y="score",
                group="title",
                facet="panel",
                where=_SHOWN,
                x_title="step",
                y_title=METRIC,
                low="low",
                high="high",
            ),
        ),
        tables=(Table("robustness", title="One number a method"), Table("robustness-curves", title="Every step")),
    )


def _fill(source: Source) -> Missing:
    out = str(source.out)
    return Missing(commands=(command(out, "segbench runs robustness --all"),) if source.answers.health().runs else ())


SECTION = Section(
    key="robustness",
    title="Robustness",
    about="Models are applied to test images that are degraded in steps; nothing is trained again.",
    fill=_fill,
    build=_build,
    optional=True,
)
