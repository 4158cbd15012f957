"""Brings windows and labels into the shapes that DeepCell's networks take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack


class Pieces:
    """One kind of array of many pieces, of which each is read when it is asked for; all at once only by ``asarray``."""

    def __init__(self, read: Callable[[int], npt.NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> None:
        self._read, self.shape, self.dtype = read, shape, np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        if isinstance(key, tuple):
            return self[key[0]][key[1:]]
        if isinstance(key, slice):
            chosen = [self._read(n) for n in range(*key.indices(len(self)))]
            return np.stack(chosen) if chosen else np.zeros((0, *self.shape[1:]), self.dtype)
        return self._read(int(key))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)


class Tiles:
    """Square pieces of windows with their labels, read from the windows as they are used."""

    def __init__(
        self, stack: ImageStack, side: int, corners: npt.NDArray[np.int64], windows: npt.NDArray[np.int64],
        objects: npt.NDArray[np.int64], distinct: npt.NDArray[np.int64],
    ) -> None:  # fmt: skip
        self.stack, self.side = stack, side
        self.corners = corners
        """(N, 2), top and left of each in its window."""
        self.windows = windows
        """(N,), the window that each was cut from."""
        self.objects = objects
        """(N,), how many cells each shows."""
        self.distinct = distinct
        """(N,), how many different labels each has, the ground's 0 among them."""

    def __len__(self) -> int:
        return int(self.windows.size)

    @property
    def x(self) -> Pieces:
        """(N, S, S, C) float32."""
        return Pieces(self._image, (len(self), self.side, self.side, self.stack.n_channels), np.float32)

    @property
    def y(self) -> Pieces:
        """(N, S, S, 1) int32."""
        return Pieces(self._labels, (len(self), self.side, self.side, 1), np.int32)

    def select(self, tiles: npt.NDArray[Any]) -> Tiles:
        """Return some of the tiles, by number or mask."""
        chosen = (part[tiles] for part in (self.corners, self.windows, self.objects, self.distinct))
        return Tiles(self.stack, self.side, *chosen)

    def _image(self, n: int) -> npt.NDArray[np.float32]:
        piece = self.stack[self.windows[n]][:, *self._place(n)]
        return np.ascontiguousarray(np.moveaxis(piece, 0, -1))

    def _labels(self, n: int) -> npt.NDArray[np.int32]:
        return np.ascontiguousarray(self.stack.labels(self.windows[n])[self._place(n)])[..., np.newaxis]

    def _place(self, n: int) -> tuple[slice, slice]:
        top, left = self.corners[n]
        return slice(top, top + self.side), slice(left, left + self.side)


def tile_side(size: tuple[int, int], largest: int) -> int:
    """Return the largest power of two that fits into a window of ``size`` and is at most ``largest``.

    deepcell's PanopticNet takes squares of such sides only (deepcell/model_zoo/panopticnet.py:201);
    the whole family trains on the same pieces.

    Examples
    --------
    >>> tile_side((256, 256), 256), tile_side((100, 120), 256), tile_side((256, 256), 96)
    (256, 64, 64)
    """
    side = min(*size, largest)
    if side < 32:
        raise ValueError(f"deepcell's networks need pieces of at least 32 x 32 pixels, found {side} x {side}")
    return int(2 ** (side.bit_length() - 1))


def cut(stack: ImageStack, windows: Iterable[int], side: int, min_objects: int) -> Tiles:
    """Cut windows into as few squares as cover them and keep those with at least ``min_objects`` cells."""
    corners = corners_of(stack.size, side)
    kept = []
    for n in windows:
        labels = stack.labels(n)
        for top, left in corners:
            sizes = np.bincount(labels[top : top + side, left : left + side].ravel())
            distinct = int(np.count_nonzero(sizes))
            objects = distinct - int(sizes[0] > 0)
            if objects >= min_objects:
                kept.append((top, left, n, objects, distinct))
    table = np.asarray(kept, np.int64).reshape(-1, 5)
    return Tiles(stack, side, table[:, :2], table[:, 2], table[:, 3], table[:, 4])


def corners_of(size: tuple[int, int], side: int) -> list[tuple[int, int]]:
    """Return top and left of the squares that windows of ``size`` are cut into."""
    height, width = size
    return [(top, left) for top in _starts(height, side) for left in _starts(width, side)]


def pad(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (B, H, W, C) images mirrored at the lower and right edge up to a square whose side is a power of two.

    Examples
    --------
    >>> pad(np.zeros((1, 100, 70, 2), np.float32)).shape
    (1, 128, 128, 2)
    """
    height, width = images.shape[1:3]
    side = 1 << (max(height, width, 32) - 1).bit_length()
    return np.pad(images, ((0, 0), (0, side - height), (0, side - width), (0, 0)), mode="symmetric")


def _starts(length: int, side: int) -> list[int]:
    return [int(start) for start in np.linspace(0, length - side, -(-length // side)).round()]
