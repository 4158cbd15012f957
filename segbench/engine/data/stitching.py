"""Puts the instances of overlapping windows together into one label map of the whole image."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.pieces import BOTTOM, LEFT, RIGHT, TOP, Box, Pieces, matches, pieces_of
from segbench.methods.predictions import Instances, LabelInstances

SAME = 0.5
"""Two instances of two windows are one cell where their IoU, in what both windows show, is above this."""
_NEARER = 2.0
"""Pixels by which another window must show a place further from its edge to overrule those that see a cell there."""


@dataclass(eq=False)
class _Window:
    box: Box
    pieces: Pieces
    near: list[Box] = field(default_factory=list)
    """The windows that overlap this one."""


@dataclass(eq=False)
class _Piece:
    """One instance as one window shows it."""

    window: _Window
    number: int
    box: Box
    distance: float
    """From the window's edge, in pixels, where that is not the image's: 0 where the window cuts the instance."""


@dataclass(eq=False)
class _Group:
    """Pieces that are one cell, each of another window."""

    pieces: list[_Piece]


@dataclass(eq=False)
class _Found:
    """A cell of the whole image."""

    box: Box
    mask: npt.NDArray[np.bool_]
    whole: bool
    score: float


class Stitcher:
    """Takes the instances of one window after the other and writes the whole image's label map.

    1. Two instances are one cell where their IoU in the two windows' overlap is above a half.
    2. Of one cell's instances the one that lies furthest from its window's edge is kept. Where every window cuts the
       cell, its parts are joined; the score is that of the largest part.
    3. A cell is left out where a window that does not have it shows its place over two pixels further from its edge
       than those that do: it has looked better and found nothing, or another cell.
    4. Where two cells still claim the same pixels, uncut ones come before cut ones, and then the higher score (then the
       place): who has more than half of its pixels taken is left out, else it has the rest.

    Memory holds the instances of two rows of windows, and the label map where the caller gives none.

    Parameters
    ----------
    height, width
        Of the whole image.
    out
        Any array (height, width) of zeros that is read and written in slices (memory-mapped, zarr); None makes one.

    Examples
    --------
    A cell that lies across the edge of two windows:

    >>> left, right = np.zeros((2, 4, 6), np.int32)
    >>> left[1:3, 3:], right[1:3, :4] = 1, 1
    >>> stitcher = Stitcher(4, 8)
    >>> stitcher.add(0, 0, LabelInstances(left, np.array([0.9])), (4, 6))
    >>> stitcher.add(0, 2, LabelInstances(right, np.array([0.8])), (4, 6))
    >>> whole = stitcher.finish()
    >>> whole.labels[1], whole.scores
    (array([0, 0, 1, 1, 1, 1, 0, 0], dtype=int32), array([0.8]))
    """

    def __init__(self, height: int, width: int, out: Any = None) -> None:
        self._height, self._width = height, width
        self._out = np.zeros((height, width), np.int32) if out is None else out
        self._open: list[_Window] = []
        self._groups: dict[tuple[int, int], _Group] = {}
        self._pending: list[_Found] = []
        self._scores: list[float] = []
        self._row = 0

    def add(self, top: int, left: int, instances: Instances, size: tuple[int, int]) -> None:
        """Take the instances of the next window, row by row.

        Parameters
        ----------
        top, left
            Where its first pixel lies; a window may not lie higher than the one before.
        instances
            A label map with scores, or masks with scores, which may overlap.
        size
            Its height and width. What of it lies beyond the image is left out.

        Raises
        ------
        ValueError
            The window lies higher than the one before, outside of the image, or its instances have another size.
        """
        if top < self._row or left < 0 or top >= self._height or left >= self._width:
            raise ValueError(f"a window at {top}, {left} does not follow one at row {self._row} in this image")
        if top > self._row:
            self._row = top
            self._close(top)
        box = top, left, min(top + size[0], self._height), min(left + size[1], self._width)
        window = _Window(box, _clipped(pieces_of(instances, top, left, size), box))
        for k, piece_box in enumerate(window.pieces.boxes.tolist()):
            piece = _Piece(window, k, tuple(piece_box), self._distance(piece_box, box))
            self._groups[id(window), k] = _Group([piece])
        self._match(window)
        self._open.append(window)

    def finish(self) -> LabelInstances:
        """Return the whole image's label map, numbered from 1 without gaps, and the score of each."""
        self._close(self._height)
        return LabelInstances(self._out, np.array(self._scores, np.float64))

    def _match(self, window: _Window) -> None:
        """Join the groups of what the window and those before it show of the same cells."""
        found: list[tuple[float, _Window, int, int]] = []
        for other in self._open:
            shared = _overlap(window.box, other.box)
            if shared is None:
                continue
            window.near.append(other.box)
            other.near.append(window.box)
            found += [(iou, other, i, j) for iou, i, j in matches(other.pieces, window.pieces, shared, SAME)]
        for _, other, i, j in sorted(found, key=lambda pair: -pair[0]):
            one, two = self._groups[id(other), i], self._groups[id(window), j]
            if one is two or {id(p.window) for p in one.pieces} & {id(p.window) for p in two.pieces}:
                continue  # one window tells the two apart
            one.pieces += two.pieces
            for piece in two.pieces:
                self._groups[id(piece.window), piece.number] = one

    def _close(self, row: int) -> None:
        """Decide on the cells that no window from a row on can change, and write those that no open one touches."""
        still = [window for window in self._open if window.box[BOTTOM] > row]
        open_windows = {id(window) for window in still}
        left: dict[tuple[int, int], _Group] = {}
        groups = {id(group): group for group in self._groups.values()}
        for group in groups.values():
            if any(id(piece.window) in open_windows for piece in group.pieces):
                left |= {(id(piece.window), piece.number): group for piece in group.pieces}
            elif (cell := self._decided(group)) is not None:
                self._pending.append(cell)
        self._open, self._groups = still, left
        self._write([piece.box for group in {id(g): g for g in left.values()}.values() for piece in group.pieces])

    def _decided(self, group: _Group) -> _Found | None:
        """Return the cell of a group of pieces; None where another window overrules it."""
        best = max(group.pieces, key=lambda p: (p.distance, p.window.pieces.scores[p.number]))
        pieces = best.window.pieces
        if best.distance > 0 or len(group.pieces) == 1:
            score = float(pieces.scores[best.number])
            found = _Found(best.box, pieces.mask(best.number).copy(), best.distance > 0, score)
        else:
            found = _union(group.pieces)
        own = {piece.window.box for piece in group.pieces}
        others = {box for piece in group.pieces for box in piece.window.near} - own
        nearest = best.distance + _NEARER
        if any(_contains(other, found.box) and self._distance(found.box, other) > nearest for other in others):
            return None
        return found

    def _write(self, open_boxes: list[Box]) -> None:
        """Write the pending cells, the best first; one waits where it touches a cell that is open or itself waits."""
        waiting: list[_Found] = []
        blocked = np.zeros((len(open_boxes) + len(self._pending), 4), np.int64)
        blocked[: len(open_boxes)] = np.array(open_boxes, np.int64).reshape(-1, 4)
        n = len(open_boxes)
        for cell in sorted(self._pending, key=lambda cell: (not cell.whole, -cell.score, cell.box)):
            top, left, bottom, right = cell.box
            others = blocked[:n]
            apart = (others[:, TOP] >= bottom) | (others[:, BOTTOM] <= top)
            apart |= (others[:, LEFT] >= right) | (others[:, RIGHT] <= left)
            if apart.all():
                self._write_cell(cell)
                continue
            waiting.append(cell)
            blocked[n] = cell.box
            n += 1
        self._pending = waiting

    def _write_cell(self, cell: _Found) -> None:
        top, left, bottom, right = cell.box
        region = np.array(self._out[top:bottom, left:right])
        free = cell.mask & (region == 0)
        if 2 * int(free.sum()) < int(cell.mask.sum()):
            return
        self._scores.append(cell.score)
        region[free] = len(self._scores)
        self._out[top:bottom, left:right] = region

    def _distance(self, box: Any, window: Box) -> float:
        """Return how far a box lies from the edge of a window, the image's own edges apart."""
        sides = (
            math.inf if window[TOP] == 0 else box[TOP] - window[TOP],
            math.inf if window[LEFT] == 0 else box[LEFT] - window[LEFT],
            math.inf if window[BOTTOM] >= self._height else window[BOTTOM] - box[BOTTOM],
            math.inf if window[RIGHT] >= self._width else window[RIGHT] - box[RIGHT],
        )
        return float(min(sides))


def stitched(
    windows: Iterable[tuple[tuple[int, int], Instances]], window: tuple[int, int], image: tuple[int, int]
) -> LabelInstances:
    """Return the whole image of ((top, left), instances) of its windows, which are of one size, in any order."""
    stitcher = Stitcher(*image)
    for (top, left), instances in sorted(windows, key=lambda placed: placed[0]):
        stitcher.add(top, left, instances, window)
    return stitcher.finish()


def _union(pieces: list[_Piece]) -> _Found:
    boxes = np.array([piece.box for piece in pieces])
    top, left = (int(v) for v in boxes[:, :BOTTOM].min(axis=0))
    bottom, right = (int(v) for v in boxes[:, BOTTOM:].max(axis=0))
    mask = np.zeros((bottom - top, right - left), np.bool_)
    for piece in pieces:
        y0, x0, y1, x1 = piece.box
        mask[y0 - top : y1 - top, x0 - left : x1 - left] |= piece.window.pieces.mask(piece.number)
    largest = max(pieces, key=lambda p: int(p.window.pieces.areas[p.number]))
    return _Found((top, left, bottom, right), mask, True, float(largest.window.pieces.scores[largest.number]))


def _clipped(pieces: Pieces, box: Box) -> Pieces:
    """Return pieces without what lies beyond a box, which few do: those of windows that are larger than the image."""
    if not pieces.areas.size or (pieces.boxes[:, BOTTOM:] <= np.array(box[BOTTOM:])).all():
        return pieces
    masks, boxes, kept = [], [], []
    for k, (top, left, bottom, right) in enumerate(pieces.boxes.tolist()):
        mask = pieces.mask(k)[: max(0, box[BOTTOM] - top), : max(0, box[RIGHT] - left)]
        if mask.any():
            masks.append(np.ascontiguousarray(mask).view(np.uint8).ravel())
            boxes.append((top, left, min(bottom, box[BOTTOM]), min(right, box[RIGHT])))
            kept.append(k)
    offsets = np.concatenate([[0], np.cumsum([mask.size for mask in masks])]).astype(np.int64)
    areas = np.array([int(mask.sum()) for mask in masks], np.int64)
    bits = np.concatenate([np.zeros(0, np.uint8), *masks])
    return Pieces(np.array(boxes, np.int64).reshape(-1, 4), areas, pieces.scores[kept], bits, offsets)


def _overlap(one: Box, other: Box) -> Box | None:
    top, left = max(one[TOP], other[TOP]), max(one[LEFT], other[LEFT])
    bottom, right = min(one[BOTTOM], other[BOTTOM]), min(one[RIGHT], other[RIGHT])
    return (top, left, bottom, right) if top < bottom and left < right else None


def _contains(window: Box, box: Box) -> bool:
    return (
        window[TOP] <= box[TOP]
        and window[LEFT] <= box[LEFT]
        and box[BOTTOM] <= window[BOTTOM]
        and box[RIGHT] <= window[RIGHT]
    )
