"""Windows: where they lie in an image, and label maps numbered anew in each of them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError


def positions(size: int, window: int, step: int, edge: str) -> tuple[int, ...]:
    """Return the first pixel of every window along one side of an image.

    Parameters
    ----------
    size
        Pixels along the side. A side shorter than a window gives one window, which is padded with zeros.
    window, step
        In pixels.
    edge
        ``shift``: a last window is moved inward to end with the image; ``drop``: what does not fit is left out.

    Examples
    --------
    >>> positions(512, 256, 192, "shift"), positions(512, 256, 192, "drop")
    ((0, 192, 256), (0, 192))
    >>> positions(448, 256, 192, "shift"), positions(200, 256, 192, "drop")
    ((0, 192), (0,))
    """
    if size <= window:
        return (0,)
    found = list(range(0, size - window + 1, step))
    if edge == "shift" and found[-1] + window < size:
        found.append(size - window)
    return tuple(found)


def check_labels(labels: npt.NDArray[Any], where: str) -> npt.NDArray[np.int32]:
    """Return a label map as int32 numbers 1..K without gaps, in the order of the original labels; 0 is background.

    Parameters
    ----------
    labels
        (H, W), any integer dtype with labels of any height, or floats with integer values.
    where
        The file or array, for the error.

    Raises
    ------
    SegbenchError
        Where labels are negative, not whole numbers, or not a plane.
    """
    if labels.ndim != 2:
        raise SegbenchError(f"{where}: a label map is a plane (H, W), found shape {labels.shape}")
    if labels.dtype == bool:
        raise SegbenchError(f"{where}: a label map numbers its cells, found true and false")
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
            raise SegbenchError(f"{where}: labels must be whole numbers, found fractions or NaN")
        if labels.size and np.abs(labels).max() > 2**53:
            raise SegbenchError(f"{where}: labels above 2^53 are not exact in {labels.dtype}")
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        raise SegbenchError(f"{where}: labels must be integers, found {labels.dtype}")
    if labels.size == 0:
        raise SegbenchError(f"{where}: the label map is empty, shape {labels.shape}")
    if labels.min() < 0:
        raise SegbenchError(f"{where}: labels must be 0 (background) or above, found {labels.min()}")
    if labels.max() < 2**22:
        compact: npt.NDArray[np.int32] = np.zeros(labels.shape, np.int32)
        number(np.ascontiguousarray(labels, dtype=np.int32), int(labels.max()), 0, 0, compact)
        return compact
    values, ranks = np.unique(labels, return_inverse=True)
    numbers = ranks.reshape(labels.shape).astype(np.int32)
    return numbers if values[0] == 0 else numbers + np.int32(1)


@numba.njit(cache=True, nogil=True)
def number(labels, highest, top, left, out):  # type: ignore[no-untyped-def]
    """Write one window of a (H, W) int32 label map into ``out``, numbered 1..k in the order of its labels; return k.

    ``highest`` is the map's highest label. What of the window lies beyond the map is left as it is.
    """
    height = min(out.shape[0], labels.shape[0] - top)
    width = min(out.shape[1], labels.shape[1] - left)
    ranks = np.zeros(highest + 1, np.int32)
    for y in range(height):
        for x in range(width):
            ranks[labels[top + y, left + x]] = 1
    ranks[0] = 0
    k = 0
    for value in range(1, highest + 1):
        if ranks[value]:
            k += 1
            ranks[value] = k
    for y in range(height):
        for x in range(width):
            out[y, x] = ranks[labels[top + y, left + x]]
    return k
