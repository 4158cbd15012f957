"""Enlarges and shrinks images and label maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.source import RawImage, check_pixels


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
