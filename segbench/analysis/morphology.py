"""What tissues are made of: cell size, elongation and convexity, and how many images there are to train on."""

from __future__ import annotations

import polars as pl

from segbench.analysis.frames import groups
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.source import Source, read_sql


def describe_tissues(source: Source) -> Result:
    """Return each tissue's training-set size and the mean shape of its test cells, per dataset and target.

    Parameters
    ----------
    source
        Where the runs are: only datasets with a finished run are described.

    Returns
    -------
    ``table``: ``n_train_images`` (windows) and ``n_train_cells`` of the split train; ``area`` (mean, pixels),
    ``area_um2`` (where the pixel size is known), ``elongation`` (mean of smaller over larger eigenvalue of the
    boundary's covariance: 1 is round) and ``convexity`` (mean of hull perimeter over perimeter) of the split test.
    ``tissue`` 'all' is pooled.
    """
    sql, health = read_sql("morphology"), source.health()
    table = source.rows(sql).with_columns((pl.col("area") * pl.col("pixel_size_um") ** 2).alias("area_um2"))
    warnings = list(health.warnings)
    if source.published:
        warnings.append("the published table says nothing of the tissues' cells")
    elif health.runs and not table.height:
        warnings.append("the store holds no tissue rows for its runs: they are written when a run is evaluated")
    blind = table.filter((pl.col("n_train_images").is_null() | pl.col("area").is_null()) & (pl.col("tissue") != "all"))
    if blind.height:
        warnings.append(f"no training images or no test cells: {list_names(blind['tissue'].unique().sort())}")
    return Result("morphology", source.label, table, _tell(table), unique(warnings), sql)


def _tell(table: pl.DataFrame) -> tuple[str, ...]:
    findings = []
    single = table.filter(pl.col("tissue") != "all")
    for key, group in groups(single, ["dataset", "dataset_fingerprint", "target"]):
        known = group.drop_nulls(["area", "elongation", "n_train_images"])
        if known.height < 2:
            continue
        by_area, by_images, by_shape = (known.sort(name) for name in ("area", "n_train_images", "elongation"))
        findings.append(
            f"{key['dataset']}, {key['target']}: the largest cells are those of {by_area['tissue'][-1]} "
            f"({by_area['area'][-1]:.0f} px), the smallest of {by_area['tissue'][0]} ({by_area['area'][0]:.0f} px); "
            f"the longest of {by_shape['tissue'][0]} (elongation {by_shape['elongation'][0]:.2f}); "
            f"the fewest training images are of {by_images['tissue'][0]} ({by_images['n_train_images'][0]}), "
            f"the most of {by_images['tissue'][-1]} ({by_images['n_train_images'][-1]})"
        )
    return tuple(findings)
