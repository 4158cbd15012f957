"""The ranking: methods by accuracy per task, usability and scalability, with how sure each rank is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import rankdata

from segbench.analysis.confidence import (
    ACCURACIES,
    PAIRS,
    TIMES,
    Evidence,
    accuracy_rows,
    compare_pairs,
    draw_accuracies,
    draw_hours,
    gather,
)
from segbench.analysis.confidence import places as _places
from segbench.analysis.frames import groups
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.runtime import group_means, input_of, scalability_scores
from segbench.analysis.scores import LEVEL, RESAMPLES, Floats, drawn_normal_scores
from segbench.analysis.source import Source, read_sql
from segbench.analysis.stability import METRIC_NAMES, WEIGHTS, scalability_variants, stability_rows, tell_stability
from segbench.analysis.stability import SCHEMA as STABILITY
from segbench.analysis.usability import score_usability, usability_of
from segbench.analysis.variance import TISSUES, Estimate, Part, holm
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name

USABILITY, SCALABILITY, ACCURACY = "usability", "scalability", "accuracy"
Flags = npt.NDArray[np.bool_]


def rank_methods(
    source: Source,
    *,
    weights: Mapping[str, float] | None = None,
    usability: Mapping[str, float] | str | PathLike[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Result:
    """Rank the methods of each suite (the study's datasets, synthetic ones, a folder's) by the study's overall score.

    A task's accuracy is the mean of mAP, AP50, AP75, AR50 and AR75 of the model trained on all tissues, pooled over the
    test set and averaged over seeds. Overall is the mean of the tasks' accuracies, usability and scalability, the last
    being 1 - the mean of the normal scores of the times for nuclei, whole cells and LIVECell.

    A method that lacks a task, its usability or its time has no place among the complete ones: it is scored on what it
    has and ranked among the methods that have that too (``ranked_among`` of them), with ``complete`` false and
    ``missing`` named.

    Parameters
    ----------
    source
        Where the runs are.
    weights
        Weights of components: ``usability``, ``scalability``, a task's name, or ``accuracy`` for every task. 1 where
        none is given; a component of weight 0 is left out, and not missed.
    usability
        Method to usability (0..1), instead of the study's composite; or the path of a CSV file with raw scores, as
        `score_usability` takes it.
    resamples, seed
        Draws behind ``p_first``, and of what the published figures may have been before they were rounded.

    Returns
    -------
    ``table``: one row a suite and method, best first. ``overall_low`` and ``overall_high`` are the 95 % interval over
    ``interval_of``: seeds and test images (the engine leaves each run's scores in the same draws of images), or test
    tissues where a run has no such draws, and running times. ``group`` numbers the methods that cannot be told apart;
    ``rank_low`` and ``rank_high`` are as low and as high as the pairs that can be allow. Where a trained method has one
    seed, nothing is told apart. ``p_first`` is the share of draws in which a method is first, null where a seed's
    scatter is not known. ``mean_rank`` is Friedman's; ``pareto`` says that no other method is both more accurate and
    faster; ``undertrained`` says why a run was not trained to the end.
    Parts: ``components`` (suite, method, component, value: long), ``accuracy`` (per task, with interval, and the
    standard error split into seeds, test images and test tissues), ``pairs`` (differences of overall scores, paired by
    image, with interval, p and p by Holm), ``friedman`` (statistic, p, Nemenyi's critical difference at 0.05),
    ``differences`` (pairs of methods, their difference of mean ranks and Nemenyi's p, Wilcoxon's and that by
    Holm), ``stability`` (the ranking by other weights, metrics and normalisations, with Kendall's tau) and
    ``rounding`` (of the published figures: ranks over what they may have been before they were rounded).

    Raises
    ------
    SegbenchError
        A weight is negative, not finite or of an unknown component, or all are 0.
    """
    sql, health = read_sql("ranking"), source.health()
    scores = source.rows(sql).with_columns(input_of().alias("input"))
    wanted = _check_weights(weights or {}, scores["task"].unique().to_list())
    if isinstance(usability, str | PathLike):
        usability = usability_of(score_usability(source, scores=usability))
    tissues, images = source.frame(read_sql("ranking_tissues")), source.frame(read_sql("ranking_resamples"))
    seeds, sizes = source.frame(read_sql("ranking_seeds")), dict(source.frame(read_sql("ranking_images")).iter_rows())
    warnings = [*health.warnings, *health.hardware]
    findings: list[str] = []
    rounding = pl.DataFrame(schema=_ROUNDING)
    tables, components, friedman, differences = [], [], [], []
    others = source.frame(read_sql("ranking_metrics"))
    stability: list[dict[str, Any]] = []
    overall: list[dict[str, Any]] = []
    accuracies: list[dict[str, Any]] = []
    for key, group in groups(scores, ["suite"]):
        name = key["suite"]
        board = _board(name, group, wanted, usability or {})
        seen = tissues.filter(pl.col("suite") == name)
        runs, drawn = (frame.filter(pl.col("suite") == name) for frame in (seeds, images))
        evidence = gather(runs, drawn, seen, sizes)
        board = replace(board, once=any(c.trained and len(c.seeds) < 2 for c in evidence.cells.values()))
        places, compared, table_warnings = _rank(board, evidence, resamples)
        overall += compared
        accuracies += accuracy_rows(name, evidence, dict(zip(board.methods, board.titles, strict=True)))
        other = others.filter(pl.col("suite") == name)
        stability += stability_rows(name, *_variants(board, other))
        test, pairs, test_warnings = _compare(board, seen)
        ranks = {} if test is None else test.pop("mean_ranks")
        table = source.with_reasons(_table(board, places, ranks), "suite", "method", train_tissue=ALL_TISSUES)
        tables.append(table)
        components.append(_long(board, table))
        friedman += [test] if test else []
        differences += pairs
        if source.published:
            rounding = _over_rounding(board, 5 * resamples, np.random.default_rng(seed))
            findings += [*_tell_rounding(rounding), *_tell(board, table, test)[1:], _agreement(table)]
        else:
            findings += _tell(board, table, test)
        warnings += [*table_warnings, *test_warnings]
    steady = pl.DataFrame(stability, schema=STABILITY)
    findings += tell_stability(steady)
    return Result(
        name="ranking",
        source=source.label,
        table=pl.concat(tables, how="diagonal") if tables else pl.DataFrame(schema=_TABLE),
        findings=unique(findings),
        warnings=unique(warnings),
        sql=sql,
        parts={
            "components": pl.concat(components) if components else pl.DataFrame(schema=_LONG),
            "friedman": pl.DataFrame(friedman, schema=_FRIEDMAN),
            "differences": pl.DataFrame(differences, schema=_PAIRS),
            "accuracy": pl.DataFrame(accuracies, schema=ACCURACIES),
            "pairs": pl.DataFrame(overall, schema=PAIRS),
            "stability": steady,
            "rounding": rounding,
        },
    )


_TABLE = {
    "suite": pl.String,
    "rank": pl.Int64,
    "ranked_among": pl.Int64,
    "method": pl.String,
    "title": pl.String,
    "overall": pl.Float64,
    "accuracy": pl.Float64,
    "usability": pl.Float64,
    "scalability": pl.Float64,
    "hours": pl.Float64,
    "pareto": pl.Boolean,
    "rank_low": pl.Int64,
    "rank_high": pl.Int64,
    "p_first": pl.Float64,
    "group": pl.Int64,
    "overall_low": pl.Float64,
    "overall_high": pl.Float64,
    "interval_of": pl.String,
    "mean_rank": pl.Float64,
    "complete": pl.Boolean,
    "missing": pl.String,
    "runs": pl.Int64,
}
_LONG = {"suite": pl.String, "method": pl.String, "title": pl.String, "component": pl.String, "value": pl.Float64}
_FRIEDMAN = {
    "suite": pl.String,
    "blocks": pl.String,
    "n_blocks": pl.Int64,
    "n_methods": pl.Int64,
    "statistic": pl.Float64,
    "p": pl.Float64,
    "critical_difference": pl.Float64,
}
_ROUNDING = {
    "suite": pl.String,
    "method": pl.String,
    "title": pl.String,
    "p_first": pl.Float64,
    "rank_low": pl.Int64,
    "rank_high": pl.Int64,
}
_PAIRS = {
    "suite": pl.String,
    "method_a": pl.String,
    "method_b": pl.String,
    "difference": pl.Float64,
    "p": pl.Float64,
    "differ": pl.Boolean,
    "p_wilcoxon": pl.Float64,
    "p_wilcoxon_holm": pl.Float64,
}


@dataclass(frozen=True)
class _Board:
    """One suite's methods and tasks as matrices; NaN is what is missing."""

    suite: str
    methods: list[str]
    titles: list[str]
    tasks: list[str]
    datasets: list[str]
    """Of each task."""
    inputs: list[str]
    """The scalability input of each task."""
    accuracy: Floats
    """Methods x tasks."""
    hours: Floats
    """Methods x tasks."""
    usability: Floats
    """Of each method."""
    runs: npt.NDArray[np.int64]
    """Of each method, over all tasks."""
    weights: Floats
    """Of each task, then usability, then scalability; 0 where the suite has none of it."""
    once: bool = False
    """True where a trained method has one seed alone on a task."""

    @property
    def components(self) -> list[str]:
        return [*self.tasks, USABILITY, SCALABILITY]

    def has(self) -> Flags:
        """Return methods x components: what each method has; scalability is its times of the tasks that it has."""
        scored = np.isfinite(self.accuracy)
        timed = np.where(scored, np.isfinite(self.hours), True).all(axis=1) & scored.any(axis=1)
        return np.column_stack([scored, np.isfinite(self.usability), timed])


@dataclass(frozen=True)
class _Place:
    """Where a method stands, and among whom."""

    overall: float
    scalability: float
    rank: int
    among: int
    complete: bool
    missing: list[str]
    low: int | None = None
    high: int | None = None
    p_first: float | None = None
    group: int | None = None
    interval: tuple[float | None, float | None] = (None, None)
    """Of the overall score, 95 %."""
    of: str = ""
    """What the interval is over."""


def _check_weights(weights: Mapping[str, float], tasks: Iterable[str]) -> dict[str, float]:
    """Return the weight of every component: each task, usability and scalability."""
    names = sorted(tasks)
    known = [ACCURACY, USABILITY, SCALABILITY, *names]
    for name, value in weights.items():
        if name not in known:
            raise unknown_name("component", name, known)
        if not (math.isfinite(value) and value >= 0):
            raise SegbenchError(f"the weight of {name} must be a number of at least 0, found {value}")
    wanted = {name: float(weights.get(name, weights.get(ACCURACY, 1.0))) for name in names}
    wanted |= {name: float(weights.get(name, 1.0)) for name in (USABILITY, SCALABILITY)}
    if names and not any(wanted.values()):
        raise SegbenchError("every weight is 0: at least one must be above it")
    return wanted


def _board(suite: str, group: pl.DataFrame, weights: Mapping[str, float], usability: Mapping[str, float]) -> _Board:
    tasks = group.select("task", "dataset", "input").unique("task").sort("task")
    methods = group.group_by("method").agg(pl.first("title"), pl.max("usability"), pl.sum("runs")).sort("method")
    row = {name: n for n, name in enumerate(methods["method"])}
    column = {name: n for n, name in enumerate(tasks["task"])}
    accuracy = np.full((len(row), len(column)), np.nan)
    hours = accuracy.copy()
    for method, task, score, time in group.select("method", "task", "accuracy", "hours").iter_rows():
        accuracy[row[method], column[task]] = np.nan if score is None else score
        hours[row[method], column[task]] = np.nan if time is None else time
    chosen = [usability.get(name, known) for name, known in methods.select("method", "usability").iter_rows()]
    board = _Board(
        suite=suite,
        methods=methods["method"].to_list(),
        titles=methods["title"].to_list(),
        tasks=tasks["task"].to_list(),
        datasets=tasks["dataset"].to_list(),
        inputs=tasks["input"].to_list(),
        accuracy=accuracy,
        hours=hours,
        usability=np.array([np.nan if value is None else value for value in chosen], dtype=np.float64),
        runs=methods["runs"].to_numpy(),
        weights=np.array([weights[name] for name in (*tasks["task"], USABILITY, SCALABILITY)]),
    )
    # What no method of the suite has is not missed by any; times of one method alone cannot be normalised
    count = board.has().sum(axis=0)
    enough = np.where(np.arange(len(count)) == len(count) - 1, count > 1, count > 0)
    return replace(board, weights=np.where(enough, board.weights, 0.0))


def _rank(
    board: _Board, evidence: Evidence, resamples: int
) -> tuple[list[_Place | None], list[dict[str, Any]], list[str]]:
    """Return each method's place (None where it has no score at all), every pair, and what to warn of."""
    has, needed = board.has(), board.weights > 0
    places: list[_Place | None] = [_place(board, m, has, needed) for m in range(len(board.methods))]
    warnings = _beware(board, places, has, needed)
    complete = np.flatnonzero(has[:, needed].all(axis=1) & needed.any())
    pairs = _add_confidence(board, places, complete, evidence, resamples) if len(complete) > 1 else []
    return places, pairs, [*warnings, *_beware_of_chance(board, complete, evidence)]


def _beware_of_chance(board: _Board, complete: npt.NDArray[np.intp], evidence: Evidence) -> list[str]:
    """Return what the intervals do not cover."""
    if len(complete) < 2:
        return []
    warnings = []
    once = sorted(
        {method for (_, method), cell in evidence.cells.items() if cell.trained and len(cell.seeds) < 2}
        & {board.methods[m] for m in complete}
    )
    if once:
        named = dict(zip(board.methods, board.titles, strict=True))
        whose = list_names(named[name] for name in once)
        over = f"; their intervals are over {evidence.of} alone" if evidence.of else ""
        warnings.append(
            f"{board.suite}: one seed on a task of {whose}: another may rank them otherwise, so no rank is "
            f"claimed{over}. Train more with '--seeds 0:3'"
        )
    if evidence.of == TISSUES:
        warnings.append(f"{board.suite}: rank intervals are over test tissues: not every run has scores by test image")
    elif not evidence.of:
        warnings.append(
            f"{board.suite}: no intervals over images: they need every method's scores on two or more test images or "
            "tissues"
        )
    return warnings


def _place(board: _Board, m: int, has: Flags, needed: Flags) -> _Place | None:
    """Return the place of one method among those that have all that it has."""
    parts = has[m] & needed
    if not parts.any() or (needed[:-2].any() and not parts[:-2].any()):
        return None
    members = np.flatnonzero(has[:, parts].all(axis=1))
    overall, scalability = _overall(board, members, parts)
    here = int(np.flatnonzero(members == m)[0])
    missing = [name for name, part, need in zip(board.components, parts, needed, strict=True) if need and not part]
    if parts[-1] and not math.isfinite(scalability[here]):
        missing.append(SCALABILITY)
    rank = int(_ranks(overall)[here])
    return _Place(float(overall[here]), float(scalability[here]), rank, len(members), not missing, missing)


def _beware(board: _Board, places: list[_Place | None], has: Flags, needed: Flags) -> list[str]:
    """Return what a reader of the places must know."""
    warnings = []
    unscored = [title for title, place in zip(board.titles, places, strict=True) if place is None]
    if unscored:
        warnings.append(f"{board.suite}: {list_names(unscored)} have no accuracy and are not ranked")
    partial = [title for title, place in zip(board.titles, places, strict=True) if place and not place.complete]
    if partial:
        warnings.append(
            f"{board.suite}: incomplete: {list_names(partial)}; each is ranked among those methods only that share "
            "what it has (see 'missing' and 'ranked_among')"
        )
    for column in (-2, -1):
        if not has[:, column].any():
            warnings.append(
                f"{board.suite}: {board.components[column]} is not known of any method: the overall score is without it"
            )
    if not needed[-1] and has[:, -1].sum() == 1:
        warnings.append(f"{board.suite}: scalability compares methods, and only one has a time: it is left out")
    if len(board.methods) == 1:
        warnings.append(f"{board.suite}: a ranking of one method says nothing")
    return warnings


def _variants(board: _Board, metrics: pl.DataFrame) -> tuple[list[str], Floats, dict[tuple[str, str], Floats]]:
    """Return the titles and overall scores of the complete methods, and their scores by other choices."""
    has, parts = board.has(), board.weights > 0
    members = np.flatnonzero(has[:, parts].all(axis=1) & parts.any())
    if len(members) < 2 or not parts[:-2].any():
        return [], np.empty(0), {}
    titles, (overall, scalability) = [board.titles[m] for m in members], _overall(board, members, parts)
    used = np.flatnonzero(parts[:-2])

    def score(accuracy: Floats, scaled: Floats, weights: Floats) -> Floats:
        values = np.column_stack([accuracy, board.usability[members], scaled])
        return np.asarray(np.where(weights > 0, values, 0.0) @ weights / weights.sum(), dtype=np.float64)

    own, found = board.accuracy[members], {}
    for name, (accurate, usable, fast) in WEIGHTS.items():
        factors = np.array([accurate or 1 / len(used)] * len(board.tasks) + [usable, fast])
        if not accurate:
            factors[-2:] = 1
        weights = board.weights * factors
        # a choice that leaves everything as it was is none
        if weights.sum() and not np.allclose(weights / weights.sum(), board.weights / board.weights.sum()):
            found["weights", name] = score(own, scalability, weights)
    for column, name in METRIC_NAMES.items():
        values = {(task, method): value for task, method, value in metrics.select("task", "method", column).iter_rows()}
        other = own.copy()
        for t in used:
            other[:, t] = [_number(values.get((board.tasks[t], board.methods[m]))) for m in members]
        found["metric", name] = score(other, scalability, board.weights)
    if parts[-1]:
        for name, scaled in scalability_variants(
            board.hours[np.ix_(members, used)], [board.inputs[t] for t in used]
        ).items():
            found["normalisation", name] = score(own, scaled, board.weights)
    return titles, overall, found


def _overall(board: _Board, members: npt.NDArray[np.intp], parts: Flags) -> tuple[Floats, Floats]:
    """Return the members' overall score and scalability from the components in ``parts`` alone."""
    scalability = np.full(len(members), np.nan)
    tasks = parts[:-2]
    if parts[-1]:
        inputs = [name for name, used in zip(board.inputs, tasks, strict=True) if used]
        means = group_means(board.hours[np.ix_(members, np.flatnonzero(tasks))], inputs)
        scalability = scalability_scores(np.column_stack(list(means.values())))
    values = np.column_stack([board.accuracy[members], board.usability[members], scalability])
    used = parts & np.isfinite(values).all(axis=0)
    return np.average(values[:, used], axis=1, weights=board.weights[used]), scalability


def _ranks(overall: Floats, axis: int = -1) -> npt.NDArray[np.int64]:
    """Return ranks, 1 for the greatest; ties share the best rank. Scores equal to 12 digits are tied."""
    return np.asarray(rankdata(-np.round(overall, 12), method="min", axis=axis), dtype=np.int64)


def _add_confidence(
    board: _Board, places: list[_Place | None], members: npt.NDArray[np.intp], evidence: Evidence, resamples: int
) -> list[dict[str, Any]]:
    """Add to the places of those that have everything how sure they are; return what is known of every pair."""
    parts = board.weights > 0
    tasks = [task for task, used in zip(board.tasks, parts, strict=False) if used]
    methods = [board.methods[m] for m in members]
    if any((task, method) not in evidence.cells for task in tasks for method in methods):
        return []
    total = board.weights.sum()
    shares = {task: float(w) / total for task, w in zip(board.tasks, board.weights, strict=False) if w > 0}
    overall, scalability = _overall(board, members, parts)
    fixed = np.where(parts[-2:], np.column_stack([board.usability[members], scalability]), 0.0)
    rest = (fixed * board.weights[-2:]).sum(axis=1) / total
    rng = np.random.default_rng(0)
    times, freedom = _drawn_scalability(board, members, evidence, resamples, rng)
    scaled = None if times is None else times * board.weights[-1] / total
    pairs = compare_pairs(board.suite, evidence, methods, shares, rest, scaled, freedom)
    samples = draw_accuracies(evidence, methods, tasks, resamples, rng) @ np.array([shares[task] for task in tasks])
    samples = samples + (rest if scaled is None else rest - scaled.mean(axis=0) + scaled)
    first = (_ranks(samples, axis=1) == 1).mean(axis=0)
    known = any(pair["p"] is not None for pair in pairs)
    everyone = all(pair["p"] is not None for pair in pairs)
    for k, (m, (low, high, group)) in enumerate(zip(members, _places(methods, overall, pairs), strict=True)):
        place = places[m]
        if place is None:
            continue
        alone = evidence.contrast({(task, methods[k]): share for task, share in shares.items()})
        extra = () if scaled is None else (Part(TIMES, float(np.var(scaled[:, k], ddof=1)), freedom),)
        sure = Estimate(place.overall, (*alone.parts, *extra), alone.seeds_open)
        if evidence.of or known:
            place = replace(place, low=low, high=high, group=group)
        places[m] = replace(
            place, p_first=float(first[k]) if everyone else None, interval=(sure.low, sure.high), of=sure.of
        )
    return pairs


def _drawn_scalability(
    board: _Board, members: npt.NDArray[np.intp], evidence: Evidence, resamples: int, rng: np.random.Generator
) -> tuple[Floats | None, float]:
    """Return scalability (resamples x members) as it may come out with the times of other runs, and its freedom."""
    used = np.flatnonzero(board.weights[:-2] > 0)
    if board.weights[-1] == 0 or not len(used):
        return None, math.inf
    methods = [board.methods[m] for m in members]
    hours, freedom = draw_hours(evidence, methods, [board.tasks[t] for t in used], resamples, rng)
    if hours is None or not np.isfinite(hours).all():
        return None, math.inf
    return _scalability_of(hours, [board.inputs[t] for t in used]), freedom


def _scalability_of(hours: Floats, inputs: Sequence[str]) -> Floats:
    """Return scalability (draws x methods) of times (draws x methods x tasks); ``inputs`` are the tasks' inputs."""
    means = [hours[:, :, [one == name for one in inputs]].mean(axis=2) for name in dict.fromkeys(inputs)]
    return np.asarray(np.mean([1 - drawn_normal_scores(values) for values in means], axis=0), dtype=np.float64)


def _compare(board: _Board, tissues: pl.DataFrame) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[str]]:
    """Return Friedman's test, Nemenyi's pairs, and warnings; blocks are test tissues, or tasks where none are known.

    Source: Demsar, Journal of Machine Learning Research 7 (2006). A tissue's score is averaged over the tasks of its
    dataset, for the tasks share its images.
    """
    from scipy.stats import friedmanchisquare, studentized_range

    names = [name for name, row in zip(board.methods, board.accuracy, strict=True) if np.isfinite(row).all()]
    blocks, matrix = _blocks(board, tissues, names)
    k, n = len(names), len(matrix)
    if k < 3 or n < 2:
        return (
            None,
            [],
            [f"{board.suite}: Friedman's test needs three methods and two tasks or tissues, found {k} and {n}"],
        )
    ranks = rankdata(-matrix, axis=1).mean(axis=0)
    if np.ptp(matrix, axis=1).max() == 0:
        return None, [], [f"{board.suite}: all methods score the same, so Friedman's test is not defined"]
    statistic, p = friedmanchisquare(*matrix.T)
    scale = math.sqrt(k * (k + 1) / (6 * n))
    critical = float(studentized_range.ppf(LEVEL, k, np.inf)) / math.sqrt(2) * scale
    a, b = np.triu_indices(k, 1)
    gaps = ranks[b] - ranks[a]
    chances = studentized_range.sf(np.abs(gaps) / scale * math.sqrt(2), k, np.inf)
    signed = [_wilcoxon(matrix[:, i] - matrix[:, j]) for i, j in zip(a, b, strict=True)]
    corrected = holm(signed)
    pairs = [
        {
            "suite": board.suite,
            "method_a": names[i],
            "method_b": names[j],
            "difference": float(gap),
            "p": float(chance),
            "differ": bool(abs(gap) > critical),
            "p_wilcoxon": alone,
            "p_wilcoxon_holm": together,
        }
        for i, j, gap, chance, alone, together in zip(a, b, gaps, chances, signed, corrected, strict=True)
    ]
    test = {
        "suite": board.suite,
        "blocks": blocks,
        "n_blocks": n,
        "n_methods": k,
        "statistic": float(statistic),
        "p": float(p),
        "critical_difference": critical,
        "mean_ranks": dict(zip(names, ranks.tolist(), strict=True)),
    }
    return test, pairs, []


def _wilcoxon(gaps: Floats) -> float:
    """Return the p value of Wilcoxon's signed ranks, which depends on the two methods alone; 1 where all are equal."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0


def _blocks(board: _Board, tissues: pl.DataFrame, names: list[str]) -> tuple[str, Floats]:
    wide = (
        tissues.filter(pl.col("method").is_in(names))
        .group_by("dataset", "test_tissue", "method", "task")
        .agg(pl.mean("accuracy"))
        .group_by("dataset", "test_tissue", "method")
        .agg(pl.mean("accuracy"), pl.len().alias("tasks"))
    )
    expected = pl.DataFrame({"dataset": board.datasets}).group_by("dataset").agg(pl.len().alias("expected"))
    whole = (
        wide.join(expected, on="dataset")
        .filter(pl.col("tasks") == pl.col("expected"))
        .sort("dataset", "test_tissue")
        .pivot("method", index=["dataset", "test_tissue"], values="accuracy")
    )
    if whole.height and set(names) <= set(whole.columns):
        matrix = whole.select(names).drop_nulls()
        if matrix.height > 1:
            return "test tissues", matrix.to_numpy()
    rows = [board.methods.index(name) for name in names]
    return "tasks", board.accuracy[rows].T


def _table(board: _Board, places: list[_Place | None], mean_ranks: Mapping[str, float]) -> pl.DataFrame:
    accuracy, hours = board.accuracy.mean(axis=1), board.hours.mean(axis=1)
    front = _pareto(accuracy, hours)
    rows = []
    for m, place in enumerate(places):
        if place is None:
            continue
        rows.append(
            {
                "suite": board.suite,
                "rank": place.rank,
                "ranked_among": place.among,
                "method": board.methods[m],
                "title": board.titles[m],
                "overall": place.overall,
                "accuracy": _known(float(np.nanmean(board.accuracy[m])))
                if np.isfinite(board.accuracy[m]).any()
                else None,
                "usability": _known(board.usability[m]),
                "scalability": _known(place.scalability),
                "hours": _known(hours[m]),
                "pareto": front[m],
                "rank_low": place.low,
                "rank_high": place.high,
                "p_first": place.p_first,
                "group": place.group,
                "overall_low": place.interval[0],
                "overall_high": place.interval[1],
                "interval_of": place.of,
                "mean_rank": mean_ranks.get(board.methods[m]),
                "complete": place.complete,
                "missing": ", ".join(place.missing),
                "runs": int(board.runs[m]),
                **{task: _known(board.accuracy[m, t]) for t, task in enumerate(board.tasks)},
            }
        )
    schema = {**_TABLE, **dict.fromkeys(board.tasks, pl.Float64)}
    table = pl.DataFrame(rows, schema=schema)
    return table.sort("complete", "rank", "overall", "method", descending=[True, False, True, False])


def _pareto(accuracy: Floats, hours: Floats) -> list[bool | None]:
    """Return whether no other method is at least as accurate and as fast, and better in one; None where unknown."""
    known = np.isfinite(accuracy) & np.isfinite(hours)
    front: list[bool | None] = []
    for a, h, there in zip(accuracy, hours, known, strict=True):
        better = known & (accuracy >= a) & (hours <= h) & ((accuracy > a) | (hours < h))
        front.append(not bool(better.any()) if there else None)
    return front


def _long(board: _Board, table: pl.DataFrame) -> pl.DataFrame:
    return (
        table.unpivot(
            board.components, index=["suite", "method", "title"], variable_name="component", value_name="value"
        )
        .select(*_LONG)
        .cast({"value": pl.Float64})
    )


def _over_rounding(board: _Board, resamples: int, rng: np.random.Generator) -> pl.DataFrame:
    """Return each method's ranks where rounded figures (scores to 0.01, hours to 1) are drawn from what they may be."""
    shape, tasks = (resamples, *board.accuracy.shape), np.flatnonzero(board.weights[:-2] > 0)
    score = board.accuracy + rng.uniform(-0.005, 0.005, shape)
    # a time of 0 is that of a method that is not trained, which is exact
    hours = np.maximum(board.hours + np.where(board.hours > 0, rng.uniform(-0.5, 0.5, shape), 0.0), 0.0)
    usability = board.usability + rng.uniform(-0.005, 0.005, shape[:2])
    overall = score[:, :, tasks] @ board.weights[tasks] + usability * board.weights[-2]
    if board.weights[-1]:
        overall += _scalability_of(hours[:, :, tasks], [board.inputs[t] for t in tasks]) * board.weights[-1]
    ranks = _ranks(overall / board.weights.sum(), axis=1)
    low, high = np.quantile(ranks, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0, method="inverted_cdf")
    columns = [[board.suite] * shape[1], board.methods, board.titles, (ranks == 1).mean(axis=0), low, high]
    table = pl.DataFrame(dict(zip(_ROUNDING, columns, strict=True)), schema=_ROUNDING)
    return table.sort("p_first", "method", descending=[True, False])


def _tell_rounding(rounding: pl.DataFrame) -> list[str]:
    first = rounding.filter(pl.col("p_first") >= 1 - LEVEL).select("title", "p_first")
    shares = [f"{title} is first in {100 * share:.0f} %" for title, share in first.iter_rows()]
    suite = rounding["suite"][0]
    if first.height == 1:
        return [f"{suite}: whatever the figures were before they were rounded, {shares[0]} of draws"]
    return [
        f"{suite}: first place is open: drawn from what the published figures may have been before they were rounded, "
        f"{list_names(shares)} of draws; and behind each figure is one seed"
    ]


def _tell(board: _Board, table: pl.DataFrame, test: Mapping[str, Any] | None) -> list[str]:
    findings = []
    ranked = table.filter("complete")
    if ranked.height > 1:
        findings.append(_tell_first(board, ranked))
    front = table.filter(pl.col("pareto")).sort("hours")
    if front.height and table["pareto"].count() > 1:
        findings.append(
            f"{board.suite}: no method is both more accurate and faster than {list_names(front['title'], limit=8)}"
        )
    if test is not None:
        differ = "differ" if test["p"] < 1 - LEVEL else "cannot be told apart"
        findings.append(
            f"{board.suite}: by Friedman's test over {test['n_blocks']} {test['blocks']} the {test['n_methods']} "
            f"methods {differ} (p = {test['p']:.2g}); two methods differ where their mean ranks are more than "
            f"{test['critical_difference']:.2f} apart (Nemenyi, whose verdict on two depends on who else plays; "
            "the part 'differences' has Wilcoxon's beside it, which does not)"
        )
    return findings


def _tell_first(board: _Board, ranked: pl.DataFrame) -> str:
    """Return what can be said of the first place: who holds it, who cannot be told apart, or that it is open."""
    best, last = ranked.row(0, named=True), ranked.row(-1, named=True)
    over = ""
    if best["overall_low"] is not None:
        ends = f"{best['overall_low']:.3f} to {best['overall_high']:.3f}"
        over = f", 95 % interval {ends} over {best['interval_of']}"
    highest = f"{best['title']} has the highest overall score of {ranked.height} methods"
    here = f"{board.suite}: {highest} ({best['overall']:.3f}"
    end = f"{last['title']} has the lowest ({last['overall']:.3f})"
    if best["group"] is None or best["p_first"] is None:
        reason = "one seed of a method says nothing of the next" if board.once else "nothing is known of chance"
        return f"{here}{over}); {end}; which method is best is open, for {reason}"
    together = ranked.filter(pl.col("group") == 1)["title"].to_list()
    if len(together) > 1:
        others = list_names(name for name in together if name != best["title"])
        return f"{here}{over}), and cannot be told apart from {others}; {end}"
    return (
        f"{board.suite}: {best['title']} ranks first of {ranked.height} methods with {best['overall']:.3f} "
        f"({over[2:]}; first in {100 * best['p_first']:.0f} % of draws); {end}"
    )


def _agreement(table: pl.DataFrame) -> str:
    from scipy.stats import spearmanr

    from segbench.engine.study import scores as published

    order = {name: n for n, name in enumerate(dict.fromkeys(score.method for score in published.scores()))}
    places = table.filter("complete").with_columns(pl.col("method").replace_strict(order).alias("published"))
    rho = float(spearmanr(places["rank"], places["published"])[0])
    return f"Spearman's rank correlation with the order of the published table is {rho:.3f}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
