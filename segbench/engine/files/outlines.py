"""Cells as outlines along the edges of pixels: filled into masks, and traced from them without losing a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.painting import Placed
from segbench.errors import SegbenchError

Ring = npt.NDArray[np.float64]
"""(n, 2): x and y of a closed line's points, in pixels; 0, 0 is the upper left corner of the upper left pixel."""
Rings = Sequence[Ring]
"""A cell: a pixel is of it where the pixel's centre lies within an odd number of the rings."""
_FURTHEST = 1e7
"""Pixels from the origin: no picture is that large."""
_CROSSINGS = 64
"""Times that an outline may cross each row of an image on average, for every point that it has."""


@dataclass(frozen=True)
class Outlines:
    """The cells that an annotation file outlines."""

    cells: tuple[Rings, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How many things that are no cells were left out, by what they were."""


def checked_ring(points: Any, where: str) -> Ring:
    """Return the points of a ring, (n, 2); raise SegbenchError unless all are finite. Fewer than three draw no pixel.

    Parameters
    ----------
    points
        A list of points, of which the first two numbers are x and y.
    where
        Names the outline in the error.
    """
    if isinstance(points, list | tuple) and not points:
        return np.zeros((0, 2))
    try:
        ring = np.array([(point[0], point[1]) for point in points])
    except (TypeError, ValueError, IndexError, KeyError):
        ring = np.zeros(0, object)
    if ring.ndim != 2 or ring.dtype.kind not in "iuf":
        raise SegbenchError(f"{where}: an outline is a list of points x, y; it holds something else")
    ring = ring.astype(np.float64)
    if not np.isfinite(ring).all():
        raise SegbenchError(f"{where}: an outline has a coordinate that is not finite")
    if np.abs(ring).max() > _FURTHEST:
        raise SegbenchError(f"{where}: an outline reaches {np.abs(ring).max():.3g}, further than any picture")
    return ring


def fill(rings: Rings, height: int, width: int) -> Placed:
    """Return the mask that outlines draw on an image, and the pixel (top, left) where it lies.

    Raises
    ------
    SegbenchError
        The outline crosses itself more often than any cell's.

    Examples
    --------
    A square with a hole, as large as its box:

    >>> square, hole = np.array([[1, 1], [4, 1], [4, 4], [1, 4.0]]), np.array([[2, 2], [3, 2], [3, 3], [2, 3.0]])
    >>> mask, top, left = fill([square, hole], 9, 9)
    >>> mask.astype(int), top, left
    (array([[1, 1, 1],
           [1, 0, 1],
           [1, 1, 1]]), 1, 1)
    """
    points = np.concatenate([np.zeros((0, 2)), *rings])
    if not len(points):
        return np.zeros((0, 0), np.bool_), 0, 0
    low, high = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int)
    left, top = np.clip(low, 0, (width, height)).tolist()
    right, bottom = np.clip(high, 0, (width, height)).tolist()
    if right <= left or bottom <= top:
        return np.zeros((0, 0), np.bool_), 0, 0
    canvas = np.zeros((bottom - top, right - left + 1), np.uint8)
    for ring in rings:
        rows, columns = _crossings(ring, top, bottom)
        np.bitwise_xor.at(canvas, (rows - top, np.clip(columns, left, right) - left), 1)
    np.bitwise_xor.accumulate(canvas, axis=1, out=canvas)
    return canvas[:, :-1].astype(np.bool_), top, left


def is_outside(rings: Rings, height: int, width: int) -> bool:
    """Return whether no part of the box around a cell lies in the image."""
    points = np.concatenate([np.zeros((0, 2)), *rings])
    return bool(len(points)) and bool((points.max(axis=0) <= 0).any() or (points.min(axis=0) >= (width, height)).any())


def trace(mask: npt.NDArray[np.bool_]) -> list[list[Ring]]:
    """Return the outlines of a mask (H, W) along the edges of its pixels: filled again they are the mask.

    Returns
    -------
    One list for each piece whose pixels share edges: the ring around it, then those around its holes. No ring crosses
    or touches itself.

    Examples
    --------
    >>> [[outer]] = trace(np.ones((2, 3), bool))
    >>> outer.tolist()
    [[0.0, 0.0], [3.0, 0.0], [3.0, 2.0], [0.0, 2.0]]
    """
    from scipy import ndimage

    pieces, _ = ndimage.label(mask)
    found = []
    for number, place in enumerate(ndimage.find_objects(pieces), start=1):
        corner = np.array([place[1].start, place[0].start], np.float64)
        rings = [ring + corner for ring in _trace_piece(pieces[place] == number)]
        found.append(sorted(rings, key=_area, reverse=True))
    return found


def _crossings(ring: Ring, top: int, bottom: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each time that a ring crosses the middle of a row that row, and the first pixel right of it."""
    x0, y0 = ring.T
    x1, y1 = np.roll(ring, -1, axis=0).T
    first = np.maximum(np.ceil(np.minimum(y0, y1) - 0.5), top).astype(np.int64)
    last = np.minimum(np.ceil(np.maximum(y0, y1) - 0.5), bottom).astype(np.int64)
    times = np.maximum(last - first, 0)
    total = int(times.sum())
    if total > _CROSSINGS * (bottom - top + len(ring)) + 2 * 10**6:
        raise SegbenchError(f"an outline of {len(ring):,} points crosses rows {total:,} times: it is no cell's")
    edge = np.repeat(np.arange(len(ring)), times)
    rows = np.arange(total) - np.repeat(np.cumsum(times) - times, times) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    return rows, np.ceil(x0[edge] + (rows + 0.5 - y0[edge]) * slope - 0.5).astype(np.int64)


def _trace_piece(mask: npt.NDArray[np.bool_]) -> list[Ring]:
    """Return the rings of one piece: with the mask on the right hand, so around it clockwise as pictures are seen."""
    ahead = _edges(mask)
    rings = []
    while ahead:
        path: list[tuple[int, int]] = [next(iter(ahead))]
        place = {path[0]: 0}
        while path:
            ways = ahead[path[-1]]
            step = ways.pop()
            if not ways:
                del ahead[path[-1]]
            if step not in place:
                place[step] = len(path)
                path.append(step)
                continue
            # where the path meets itself a ring is complete; what led there goes on
            start = place[step]
            rings.append(_corners(np.array(path[start:], np.float64)))
            for point in path[start + 1 :]:
                del place[point]
            del path[start + 1 :]
            if step not in ahead:
                del place[step]
                path.pop()
    return rings


def _edges(mask: npt.NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return for each corner x, y on the mask's border where the border goes on from there."""
    wide = np.pad(mask, 1)
    inner = wide[1:-1, 1:-1]
    ahead: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for neighbour, start, end in (
        (wide[:-2, 1:-1], (0, 0), (1, 0)),
        (wide[1:-1, 2:], (1, 0), (1, 1)),
        (wide[2:, 1:-1], (1, 1), (0, 1)),
        (wide[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inner & ~neighbour).tolist():
            ahead.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    return ahead


def _corners(ring: Ring) -> Ring:
    """Return a ring without the points where it goes straight on."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    turns: npt.NDArray[np.bool_] = (before != after).any(axis=1)
    return np.asarray(ring[turns])


def _area(ring: Ring) -> float:
    """Return the area within a ring, negative where it goes round against the clock."""
    x, y = ring.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
