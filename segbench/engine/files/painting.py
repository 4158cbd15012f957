"""Paints the masks of cells, which may overlap, into a label map, where each pixel belongs to one cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Placed = tuple[npt.NDArray[np.bool_], int, int]
"""A cell's mask and the pixel (top, left) where it lies."""


@dataclass(frozen=True)
class Overlaps:
    """What the cells of one image lost in becoming a label map, where each pixel belongs to one cell."""

    twice: int = 0
    """Outlines left out: they are of a cell that another outline has."""
    covered: int = 0
    """Cells that lost pixels to others."""
    lost: int = 0
    """Pixels that they lost."""
    of: int = 0
    """Pixels that they had."""
    gone: int = 0
    """Cells that lost every pixel."""


def paint(masks: Sequence[Placed], height: int, width: int) -> tuple[npt.NDArray[np.int32], Overlaps]:
    """Return the label map (height, width) of cells, 1..k in their order, 0 background, and what they lost in it.

    Where cells overlap, the smaller one (by the pixels of its mask) is on top, and of equal ones the later; a cell that
    lies wholly under others is left out. Of masks that overlap by an IoU above 0.5, which are one cell outlined twice,
    the first is kept.

    Parameters
    ----------
    masks
        Each wholly within the image.
    height, width
        Of the image, in pixels.
    """
    areas = np.array([int(mask.sum()) for mask, _, _ in masks], np.int64)
    spare = outlined_twice(masks, areas)
    kept = np.array([n for n in range(len(masks)) if n not in spare], np.int64)
    labels = np.zeros((height, width), np.int32)
    for n in kept[np.argsort(-areas[kept], kind="stable")]:
        mask, top, left = masks[n]
        labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = n + 1
    left_over = np.bincount(labels.ravel(), minlength=len(masks) + 1)[1:]
    lost = areas[kept] - left_over[kept]
    under = lost > 0
    return labels, Overlaps(
        twice=len(spare),
        covered=int(under.sum()),
        lost=int(lost.sum()),
        of=int(areas[kept][under].sum()),
        gone=int((under & (left_over[kept] == 0)).sum()),
    )


def outlined_twice(masks: Sequence[Placed], areas: npt.NDArray[np.int64]) -> set[int]:
    """Return the masks whose IoU with an earlier one that is kept is above one half."""
    boxes = np.array([(top, left, top + m.shape[0], left + m.shape[1]) for m, top, left in masks]).reshape(-1, 4)
    spare: set[int] = set()
    for first, second in near(boxes):
        if first in spare or second in spare:
            continue
        both = _shared(masks[first], masks[second])
        if 2 * both > areas[first] + areas[second] - both:
            spare.add(second)
    return spare


def near(boxes: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Return the pairs (first, second) of boxes top, left, bottom, right whose own IoU is above a quarter."""
    pairs: list[tuple[int, int]] = []
    order = np.argsort(boxes[:, 0], kind="stable")
    tops = boxes[order, 0]
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    sizes = sides[:, 0] * sides[:, 1]
    for place, n in enumerate(order):
        last = int(np.searchsorted(tops, boxes[n, 2], side="left"))
        others = order[place + 1 : last]
        low = np.maximum(boxes[others, :2], boxes[n, :2])
        high = np.minimum(boxes[others, 2:], boxes[n, 2:])
        inside = np.maximum(high - low, 0)
        shared = inside[:, 0] * inside[:, 1]
        close = others[4 * shared > sizes[others] + sizes[n] - shared]
        pairs += [(int(min(n, other)), int(max(n, other))) for other in close]
    return sorted(pairs)


def _shared(one: Placed, other: Placed) -> int:
    """Return how many pixels two masks share."""
    (first, y0, x0), (second, y1, x1) = one, other
    top, left = max(y0, y1), max(x0, x1)
    bottom, right = min(y0 + first.shape[0], y1 + second.shape[0]), min(x0 + first.shape[1], x1 + second.shape[1])
    if bottom <= top or right <= left:
        return 0
    here = first[top - y0 : bottom - y0, left - x0 : right - x0]
    return int((here & second[top - y1 : bottom - y1, left - x1 : right - x1]).sum())
