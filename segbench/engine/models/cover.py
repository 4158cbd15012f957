"""Draws the pictures of a model: its test window, and what it makes of it."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

_OUTLINE = np.array([0x56, 0xD4, 0xFF], np.uint8)
_TWO_CHANNELS = np.array([[0.62, 0.62, 0.62], [0.5, 0.08, 0.5]])
_LARGEST = 512


def shown(window: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return a window (C, H, W) in 0..1 as colours (H, W, 3): grey for one channel, grey and purple for two."""
    planes = np.clip(np.asarray(window, np.float64), 0, 1) * 255
    if len(planes) == 1:
        mixed = np.repeat(planes[0][..., None], 3, axis=2)
    elif len(planes) == 2:
        mixed = np.einsum("chw,cr->hwr", planes, _TWO_CHANNELS)
    else:
        mixed = np.moveaxis(planes[:3], 0, -1)
    return mixed.clip(0, 255).astype(np.uint8)


def edges(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return the pixels of instances (H, W) that touch another label or the ground."""
    edge = np.zeros(labels.shape, bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edge & (labels > 0)


def cover_png(window: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> bytes:
    """Return a PNG, twice as wide as high: the window on the left, with the outlines of its cells on the right."""
    from PIL import Image

    left = shown(window)
    right = left.copy()
    right[edges(labels)] = _OUTLINE
    picture = Image.fromarray(np.concatenate([left, right], axis=1))
    if picture.height > _LARGEST:
        picture = picture.resize((2 * _LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.quantize(64).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
