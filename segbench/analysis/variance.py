"""How sure a score is: the variance of its mean over seeds, test images and tissues, and intervals made of these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import stdtr, stdtrit

from segbench.analysis.scores import LEVEL, Floats

SEEDS, IMAGES, TISSUES = "seeds", "test images", "test tissues"
_TWO_SEEDS = 1


@dataclass(frozen=True)
class Part:
    """A share of the variance of an estimate: where it comes from, and how well it is known."""

    of: str
    """``seeds``, ``test images`` or ``test tissues``."""
    variance: float
    freedom: float
    """Degrees of freedom of the variance's own estimate."""


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of scores, and the parts of its variance that are known."""

    value: float
    parts: tuple[Part, ...] = ()
    seeds_open: bool = False
    """True where training with another seed may give another score and there is one seed alone: its interval covers
    what is drawn in ``parts`` only, and nothing can be claimed of the method."""

    @property
    def variance(self) -> float:
        """Of the estimate, over all parts; NaN where none is known."""
        return sum(part.variance for part in self.parts) if self.parts else math.nan

    @property
    def of(self) -> str:
        """What the interval is over, in words."""
        return " and ".join(dict.fromkeys(part.of for part in self.parts))

    def deviation(self, of: str) -> float | None:
        """Return the standard error that comes from one source; None where that is not known."""
        found = [part.variance for part in self.parts if part.of == of]
        return math.sqrt(sum(found)) if found else None

    @property
    def half(self) -> float:
        """Half of the 95 % interval's width; NaN where no variance is known.

        Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946); a part that stands on two seeds enters by its
        own quantile (Cochran and Cox), for a deviation of two says too little to be pooled with another.
        """
        total = self.variance
        if not total > 0:
            return total
        if self._on_two:
            quantile = sum(part.variance * _quantile(part.freedom) for part in self.parts) / total
        else:
            quantile = _quantile(self.freedom)
        return quantile * math.sqrt(total)

    @property
    def _on_two(self) -> bool:
        return any(part.freedom <= _TWO_SEEDS and part.variance > 0 for part in self.parts)

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of the whole variance."""
        total = self.variance
        known = [part for part in self.parts if part.variance > 0]
        if not known:
            return math.inf
        return total**2 / sum(part.variance**2 / part.freedom for part in known)

    @property
    def low(self) -> float | None:
        """The lower end of the 95 % interval."""
        return None if math.isnan(self.half) else self.value - self.half

    @property
    def high(self) -> float | None:
        """The upper end of the 95 % interval."""
        return None if math.isnan(self.half) else self.value + self.half

    @property
    def p(self) -> float | None:
        """The two-sided p value of the true value being 0; None where no claim can be made."""
        if self.seeds_open or not self.parts:
            return None
        if self.variance <= 0:
            return 0.0 if abs(self.value) > 1e-12 else 1.0
        # the degrees of freedom of the quantile in use, so that p < 0.05 and an interval without 0 are one
        freedom = _freedom_of(self.half / math.sqrt(self.variance)) if self._on_two else self.freedom
        return float(2 * stdtr(freedom, -abs(self.value) / math.sqrt(self.variance)))


def estimate(
    seeds: Floats, draws: Floats | None = None, n_images: int | None = None, *, random: bool = True, of: str = IMAGES
) -> Estimate:
    """Return the mean over seeds of one method's score, and how sure it is.

    Parameters
    ----------
    seeds
        (S,) the score with each seed.
    draws
        (S, B) the score with each seed in the same resamples of the test images; None where there are none.
    n_images
        How many images a resample draws; their bootstrap's variance is n / (n - 1) times too small.
    random
        False where a seed changes nothing, for nothing is trained.
    of
        What was resampled.
    """
    return contrast([(1.0, seeds, draws, random)], n_images, of=of)


def contrast(
    terms: Sequence[tuple[float, Floats, Floats | None, bool]], n_images: int | None = None, *, of: str = IMAGES
) -> Estimate:
    """Return a weighted sum of methods' means over seeds, and how sure it is.

    The terms share their test images, so what all find hard cancels in a difference; their seeds are their own. With
    seeds S, images I and their interaction, the variance over resamples of a mean over seeds holds I + SI / S, and that
    of the seeds' scores S + SI: what both hold is counted once.

    Parameters
    ----------
    terms
        Weight, scores by seed (S,), draws (S, B) or None, and whether a seed changes the score.
    n_images
        How many images a resample draws.
    of
        What was resampled.
    """
    value = sum(weight * float(np.mean(seeds)) for weight, seeds, _, _ in terms)
    correction = 1.0 if n_images is None or n_images < 2 else n_images / (n_images - 1)
    parts: list[Part] = []
    n_draws = min((draws.shape[1] for _, _, draws, _ in terms if draws is not None), default=0)
    if n_draws > 1 and all(draws is not None for _, _, draws, _ in terms):
        means = sum(weight * draws[:, :n_draws].mean(axis=0) for weight, _, draws, _ in terms if draws is not None)
        freedom = n_draws - 1 if n_images is None else max(1, min(n_images, n_draws) - 1)
        parts.append(Part(of, float(np.var(means, ddof=1)) * correction, freedom))
    open_seeds = False
    for weight, seeds, draws, random in terms:
        if not random or weight == 0:
            continue
        if len(seeds) < 2:
            open_seeds = True
            continue
        variance = float(np.var(seeds, ddof=1))
        if draws is not None and parts:
            within = float(np.var(draws, axis=1, ddof=1).mean()) - float(np.var(draws.mean(axis=0), ddof=1))
            variance -= max(0.0, within * correction * len(seeds) / (len(seeds) - 1))
        parts.append(Part(SEEDS, weight**2 * max(0.0, variance) / len(seeds), len(seeds) - 1))
    return Estimate(value, tuple(parts), open_seeds)


def mean_estimate(values: Floats, of: str, weights: Floats | None = None) -> Estimate:
    """Return the (weighted) mean of independent values, such as one a tissue, and how sure it is."""
    shares = np.full(len(values), 1 / len(values)) if weights is None else weights / weights.sum()
    value = float((shares * values).sum())
    if len(values) < 2:
        return Estimate(value)
    # of a weighted mean: exact where the weights are equal
    variance = float((shares**2 * (values - value) ** 2).sum()) * len(values) / (len(values) - 1)
    return Estimate(value, (Part(of, variance, len(values) - 1),))


def with_seed_interval(frame: pl.DataFrame, deviation: str) -> pl.DataFrame:
    """Return rows of means over seeds with their 95 % intervals, ``value_low`` and ``value_high``; null with one seed.

    Parameters
    ----------
    frame
        Columns ``value``, ``seeds`` and the seeds' standard deviation.
    deviation
        The name of the last.
    """
    if not frame.height:
        return frame.with_columns(
            pl.lit(None, pl.Float64).alias("value_low"), pl.lit(None, pl.Float64).alias("value_high")
        )
    seeds = frame["seeds"].to_numpy().astype(np.float64)
    quantile = stdtrit(np.maximum(seeds - 1, 1), (1 + LEVEL) / 2)
    half = pl.Series(quantile / np.sqrt(seeds)) * frame[deviation]
    known = pl.col("seeds") > 1
    return (
        frame.with_columns(half.alias("_half"))
        .with_columns(
            pl.when(known).then((pl.col("value") - pl.col("_half")).clip(0, 1)).alias("value_low"),
            pl.when(known).then((pl.col("value") + pl.col("_half")).clip(0, 1)).alias("value_high"),
        )
        .drop("_half")
    )


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return p values corrected for their number by Holm's method (Scandinavian Journal of Statistics 6, 1979).

    Examples
    --------
    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    # not by statsmodels' multipletests, which collects all garbage of the process at each call
    known = [n for n, value in enumerate(p) if value is not None]
    values = np.array([p[n] for n in known], np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    corrected: list[float | None] = [None] * len(p)
    for at, step in zip(order, steps, strict=True):
        corrected[known[at]] = float(min(step, 1.0))
    return corrected


def _quantile(freedom: float) -> float:
    return float(stdtrit(min(freedom, 1e9), (1 + LEVEL) / 2))


def _freedom_of(quantile: float) -> float:
    from scipy.optimize import brentq

    return float(brentq(lambda freedom: _quantile(freedom) - quantile, 0.5, 1e6))
