"""Dual against single channel: what a second channel brings, per method, target and tissue, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.frames import groups, mean, median
from segbench.analysis.result import Result, unique
from segbench.analysis.scores import RESAMPLES, check_metric, paired_interval
from segbench.analysis.source import Source, read_sql
from segbench.engine.study.tissues import ALL_TISSUES

_KEYS = ["suite", "dataset", "target", "method", "title", "test_tissue"]
_SCHEMA = {
    **dict.fromkeys(_KEYS, pl.String),
    "single": pl.Float64,
    "dual": pl.Float64,
    "gain": pl.Float64,
    "gain_percent": pl.Float64,
    "gain_low": pl.Float64,
    "gain_high": pl.Float64,
    "pairs": pl.Int64,
    "single_hours": pl.Float64,
    "dual_hours": pl.Float64,
}


def compare_channels(source: Source, *, metric: str = "accuracy", resamples: int = RESAMPLES, seed: int = 0) -> Result:
    """Compare models that see both channels with those that see the target's own, trained on all tissues.

    Parameters
    ----------
    source
        Where the runs are.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.
    resamples, seed
        Of the bootstrap of pairs. Over all tissues (``test_tissue`` 'all') the pairs are the test tissues, weighted by
        their images, each averaged over seeds; of one tissue they are the seeds.

    Returns
    -------
    ``table``: per method, target and test tissue the means over seeds ``single`` and ``dual``, ``gain`` (dual - single)
    with its 95 % interval, ``gain_percent`` (of single, null where single is 0), ``pairs`` behind the interval and,
    over all tissues, the standardised hours of both.
    """
    check_metric(metric)
    sql, health = read_sql("channels"), source.health()
    rows = source.rows(sql).with_columns(pl.col(metric).alias("value"))
    wide = (
        rows.filter(pl.col("value").is_not_null())
        .pivot("n_channels", index=[*_KEYS, "seed"], values=["value", "hours", "n_images"])
        .rename(lambda name: name.replace("_1", "_single").replace("_2", "_dual"))
    )
    columns = ["value_single", "value_dual", "hours_single", "hours_dual", "n_images_single"]
    whole = wide.with_columns(pl.lit(None, pl.Float64).alias(name) for name in columns if name not in wide.columns)
    pairs = whole.drop_nulls(["value_single", "value_dual"])
    rng = np.random.default_rng(seed)
    table = pl.DataFrame(
        [_compare(key, group, pairs, resamples, rng) for key, group in groups(pairs, _KEYS)],
        schema=_SCHEMA,
    )
    table = table.sort(
        "suite",
        "dataset",
        "target",
        pl.col("test_tissue") != ALL_TISSUES,
        "test_tissue",
        "gain",
        descending=[*[False] * 5, True],
    )
    warnings = list(health.warnings)
    if not table.height:
        warnings.append("no method was scored on a target both from one channel and from two: nothing to compare")
    elif table["gain_low"].null_count():
        short = table["gain_low"].null_count()
        warnings.append(
            f"{short} of {table.height} rows have no interval: it needs two or more pairs (tissues, or seeds)"
        )
    zeros = table.filter(pl.col("single") == 0).height
    if zeros:
        warnings.append(f"{zeros} rows have no relative gain, for the single-channel score is 0")
    unseeded = whole.height - pairs.height
    if unseeded and table.height:
        warnings.append(f"{unseeded} scores have no partner with the other number of channels and the same seed")
    return Result(
        name="channels",
        source=source.label,
        table=table,
        findings=_tell(table, metric),
        warnings=unique(warnings),
        sql=sql,
    )


def _compare(
    key: dict[str, Any], group: pl.DataFrame, pairs: pl.DataFrame, resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    over_all = key["test_tissue"] == ALL_TISSUES
    sample = group.with_columns(pl.lit(1).alias("weight"))
    if over_all:
        names = ["suite", "dataset", "target", "method"]
        tissues = (
            pairs.filter(pl.col("test_tissue") != ALL_TISSUES, *(pl.col(name) == key[name] for name in names))
            .group_by("test_tissue", maintain_order=True)
            .agg(pl.mean("value_single"), pl.mean("value_dual"), pl.max("n_images_single").fill_null(1).alias("weight"))
        )
        sample = tissues if tissues.height > 1 else sample
    single, dual = mean(group["value_single"]), mean(group["value_dual"])
    gaps = (sample["value_dual"] - sample["value_single"]).to_numpy()
    low, high = paired_interval(gaps, sample["weight"].to_numpy().astype(np.float64), dual - single, resamples, rng)
    return {
        **key,
        "single": single,
        "dual": dual,
        "gain": dual - single,
        "gain_percent": 100 * (dual - single) / single if single else None,
        "gain_low": low,
        "gain_high": high,
        "pairs": len(gaps),
        "single_hours": group["hours_single"].mean() if over_all else None,
        "dual_hours": group["hours_dual"].mean() if over_all else None,
    }


def _tell(table: pl.DataFrame, metric: str) -> tuple[str, ...]:
    findings = []
    pooled = table.filter(pl.col("test_tissue") == ALL_TISSUES)
    for key, group in groups(pooled, ["suite", "target"]):
        where = f"{key['suite']}, {key['target']}"
        best = group.sort("gain", descending=True).row(0, named=True)
        better = group.filter(pl.col("gain") > 0).height
        sentence = (
            f"{where}: a second channel raises {metric} for {better} of {group.height} methods (median gain "
            f"{median(group['gain']):+.2f})"
        )
        if best["gain"] > 0:
            percent = "" if best["gain_percent"] is None else f" ({best['gain_percent']:+.0f} %)"
            sentence += f", most for {best['title']}: {best['single']:.2f} to {best['dual']:.2f}{percent}"
        findings.append(sentence)
        timed = group.drop_nulls(["single_hours", "dual_hours"]).filter(pl.col("single_hours") > 0)
        if timed.height:
            ratio = median(timed["dual_hours"] / timed["single_hours"])
            findings.append(
                f"{where}: it takes {ratio:.2f} times the standardised time (median of {timed.height} methods)"
            )
    return tuple(findings)
