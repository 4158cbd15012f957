"""Draws the segmentations of COCO JSON exactly as pycocotools draws them, on a canvas as small as the cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

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
        rle = coco_mask.frPyObjects(cell, height, width) if isinstance(cell["counts"], list) else cell
        left, top, across, down = (int(v) for v in coco_mask.toBbox(rle))
        return coco_mask.decode(rle)[top : top + down, left : left + across].astype(bool), top, left
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
