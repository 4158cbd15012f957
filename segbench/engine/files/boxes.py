"""Finds the boxes of a label map's cells some rows at a time, so that the map may lie on the disk."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool

_ROWS = 1024


def boxes_of(labels: npt.NDArray[Any], highest: int) -> npt.NDArray[np.int64]:
    """Return the box of every label up to the highest, (highest, 4): top, left, bottom, right.

    Bottom and right are the first row and column beyond; a label without a pixel has a box without one.

    Parameters
    ----------
    labels
        (H, W), whole numbers from 0, the background.
    highest
        The highest label.

    Examples
    --------
    >>> boxes_of(np.array([[0, 2, 2], [0, 2, 0]]), 2).tolist()
    [[0, 0, 0, 0], [0, 1, 2, 3]]
    """
    boxes = np.zeros((highest, 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    for top in range(0, labels.shape[0], _ROWS):
        _take(np.asarray(labels[top : top + _ROWS]).astype(np.int64), top, boxes)
        spool.let_go(labels)
    boxes[boxes[:, 2] == 0] = 0
    return boxes


@numba.njit(cache=True, nogil=True)
def _take(rows, top, boxes):  # type: ignore[no-untyped-def]
    for y in range(rows.shape[0]):
        for x in range(rows.shape[1]):
            n = rows[y, x] - 1
            if n >= 0:
                boxes[n, 0] = min(boxes[n, 0], top + y)
                boxes[n, 1] = min(boxes[n, 1], x)
                boxes[n, 2] = max(boxes[n, 2], top + y + 1)
                boxes[n, 3] = max(boxes[n, 3], x + 1)
