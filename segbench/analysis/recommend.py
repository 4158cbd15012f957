"""A recommendation: which method to use for a tissue and target, with the channels and the budget that there are."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from segbench.analysis.frames import groups
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.scores import check_metric
from segbench.analysis.source import Source, read_sql
from segbench.engine.grid.cards import all_cards
from segbench.engine.study.tissues import ALL_TISSUES, TISSUENET_CHANNELS, TISSUENET_TARGETS
from segbench.errors import SegbenchError, unknown_name

IMAGES = ("fluorescence", "phase")
"""Kinds of images: TissueNet's layout, and LIVECell's."""
_SCHEMA = {
    "place": pl.Int64,
    "fits": pl.Boolean,
    "method": pl.String,
    "title": pl.String,
    "task": pl.String,
    "train_on": pl.String,
    "score": pl.Float64,
    "scored_on": pl.String,
    "gpu_hours": pl.Float64,
    "gpus": pl.Float64,
    "hours": pl.Float64,
    "reason": pl.String,
}


def recommend_methods(
    source: Source,
    *,
    tissue: str = ALL_TISSUES,
    target: str = "wholecell",
    channels: int | None = None,
    images: str = "fluorescence",
    gpu_hours: float | None = None,
    gpus: int | None = None,
    metric: str = "accuracy",
) -> Result:
    """Return the methods for a purpose, those within the budget first, best first, each with the reason.

    A method is scored on the tissue where it was, else over the whole test set; trained on all tissues where that was
    done, else on the same tissue, else on the one with the best score. With two channels at hand, single-channel models
    are candidates too. A results folder with no results or no candidate is answered from the published scores, and the
    result says so.

    Parameters
    ----------
    source
        Where the scores are.
    tissue
        What is to be segmented; 'all' for no tissue in particular.
    target
        ``wholecell`` or ``nuclear``.
    channels
        Channels of the images: 1 or 2 for fluorescence (2 where not given), 1 for phase.
    images
        ``fluorescence`` or ``phase``.
    gpu_hours
        GPU hours that training may take; None for no limit.
    gpus
        GPUs there are: with 0, only what was measured without one fits; None for no limit.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.

    Raises
    ------
    SegbenchError
        An argument is not one of what it may be.
    """
    check_metric(metric)
    layout, channels = _check(target, channels, images, gpu_hours, gpus)
    warnings: list[str] = []
    if source.empty:
        warnings.append(f"there are no results in {source.folder}: this is answered from the published scores")
        source = Source.of_published()
    warnings += source.health().warnings
    found, chosen, sql = source, _candidates(source, target, layout, channels, tissue, metric), read_sql("recommend")
    if not chosen.height and not source.published:
        found = Source.of_published()
        chosen = _candidates(found, target, layout, channels, tissue, metric)
        warnings.append(f"{source.label} have no score for this purpose: this is answered from {found.label}")
    if found.published:
        warnings.append(
            "hours are the published standardised running times; GPU hours suppose that each ran on the GPUs that "
            "its card names"
        )
    chosen, told = _of_one_suite(chosen)
    warnings += told
    rows = [_judge(row, gpu_hours, gpus, found.published) for row in chosen.iter_rows(named=True)]
    table = (
        pl.DataFrame(rows, schema={**_SCHEMA})
        .sort(
            "fits",
            "score",
            "gpu_hours",
            "method",
            "task",
            descending=[True, True, False, False, False],
            nulls_last=True,
        )
        .with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("place"))
    )
    warnings += _on_the_scores(table, tissue)
    if not table.height:
        warnings.append(f"nothing is known of {target} in {images} images with {channels} channels")
    warnings += _on_the_budget(table, gpu_hours is not None or gpus is not None)
    return Result("recommend", found.label, table, _tell(table, tissue, metric, found.label), unique(warnings), sql)


def _check(
    target: str, channels: int | None, images: str, gpu_hours: float | None, gpus: int | None
) -> tuple[str, int]:
    if images not in IMAGES:
        raise unknown_name("kind of images", images, IMAGES)
    if target not in TISSUENET_TARGETS:
        raise unknown_name("target", target, TISSUENET_TARGETS)
    if images == "phase" and target != "wholecell":
        raise SegbenchError("phase-contrast images have whole cells only: target must be 'wholecell'")
    most = 1 if images == "phase" else len(TISSUENET_CHANNELS)
    if channels is None:
        channels = most
    if not 1 <= channels <= most:
        raise SegbenchError(f"channels must be 1 to {most} for {images} images, found {channels}")
    if gpu_hours is not None and not (math.isfinite(gpu_hours) and gpu_hours >= 0):
        raise SegbenchError(f"GPU hours must be a number of at least 0, found {gpu_hours}")
    if gpus is not None and gpus < 0:
        raise SegbenchError(f"the number of GPUs must be at least 0, found {gpus}")
    return ("livecell" if images == "phase" else "tissuenet"), channels


def _candidates(source: Source, target: str, layout: str, channels: int, tissue: str, metric: str) -> pl.DataFrame:
    """Return one row a method and task: the training tissue to take, its score, where it was scored, its cost."""
    rows = source.frame(read_sql("recommend"), [target, layout, channels, tissue])
    rows = rows.with_columns(pl.col(metric).alias("score")).drop_nulls("score")
    cards = all_cards() if source.published else {}
    chosen: list[dict[str, Any]] = []
    for _, group in groups(rows, ["suite", "task", "method"]):
        best = max(group.iter_rows(named=True), key=lambda row: _preference(row, tissue))
        if source.published and best["standardised_hours"] is not None:
            card = cards[best["method"]]
            best["num_gpus"] = card.resources.num_gpus
            best["hours"] = best["standardised_hours"]
            best["gpu_hours"] = best["standardised_hours"] * card.resources.num_gpus
        chosen.append(best)
    return pl.DataFrame(chosen, schema={**rows.schema})


def _of_one_suite(candidates: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return the candidates of one suite of datasets, and what is to be said of the choice.

    Real data first: scores of made-up cells say less about a tissue.
    """
    suites = candidates["suite"].unique().sort().to_list()
    if not suites:
        return candidates, []
    suite = "study" if "study" in suites else next((name for name in suites if name != "synthetic"), "synthetic")
    told = []
    if len(suites) > 1:
        told.append(f"scores of {suite} are used, not those of {list_names(s for s in suites if s != suite)}")
    if suite == "synthetic":
        told.append("the scores are of synthetic images: they say little about a real tissue")
    return candidates.filter(pl.col("suite") == suite), told


def _on_the_scores(table: pl.DataFrame, tissue: str) -> list[str]:
    if tissue != ALL_TISSUES and table.height and not (table["scored_on"] == tissue).any():
        return [f"no score on {tissue} is known: the methods are compared over the whole test set"]
    if table["scored_on"].n_unique() > 1:
        return ["some methods have no score on this tissue and are compared by that over the whole test set"]
    return []


def _on_the_budget(table: pl.DataFrame, limited: bool) -> list[str]:
    told = []
    if table.height and not table["fits"].any():
        told.append("no method fits the budget; all are listed with the reason")
    unknown = table.filter(pl.col("reason").str.contains("cost unknown"))["title"].unique().sort()
    if len(unknown) and limited:
        told.append(f"the cost of {list_names(unknown)} is not known, so they do not count as within the budget")
    return told


def _preference(row: dict[str, Any], tissue: str) -> tuple[Any, ...]:
    """Return how much a model is to be preferred: training data by the study's strategy, then a score on the tissue."""
    order = {ALL_TISSUES: 2, tissue: 1}
    strategy = order[row["train_tissue"]] if row["train_tissue"] in (ALL_TISSUES, tissue) else 0
    return strategy, row["test_tissue"] == tissue, row["score"]


def _judge(row: dict[str, Any], gpu_hours: float | None, gpus: int | None, published: bool) -> dict[str, Any]:
    """Return a row of the table: whether a candidate fits the budget, and the reason."""
    cost, used, hours = row["gpu_hours"], row["num_gpus"], row["hours"]
    trained = row["trained"]
    told = [
        f"{row['score']:.2f} on {_place(row['test_tissue'])}",
        f"{row['n_channels']} channel{'s' * (row['n_channels'] > 1)}",
    ]
    fits = True
    if not trained:
        told.append("not trained")
        cost, hours = 0.0, 0.0
        if gpus == 0 and not published and (used or 0) > 0:
            fits = False
            told.append("predictions were made on a GPU")
    elif cost is None or used is None:
        fits = gpu_hours is None and gpus is None
        told.append("cost unknown")
    elif used == 0:
        told.append(f"trained in {_hours(hours)} with no GPU")
        # The same training is not slower on a GPU: the CPU's hours are an upper bound of its GPU hours
        if gpu_hours is not None and hours is not None and hours > gpu_hours:
            fits = False
            told.append(f"above {gpu_hours:g} h")
    else:
        told.append(f"{cost:.3g} GPU hours on {used:g} GPU{'s' * (used > 1)}")
        if gpu_hours is not None and cost > gpu_hours:
            fits = False
            told.append(f"above {gpu_hours:g}")
        if gpus == 0:
            fits = False
            told.append("was trained on GPUs only")
        elif gpus is not None and used > gpus:
            told.append(f"about {_hours(cost / gpus)} on {gpus}")
    return {
        "fits": fits,
        "method": row["method"],
        "title": row["title"],
        "task": row["task"],
        "train_on": row["train_tissue"],
        "score": row["score"],
        "scored_on": row["test_tissue"],
        "gpu_hours": cost,
        "gpus": used,
        "hours": hours,
        "reason": ", ".join(told),
    }


def _place(test_tissue: str) -> str:
    return "the whole test set" if test_tissue == ALL_TISSUES else test_tissue


def _hours(hours: float | None) -> str:
    return "an unknown time" if hours is None else f"{hours:.3g} h"


def _tell(table: pl.DataFrame, tissue: str, metric: str, label: str) -> tuple[str, ...]:
    fitting = table.filter("fits")
    if not fitting.height:
        return ()
    best = fitting.row(0, named=True)
    purpose = "any tissue" if tissue == ALL_TISSUES else tissue
    findings = [
        f"for {purpose}, {label} speak for {best['title']} trained on {_trained_on(best['train_on'])} "
        f"({best['task']}): {metric} {best['reason']}"
    ]
    others = [title for title in fitting["title"].unique(maintain_order=True) if title != best["title"]]
    if others:
        findings.append(f"next: {list_names(others[:3])}")
    return tuple(findings)


def _trained_on(train_tissue: str) -> str:
    return "all tissues" if train_tissue == ALL_TISSUES else train_tissue
