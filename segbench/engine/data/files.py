"""Image and label files as arrays, and colours as grey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.masks import as_labels
from segbench.engine.files.pictures import read_numbers, read_picture


def read_image(path: Path) -> npt.NDArray[Any]:
    """Return an image file as (C, H, W) in its own numeric dtype; see ``segbench.engine.files.pictures``."""
    return read_picture(path).pixels


def read_labels(path: Path) -> npt.NDArray[np.int32]:
    """Return a label file as (H, W); see ``segbench.engine.files.masks``."""
    return as_labels(read_numbers(path), str(path))


def to_grey(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return red, green and blue (3, H, W) as one grey plane (1, H, W) by ITU-R BT.601's weights."""
    if not is_colour(pixels):
        return pixels[:1].astype(np.float64)
    grey: npt.NDArray[np.float64] = np.tensordot([0.299, 0.587, 0.114], pixels.astype(np.float64), axes=1)[None]
    return grey


def is_colour(pixels: npt.NDArray[Any]) -> bool:
    """Return whether three planes (3, H, W) differ, so that they are more than a grey picture stored as colour."""
    return bool((pixels[0] != pixels[1]).any() or (pixels[0] != pixels[2]).any())
