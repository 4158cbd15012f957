"""Tables that say what is in a prepared dataset."""

from __future__ import annotations

import polars as pl

from segbench.engine.data.prepared import PreparedDataset, in_order


def counts(prepared: PreparedDataset) -> pl.DataFrame:
    """Return one row for each split and tissue: images, windows, and cells_TARGET (a cell counts in every window)."""
    tables = []
    for split in prepared.splits:
        index = prepared.index(split)
        table = index.group_by("tissue").agg(
            pl.col("image").n_unique().alias("images"),
            pl.len().alias("windows"),
            *(pl.col(f"n_cells_{target}").sum().alias(f"cells_{target}") for target in prepared.targets),
        )
        tables.append(table.select(pl.lit(split).alias("split"), pl.all()))
    return _sorted(prepared, pl.concat(tables))


def shapes(prepared: PreparedDataset) -> pl.DataFrame:
    """Return one row for each split, tissue and target: windows, cells, and the mean shape of the cells.

    Area (pixels), elongation and convexity are means over the cells that do not touch their window's border, because
    the part of a cell has another shape than the cell; null where there are none.
    """
    windows = counts(prepared).select("split", "tissue", "images", "windows")
    cells = (
        prepared.cells()
        .group_by("split", "tissue", "target")
        .agg(
            pl.len().alias("cells"),
            *(pl.col(c).filter(~pl.col("cut")).mean().alias(c) for c in ("area", "elongation", "convexity")),
        )
    )
    every = windows.join(pl.DataFrame({"target": list(prepared.targets)}), how="cross")
    joined = every.join(cells, on=["split", "tissue", "target"], how="left")
    return _sorted(
        prepared,
        joined.select(
            "split",
            "tissue",
            "target",
            "images",
            "windows",
            pl.col("cells").fill_null(0),
            "area",
            "elongation",
            "convexity",
        ),
    )


def _sorted(prepared: PreparedDataset, table: pl.DataFrame) -> pl.DataFrame:
    splits, tissues = list(prepared.splits), list(in_order(set(table["tissue"])))
    keys = [
        pl.col("split").replace_strict(splits, range(len(splits))),
        pl.col("tissue").replace_strict(tissues, range(len(tissues))),
    ]
    return table.sort(*keys, *(["target"] if "target" in table.columns else []))
