"""Draws the outlines of an image's cells on the image, as a picture to look at."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.small_files import write_whole

_MOST = 4096
"""Pixels of the longer side of a picture, at most."""
_PERCENT = (0.5, 99.5)
_LINE = (255, 220, 0)


def write_outlines(path: Path, pixels: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
    """Write a PNG of an image in grey with the outlines of its cells in yellow.

    Several channels become the mean of what each is between two of its percentiles. Of a large image every second,
    third, ... pixel is taken, so that the longer side has 4,096 pixels at most.

    Parameters
    ----------
    pixels
        (C, H, W); may lie on the disk.
    labels
        (H, W).
    """
    from PIL import Image
    from skimage.segmentation import find_boundaries

    step = -(-max(labels.shape) // _MOST)
    small = np.asarray(labels[::step, ::step])
    grey = np.zeros(small.shape, np.float64)
    for plane in pixels:
        values = np.asarray(plane[::step, ::step], np.float64)
        low, high = np.percentile(values, _PERCENT)
        if high > low:
            grey += np.clip((values - low) / (high - low), 0, 1) / pixels.shape[0]
    spool.let_go(labels)
    spool.let_go(pixels)
    drawn = np.repeat(np.rint(255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    drawn[find_boundaries(small, mode="inner")] = _LINE
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())
