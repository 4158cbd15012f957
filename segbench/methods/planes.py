"""What networks made for colour pictures see of windows with one, two or three channels, and how it is normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError
from segbench.methods.base import ImageStack
from segbench.methods.normalisations import FITTED, PUBLISHED

_MOST_WINDOWS = 1000


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the three planes, fitted to the prepared training windows."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def three_planes(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the (3, H, W) planes that a colour network sees of a window (C, H, W).

    One channel is repeated; two stay in the task's order (nuclear, membrane) before a plane of zeros.

    Raises
    ------
    SegbenchError
        For more than three channels, or none.

    Examples
    --------
    >>> three_planes(np.array([[[1.0]], [[2.0]]], np.float32)).ravel().tolist()
    [1.0, 2.0, 0.0]
    """
    channels = image.shape[0]
    if channels == 1:
        return np.repeat(image, 3, axis=0)
    if channels == 2:
        return np.concatenate([image, np.zeros_like(image[:1])])
    if channels != 3:
        raise SegbenchError(f"this method takes 1 to 3 channels, found {channels}")
    return image


def fit_normalisation(stack: ImageStack, windows: Sequence[int], how: str = FITTED) -> Normalisation:
    """Return mean and standard deviation of the three planes over up to 1,000 evenly chosen windows.

    A plane that does not vary keeps the standard deviation 1. With another ``how`` than ``fitted`` they are published
    ones, brought to the windows' 0..1.
    """
    if how != FITTED:
        mean, std = (tuple(value / 255 for value in values) for values in PUBLISHED[how])
        return Normalisation(*((v[0], v[1], v[2]) for v in (mean, std)))
    chosen = windows[:: -(-len(windows) // _MOST_WINDOWS)]
    sums = np.zeros((2, 3))
    for n in chosen:
        planes = three_planes(stack[n]).astype(np.float64)
        sums += planes.mean((1, 2)), (planes**2).mean((1, 2))
    means = sums[0] / len(chosen)
    stds = np.sqrt(np.maximum(sums[1] / len(chosen) - means**2, 0))
    stds[stds < 1e-6] = 1
    return Normalisation(tuple(means.tolist()), tuple(stds.tolist()))
