"""What preparation makes of one image: its windows, and what is told of it once its pixels are gone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.morphology import Morphology
from segbench.engine.files.masks import MaskFacts


def percentiles(plane: npt.NDArray[Any], percents: tuple[float, float]) -> tuple[float, float]:
    """Return two percentiles as ``numpy.percentile`` does on float64, of 8- and 16-bit images by counting.

    Examples
    --------
    >>> plane = np.random.default_rng(0).integers(0, 4000, (64, 50)).astype(np.uint16)
    >>> percentiles(plane, (0.1, 99.9)) == tuple(np.percentile(plane.astype(float), (0.1, 99.9)))
    True
    """
    if plane.dtype not in (np.uint8, np.uint16):
        low, high = np.percentile(plane.astype(np.float64), percents)
        return float(low), float(high)
    return ranked(np.bincount(plane.ravel()), percents)


def ranked(counts: npt.NDArray[np.int64], percents: tuple[float, float]) -> tuple[float, float]:
    """Return two percentiles of pixels of whole numbers from 0, of which there are so many each."""
    ranks = np.cumsum(counts)

    def percentile(percent: float) -> float:
        at = percent / 100 * (int(ranks[-1]) - 1)
        first = math.floor(at)
        lower, upper = (int(np.searchsorted(ranks, k, side="right")) for k in (first, math.ceil(at)))
        t = at - first
        # numpy takes the nearer end, so that rounding errors do not pass it
        return lower + (upper - lower) * t if t < 0.5 else upper - (upper - lower) * (1 - t)

    return percentile(percents[0]), percentile(percents[1])


@dataclass(frozen=True)
class ImageWindows:
    """The windows of one image."""

    image: str
    tissue: str
    pixels: npt.NDArray[np.float32]
    """(n, C, H, W)."""
    labels: dict[str, npt.NDArray[np.int32]]
    """(n, H, W) a target."""
    corners: list[tuple[int, int]]
    """(y, x) of each window in the image."""
    shapes: dict[str, list[Morphology]]
    """The shapes of each window's cells, for each target."""
    raw: RawFacts | None
    """What is known of the image that they were cut from; None where others of its windows are still to come."""
    origin: str
    """The picture that the image is."""


@dataclass(frozen=True)
class RawFacts:
    """What is told of an original image once its pixels are gone."""

    image: str
    origin: str
    left_out: Mapping[str, int]
    masks: tuple[MaskFacts, ...]
    digest: bytes | None
    """Of its pixels; None for an image of one value, which others may well equal."""
    empty_windows: int
    """Without a cell, and left out."""
    diameters: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Of each target's cells, in pixels of the windows."""
    pixel_size_um: float | None = None
    """Of the original, where its file tells one."""
    vanished: int = 0
    """Cells that have no pixel left at the windows' scale."""
