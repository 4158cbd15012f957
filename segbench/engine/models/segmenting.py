"""Segments one whole image: its windows go to the model's process, and their instances become one label map."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segbench.engine.data.large import prepare_large
from segbench.engine.data.resample import resample, rescaled_shape
from segbench.engine.data.source import RawImage
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.data.stitching import Stitcher
from segbench.engine.data.windows import positions
from segbench.engine.files import spool
from segbench.engine.models.predictor import Predicts
from segbench.engine.models.trained import TrainedModel

AT_ONCE = 32
"""Windows that are handed to the model's process together, where a row of them has fewer."""
_ROWS = 1024
_DIAMETERS = 2.0
"""By how many diameters of the training cells windows overlap at least."""
_T = TypeVar("_T")
Progress = Callable[[float], None]
"""Is told which share of the image is done."""


@dataclass(frozen=True)
class Segmented:
    """The cells of one image."""

    labels: npt.NDArray[np.int32]
    """(H, W) of the image itself, numbered from 1 without gaps, 0 for background; on the disk where it is large."""
    scores: npt.NDArray[np.float64]
    """(k,), of cell i at i - 1."""
    vanished: int = 0
    """Cells that have no pixel left once the rescaling is undone."""


@dataclass(frozen=True)
class _Batch:
    corners: tuple[tuple[int, int], ...]
    windows: npt.NDArray[np.float32]


def tiling(model: TrainedModel, overlap: int | None = None) -> PreparationSettings:
    """Return how images are cut for a model: as in training, but every pixel in a window, and windows that overlap.

    They overlap as much as in training, by a quarter of a window, or by two diameters of the training cells, whichever
    is most, and by half a window at most.

    Parameters
    ----------
    model
        The model.
    overlap
        Pixels instead; at least 1, and less than a window.
    """
    own = model.recipe.preparation
    if overlap is None:
        cells = 0 if model.diameter_px is None else round(_DIAMETERS * model.diameter_px)
        overlap = min(own.window // 2, max(own.window - own.step, own.window // 4, cells))
    return dataclasses.replace(own, step=own.window - overlap, edge="shift")


def segment(
    pixels: npt.NDArray[Any], model: TrainedModel, predictor: Predicts, *, factor: float | None = None,
    overlap: int | None = None, progress: Progress = lambda _: None, image: str = "image",
) -> Segmented:  # fmt: skip
    """Return the cells of an image, whatever its size: memory holds some rows of windows.

    Parameters
    ----------
    pixels
        (C, H, W), the channels that the model sees, unprepared; on the disk where it is large.
    model, predictor
        The model, and what predicts with it.
    factor
        By which the image is rescaled before; the label map is of the image's own size nevertheless.
    overlap
        Of windows, in pixels of a window; None for what ``tiling`` gives.
    progress
        Is told which share is done.
    image
        What errors call the image.

    Raises
    ------
    SegbenchError
        The image cannot be prepared, the disk has no room, or the method failed on it.
    """
    size = pixels.shape[1], pixels.shape[2]
    if factor is not None:
        pixels = resample(pixels, rescaled_shape(size, factor), image)
    seen = pixels.shape[1], pixels.shape[2]
    settings = tiling(model, overlap)
    stitcher = Stitcher(*seen, out=spool.array_of(seen, np.int32, image))
    window, waiting = (settings.window, settings.window), deque[tuple[tuple[int, int], ...]]()

    def take() -> None:
        corners = waiting.popleft()
        for (top, left), instances in zip(corners, predictor.answer(), strict=True):
            stitcher.add(top, left, instances, window)
        progress(min(1.0, (corners[-1][0] + window[0]) / seen[0]))

    try:
        with contextlib.closing(_one_ahead(_batches(pixels, settings, image))) as batches:
            for batch in batches:
                predictor.ask(batch.windows)
                waiting.append(batch.corners)
                if len(waiting) >= predictor.ahead:
                    take()
        while waiting:
            take()
    except BaseException:
        predictor.forget()
        raise
    found = stitcher.finish()
    return _at_size(found.labels, found.scores, size, image)


def _batches(pixels: npt.NDArray[Any], settings: PreparationSettings, image: str) -> Iterator[_Batch]:
    """Yield the windows of an image from the top, some rows of them together."""
    raw = RawImage(image, "", pixels, {})
    rows = len(positions(pixels.shape[1], settings.window, settings.step, settings.edge))
    corners: list[tuple[int, int]] = []
    windows: list[npt.NDArray[np.float32]] = []
    prepared = prepare_large(raw, settings, keep_empty=True)
    for _ in range(rows):  # what comes after them is told of a dataset's image
        row = next(prepared)
        corners += row.corners
        windows.append(row.pixels)
        if len(corners) >= AT_ONCE:
            yield _Batch(tuple(corners), np.concatenate(windows))
            corners, windows = [], []
    if corners:
        yield _Batch(tuple(corners), np.concatenate(windows))


def _one_ahead(items: Iterator[_T]) -> Generator[_T]:
    """Yield the items, each next one made in a thread while the one before is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="windows") as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _at_size(
    labels: npt.NDArray[np.int32], scores: npt.NDArray[np.float64], size: tuple[int, int], image: str
) -> Segmented:
    """Return the cells at the image's own size, each pixel the nearest one's; those without a pixel are left out."""
    if labels.shape == size:
        return Segmented(labels, scores)
    columns = _nearest(size[1], labels.shape[1])
    rows = _nearest(size[0], labels.shape[0])
    there = np.zeros(scores.size + 1, np.bool_)
    for top in range(0, size[0], _ROWS):
        there[np.unique(labels[rows[top : top + _ROWS, None], columns])] = True
        spool.let_go(labels)
    there[0] = False
    numbers = np.where(there, np.cumsum(there), 0).astype(np.int32)
    out = spool.array_of(size, np.int32, image)
    for top in range(0, size[0], _ROWS):
        out[top : top + _ROWS] = numbers[labels[rows[top : top + _ROWS, None], columns]]
        spool.let_go(labels)
        spool.let_go(out)
    return Segmented(out, scores[there[1:]], int(scores.size - there.sum()))


def _nearest(new: int, old: int) -> npt.NDArray[np.int64]:
    """Return for each pixel of a side the nearest one of a side of another length, as ``resample_labels`` does."""
    return np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
