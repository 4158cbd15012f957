"""The whole images of a prepared dataset: which windows make each, and their true label maps put together again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.prepared import PreparedDataset
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class WholeImage:
    """One image of a split as its windows give it."""

    name: str
    tissue: str
    rows: tuple[int, ...]
    """Its windows, from the top left."""
    corners: tuple[tuple[int, int], ...]
    """(top, left) of each."""
    shape: tuple[int, int]
    """Height and width of what the windows cover: of an image that is smaller than a window, the window's."""


def whole_images(prepared: PreparedDataset, split: str) -> list[WholeImage]:
    """Return the images of a split in their order.

    Raises
    ------
    SegbenchError
        The dataset's windows do not overlap, so that what belongs together cannot be seen.
    """
    settings = prepared.spec.preparation
    if settings.step >= settings.window:
        raise SegbenchError(f"windows of {prepared.spec.name!r} do not overlap: whole images cannot be put together")
    return list(_images(prepared.index(split), settings.window))


def true_map(windows: npt.NDArray[Any], image: WholeImage) -> npt.NDArray[np.int32]:
    """Return an image's true label map (H, W), numbered from 1, of its windows' label maps (N, h, w).

    Windows number their cells anew, but agree on every pixel that they share: labels that share one are one cell. Parts
    of a cell that no window shows together, nor a chain of windows, are cells of their own.
    """
    whole = np.zeros(image.shape, np.int32)
    parents = [0]
    for row, (top, left) in zip(image.rows, image.corners, strict=True):
        labels = np.asarray(windows[row])
        place = whole[top : top + labels.shape[0], left : left + labels.shape[1]]
        first = len(parents)
        parents += range(first, first + int(labels.max(initial=0)))
        mine = np.where(labels > 0, labels + np.int32(first - 1), np.int32(0))
        shared = (place > 0) & (mine > 0)
        for one, other in np.unique(np.stack([place[shared], mine[shared]], axis=1), axis=0).tolist():
            _union(parents, one, other)
        np.copyto(place, mine, where=place == 0)
    roots = np.array([_root(parents, n) for n in range(len(parents))])
    numbers = np.unique(roots, return_inverse=True)[1].astype(np.int32)
    return np.asarray(numbers[whole])


def _images(index: pl.DataFrame, window: int) -> Iterator[WholeImage]:
    for (name,), rows in index.group_by(["image"], maintain_order=True):
        ordered = rows.sort("y", "x")
        corners = tuple(zip(ordered["y"].to_list(), ordered["x"].to_list(), strict=True))
        yield WholeImage(
            name=str(name),
            tissue=ordered["tissue"][0],
            rows=tuple(ordered["window"].to_list()),
            corners=corners,
            shape=(max(y for y, _ in corners) + window, max(x for _, x in corners) + window),
        )


def _root(parents: list[int], n: int) -> int:
    while parents[n] != n:
        parents[n] = parents[parents[n]]
        n = parents[n]
    return n


def _union(parents: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
