"""Enlarges and shrinks images and label maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.source import RawImage, check_pixels
from segbench.engine.files import spool

_ROWS = 256


def rescaled_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return the height and width of a rescaled image, at least one pixel.

    Examples
    --------
    >>> rescaled_shape((520, 704), 0.5), rescaled_shape((3, 1), 0.1)
    ((260, 352), (1, 1))
    """
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def rescale(raw: RawImage, factor: float) -> RawImage:
    """Return an image at another scale: pixels filtered and interpolated, labels by the nearest pixel."""
    check_pixels(raw.pixels, raw.image)
    shape = rescaled_shape((raw.pixels.shape[1], raw.pixels.shape[2]), factor)
    return replace(
        raw,
        pixels=resample_pixels(raw.pixels, shape),
        labels={target: resample_labels(labels, shape) for target, labels in raw.labels.items()},
    )


def resample_pixels(pixels: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return planes (C, H, W) at another height and width, in float32 and their own range of values.

    Linear interpolation between the centres of pixels; what shrinks is smoothed first, so that no pattern of the
    sampling appears (scikit-image's ``resize`` with ``anti_aliasing``: a Gaussian of half the factor less one pixel).
    """
    from skimage.transform import resize

    planes = [
        resize(plane.astype(np.float32), shape, order=1, mode="edge", anti_aliasing=True, preserve_range=True)
        for plane in pixels
    ]
    return np.stack(planes).astype(np.float32, copy=False)


def resample(pixels: npt.NDArray[Any], shape: tuple[int, int], image: str) -> npt.NDArray[np.float32]:
    """Return planes (C, H, W) at another height and width, on the disk where either side of it is large."""
    size = pixels.shape[0] * shape[0] * shape[1] * 4
    if size < spool.LARGE_BYTES and not spool.is_large(pixels):
        return resample_pixels(pixels, shape)
    return resample_large(pixels, shape, image)


def resample_large(pixels: npt.NDArray[Any], shape: tuple[int, int], image: str) -> npt.NDArray[np.float32]:
    """Return what ``resample_pixels`` returns but for rounding, some rows at a time, on the disk where it is large.

    Raises
    ------
    SegbenchError
        The disk has no room for it; ``image`` says what needs it.
    """
    from scipy.ndimage import gaussian_filter

    out = spool.array_of((pixels.shape[0], *shape), np.float32, image)
    sizes = pixels.shape[1:]
    steps = [old / new for old, new in zip(sizes, shape, strict=True)]
    sigma = [max(0.0, (step - 1) / 2) for step in steps]
    reach = int(4 * sigma[0] + 0.5) + 1  # of scipy's Gaussian
    columns = _neighbours(np.arange(shape[1]), steps[1], sizes[1])
    for top in range(0, shape[0], _ROWS):
        rows = _neighbours(np.arange(top, min(top + _ROWS, shape[0])), steps[0], sizes[0])
        first, last = max(0, int(rows[0].min()) - reach), min(sizes[0], int(rows[1].max()) + reach + 1)
        for plane, target in zip(pixels, out, strict=True):
            band = plane[first:last].astype(np.float32)
            if any(sigma):
                band = gaussian_filter(band, sigma, mode="nearest")
            wide = _between(band, (rows[0] - first, rows[1] - first, rows[2]), 0)
            target[top : top + len(rows[0])] = _between(wide, columns, 1)
        spool.let_go(pixels)
        spool.let_go(out)
    return out


_Neighbours = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def _neighbours(places: npt.NDArray[np.int64], step: float, size: int) -> _Neighbours:
    """Return for places of a new side the pixels of the old one before and after each, and how near the latter is."""
    at = np.clip((places + 0.5) * step - 0.5, 0, size - 1)
    before = np.floor(at).astype(np.int64)
    return before, np.minimum(before + 1, size - 1), at - before


def _between(array: npt.NDArray[Any], neighbours: _Neighbours, axis: int) -> npt.NDArray[np.float64]:
    before, after, share = neighbours
    weight = share[:, None] if axis == 0 else share
    return array.take(before, axis) * (1 - weight) + array.take(after, axis) * weight


def resample_labels(labels: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Return a label map (H, W) at another height and width, each pixel the nearest one's: no label is invented.

    Examples
    --------
    >>> resample_labels(np.array([[1, 2], [3, 4]]), (4, 4))[0]
    array([1, 1, 2, 2])
    """
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.int64), old - 1)
        for new, old in zip(shape, labels.shape, strict=True)
    )
    return np.asarray(labels[rows[:, None], columns])
