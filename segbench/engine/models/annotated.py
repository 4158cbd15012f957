"""Writes the table of an image's cells as AnnData, as the libraries of single cells and SpatialData read it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

_MEAN = "mean_"


def write_anndata(path: Path, table: pl.DataFrame, region: str) -> None:
    """Write an ``.h5ad`` file: ``X`` has the mean intensities (cells, channels), ``obs`` all else that was measured.

    ``obsm["spatial"]`` has the centroids as (x, y), in micrometres where the pixel size is known, else in pixels. With
    the label map as an element of the name ``region``, the table is one of SpatialData, whose keys it holds.

    Parameters
    ----------
    path
        Of the file.
    table
        As ``segbench.engine.models.cells.cell_table`` gives it.
    region
        What the label map is called.
    """
    import anndata
    import pandas as pd

    channels = [name for name in table.columns if name.startswith(_MEAN)]
    known = [name for name in table.columns if name not in channels and table[name].null_count() < max(1, table.height)]
    names = table["label"].cast(str).to_list()
    obs = pd.DataFrame({name: table[name].to_numpy() for name in known}, index=pd.Index(names, dtype=object))
    obs["region"] = pd.Categorical([region] * table.height, categories=[region])
    unit = ("x_um", "y_um") if "x_um" in known else ("x", "y")
    with warnings.catch_warnings():  # of its own future
        warnings.simplefilter("ignore", FutureWarning)
        annotated = anndata.AnnData(
            X=table.select(channels).to_numpy().astype(np.float32),
            obs=obs,
            var=pd.DataFrame(index=pd.Index([name.removeprefix(_MEAN) for name in channels], dtype=object)),
            obsm={"spatial": table.select(unit).to_numpy().astype(np.float64)},
            uns={"spatialdata_attrs": {"region": region, "region_key": "region", "instance_key": "label"}},
        )
        annotated.write_h5ad(path)
