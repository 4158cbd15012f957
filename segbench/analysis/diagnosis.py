"""What a lost point is made of: kinds of error as shares of the gap, calibration, bias in count and size, outlines."""

from __future__ import annotations

import polars as pl

from segbench.analysis.frames import groups, mean
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.source import Source, read_sql
from segbench.engine.metrics.diagnosis import GAP_METRICS
from segbench.engine.metrics.faults import KINDS
from segbench.engine.study.experts import agreement
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import unknown_name

_KEYS = ["suite", "dataset", "task", "method", "title"]
_SCHEMA = {
    **dict.fromkeys([*_KEYS, "test_tissue", "metric"], pl.String),
    **dict.fromkeys(("score", "gap", *KINDS), pl.Float64),
    "largest": pl.String,
    "runs": pl.Int64,
}
_WORDS = {
    "missed": "missed cells",
    "split": "cells split into several",
    "merged": "cells merged into one",
    "spurious": "predictions where there is no cell",
    "loose": "outlines that are not close enough",
}
_COUNTS = ("n_truth", "found", "missed", "split", "merged", "loose", "spurious")
_OUTLINES = ("mean_iou", "boundary_iou", "boundary_px", "boundary_95_px", "area_ratio")
_ROWS = ("cells", "scores")


def diagnose_runs(source: Source, *, metric: str = "ap50") -> Result:
    """Return what the gap between each method's score and 1 is made of, over all tissues and by tissue.

    Parameters
    ----------
    source
        Where the runs are: models trained on all tissues, scored on their own task, averaged over seeds.
    metric
        ``ap50``, ``ap75`` or ``map``.

    Returns
    -------
    ``table``: per method, task and test tissue ``score``, ``gap`` = 1 - score and the share of the gap that each kind
    of error has (they add up to it), and ``largest``, the kind with the greatest. Part ``cells``: what became of true
    cells at IoU 0.5 by quarters of their size and density, and the outlines of those found. Part ``calibration``: how
    often predictions of a score are right. Part ``bias``: predicted cells and their size against the true ones, and
    how far scores are from the share that is right (``calibration_error``). Part ``experts``: how far two experts agree
    on the same cells.

    Raises
    ------
    SegbenchError
        There is no such metric.
    """
    if metric not in GAP_METRICS:
        raise unknown_name("metric of a gap", metric, GAP_METRICS)
    sql, health = read_sql("diagnosis"), source.health()
    # a store of an older segbench has no such tables until it is written again; the published scores' are empty
    known = source.frame("select count(*) from duckdb_tables() where table_name = 'gaps'").item()
    told = source if known else Source.of_published()
    rows, strata, bins = told.frame(sql, [metric]), *(told.frame(read_sql(f"diagnosis_{of}")) for of in _ROWS)
    table = _averaged(rows.drop_nulls("metric"))
    parts = {
        "cells": _cells(strata),
        "calibration": _calibration(bins),
        "bias": _bias(source.frame(read_sql("diagnosis_counts")), strata, bins),
        "experts": agreement().filter(metric=metric),
    }
    warnings = [*health.warnings, *_beware(source, rows if known else None, bins)]
    return Result("diagnosis", source.label, table, tuple(_tell(table, parts, metric)), unique(warnings), sql, parts)


_HOW = "'segbench runs evaluate --all' scores finished runs again and tells them"


def _averaged(rows: pl.DataFrame) -> pl.DataFrame:
    """Return means over seeds, with the kind that has the greatest share."""
    averaged = rows.group_by(*_KEYS, "test_tissue", "metric", maintain_order=True).agg(
        *(pl.mean(name) for name in ("score", "gap", *KINDS)), pl.len().cast(pl.Int64).alias("runs")
    )
    shares = pl.concat_list(KINDS)
    largest = pl.when(pl.col("gap") > 0).then(
        shares.list.arg_max().replace_strict(dict(enumerate(KINDS)), default=None, return_dtype=pl.String)
    )
    return averaged.with_columns(largest.alias("largest")).select(*_SCHEMA).cast(_SCHEMA)  # type: ignore[arg-type]


def _cells(strata: pl.DataFrame) -> pl.DataFrame:
    """Return the counts of strata added up over seeds, as shares of their true cells, and the means of outlines."""
    kinds = [name for name in _COUNTS if name not in ("n_truth", "spurious")]
    return (
        strata.group_by(*_KEYS, "parted_by", "test_tissue", "stratum", maintain_order=True)
        .agg(
            pl.mean("low", "high"),
            pl.sum(*_COUNTS),
            *(pl.mean(name) for name in _OUTLINES),
            pl.col("spurious").is_null().all().alias("no_spurious"),
        )
        .with_columns(*((pl.col(name) / pl.col("n_truth")).alias(name) for name in kinds))
        .with_columns(
            pl.when("no_spurious").then(None).otherwise(pl.col("spurious") / pl.col("n_truth")).alias("spurious")
        )
        .drop("no_spurious")
        .with_columns(pl.col(pl.Float64).fill_nan(None))
    )


def _calibration(bins: pl.DataFrame) -> pl.DataFrame:
    """Return the ranges of scores with those of seeds put together."""
    weighted = [(pl.col(name) * pl.col("n")).sum() / pl.sum("n") for name in ("mean_score", "correct")]
    return bins.group_by(*_KEYS, "test_tissue", "bin", maintain_order=True).agg(
        pl.min("low"), pl.max("high"), *weighted, pl.sum("n")
    )


def _bias(counts: pl.DataFrame, strata: pl.DataFrame, bins: pl.DataFrame) -> pl.DataFrame:
    """Return predicted against true cells in number and size, and the calibration's error, over all and by tissue."""
    keys = [*_KEYS, "test_tissue"]
    both = pl.concat(
        [
            counts.rename({"tissue": "test_tissue"}),
            counts.with_columns(tissue=pl.lit(ALL_TISSUES)).rename({"tissue": "test_tissue"}),
        ]
    )
    extra = pl.col("n_predictions") - pl.col("n_truth")
    counted = both.group_by(keys, maintain_order=True).agg(
        pl.len().alias("windows"),
        pl.sum("n_truth", "n_predictions"),
        (extra.sum() / pl.sum("n_truth")).alias("count_bias"),
        (extra.abs().sum() / pl.sum("n_truth")).alias("count_error"),
        extra.mean().alias("extra_mean"),
        extra.std().alias("extra_sd"),
    )
    sizes = (
        strata.filter(parted_by="all")
        .group_by(keys)
        .agg(pl.mean("area_ratio", "mean_iou", "boundary_iou", "boundary_px"))
    )
    far = (pl.col("mean_score") - pl.col("correct")).abs() * pl.col("n")
    inside = (pl.min("low") >= 0) & (pl.max("high") <= 1)
    errors = bins.group_by([*keys, "run_id"]).agg(
        pl.when(inside).then(far.sum() / pl.sum("n")).alias("calibration_error")
    )
    errors = errors.group_by(keys).agg(pl.mean("calibration_error"))
    return (
        counted.join(sizes, on=keys, how="left", nulls_equal=True)
        .join(errors, on=keys, how="left", nulls_equal=True)
        .with_columns(pl.when(pl.col(pl.Float64).is_finite()).then(pl.col(pl.Float64)))
    )


def _beware(source: Source, rows: pl.DataFrame | None, bins: pl.DataFrame) -> list[str]:
    if source.published:
        return ["the published table does not tell errors apart"]
    if rows is None:
        return [f"{source.label} were scored by an older segbench, which told no errors: {_HOW}"]
    warnings = []
    without, runs = rows.filter(pl.col("metric").is_null())["run_id"].n_unique(), rows["run_id"].n_unique()
    if without:
        warnings.append(
            f"{without} of {runs} finished runs have no errors told, for an older segbench scored them: {_HOW}"
        )
    single = [
        key["method"] for key, group in groups(bins, ["method", "task"]) if group["low"].min() == group["high"].max()
    ]
    if single:
        warnings.append(
            f"{list_names(dict.fromkeys(single))} gave every prediction the same score: its AP follows the "
            "order of the images, and its calibration says nothing"
        )
    return warnings


def _tell(table: pl.DataFrame, parts: dict[str, pl.DataFrame], metric: str) -> list[str]:
    findings = []
    name = {"map": "mAP", "ap50": "AP50", "ap75": "AP75"}[metric]
    pooled = table.filter(pl.col("test_tissue") == ALL_TISSUES).drop_nulls("gap")
    for key, group in groups(pooled, ["suite", "task"]):
        best = group.sort("score", descending=True).row(0, named=True)
        first, second = sorted(KINDS, key=lambda kind: -best[kind])[:2]
        findings.append(
            f"{key['suite']}, {key['task']}: {best['title']}, the best with {name} {best['score']:.2f}, loses "
            f"{best[first]:.2f} to {_WORDS[first]} and {best[second]:.2f} to {_WORDS[second]}"
        )
        if group.height > 1:
            counted = group["largest"].value_counts(sort=True).row(0)
            findings.append(
                f"{key['suite']}, {key['task']}: most is lost to {_WORDS.get(counted[0], 'nothing')} by {counted[1]} "
                f"of {group.height} methods"
            )
    findings += _tell_bias(parts["bias"])
    if findings:
        experts = parts["experts"].filter(pl.col("scored").str.starts_with("expert"))
        tools = parts["experts"].filter(~pl.col("scored").str.starts_with("expert"))
        low, high = (float(value) for value in experts.select(pl.min("score"), pl.max("score").alias("high")).row(0))
        best = tools.sort("score", descending=True).row(0, named=True)
        findings.append(
            f"for comparison: of two experts who outlined the same CODEX cells, one reaches {name} {low:.2f} to "
            f"{high:.2f} against the other, and a tool up to {best['score']:.2f} ({best['scored']}): what is above the "
            "agreement of experts follows the habits of one of them (--part experts)"
        )
    return findings


def _tell_bias(bias: pl.DataFrame) -> list[str]:
    if bias.is_empty():
        return []
    pooled = bias.filter(pl.col("test_tissue") == ALL_TISSUES).drop_nulls("count_bias")
    findings = []
    for key, group in groups(pooled, ["suite", "task"]):
        most = group.sort(pl.col("count_bias").abs(), descending=True).row(0, named=True)
        found = "more" if most["count_bias"] > 0 else "fewer"
        sentence = (
            f"{key['suite']}, {key['task']}: counts are off by {mean(group['count_bias'].abs()):.0%} on average, most "
            f"of {most['title']} ({abs(most['count_bias']):.0%} {found} cells than there are)"
        )
        ratios = group.drop_nulls("area_ratio")
        if ratios.height:
            odd = ratios.sort((pl.col("area_ratio").log()).abs(), descending=True).row(0, named=True)
            sentence += f"; sizes of {odd['title']} (median {odd['area_ratio']:.2f} of the true area)"
        findings.append(sentence)
    return findings
