"""The ranking: methods by accuracy per task, usability and scalability, with how sure each rank is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import rankdata

from segbench.analysis.frames import groups
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.runtime import group_means, input_of, scalability_scores
from segbench.analysis.scores import LEVEL, RESAMPLES, Floats, interval
from segbench.analysis.source import Source, read_sql
from segbench.analysis.usability import score_usability, usability_of
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
        Of the bootstrap over test images and seeds: the engine leaves each run's scores in the same 200 draws of
        images, which is then the most. Where a run has none, test tissues (weighted by their images) are resampled in
        place of images.

    Returns
    -------
    ``table``: one row a suite and method, best first. ``rank_low``, ``rank_high`` (95 %) and ``p_first`` come from the
    bootstrap; ``mean_rank`` is Friedman's; ``pareto`` says that no other method is both more accurate and faster.
    Parts: ``components`` (suite, method, component, value: long), ``friedman`` (statistic, p, Nemenyi's critical
    difference at 0.05) and ``differences`` (pairs of methods, their difference of mean ranks and Nemenyi's p).

    Raises
    ------
    SegbenchError
        A weight is negative, not finite or of an unknown component, or all are 0.
    """
    sql, health = read_sql("ranking"), source.health()
    scores = source.frame(sql).with_columns(input_of().alias("input"))
    wanted = _check_weights(weights or {}, scores["task"].unique().to_list())
    if isinstance(usability, str | PathLike):
        usability = usability_of(score_usability(source, scores=usability))
    tissues, images = source.frame(read_sql("ranking_tissues")), source.frame(read_sql("ranking_resamples"))
    warnings = [*health.warnings, *health.hardware]
    findings: list[str] = []
    tables, components, friedman, differences = [], [], [], []
    for key, group in groups(scores, ["suite"]):
        name = key["suite"]
        board = _board(name, group, wanted, usability or {})
        seen = tissues.filter(pl.col("suite") == name)
        drawn = images.filter(pl.col("suite") == name)
        places, table_warnings = _rank(board, seen, drawn, resamples, np.random.default_rng(seed))
        test, pairs, test_warnings = _compare(board, seen)
        ranks = {} if test is None else test.pop("mean_ranks")
        table = _table(board, places, ranks)
        tables.append(table)
        components.append(_long(board, table))
        friedman += [test] if test else []
        differences += pairs
        findings += _tell(board, table, test)
        warnings += [*table_warnings, *test_warnings]
        if source.published:
            findings.append(_agreement(table))
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
_PAIRS = {
    "suite": pl.String,
    "method_a": pl.String,
    "method_b": pl.String,
    "difference": pl.Float64,
    "p": pl.Float64,
    "differ": pl.Boolean,
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
    board: _Board, tissues: pl.DataFrame, images: pl.DataFrame, resamples: int, rng: np.random.Generator
) -> tuple[list[_Place | None], list[str]]:
    """Return each method's place (None where it has no score at all) and what to warn of."""
    has, needed = board.has(), board.weights > 0
    places: list[_Place | None] = [_place(board, m, has, needed) for m in range(len(board.methods))]
    warnings = _beware(board, places, has, needed)
    complete = np.flatnonzero(has[:, needed].all(axis=1) & needed.any())
    if len(complete) > 1:
        accuracy = _resample_images(board, complete, images, resamples, rng)
        if accuracy is None:
            accuracy = _resample_tissues(board, complete, tissues, resamples, rng)
            if accuracy is not None:
                warnings.append(
                    f"{board.suite}: rank intervals are over test tissues: not every run has scores by test image"
                )
        if accuracy is None:
            warnings.append(
                f"{board.suite}: no rank intervals: they need every method's scores on two or more test images or "
                "tissues"
            )
        else:
            _add_intervals(places, complete, _resampled_ranks(board, complete, accuracy))
    return places, warnings


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


def _resample_images(
    board: _Board, members: npt.NDArray[np.intp], images: pl.DataFrame, resamples: int, rng: np.random.Generator
) -> Floats | None:
    """Return accuracies (resamples x members x tasks) by draws of images and seeds, or None where a run has none."""
    if images.is_empty():
        return None
    n = min(resamples, int(images["resample"].n_unique()))
    samples = np.repeat(board.accuracy[members][None], n, axis=0)
    by_cell = {(task, method): frame for (task, method), frame in images.group_by(["task", "method"])}
    for t, task in enumerate(board.tasks):
        if board.weights[t] == 0:
            continue
        for k, m in enumerate(members):
            cell = by_cell.get((task, board.methods[m]))
            wide = None if cell is None else cell.pivot("seed", index="resample", values="accuracy").sort("resample")
            if wide is None or wide.height < n or wide.head(n).null_count().sum_horizontal()[0]:
                return None
            values = wide.head(n).drop("resample").to_numpy()
            chosen = rng.integers(values.shape[1], size=values.shape)
            samples[:, k, t] = np.take_along_axis(values, chosen, axis=1).mean(axis=1)
    # one image or tissue drawn again and again is no sample
    return samples if samples.std(axis=0).max() > 0 else None


def _resample_tissues(
    board: _Board, members: npt.NDArray[np.intp], tissues: pl.DataFrame, resamples: int, rng: np.random.Generator
) -> Floats | None:
    """Return accuracies (resamples x members x tasks) by draws of tissues and seeds, or None where one is missing."""
    samples = np.repeat(board.accuracy[members][None], resamples, axis=0)
    by_cell = {(task, method): frame for (task, method), frame in tissues.group_by(["task", "method"])}
    draws: dict[str, tuple[list[str], npt.NDArray[np.int64]]] = {}
    for dataset in sorted(set(board.datasets)):
        names = tissues.filter(pl.col("dataset") == dataset)["test_tissue"].unique().sort().to_list()
        if len(names) < 2:
            return None
        draws[dataset] = (names, rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples))
    for t, task in enumerate(board.tasks):
        if board.weights[t] == 0:
            continue
        names, counts = draws[board.datasets[t]]
        for k, m in enumerate(members):
            cell = by_cell.get((task, board.methods[m]))
            if cell is None or cell["test_tissue"].n_unique() < 2:
                return None
            samples[:, k, t] += _deviations(cell, names, counts, rng)
    return samples


def _resampled_ranks(board: _Board, members: npt.NDArray[np.intp], samples: Floats) -> npt.NDArray[np.int64]:
    """Return ranks (resamples x members) of resampled accuracies (resamples x members x tasks)."""
    parts = board.weights > 0
    _, scalability = _overall(board, members, parts)
    fixed = np.column_stack([board.usability[members], scalability])
    fixed = np.where(parts[-2:], fixed, 0.0)
    weights = board.weights
    rest = (fixed * weights[-2:]).sum(axis=1)
    usable = np.where(parts[:-2], samples, 0.0)
    overall = ((usable * weights[:-2]).sum(axis=2) + rest) / weights.sum()
    return _ranks(overall, axis=1)


def _deviations(
    cell: pl.DataFrame, names: list[str], counts: npt.NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Return by how much each resample's mean over tissues and seeds differs from the mean over all of them."""
    seeds = cell["seed"].unique().sort().to_list()
    values = np.full((len(seeds), len(names)), np.nan)
    images = np.zeros(len(names))
    for seed, tissue, score, n in cell.select("seed", "test_tissue", "accuracy", "n_images").iter_rows():
        values[seeds.index(seed), names.index(tissue)] = score
        images[names.index(tissue)] = max(n or 0, 1)
    weights = np.where(np.isfinite(values), images, 0.0)
    values = np.nan_to_num(values)
    per_seed = (weights * values).sum(axis=1) / weights.sum(axis=1)
    total = counts @ weights.T
    # A resample that has none of a seed's tissues says nothing of it: it stays at its mean
    means = np.where(total > 0, (counts @ (weights * values).T) / np.where(total > 0, total, 1), per_seed)
    chosen = rng.integers(len(seeds), size=(len(counts), len(seeds)))
    return np.asarray(np.take_along_axis(means, chosen, axis=1).mean(axis=1) - per_seed.mean(), dtype=np.float64)


def _add_intervals(places: list[_Place | None], members: npt.NDArray[np.intp], samples: npt.NDArray[np.int64]) -> None:
    low, high = interval(samples.astype(np.float64))
    first = (samples == 1).mean(axis=0)
    for k, m in enumerate(members):
        place = places[m]
        if place is not None:
            places[m] = replace(place, low=math.floor(low[k]), high=math.ceil(high[k]), p_first=float(first[k]))


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
    pairs = [
        {
            "suite": board.suite,
            "method_a": names[i],
            "method_b": names[j],
            "difference": float(gap),
            "p": float(chance),
            "differ": bool(abs(gap) > critical),
        }
        for i, j, gap, chance in zip(a, b, gaps, chances, strict=True)
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


def _tell(board: _Board, table: pl.DataFrame, test: Mapping[str, Any] | None) -> list[str]:
    findings = []
    ranked = table.filter("complete")
    if ranked.height > 1:
        best, last = ranked.row(0, named=True), ranked.row(-1, named=True)
        then = f", then {list_names(ranked['title'][1:4])}" if ranked.height > 2 else ""
        sure = "" if best["p_first"] is None else f" (first in {best['p_first']:.0%} of resamples)"
        findings.append(
            f"{board.suite}: {best['title']} ranks first of {ranked.height} methods with "
            f"{best['overall']:.3f}{sure}{then}; {last['title']} is last with {last['overall']:.3f}"
        )
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
            f"{test['critical_difference']:.2f} apart (Nemenyi)"
        )
    return findings


def _agreement(table: pl.DataFrame) -> str:
    from scipy.stats import spearmanr

    from segbench.engine.study import scores as published

    order = {name: n for n, name in enumerate(dict.fromkeys(score.method for score in published.scores()))}
    places = table.filter("complete").with_columns(pl.col("method").replace_strict(order).alias("published"))
    rho = float(spearmanr(places["rank"], places["published"])[0])
    return f"Spearman's rank correlation with the order of the published table is {rho:.3f}"


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
