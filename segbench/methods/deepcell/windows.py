"""Brings windows and labels into the shapes that DeepCell's networks take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack


@dataclass(frozen=True)
class Tiles:
    """Square pieces of windows with their labels."""

    x: npt.NDArray[np.float32]
    """(N, S, S, C)."""
    y: npt.NDArray[np.int32]
    """(N, S, S, 1)."""
    windows: npt.NDArray[np.int64]
    """(N,), the window that each was cut from."""

    def __len__(self) -> int:
        return int(self.windows.size)

    def select(self, tiles: npt.NDArray[np.int64]) -> Tiles:
        """Return some of the tiles, by number."""
        return Tiles(self.x[tiles], self.y[tiles], self.windows[tiles])


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
    height, width = stack.size
    corners = [(top, left) for top in _starts(height, side) for left in _starts(width, side)]
    x, y, origin = [], [], []
    for n in windows:
        image, labels = np.moveaxis(stack[n], 0, -1), stack.labels(n)
        for top, left in corners:
            piece = labels[top : top + side, left : left + side]
            if min_objects and np.unique(piece[piece > 0]).size < min_objects:
                continue
            x.append(image[top : top + side, left : left + side])
            y.append(piece[..., np.newaxis])
            origin.append(n)
    if not x:
        shape = (0, side, side)
        return Tiles(
            np.zeros((*shape, stack.n_channels), np.float32), np.zeros((*shape, 1), np.int32), np.zeros(0, int)
        )
    return Tiles(np.stack(x), np.stack(y), np.asarray(origin))


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
