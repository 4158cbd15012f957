"""Reads the label map in a ``_seg.npy`` of Cellpose, whose pickle is never run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.limits import read_npy_header
from segbench.engine.files.masks import as_labels
from segbench.engine.files.unpickling import as_array, read_pickle
from segbench.errors import SegbenchError


def read_seg_npy(path: Path) -> npt.NDArray[np.int32]:
    """Return the masks that Cellpose has saved with an image, as a label map (H, W), 0 for background.

    Raises
    ------
    SegbenchError
        It is no such file, its pickle asks for anything but arrays, text and numbers, or the masks are of a stack.
    """
    try:
        masks = _masks(path)
    except OSError as error:
        raise SegbenchError(f"{path} cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError as error:
        raise SegbenchError(f"{path} is refused: {error}") from None
    except MemoryError:
        raise SegbenchError(f"{path} needs more memory than there is") from None
    while masks.ndim > 2 and masks.shape[0] == 1:
        masks = masks[0]
    if masks.ndim == 3:
        raise SegbenchError(f"{path} has masks of {masks.shape[0]} planes: save the plane that is meant on its own")
    if masks.dtype.kind == "i" and masks.size and masks.min() == -1:
        masks = masks.astype(np.int64) + 1  # early versions count from -1, the background
    return as_labels(masks, str(path))


def _masks(path: Path) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        try:
            shape, _, dtype = read_npy_header(file)
        except ValueError as error:
            raise SegbenchError(f"{path} is no .npy file: {error}") from None
        if not dtype.hasobject or shape != ():
            raise SegbenchError(
                f"{path} is an array of {dtype} {shape}, not what Cellpose saves as _seg.npy; label maps are read by "
                "segbench data import suffix"
            )
        saved = as_array(read_pickle(file))[()]
    if not isinstance(saved, dict) or "masks" not in saved:
        raise SegbenchError(f"{path} has no masks: it is not what Cellpose saves as _seg.npy")
    return as_array(saved["masks"])
