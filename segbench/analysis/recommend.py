"""A recommendation: which method to use for a tissue and target, with the channels and the budget that there are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from segbench.analysis.confidence import image_draws
from segbench.analysis.frames import groups
from segbench.analysis.guideline import compare_seeds, tell_guideline, try_guideline
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.scores import LEVEL, Floats, check_metric
from segbench.analysis.source import Source, read_sql
from segbench.analysis.variance import Estimate, contrast, estimate, holm
from segbench.engine.grid.cards import all_cards
from segbench.engine.study.tissues import ALL_TISSUES, TISSUENET_CHANNELS, TISSUENET_TARGETS
from segbench.errors import SegbenchError, unknown_name

IMAGES = ("fluorescence", "phase")
"""Kinds of images: stained cells, as TissueNet's, and unstained ones, as LIVECell's."""
_OBJECTS = {"cell": "wholecell"}
"""Targets that are another's by another name."""
_SCHEMA = {
    "place": pl.Int64,
    "fits": pl.Boolean,
    "method": pl.String,
    "title": pl.String,
    "task": pl.String,
    "train_on": pl.String,
    "score": pl.Float64,
    "score_low": pl.Float64,
    "score_high": pl.Float64,
    "interval_of": pl.String,
    "scored_on": pl.String,
    "gpu_hours": pl.Float64,
    "gpus": pl.Float64,
    "hours": pl.Float64,
    "seeds": pl.Int64,
    "better_on": pl.String,
    "better_by": pl.Float64,
    "better_low": pl.Float64,
    "better_high": pl.Float64,
    "reason": pl.String,
}
_WHERE = ["suite", "task", "method", "train_tissue", "test_tissue"]


@dataclass(frozen=True)
class Purpose:
    """What is to be segmented, in which images."""

    object: str
    """``wholecell`` or ``nuclear``."""
    images: str
    channels: int
    """At most."""
    tissue: str
    dataset: str | None


@dataclass(frozen=True)
class Sure:
    """What is known of one candidate's score."""

    seeds: Floats
    """(S,) scores."""
    draws: Floats | None
    """(S, B) in the same resamples of the test images."""
    trained: bool
    n_images: int | None
    better: Estimate | None
    """By how much a model of another training tissue is better than what the guideline chose; None where none is."""

    def score(self) -> Estimate:
        """Return the score."""
        return estimate(self.seeds, self.draws, self.n_images, random=self.trained)

    def ahead_of(self, other: Sure) -> Estimate:
        """Return by how much it is better than another, on the same images."""
        terms = [(1.0, self.seeds, self.draws, self.trained), (-1.0, other.seeds, other.draws, other.trained)]
        return contrast(terms, self.n_images)


def purposes(source: Source) -> pl.DataFrame:
    """Return what the runs of a source were made for, whatever their channels are called.

    Returns
    -------
    A row a task: suite, dataset, task, ``target`` (wholecell or nuclear), ``images`` (fluorescence or phase) and
    ``channels`` (how many).
    """
    phase = pl.col("layout") == "livecell"
    return source.frame(read_sql("purposes")).select(
        "suite",
        "dataset",
        "task",
        pl.col("object").alias("target"),
        pl.when(phase).then(pl.lit("phase")).otherwise(pl.lit("fluorescence")).alias("images"),
        pl.col("n_channels").alias("channels"),
    )


def recommend_methods(
    source: Source,
    *,
    tissue: str = ALL_TISSUES,
    target: str | None = None,
    channels: int | None = None,
    images: str | None = None,
    dataset: str | None = None,
    gpu_hours: float | None = None,
    gpus: int | None = None,
    metric: str = "accuracy",
) -> Result:
    """Return the methods for a purpose, those within the budget first, best first, each with the reason.

    A method is scored on the tissue where it was, else over the whole test set; trained on all tissues where that was
    done, else on the same tissue, else on the one with the best score: the study's guideline, which is tested against
    the scores each time. With two channels at hand, single-channel models are candidates too. What a task is decides
    whether it serves (what is segmented, in which kind of images, from how many channels), not what its channels are
    called. A results folder with no results or no candidate is answered from the published scores, and the result says
    so.

    Parameters
    ----------
    source
        Where the scores are.
    tissue
        What is to be segmented; 'all' for no tissue in particular.
    target
        ``wholecell`` (or ``cell``, which is the same) or ``nuclear``; None for what the results are of, whole cells
        where they are of both.
    channels
        Channels of the images; None for as many as the results have (of the published scores, 2 for fluorescence).
    images
        ``fluorescence`` or ``phase`` (any unstained cells); None for what the results are of, fluorescence where they
        are of both.
    dataset
        Use the scores of this dataset only; None takes one's own folder before the study's data, these before synthetic
        ones.
    gpu_hours
        GPU hours that training may take; None for no limit.
    gpus
        GPUs there are: with 0, only what was measured without one fits; None for no limit.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.

    Returns
    -------
    ``table``: one row a method and task. ``score_low`` and ``score_high`` are its 95 % interval over ``interval_of``
    (seeds, and test images where the score is over the whole test set and the model trained on all tissues).
    ``better_on`` names the training tissue that scored higher than the one the guideline chose, ``better_by`` how
    much, with its interval over seeds (null with one). Parts: ``guideline``, each of its rules with the difference it
    made over the test tissues, and ``leads``, by how much the first within the budget is ahead of each other method,
    with interval, p and p by Holm.

    Raises
    ------
    SegbenchError
        An argument is not one of what it may be.
    """
    check_metric(metric)
    warnings: list[str] = []
    if source.empty:
        warnings.append(f"there are no results in {source.folder}: this is answered from the published scores")
        source = Source.of_published()
    own = purposes(source)
    purpose = _check(own, target, channels, images, tissue, dataset)
    _check_budget(gpu_hours, gpus)
    warnings += source.health().warnings
    found, runs, sql = source, _runs(source, purpose, metric), read_sql("recommend")
    if not runs.height and not source.published and dataset is None:
        found = Source.of_published()
        runs = _runs(found, replace(purpose, channels=min(purpose.channels, len(TISSUENET_CHANNELS))), metric)
        warnings.append(f"{source.label} have no score for this purpose: this is answered from {found.label}")
    if found.published:
        warnings.append(
            "hours are the published standardised running times (which the study scaled to 50 epochs of batch 8: "
            "undone, Cellpose's 19 hours are 190, beyond the 72 that its job asked for, so whether they are raw or "
            "standardised is in doubt); GPU hours suppose that each ran on the GPUs that its card names"
        )
    runs, told = _of_one_suite(runs, tissue)
    warnings += told
    chosen = _candidates(found, runs, tissue)
    sure = {} if found.published else _estimates(found, purpose, chosen, runs, metric)
    rows = [_judge(row, sure.get((row["task"], row["method"])), gpu_hours, gpus, found.published) for row in chosen]
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
    keyed = found.with_reasons(table.rename({"train_on": "train_tissue"}), "task", "method", "train_tissue")
    table = keyed.rename({"train_tissue": "train_on"})
    warnings += _on_the_scores(table, tissue)
    if not table.height:
        warnings.append(
            f"nothing is known of {purpose.object} in {purpose.images} images with {purpose.channels} channels"
        )
    warnings += _on_the_budget(table, gpu_hours is not None or gpus is not None)
    leads = _leads(table, sure)
    tested = _tested(found, table, metric)
    findings = [*_tell(table, tissue, metric, found.label, leads), *_tell_better(table, metric)]
    return Result(
        "recommend",
        found.label,
        table,
        unique([*findings, *tell_guideline(tested, metric)]),
        unique(warnings),
        sql,
        {"guideline": tested, "leads": leads},
    )


def _check(
    own: pl.DataFrame, target: str | None, channels: int | None, images: str | None, tissue: str, dataset: str | None
) -> Purpose:
    """Return the purpose, what was left open taken from what there are results of."""
    if images is not None and images not in IMAGES:
        raise unknown_name("kind of images", images, IMAGES)
    if target is not None and target not in (*TISSUENET_TARGETS, *_OBJECTS):
        raise unknown_name("target", target, (*TISSUENET_TARGETS, *_OBJECTS))
    if dataset is not None:
        if dataset not in own["dataset"]:
            raise unknown_name("dataset with results", dataset, own["dataset"].unique().sort())
        own = own.filter(pl.col("dataset") == dataset)
    segmented = None if target is None else _OBJECTS.get(target, target)
    fitting = own if segmented is None else own.filter(pl.col("target") == segmented)
    if images is None:
        images = "phase" if set(fitting["images"]) == {"phase"} else "fluorescence"
    fitting = fitting.filter(pl.col("images") == images)
    if images == "phase" and segmented == "nuclear" and not fitting.height:
        raise SegbenchError("phase-contrast images have whole cells only: target must be 'wholecell'")
    if segmented is None:
        segmented = "nuclear" if set(fitting["target"]) == {"nuclear"} else "wholecell"
    counts = fitting.filter(pl.col("target") == segmented)["channels"].to_list()
    most = max(1 if images == "phase" else len(TISSUENET_CHANNELS), *counts, 1)
    if channels is None:
        channels = most
    if not 1 <= channels <= most:
        raise SegbenchError(f"channels must be 1 to {most} for {images} images, found {channels}")
    return Purpose(segmented, images, channels, tissue, dataset)


def _check_budget(gpu_hours: float | None, gpus: int | None) -> None:
    if gpu_hours is not None and not (math.isfinite(gpu_hours) and gpu_hours >= 0):
        raise SegbenchError(f"GPU hours must be a number of at least 0, found {gpu_hours}")
    if gpus is not None and gpus < 0:
        raise SegbenchError(f"the number of GPUs must be at least 0, found {gpus}")


def _runs(source: Source, purpose: Purpose, metric: str) -> pl.DataFrame:
    """Return what may be recommended: a row a task, method, training tissue, seed and test tissue."""
    phase = purpose.images == "phase"
    asked = [purpose.object, purpose.channels, phase, purpose.tissue, purpose.dataset]
    return source.rows(read_sql("recommend"), asked).with_columns(pl.col(metric).alias("score")).drop_nulls("score")


def _candidates(source: Source, runs: pl.DataFrame, tissue: str) -> list[dict[str, Any]]:
    """Return one row a method and task: the training tissue to take, its score, where it was scored, its cost."""
    cards = all_cards() if source.published else {}
    means = runs.group_by(_WHERE, maintain_order=True).agg(
        pl.first("n_channels", "title", "trained"),
        pl.mean("score", "hours", "standardised_hours", "gpu_hours"),
        pl.max("num_gpus"),
        pl.col("seed").n_unique().cast(pl.Int64).alias("seeds"),
    )
    chosen: list[dict[str, Any]] = []
    for _, group in groups(means, ["suite", "task", "method"]):
        options = list(group.iter_rows(named=True))
        best = max(options, key=lambda row: _preference(row, tissue))
        rivals = [row for row in options if row["test_tissue"] == best["test_tissue"]]
        rival = max(rivals, key=lambda row: row["score"])
        best["rival"] = rival if rival["score"] > best["score"] else None
        if source.published and best["standardised_hours"] is not None:
            card = cards[best["method"]]
            best["num_gpus"] = card.resources.num_gpus
            best["hours"] = best["standardised_hours"]
            best["gpu_hours"] = best["standardised_hours"] * card.resources.num_gpus
        chosen.append(best)
    return chosen


def _estimates(
    source: Source, purpose: Purpose, chosen: list[dict[str, Any]], runs: pl.DataFrame, metric: str
) -> dict[tuple[str, str], Sure]:
    """Return what is known of each candidate's score over seeds and, of the whole test set, over its images."""
    asked = [purpose.object, purpose.channels, purpose.images == "phase"]
    frame = source.frame(read_sql("recommend_resamples"), asked).select(
        "task", "method", "seed", "resample", pl.col(metric).alias("score")
    )
    drawn = {(task, method): part for (task, method), part in frame.group_by(["task", "method"])}
    sizes = dict(source.frame(read_sql("ranking_images")).iter_rows())
    by_run = dict(runs.group_by(_WHERE))
    found: dict[tuple[str, str], Sure] = {}
    for row in chosen:
        scores = _by_seed(by_run[tuple(row[name] for name in _WHERE)])
        whole = row["train_tissue"] == row["test_tissue"] == ALL_TISSUES
        cell = drawn.get((row["task"], row["method"])) if whole else None
        rival = row["rival"]
        better = None
        if rival is not None:
            better = compare_seeds(_by_seed(by_run[tuple(rival[name] for name in _WHERE)]), scores)
        found[row["task"], row["method"]] = Sure(
            scores["score"].to_numpy(),
            image_draws(cell, scores["seed"].to_list(), "score"),
            bool(row["trained"]),
            sizes.get(row["task"]),
            better,
        )
    return found


def _by_seed(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.group_by("seed").agg(pl.mean("score")).sort("seed")


def _leads(table: pl.DataFrame, sure: dict[tuple[str, str], Sure]) -> pl.DataFrame:
    """Return by how much the first is ahead of each other one within the budget that was scored on the same images."""
    schema = {
        **dict.fromkeys(["task", "method", "title"], pl.String),
        **dict.fromkeys(["lead", "low", "high", "p", "p_holm"], pl.Float64),
        "interval_of": pl.String,
    }
    fitting = table.filter("fits")
    if not fitting.height or not sure:
        return pl.DataFrame(schema=schema)
    first = fitting.row(0, named=True)
    best = sure[first["task"], first["method"]]
    rows = []
    for row in fitting[1:].filter(pl.col("scored_on") == first["scored_on"]).iter_rows(named=True):
        lead = best.ahead_of(sure[row["task"], row["method"]])
        ends = {"lead": lead.value, "low": lead.low, "high": lead.high, "p": lead.p, "interval_of": lead.of}
        rows.append({**{name: row[name] for name in ("task", "method", "title")}, **ends})
    corrected = holm([row["p"] for row in rows])
    return pl.DataFrame([{**row, "p_holm": p} for row, p in zip(rows, corrected, strict=True)], schema=schema)


def _tested(source: Source, table: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return the guideline put to the test on the tasks that are recommended."""
    if source.published:
        # one score a model, over the whole test set
        return try_guideline(pl.DataFrame())
    cells = source.frame(read_sql("transfer")).with_columns(pl.col(metric).alias("value"))
    return try_guideline(cells.filter(pl.col("task").is_in(table["task"].unique().to_list())))


def _of_one_suite(runs: pl.DataFrame, tissue: str) -> tuple[pl.DataFrame, list[str]]:
    """Return the runs of one suite of datasets, and what is to be said of the choice.

    Real data first: scores of made-up cells say less about a tissue. Of real ones those that know the tissue, then
    one's own folder, then the study's.
    """
    suites = runs["suite"].unique().sort().to_list()
    if not suites:
        return runs, []
    knowing = set(runs.filter((pl.col("test_tissue") == tissue) & (tissue != ALL_TISSUES))["suite"])
    suite = min(suites, key=lambda name: (name == "synthetic", name not in knowing, name == "study"))
    told = []
    if len(suites) > 1:
        told.append(f"scores of {suite} are used, not those of {list_names(s for s in suites if s != suite)}")
    if suite == "synthetic":
        told.append("the scores are of synthetic images: they say little about a real tissue")
    return runs.filter(pl.col("suite") == suite), told


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


def _judge(
    row: dict[str, Any], sure: Sure | None, gpu_hours: float | None, gpus: int | None, published: bool
) -> dict[str, Any]:
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
    score = None if sure is None else sure.score()
    rival, better = row["rival"], None if sure is None else sure.better
    return {
        "fits": fits,
        "method": row["method"],
        "title": row["title"],
        "task": row["task"],
        "train_on": row["train_tissue"],
        "score": row["score"],
        "score_low": None if score is None or score.low is None else max(0.0, score.low),
        "score_high": None if score is None or score.high is None else min(1.0, score.high),
        "interval_of": "" if score is None else score.of,
        "seeds": row["seeds"],
        "better_on": None if rival is None else rival["train_tissue"],
        "better_by": None if rival is None else rival["score"] - row["score"],
        "better_low": None if better is None else better.low,
        "better_high": None if better is None else better.high,
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


def _tell(table: pl.DataFrame, tissue: str, metric: str, label: str, leads: pl.DataFrame) -> list[str]:
    fitting = table.filter("fits")
    if not fitting.height:
        return []
    best = fitting.row(0, named=True)
    purpose = "any tissue" if tissue == ALL_TISSUES else tissue
    ends = ""
    if best["score_low"] is not None:
        ends = f"; 95 % interval {best['score_low']:.2f} to {best['score_high']:.2f} over {best['interval_of']}"
    findings = [
        f"for {purpose}, {label} speak for {best['title']} trained on {_trained_on(best['train_on'])} "
        f"({best['task']}): {metric} {best['reason']}{ends}"
    ]
    others = [title for title in fitting["title"].unique(maintain_order=True) if title != best["title"]]
    if others:
        findings.append(f"next: {list_names(others[:3])}")
        findings.append(_tell_lead(best["title"], leads))
    return findings


def _tell_lead(title: str, leads: pl.DataFrame) -> str:
    """Return of whom the first is surely ahead."""
    if not leads["p"].count():
        return f"whether {title} is the best is open: of one seed a method, none can be said to be better"
    sure = leads.filter((pl.col("p_holm") < 1 - LEVEL) & (pl.col("lead") > 0))
    apart = leads.join(sure, on=["task", "method"], how="anti")["title"].unique(maintain_order=True)
    if not len(apart):
        return f"{title} is ahead of each of them by more than chance (Holm's p below 0.05)"
    return f"{title} cannot be told apart from {list_names(apart)}"


def _tell_better(table: pl.DataFrame, metric: str) -> list[str]:
    """Return where a model of another training tissue was better than the one that the guideline chose."""
    told = []
    for row in table.filter(pl.col("fits") & pl.col("better_on").is_not_null()).head(3).iter_rows(named=True):
        where = f"for {row['title']} ({row['task']}), training on {_trained_on(row['better_on'])} scored {metric} "
        ends = "over one seed, which proves nothing"
        verdict = "whether the study's guideline loses here is open"
        if row["better_low"] is not None:
            ends = f"95 % interval {row['better_low']:+.2f} to {row['better_high']:+.2f} over seeds"
            if row["better_low"] > 0:
                verdict = "the study's guideline loses here"
        told.append(
            f"{where}{row['better_by']:+.2f} against {_trained_on(row['train_on'])} on {_place(row['scored_on'])} "
            f"({ends}): {verdict}"
        )
    return told


def _trained_on(train_tissue: str) -> str:
    return "all tissues" if train_tissue == ALL_TISSUES else train_tissue
