"""How far to dilate nuclei into cells or erode cells into nuclei: curves, best radii, the cost of one for all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from segbench.analysis.frames import groups, largest, median
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.scores import LEVEL, check_metric
from segbench.analysis.source import Source, read_sql
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError

XENIUM_UM = 15.0
"""Micrometres by which 10x Genomics' Xenium expands nuclei."""
_PLACE = ["suite", "task", "test_task", "method", "operation"]
_CURVE = ["suite", "dataset", "task", "test_task", "method", "title", "operation"]
_SCHEMA = {
    **dict.fromkeys([*_CURVE, "test_tissue"], pl.String),
    "at_zero": pl.Float64,
    "best_radius": pl.Int64,
    "best_radius_um": pl.Float64,
    "radius_low": pl.Int64,
    "radius_high": pl.Int64,
    "radius_of": pl.String,
    "best": pl.Float64,
    "gain": pl.Float64,
    "fixed_radius": pl.Int64,
    "at_fixed": pl.Float64,
    "fixed_loss": pl.Float64,
    "um_radius": pl.Int64,
    "at_um": pl.Float64,
    "um_loss": pl.Float64,
    "largest_radius": pl.Int64,
}


def measure_dilation(source: Source, *, metric: str = "map", fixed_um: float = XENIUM_UM) -> Result:
    """Return the best radius of dilation (nuclei to whole cells) and erosion (back) per method and tissue.

    Parameters
    ----------
    source
        Where the runs are: models trained on all tissues, averaged over seeds.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.
    fixed_um
        A radius in micrometres to judge; 15 is what Xenium uses. It is the nearest whole pixel where the pixel size is
        known.

    Returns
    -------
    ``table``: per method, pair of tasks and test tissue: the score ``at_zero``, the ``best_radius`` in pixels and
    micrometres (the smallest of equally good ones), ``radius_low`` to ``radius_high``, the radii that cannot be told
    apart from it by ``radius_of`` (seeds, or test tissues), ``gain`` = best - at_zero; ``fixed_radius``, the one
    radius that is best on average over the tissues, and ``fixed_loss``, what it costs this tissue against its own best;
    the same for ``fixed_um``. Part ``curves``: metric against radius.

    Raises
    ------
    SegbenchError
        ``fixed_um`` is not a positive number.
    """
    check_metric(metric)
    if not (math.isfinite(fixed_um) and fixed_um > 0):
        raise SegbenchError(f"the fixed radius must be a positive number of micrometres, found {fixed_um}")
    sql, health = read_sql("dilation"), source.health()
    curves = (
        source.rows(sql)
        .with_columns(pl.col(metric).alias("value"), (pl.col("radius") * pl.col("pixel_size_um")).alias("radius_um"))
        .select([*_CURVE, "test_tissue", "radius", "radius_um", "pixel_size_um", "value", "runs", "n_images"])
    )
    rows: list[dict[str, Any]] = []
    for key, group in groups(curves.drop_nulls("value"), _CURVE):
        fixed = _best_on_average(group)
        rows += [
            {**key, **_summarise(curve, fixed, fixed_um)}
            for curve in group.partition_by("test_tissue", maintain_order=True)
        ]
    table = pl.DataFrame(rows, schema=_SCHEMA)
    by_seed = source.frame(read_sql("dilation_seeds")).with_columns(pl.col(metric).alias("value")).drop_nulls("value")
    sets = _as_good_as_the_best(by_seed, table)
    table = table.drop("radius_low", "radius_high", "radius_of").join(
        sets, on=[*_PLACE, "test_tissue"], how="left", maintain_order="left"
    )
    table = table.select(list(_SCHEMA))
    warnings = [*health.warnings, *_beware(source, curves, table, fixed_um)]
    return Result(
        "dilation", source.label, table, _tell(table, metric, fixed_um), unique(warnings), sql, parts={"curves": curves}
    )


def _as_good_as_the_best(by_seed: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Return the least and the greatest radius that cannot be told apart from each curve's best one.

    One-sided t tests at 5 % of the best radius against each other, paired by seed; over all tissues where there is one
    seed, by test tissue.
    """
    best = table.select([*_PLACE, "test_tissue", "best_radius"])
    over_seeds = by_seed.join(best, on=[*_PLACE, "test_tissue"])
    pooled = best.filter(pl.col("test_tissue") == ALL_TISSUES).drop("test_tissue")
    over_tissues = (
        by_seed.filter(pl.col("test_tissue") != ALL_TISSUES)
        .join(pooled, on=_PLACE)
        .group_by([*_PLACE, "test_tissue", "radius", "best_radius"])
        .agg(pl.mean("value"))
        .rename({"test_tissue": "seed"})
        .with_columns(pl.lit(ALL_TISSUES).alias("test_tissue"))
    )
    by_seeds, by_tissues = _kept(over_seeds, "seeds"), _kept(over_tissues, "test tissues")
    again = by_tissues.join(by_seeds, on=[*_PLACE, "test_tissue"], how="anti")
    return pl.concat([by_seeds, again])


def _kept(values: pl.DataFrame, of: str) -> pl.DataFrame:
    keys = [*_PLACE, "test_tissue"]
    at_best = values.filter(pl.col("radius") == pl.col("best_radius")).select(
        [*keys, "seed", pl.col("value").alias("top")]
    )
    gaps = (
        values.join(at_best, on=[*keys, "seed"])
        .group_by([*keys, "radius"])
        .agg(
            (pl.col("top") - pl.col("value")).mean().alias("gap"),
            (pl.col("top") - pl.col("value")).std().alias("sd"),
            pl.len(),
        )
        .filter(pl.col("len") > 1)
    )
    n = gaps["len"].to_numpy().astype(np.float64)
    half = pl.Series("half", stdtrit(np.maximum(n - 1, 1), LEVEL) / np.sqrt(np.maximum(n, 1)), dtype=pl.Float64)
    as_good = gaps.with_columns(half).filter(pl.col("gap") - pl.col("half") * pl.col("sd") <= 1e-12)
    return as_good.group_by(keys).agg(
        pl.min("radius").cast(pl.Int64).alias("radius_low"),
        pl.max("radius").cast(pl.Int64).alias("radius_high"),
        pl.lit(of).alias("radius_of"),
    )


def _best_on_average(group: pl.DataFrame) -> int | None:
    """Return the radius with the best mean over the tissues, of those known of every tissue; the smallest of ties."""
    tissues = group.filter(pl.col("test_tissue") != ALL_TISSUES)
    chosen = tissues if tissues.height else group
    count = chosen["test_tissue"].n_unique()
    means = chosen.group_by("radius").agg(pl.mean("value"), pl.col("test_tissue").n_unique().alias("tissues"))
    ranked = means.filter(pl.col("tissues") == count).sort(
        pl.col("value").round(12), "radius", descending=[True, False]
    )
    return int(ranked["radius"][0]) if ranked.height else None


def _summarise(curve: pl.DataFrame, fixed: int | None, fixed_um: float) -> dict[str, Any]:
    """Return one curve's row: best radius, gain, and what the two fixed radii cost."""
    values = dict(curve.select("radius", "value").iter_rows())
    # Equal to 12 digits is equal: the smaller radius is the simpler answer
    best = min(values, key=lambda radius: (-round(values[radius], 12), radius))
    size = curve["pixel_size_um"][0]
    um_radius = None if size is None else math.floor(fixed_um / size + 0.5)
    at_zero, at_fixed = values.get(0), None if fixed is None else values.get(fixed)
    at_um = None if um_radius is None else values.get(um_radius)
    return {
        "test_tissue": curve["test_tissue"][0],
        "at_zero": at_zero,
        "best_radius": best,
        "best_radius_um": None if size is None else best * size,
        "best": values[best],
        "gain": None if at_zero is None else values[best] - at_zero,
        "fixed_radius": fixed,
        "at_fixed": at_fixed,
        "fixed_loss": None if at_fixed is None else values[best] - at_fixed,
        "um_radius": um_radius,
        "at_um": at_um,
        "um_loss": None if at_um is None else values[best] - at_um,
        "largest_radius": max(values),
    }


def _beware(source: Source, curves: pl.DataFrame, table: pl.DataFrame, fixed_um: float) -> list[str]:
    warnings = []
    if source.published:
        return ["the published table has no scores after dilation or erosion"]
    if not curves.height:
        return ["no prediction was dilated or eroded and scored on the other target"]
    if table.filter(pl.col("at_zero").is_null()).height:
        warnings.append("some curves have no point at radius 0, so their gain is not known")
    edge = table.filter((pl.col("best_radius") == pl.col("largest_radius")) & (pl.col("largest_radius") > 0))
    if edge.height:
        warnings.append(
            f"the best radius is the largest tried in {edge.height} of {table.height} curves "
            f"({list_names(edge['test_tissue'].unique().sort())}): a larger one may be better"
        )
    if table["um_radius"].null_count() == table.height:
        warnings.append("no pixel size is known, so radii are in pixels only")
    beyond = table.filter(pl.col("um_radius") > pl.col("largest_radius"))
    if beyond.height:
        warnings.append(
            f"{fixed_um:g} micrometres are {largest(beyond['um_radius'])} pixels, beyond the largest radius tried "
            f"({largest(beyond['largest_radius'])}): its cost is not known for {beyond.height} of {table.height} curves"
        )
    return warnings


def _tell(table: pl.DataFrame, metric: str, fixed_um: float) -> tuple[str, ...]:
    findings = []
    for key, group in groups(table, ["suite", "task", "test_task", "operation"]):
        pooled = group.filter(pl.col("test_tissue") == ALL_TISSUES).drop_nulls("gain")
        where = f"{key['suite']}, {key['task']} against {key['test_task']}"
        if pooled.height:
            best = pooled.sort("gain", descending=True).row(0, named=True)
            helped = pooled.filter(pl.col("gain") > 0).height
            sentence = f"{where}: to {key['operation']} raises {metric} for {helped} of {pooled.height} methods"
            if helped:
                sentence += (
                    f", most for {best['title']} ({best['at_zero']:.2f} to {best['best']:.2f} "
                    f"at {best['best_radius']} px)"
                )
            findings.append(sentence)
        tissues = group.filter(pl.col("test_tissue") != ALL_TISSUES)
        if tissues["test_tissue"].n_unique() > 1:
            radii = tissues["best_radius"]
            sentence = (
                f"{where}: the best radius of a tissue is between {-largest(-radii)} and {largest(radii)} px; "
                f"one radius for all tissues costs {median(tissues['fixed_loss']):.3f} (median)"
            )
            if tissues["um_loss"].count():
                sentence += f", {fixed_um:g} micrometres cost {median(tissues['um_loss']):.3f}"
            findings.append(sentence)
    return tuple(findings)
