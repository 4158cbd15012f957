"""Turns, scales and mirrors the windows of DeepCell's generators, to the bit as SciPy does it for Keras, and sooner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.compiled import compiled


def warp(
    image: npt.NDArray[Any], parameters: Mapping[str, Any], order: int, flip: tuple[bool, bool] | None = None
) -> npt.NDArray[Any]:
    """Return an image as ``ImageDataGenerator.apply_transform`` gives it for ``fill_mode="nearest"``.

    Keras calls ``scipy.ndimage.affine_transform`` (tf_keras/src/preprocessing/image.py, apply_affine_transform) once a
    channel; here each pixel's place is computed once for all channels, by the same sums in the same order. Other
    threads run meanwhile.

    Parameters
    ----------
    image
        (H, W, C), float32 or whole numbers.
    parameters
        Of ``get_random_transform``: rotation, zoom and mirroring.
    order
        0 for the nearest pixel, 1 for linear between pixels (float32 alone).
    flip
        Mirrored (vertically, horizontally); by default as ``parameters`` say.

    Raises
    ------
    ValueError
        For parameters that ask for more: shifts, shears, other intensities.
    """
    if any(parameters.get(name) for name in ("tx", "ty", "shear", "channel_shift_intensity", "brightness")):
        raise ValueError(f"only rotation, zoom and mirroring are known here, found {dict(parameters)}")
    place = _place(parameters, image.shape[0], image.shape[1])
    if place is not None:
        found: npt.NDArray[Any] = compiled(_linear if order == 1 else _nearest)(np.ascontiguousarray(image), *place)
        image = found
    vertical, horizontal = flip or (bool(parameters["flip_vertical"]), bool(parameters["flip_horizontal"]))
    return image[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def _place(
    parameters: Mapping[str, Any], height: int, width: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return the matrix and the offset that lead from a pixel of the result to its place in the image."""
    theta, zoom = parameters["theta"], (parameters["zx"], parameters["zy"])
    matrix = None
    if theta != 0:
        angle = np.deg2rad(theta)
        matrix = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    if zoom != (1, 1):
        scale = np.array([[zoom[0], 0, 0], [0, zoom[1], 0], [0, 0, 1]])
        matrix = scale if matrix is None else np.dot(matrix, scale)
    if matrix is None:
        return None
    x, y = float(height) / 2 - 0.5, float(width) / 2 - 0.5
    to_centre, back = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]), np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    whole = np.dot(np.dot(to_centre, matrix), back)
    # Keras has columns before rows
    whole[:, [0, 1]] = whole[:, [1, 0]]
    whole[[0, 1]] = whole[[1, 0]]
    return np.ascontiguousarray(whole[:2, :2]), np.ascontiguousarray(whole[:2, 2])


def _linear(
    image: npt.NDArray[Any], matrix: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
) -> npt.NDArray[Any]:
    height, width, channels = image.shape
    found = np.empty_like(image)
    for row in range(height):
        for column in range(width):
            y = min(max(row * matrix[0, 0] + column * matrix[0, 1] + offset[0], 0.0), height - 1.0)
            x = min(max(row * matrix[1, 0] + column * matrix[1, 1] + offset[1], 0.0), width - 1.0)
            top, left = int(np.floor(y)), int(np.floor(x))
            # the last weight is what the others leave of one, as in scipy/ndimage/src/ni_splines.c
            upper, near = 1.0 - (y - top), 1.0 - (x - left)
            lower, far = 1.0 - upper, 1.0 - near
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            for channel in range(channels):
                value = np.float64(image[top, left, channel]) * upper * near
                value += np.float64(image[top, right, channel]) * upper * far
                value += np.float64(image[below, left, channel]) * lower * near
                value += np.float64(image[below, right, channel]) * lower * far
                found[row, column, channel] = value
    return found


def _nearest(
    image: npt.NDArray[Any], matrix: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
) -> npt.NDArray[Any]:
    height, width, channels = image.shape
    found = np.empty_like(image)
    for row in range(height):
        for column in range(width):
            y = min(max(row * matrix[0, 0] + column * matrix[0, 1] + offset[0], 0.0), height - 1.0)
            x = min(max(row * matrix[1, 0] + column * matrix[1, 1] + offset[1], 0.0), width - 1.0)
            top, left = min(int(np.floor(y + 0.5)), height - 1), min(int(np.floor(x + 0.5)), width - 1)
            for channel in range(channels):
                found[row, column, channel] = image[top, left, channel]
    return found
