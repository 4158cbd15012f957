"""Modality: models of nuclear images on whole-cell images and back, against models of the same modality."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.frames import groups, median
from segbench.analysis.result import Result, unique
from segbench.analysis.scores import RESAMPLES, check_metric, paired_interval
from segbench.analysis.source import Source, read_sql
from segbench.engine.study.tissues import ALL_TISSUES

_KEYS = ["suite", "dataset", "method", "title", "target", "test_target", "test_tissue"]
_SCHEMA = {
    **dict.fromkeys(_KEYS, pl.String),
    "cross": pl.Float64,
    "same": pl.Float64,
    "change": pl.Float64,
    "change_percent": pl.Float64,
    "change_low": pl.Float64,
    "change_high": pl.Float64,
    "own": pl.Float64,
}


def compare_modalities(
    source: Source, *, metric: str = "accuracy", resamples: int = RESAMPLES, seed: int = 0
) -> Result:
    """Compare a single-channel model on the other target's images with the same method trained on these.

    Parameters
    ----------
    source
        Where the runs are: models trained on all tissues, averaged over seeds.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.
    resamples, seed
        Of the bootstrap over test tissues (weighted by their images), for the rows of test tissue 'all'.

    Returns
    -------
    ``table``: per method, trained ``target``, ``test_target`` and test tissue: ``cross`` (the model on the other
    target's images), ``same`` (the method trained on that target), ``change`` = cross - same with its 95 % interval,
    and ``own`` (the model on its own target's images).
    """
    check_metric(metric)
    sql, health = read_sql("modality"), source.health()
    rows = source.rows(sql).with_columns(pl.col(metric).alias("value"))
    home = rows.filter(pl.col("task") == pl.col("test_task"))
    place = ["suite", "dataset", "method", "test_tissue"]
    own = home.select(*place, "target", pl.col("value").alias("own"))
    same = home.select(*place, pl.col("target").alias("test_target"), pl.col("value").alias("same"))
    cross = rows.filter((pl.col("task") != pl.col("test_task")) & (pl.col("target") != pl.col("test_target")))
    joined = (
        cross.rename({"value": "cross"})
        .join(own, on=[*place, "target"], how="left")
        .join(same, on=[*place, "test_target"], how="left")
        .with_columns((pl.col("cross") - pl.col("same")).alias("change"))
        .with_columns(pl.when(pl.col("same") > 0).then(100 * pl.col("change") / pl.col("same")).alias("change_percent"))
    )
    intervals = _intervals(joined, resamples, np.random.default_rng(seed))
    table = (
        joined.join(intervals, on=_KEYS, how="left")
        .select(list(_SCHEMA))
        .cast(_SCHEMA)  # type: ignore[arg-type]
        .sort("suite", "dataset", "target", "method", pl.col("test_tissue") != ALL_TISSUES, "test_tissue")
    )
    warnings = list(health.warnings)
    if source.published:
        warnings.append("the published table has no model applied to the other modality")
    elif not table.height:
        warnings.append("no trained single-channel model was applied to its dataset's other single-channel task")
    lonely = table.filter(pl.col("same").is_null()).height
    if lonely:
        warnings.append(
            f"{lonely} rows have no same-modality score: the method was not trained (or has none) on that target"
        )
    return Result("modality", source.label, table, _tell(table, metric), unique(warnings), sql)


def _intervals(joined: pl.DataFrame, resamples: int, rng: np.random.Generator) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    place = [name for name in _KEYS if name != "test_tissue"]
    for key, group in groups(joined, place):
        pooled = group.filter(pl.col("test_tissue") == ALL_TISSUES)["change"].drop_nulls()
        pairs = group.filter(pl.col("test_tissue") != ALL_TISSUES).drop_nulls("change")
        if not len(pooled):
            continue
        weights = pairs["n_images"].fill_null(1).to_numpy().astype(np.float64)
        low, high = paired_interval(pairs["change"].to_numpy(), weights, float(pooled[0]), resamples, rng)
        rows.append({**key, "test_tissue": ALL_TISSUES, "change_low": low, "change_high": high})
    schema = {name: _SCHEMA[name] for name in (*_KEYS, "change_low", "change_high")}
    return pl.DataFrame(rows, schema=schema)


def _tell(table: pl.DataFrame, metric: str) -> tuple[str, ...]:
    findings = []
    pooled = table.filter(pl.col("test_tissue") == ALL_TISSUES).drop_nulls("change")
    for key, group in groups(pooled, ["suite", "target", "test_target"]):
        ordered = group.sort("change", descending=True)
        findings.append(
            f"{key['suite']}: trained on {key['target']} and applied to {key['test_target']} images, "
            f"{metric} changes by {median(group['change']):+.2f} (median of {group.height} methods); "
            f"from {ordered['change'][0]:+.2f} ({ordered['title'][0]}) to {ordered['change'][-1]:+.2f} "
            f"({ordered['title'][-1]})"
        )
    return tuple(findings)
