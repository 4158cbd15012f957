"""Transfer: models of one training tissue on every test tissue, and what to train on for a tissue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.frames import groups
from segbench.analysis.guideline import tell_guideline, try_guideline
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.scores import Floats, check_metric
from segbench.analysis.source import Source, read_sql
from segbench.analysis.variance import with_seed_interval
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import unknown_name

_FIT = ["suite", "dataset", "task", "method", "title"]
_ORDER = {**dict.fromkeys([*_FIT, "axis", "tissue"], pl.String), "position": pl.Int64}
_OPTIONS = {
    "place": pl.Int64,
    "train_on": pl.String,
    "tissue": pl.String,
    "task": pl.String,
    "expected": pl.Float64,
    "pooled": pl.Float64,
    "transferability": pl.Float64,
    "methods": pl.Int64,
    "reason": pl.String,
}


def measure_transfer(source: Source, *, metric: str = "accuracy") -> Result:
    """Return the matrices of training tissue against test tissue, per task and method.

    Parameters
    ----------
    source
        Where the runs are; averaged over seeds. Methods with one training tissue only, and those
        that are not trained at all, are left out.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.

    Returns
    -------
    ``table``: the matrices, long: train_tissue, test_tissue (each with 'all'), value with its 95 % interval over seeds
    (null with one). Parts: ``transferability`` (per
    training tissue its score on itself, ``own``, the mean on the other tissues, ``others``, and ``pooled`` over the
    test set), ``best`` (per test tissue the best single training tissue, the best other one, its own and all) and
    ``order`` (positions of tissues along both axes by average-linkage clustering of their Euclidean distances, leaves
    ordered so that neighbours are alike).
    """
    check_metric(metric)
    sql, health = read_sql("transfer"), source.health()
    cells = with_seed_interval(source.rows(sql).with_columns(pl.col(metric).alias("value")), f"{metric}_sd")
    cells = source.with_reasons(cells, "task", "method", "train_tissue")
    columns = [
        "target",
        "n_channels",
        "train_tissue",
        "test_tissue",
        "value",
        "value_low",
        "value_high",
        "runs",
        "n_images",
    ]
    table = cells.select([*_FIT, *columns, "undertrained"])
    order: list[dict[str, Any]] = []
    unordered: list[str] = []
    for key, group in groups(cells, _FIT):
        positions = _order(group)
        order += [{**key, **row} for row in positions]
        if not positions:
            unordered.append(f"{key['title']} on {key['task']}")
    parts = {
        "transferability": _transferability(cells),
        "best": _best(cells),
        "order": pl.DataFrame(order, schema=_ORDER),
    }
    warnings = list(health.warnings)
    if not table.height:
        warnings.append("no method was trained on two or more training tissues: there is no transfer to measure")
    if table["value"].null_count():
        warnings.append(f"{table['value'].null_count()} cells of the matrices are empty: no truth or no sound {metric}")
    once = table.filter(pl.col("value_low").is_null() & pl.col("value").is_not_null()).height
    if once:
        warnings.append(
            f"{once} of {table.height} cells are of one seed and have no interval; those of others are over seeds alone"
        )
    if unordered:
        warnings.append(
            f"tissues are not clustered, for rows or columns with values are too few: {list_names(unordered, 3)}"
        )
    if source.published:
        warnings.append(
            "the published table gives one score a training tissue, taken as pooled over the test set; "
            "how a model does on each test tissue is not in it"
        )
    return Result("transfer", source.label, table, _tell(cells, parts), unique(warnings), sql, parts)


def recommend_training_data(source: Source, *, tissue: str, task: str, metric: str = "accuracy") -> Result:
    """Return what to train on to segment a tissue, by the study's strategy, and what the store measured of each choice.

    The strategy: all tissues together; where these are not to be had, the same tissue; where that is not, the tissue
    whose models do best on tissues other than their own.

    Parameters
    ----------
    source
        Where the runs are; values are means over the methods that were trained on several tissues.
    tissue
        What is to be segmented; it may be one that the source does not know.
    task
        Name of a task, such as ``tissuenet-wholecell-2ch``.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.

    Returns
    -------
    ``table``: the choices in the strategy's order; ``expected`` is the score measured on this tissue, ``pooled`` on the
    whole test set, ``transferability`` on tissues other than the model's own. Part ``guideline``: each rule of the
    strategy with the difference that it made over the test tissues, its interval, and whether it holds.

    Raises
    ------
    SegbenchError
        The source has no such task with several training tissues.
    """
    matrix = measure_transfer(source, metric=metric)
    known = matrix.table["task"].unique().sort().to_list()
    if known and task not in known:
        raise unknown_name("task with several training tissues", task, known)
    cells = matrix.table.filter(pl.col("task") == task)
    spread = matrix.parts["transferability"].filter(pl.col("task") == task)
    warnings = list(matrix.warnings)
    tissues = sorted(set(cells["train_tissue"]) - {ALL_TISSUES})
    if known and tissue not in {*tissues, *cells["test_tissue"]}:
        warnings.append(
            f"{tissue} is not a tissue of {task} here ({list_names(tissues, 12)}): nothing was measured on it"
        )
    if cells["method"].n_unique() > 1:
        warnings.append(
            f"means over {list_names(cells['title'].unique().sort())}, where each was trained on the tissue"
        )
    tested = try_guideline(cells)
    ranked = (
        spread.group_by("train_tissue")
        .agg(pl.mean("others", "pooled"))
        .with_columns(pl.coalesce("others", "pooled").alias("rank_by"))
        .drop_nulls("rank_by")
        .sort("rank_by", "train_tissue", descending=[True, False])
    )
    choices: list[tuple[str, str]] = []
    if ALL_TISSUES in cells["train_tissue"]:
        choices.append((ALL_TISSUES, "first choice: every tissue together"))
    if tissue in tissues:
        choices.append((tissue, "second choice: the same tissue"))
    by = "on tissues other than its own" if ranked["others"].is_not_null().any() else "over the whole test set"
    choices += [
        (name, f"third choice: number {n} of {ranked.height} {by}")
        for n, name in enumerate(ranked["train_tissue"], start=1)
        if name != tissue
    ]
    rows = [
        _option(place, name, reason, tissue, task, cells, ranked)
        for place, (name, reason) in enumerate(choices, start=1)
    ]
    table = pl.DataFrame(rows, schema=_OPTIONS)
    findings = unique([*_tell_choice(table, tissue, metric), *tell_guideline(tested, metric)])
    return Result("training-data", source.label, table, findings, unique(warnings), matrix.sql, {"guideline": tested})


def _option(
    place: int, name: str, reason: str, tissue: str, task: str, cells: pl.DataFrame, ranked: pl.DataFrame
) -> dict[str, Any]:
    trained = cells.filter(pl.col("train_tissue") == name)
    here = trained.filter(pl.col("test_tissue") == tissue)["value"]
    pooled = trained.filter(pl.col("test_tissue") == ALL_TISSUES)["value"]
    others = ranked.filter(pl.col("train_tissue") == name)["others"]
    return {
        "place": place,
        "train_on": name,
        "tissue": tissue,
        "task": task,
        "expected": here.mean() if len(here) else None,
        "pooled": pooled.mean() if len(pooled) else None,
        "transferability": others[0] if len(others) else None,
        "methods": trained["method"].n_unique(),
        "reason": reason,
    }


def _tell_choice(table: pl.DataFrame, tissue: str, metric: str) -> tuple[str, ...]:
    if not table.height:
        return ()
    first = table.row(0, named=True)
    findings = [f"train on {_words(first['train_on'])} to segment {tissue} ({first['reason']})"]
    measured = table.drop_nulls("expected").sort("expected", descending=True)
    if measured.height > 1:
        best = measured.row(0, named=True)
        if best["train_on"] == first["train_on"]:
            findings.append(
                f"measured on {tissue}, this is also best: {metric} {best['expected']:.2f} of {measured.height} choices"
            )
        else:
            chosen = "unknown" if first["expected"] is None else f"{first['expected']:.2f}"
            findings.append(
                f"measured on {tissue}, {_words(best['train_on'])} was better: "
                f"{metric} {best['expected']:.2f} against {chosen}"
            )
    return tuple(findings)


def _words(train_tissue: str) -> str:
    return "all tissues" if train_tissue == ALL_TISSUES else train_tissue


def _transferability(cells: pl.DataFrame) -> pl.DataFrame:
    value, train, test = pl.col("value"), pl.col("train_tissue"), pl.col("test_tissue")
    others = value.filter((test != train) & (test != ALL_TISSUES))
    return (
        cells.filter(train != ALL_TISSUES)
        .group_by([*_FIT, "train_tissue"], maintain_order=True)
        .agg(
            value.filter(test == train).first().alias("own"),
            others.mean().alias("others"),
            others.count().cast(pl.Int64).alias("n_others"),
            value.filter(test == ALL_TISSUES).first().alias("pooled"),
        )
    )


def _best(cells: pl.DataFrame) -> pl.DataFrame:
    value, train, test = pl.col("value"), pl.col("train_tissue"), pl.col("test_tissue")
    single = train != ALL_TISSUES
    return (
        cells.filter(test != ALL_TISSUES)
        .drop_nulls("value")
        .sort("value", "train_tissue", descending=[True, False])
        .group_by([*_FIT, "test_tissue"])
        .agg(
            train.filter(single).first().alias("best"),
            value.filter(single).first().alias("best_value"),
            train.filter(single & (train != test)).first().alias("best_other"),
            value.filter(single & (train != test)).first().alias("best_other_value"),
            value.filter(train == test).first().alias("own_value"),
            value.filter(train == ALL_TISSUES).first().alias("all_value"),
        )
        .sort([*_FIT, "test_tissue"])
    )


def _order(group: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the clustered order of training tissues and of test tissues, over the cells that make a full matrix."""
    wide = (
        group.filter((pl.col("train_tissue") != ALL_TISSUES) & (pl.col("test_tissue") != ALL_TISSUES))
        .pivot("test_tissue", index="train_tissue", values="value")
        .sort("train_tissue")
    )
    gaps = wide.drop("train_tissue").null_count().row(0, named=True) if wide.height else {}
    known = [name for name, n in gaps.items() if not n]
    if wide.height < 2 or len(known) < 2:
        return []
    matrix = wide.select(sorted(known)).to_numpy()
    axes = (("train", wide["train_tissue"].to_list(), matrix), ("test", sorted(known), matrix.T))
    return [
        {"axis": axis, "tissue": name, "position": position}
        for axis, names, values in axes
        for position, name in enumerate(_cluster(names, values))
    ]


def _cluster(names: Sequence[str], values: Floats) -> list[str]:
    from scipy.cluster.hierarchy import leaves_list, linkage

    leaves = leaves_list(linkage(values, method="average", metric="euclidean", optimal_ordering=True))
    return [names[leaf] for leaf in np.asarray(leaves)]


def _tell(cells: pl.DataFrame, parts: dict[str, pl.DataFrame]) -> tuple[str, ...]:
    findings = []
    for key, group in groups(parts["transferability"], ["suite", "task", "method", "title"]):
        where = f"{key['suite']}, {key['title']} on {key['task']}"
        ranked = group.drop_nulls("others").sort("others", descending=True)
        if ranked.height > 1:
            findings.append(
                f"{where}: {ranked['train_tissue'][0]} transfers best ({ranked['others'][0]:.2f} on other tissues, "
                f"{_or_unknown(ranked['own'][0])} on its own), {ranked['train_tissue'][-1]} worst "
                f"({ranked['others'][-1]:.2f})"
            )
        elif (pooled := group.drop_nulls("pooled").sort("pooled", descending=True)).height:
            every = cells.filter(
                pl.col("task") == key["task"],
                pl.col("method") == key["method"],
                pl.col("train_tissue") == ALL_TISSUES,
                pl.col("test_tissue") == ALL_TISSUES,
            )["value"]
            against = f", against {every[0]:.2f} from all" if len(every) and every[0] is not None else ""
            findings.append(
                f"{where}: of single training tissues {pooled['train_tissue'][0]} gives the best pooled score "
                f"({pooled['pooled'][0]:.2f}){against}"
            )
    return tuple(findings)


def _or_unknown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
