"""Draws the segmentations of COCO JSON exactly as pycocotools draws them, on a canvas as small as the cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segbench.engine.files.coco import decoded_runs
from segbench.engine.files.painting import Placed
from segbench.errors import SegbenchError

Segmentation = tuple[npt.NDArray[np.float64], ...] | dict[str, Any]
"""Polygons, each x, y, x, y, ..., or a COCO run-length encoding."""


def mask_of(cell: Segmentation, height: int, width: int) -> Placed:
    """Return a cell's mask and the pixel (top, left) where it lies.

    Parameters
    ----------
    cell
        Checked by ``coco.check_segmentation``.
    height, width
        Of its image, in pixels.

    Raises
    ------
    SegbenchError
        A run-length encoding is of another size.
    """
    if isinstance(cell, dict):
        if list(cell.get("size", [])) != [height, width]:
            raise SegbenchError(f"a run-length encoding of size {cell.get('size')} on an image of {[height, width]}")
        counts = cell["counts"]
        runs = decoded_runs(counts, "a mask") if isinstance(counts, str | bytes) else np.asarray(counts, np.int64)
        return _of_runs(runs, height)
    # a small canvas is fast; pycocotools rounds to fifths of pixels first, so a
    # shift after that rounding changes nothing
    fifths = [np.trunc(5 * part.reshape(-1, 2) + 0.5) for part in cell]
    first, last = np.concatenate(fifths).min(axis=0), np.concatenate(fifths).max(axis=0)
    left, top = (max(0, int(v // 5) - 1) for v in first)
    right, bottom = (int(-(-v // 5)) + 2 for v in last)
    right, bottom = min(width, max(right, left + 1)), min(height, max(bottom, top + 1))
    if left >= width or top >= height:
        return np.zeros((0, 0), np.bool_), 0, 0
    shifted = []
    for part in fifths:
        moved = part - (5 * left, 5 * top)
        # its rounding cuts towards zero: below zero a quarter more keeps the number
        shifted.append((np.where(moved < 0, moved - 0.75, moved) / 5).ravel().tolist())
    rles = coco_mask.frPyObjects(shifted, bottom - top, right - left)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool), top, left


def run_lengths(mask: npt.NDArray[np.bool_], top: int, left: int, size: tuple[int, int]) -> dict[str, Any]:
    """Return a mask that lies at the pixel (top, left) of an image (H, W) as COCO's compressed run lengths."""
    height, width = size
    columns = np.zeros((mask.shape[1], height), np.bool_)
    columns[:, top : top + mask.shape[0]] = mask.T
    edges = np.flatnonzero(np.diff(columns.ravel(), prepend=False, append=False)) + left * height
    runs = np.diff(edges[edges < height * width], prepend=0, append=height * width)
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _of_runs(runs: npt.NDArray[np.int64], height: int) -> Placed:
    """Return the mask of run lengths, drawn on the columns alone in which it lies."""
    edges = np.cumsum(runs)
    starts, ends = edges[:-1:2], edges[1::2]
    there = ends > starts
    starts, ends = starts[there], ends[there]
    if not starts.size:
        return np.zeros((0, 0), np.bool_), 0, 0
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height + 1
    turns = np.zeros(height * (right - left) + 1, np.int8)
    np.add.at(turns, starts - left * height, 1)
    np.add.at(turns, ends - left * height, -1)
    mask = np.cumsum(turns[:-1], dtype=np.int8).astype(np.bool_).reshape(right - left, height).T
    rows = np.flatnonzero(mask.any(axis=1))
    return mask[rows[0] : rows[-1] + 1], int(rows[0]), left
