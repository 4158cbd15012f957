"""Resamples windows for a method's input scale, and brings back what was found in them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from segbench.methods.predictions import Instances, LabelInstances, MaskInstances, run_lengths


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return the (H, W) of a window in a scale, each a multiple of 32 pixels as the networks' strides want it.

    Examples
    --------
    >>> scaled_size((256, 256), 1.875), scaled_size((100, 256), 1.0)
    ((480, 480), (100, 256))
    """
    if scale == 1:
        return size
    return max(32, round(size[0] * scale / 32) * 32), max(32, round(size[1] * scale / 32) * 32)


def resampled(image: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return an image (C, H, W) of another size: linear between pixels' middles, smoothed where it becomes smaller.

    Examples
    --------
    >>> resampled(np.array([[[0.0, 1.0]]], np.float32), (1, 4)).ravel().tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    rows, columns = _weights(image.shape[1], size[0]), _weights(image.shape[2], size[1])
    return np.ascontiguousarray(rows @ image @ columns.T, dtype=np.float32)


def resampled_labels(labels: npt.NDArray[np.int32], size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Return a label map (H, W) of another size: of each pixel the label at its middle."""
    return np.ascontiguousarray(labels[_nearest(labels.shape[0], size[0])[:, None], _nearest(labels.shape[1], size[1])])


def brought_back(found: Instances, seen: tuple[int, int], size: tuple[int, int]) -> Instances:
    """Return instances of a window of ``seen`` (H, W) pixels in one of ``size``; those without a pixel are gone.

    Examples
    --------
    >>> one = LabelInstances(np.array([[1, 1, 0, 0], [1, 1, 2, 0]], np.int32), np.array([0.9, 0.5]))
    >>> back = brought_back(one, (2, 4), (1, 2))
    >>> back.labels.tolist(), back.scores.tolist()
    ([[1, 0]], [0.9])
    """
    scores = np.asarray(found.scores)
    if isinstance(found, LabelInstances):
        labels = resampled_labels(np.asarray(found.labels), size)
        kept = np.unique(labels[labels > 0])
        numbers = np.zeros(scores.size + 1, np.int32)
        numbers[kept] = np.arange(1, kept.size + 1)
        return LabelInstances(numbers[labels], scores[kept - 1])
    rows, columns = _nearest(seen[0], size[0])[:, None], _nearest(seen[1], size[1])
    counts, left = [], []
    for n, runs in enumerate(found.counts):
        mask = np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(seen, order="F")[rows, columns]
        if mask.any():
            counts.append(run_lengths(mask))
            left.append(n)
    return MaskInstances(counts, scores[left])


@lru_cache(maxsize=16)
def _weights(pixels: int, wanted: int) -> npt.NDArray[np.float32]:
    """Return the (wanted, pixels) shares that the pixels have in those of the other size."""
    step = pixels / wanted
    middles = (np.arange(wanted) + 0.5) * step - 0.5
    apart = np.abs(np.clip(middles, 0, pixels - 1)[:, None] - np.arange(pixels)) / max(1.0, step)
    shares = np.maximum(0.0, 1.0 - apart)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _nearest(pixels: int, wanted: int) -> npt.NDArray[np.int64]:
    return np.minimum(((np.arange(wanted) + 0.5) * pixels / wanted).astype(np.int64), pixels - 1)
