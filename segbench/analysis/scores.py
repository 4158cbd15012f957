"""The small statistics that analyses share: metrics by name, z-scores through the normal distribution, bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from segbench.errors import unknown_name

Floats = npt.NDArray[np.float64]
METRICS = ("accuracy", "map", "ap50", "ap75", "ar", "ar50", "ar75")
"""The metrics of an evaluation; accuracy is the mean of mAP, AP50, AP75, AR50 and AR75."""
RESAMPLES = 2000
"""Bootstrap resamples where none are asked for."""
LEVEL = 0.95
"""Coverage of every interval."""


def check_metric(name: str) -> str:
    """Return the metric's name; raises SegbenchError for one that there is not."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return name


def normal_scores(values: npt.ArrayLike) -> Floats:
    """Return the values z-scored (population standard deviation) and mapped through the normal distribution function.

    Parameters
    ----------
    values
        1-D floats; NaN is a missing value.

    Returns
    -------
    Floats in 0..1, 0.5 for the mean; NaN where missing, and everywhere when fewer than two values are there. Equal
    values give 0.5.

    Examples
    --------
    >>> normal_scores([1.0, 2.0, 3.0]).round(4).tolist()
    [0.1103, 0.5, 0.8897]
    >>> normal_scores([7.0]).tolist()
    [nan]
    """
    x = np.asarray(values, dtype=np.float64)
    known = np.isfinite(x)
    if known.sum() < 2:
        return np.full(x.shape, np.nan)
    mean, spread = x[known].mean(), x[known].std()
    # Equal values have a spread of rounding errors only
    if spread <= 1e-12 * max(1.0, abs(mean)):
        return np.where(known, 0.5, np.nan)
    return np.asarray(ndtr((x - mean) / spread), dtype=np.float64)


def drawn_normal_scores(values: Floats) -> Floats:
    """Return the normal scores of every row of draws x methods, as `normal_scores` gives them of one."""
    mean, spread = values.mean(axis=1, keepdims=True), values.std(axis=1, keepdims=True)
    even = spread <= 1e-12 * np.maximum(1.0, np.abs(mean))
    return np.where(even, 0.5, ndtr((values - mean) / np.where(even, 1.0, spread)))


def interval(samples: Floats, axis: int = 0) -> tuple[Floats, Floats]:
    """Return the bootstrap's percentile interval (95 %) along an axis."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=axis)
    return low, high


def paired_interval(
    gaps: Floats, weights: Floats, centre: float, resamples: int, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    """Return the bootstrap interval (95 %) of the weighted mean of paired differences, moved to be about ``centre``.

    Parameters
    ----------
    gaps, weights
        A difference and its weight for each pair.
    centre
        The point estimate; it may differ from the weighted mean of the pairs where it was pooled in another way.

    Returns
    -------
    Lower and upper end, or None twice with fewer than two pairs.
    """
    if len(gaps) < 2:
        return None, None
    chosen = rng.integers(len(gaps), size=(resamples, len(gaps)))
    picked = weights[chosen]
    means = (picked * gaps[chosen]).sum(axis=1) / picked.sum(axis=1)
    low, high = interval(means + (centre - np.average(gaps, weights=weights)))
    return float(low), float(high)
