"""Tells how far images lie from those that a model was trained on, by what windows look like as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float64]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SIGMAS = (0.7, 1.4, 2.8, 5.6, 11.2)
"""Standard deviations in pixels of the Gaussians whose differences are the bands: from noise to a cell's size."""
_NEAREST = 3


def n_features(channels: int) -> int:
    """Return how many numbers describe a window of so many channels."""
    each = len(_QUANTILES) + len(_SIGMAS) + 2
    return channels * each + channels * (channels - 1) // 2


def describe_window(window: npt.NDArray[np.float32]) -> Floats:
    """Return what a window looks like, without knowing its cells.

    For each channel: five quantiles of its brightness; how much of its contrast lies in each of five bands of size
    (differences of Gaussians), as logarithms; the contrast itself; and how much its edges have one direction (the
    coherence of the structure tensor). For each pair of channels their correlation.

    Parameters
    ----------
    window
        (C, H, W), prepared: values in 0..1.

    Returns
    -------
    (D,), finite; see ``n_features``.

    Examples
    --------
    >>> describe_window(np.zeros((2, 32, 32), np.float32)).shape == (n_features(2),)
    True
    """
    planes = np.asarray(window, np.float64)
    found: list[float] = []
    for plane in planes:
        found += _plane(plane)
    for first in range(len(planes)):
        for second in range(first):
            found.append(_correlation(planes[first], planes[second]))
    return np.asarray(np.nan_to_num(found), np.float64)


def _plane(plane: Floats) -> list[float]:
    blurred = [ndimage.gaussian_filter(plane, sigma, mode="reflect") for sigma in _SIGMAS]
    bands = [first - second for first, second in zip([plane, *blurred], blurred, strict=False)]
    total = float(plane.std())
    shares = [float(np.log(band.std() / (total + 1e-6) + 1e-3)) for band in bands]
    gy, gx = np.gradient(blurred[1])
    xx, yy, xy = float((gx * gx).mean()), float((gy * gy).mean()), float((gx * gy).mean())
    coherence = float(np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-12))
    return [*np.quantile(plane, _QUANTILES).tolist(), *shares, total, coherence]


def _correlation(first: Floats, second: Floats) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).mean() / (a.std() * b.std() + 1e-9))


def describe_windows(windows: Iterable[npt.NDArray[np.float32]]) -> Floats:
    """Return (N, D), a row a window."""
    return np.asarray([describe_window(window) for window in windows])


def distances(images: Floats, models: Sequence[Floats]) -> Floats:
    """Return how far images lie from the training windows of each of several models (M,); smaller is more alike.

    Each number is scaled by its spread over all the models' windows together, so that none outweighs the others. A
    window's distance to a model is the mean of those to its three nearest training windows (Euclidean, divided by the
    root of the number of features); the images' is the mean of their windows'. 0 is a window that was trained on, about
    1 is as far as two windows of any models lie apart.

    Parameters
    ----------
    images
        (N, D) of the images' windows.
    models
        (n, D) of each model's training windows; an empty one is infinitely far.

    Examples
    --------
    >>> near, far = np.array([[0.0], [1.0]]), np.array([[10.0], [11.0]])
    >>> [round(float(d), 1) for d in distances(np.array([[0.5]]), [near, far])]
    [0.1, 2.0]
    """
    known = [model for model in models if len(model)]
    if not known or not len(images):
        return np.full(len(models), np.inf)
    pool = np.concatenate(known)
    spread = pool.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    return np.asarray([_distance(images / spread, model / spread) if len(model) else np.inf for model in models])


def _distance(images: Floats, model: Floats) -> float:
    apart = np.sqrt(((images[:, None] - model[None]) ** 2).mean(axis=2))
    nearest = np.sort(apart, axis=1)[:, :_NEAREST]
    return float(nearest.mean())
