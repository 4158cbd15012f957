"""The table of an image's cells: where each lies, how large, of which shape and how bright it is, and its score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.morphology import measure
from segbench.engine.files import spool
from segbench.engine.files.writers import cells_of

if TYPE_CHECKING:
    import polars as pl

_ROWS = 512


def channel_columns(channels: Sequence[str] | None, n: int) -> list[str]:
    """Return the columns of a cell's mean intensities: by the channels' names, or by their numbers from 1.

    A name that several channels have gets their numbers, too.

    Examples
    --------
    >>> channel_columns(("DAPI", "CD 3"), 2), channel_columns(None, 2), channel_columns(("C", "C"), 2)
    (['mean_DAPI', 'mean_CD 3'], ['mean_1', 'mean_2'], ['mean_C_1', 'mean_C_2'])
    """
    names = [str(name) for name in (channels if channels is not None else range(1, n + 1))]
    found = [f"mean_{name}" if names.count(name) == 1 else f"mean_{name}_{k}" for k, name in enumerate(names, start=1)]
    return found if len(set(found)) == n else [f"mean_{k}" for k in range(1, n + 1)]


def cell_table(
    labels: npt.NDArray[np.int32], scores: npt.NDArray[np.float64], pixels: npt.NDArray[Any],
    channels: Sequence[str] | None = None, pixel_size_um: float | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Return one row a cell, in the order of their labels.

    Columns: label, y and x (the centroid, in pixels, the first pixel's centre at 0), y_um and x_um, area_px, area_um2,
    diameter_px (of the circle with that area), elongation (1 round, 0 a line) and convexity (1 without a dent) as
    ``segbench.engine.data.morphology`` has them, mean_CHANNEL of each channel of the image's own values, score, and
    at_border (the cell touches the image's border, so it may be a part of a larger one). Columns in micrometres are
    empty where the pixel size is not known.

    Parameters
    ----------
    labels
        (H, W), numbered from 1 without gaps; may lie on the disk.
    scores
        (k,).
    pixels
        (C, H, W), the image as its file has it; may lie on the disk.
    channels
        Their names; None where the file gives none.
    pixel_size_um
        Side of a pixel; None where it is not known.
    """
    import polars as pl

    k = scores.size
    areas, y, x = (np.zeros(k + 1) for _ in range(3))
    sums = np.zeros((pixels.shape[0], k + 1))
    columns = np.arange(labels.shape[1], dtype=np.float64)
    for top in range(0, labels.shape[0], _ROWS):
        rows = np.asarray(labels[top : top + _ROWS])
        flat, places = rows.ravel(), np.broadcast_to(columns, rows.shape)
        areas += np.bincount(flat, minlength=k + 1)
        heights = np.repeat(np.arange(top, top + rows.shape[0], dtype=np.float64), rows.shape[1])
        y += np.bincount(flat, heights, minlength=k + 1)
        x += np.bincount(flat, places.ravel(), minlength=k + 1)
        for channel, plane in enumerate(pixels):
            band = np.asarray(plane[top : top + _ROWS], np.float64)
            sums[channel] += np.bincount(flat, band.ravel(), minlength=k + 1)
        spool.let_go(labels)
        spool.let_go(pixels)
    area = areas[1:]
    shapes = np.ones((k, 2), np.float64)
    for label, mask, _, _ in cells_of(labels):
        shape = measure(mask.astype(np.int32))
        shapes[label - 1] = shape.elongation[0], shape.convexity[0]
    edge = np.zeros(k + 1, np.bool_)
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        edge[np.unique(side)] = True
    um = None if pixel_size_um is None else float(pixel_size_um)
    none = np.full(k, np.nan)
    table = pl.DataFrame(
        {
            "label": np.arange(1, k + 1, dtype=np.int64),
            "y": y[1:] / area,
            "x": x[1:] / area,
            "y_um": none if um is None else y[1:] / area * um,
            "x_um": none if um is None else x[1:] / area * um,
            "area_px": area.astype(np.int64),
            "area_um2": none if um is None else area * um**2,
            "diameter_px": np.sqrt(area * (4 / np.pi)),
            "elongation": shapes[:, 0],
            "convexity": shapes[:, 1],
            **{
                name: sums[channel, 1:] / area
                for channel, name in enumerate(channel_columns(channels, pixels.shape[0]))
            },
            "score": scores,
            "at_border": edge[1:],
        }
    )
    return table.with_columns(pl.col("y_um", "x_um", "area_um2").fill_nan(None))
