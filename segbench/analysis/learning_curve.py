"""How many images a method needs: its score against what it was trained on, and where more stops to pay."""

from __future__ import annotations

import importlib.resources
import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.optimize import least_squares

from segbench.analysis.frames import groups
from segbench.analysis.result import Result
from segbench.analysis.scores import RESAMPLES, Floats, check_metric, interval
from segbench.analysis.source import Source
from segbench.errors import SegbenchError

_LEAST = 3
_DRAWS = 300
_SEED = 20
_MOST_LOST = 20.0
_EXPONENTS = np.geomspace(0.05, 3.0, 240)
_KEYS = ("task", "method", "train_tissue")
_FITTED = {
    "task": pl.String, "method": pl.String, "train_tissue": pl.String, "against": pl.String, "sizes": pl.Int64,
    "ceiling": pl.Float64, "ceiling_low": pl.Float64, "ceiling_high": pl.Float64, "exponent": pl.Float64,
    "largest": pl.Int64, "score": pl.Float64, "doubled": pl.Float64, "doubled_low": pl.Float64,
    "doubled_high": pl.Float64, "stop": pl.Float64, "stop_low": pl.Float64, "stop_high": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A score that comes ever nearer to a ceiling: ``ceiling - lost * n ** -exponent``.

    Examples
    --------
    >>> curve = Curve(ceiling=0.8, lost=0.5, exponent=0.5)
    >>> round(float(curve.at(100)), 3), round(curve.stop(gain=0.01), 1)
    (0.75, 214.5)
    """

    ceiling: float
    lost: float
    exponent: float

    def at(self, n: float | Floats) -> Floats:
        """Return the score of so many."""
        return np.asarray(self.ceiling - self.lost * np.asarray(n, np.float64) ** -self.exponent)

    def stop(self, gain: float) -> float:
        """Return from how many on twice as many bring less than ``gain``."""
        first = self.lost * (1 - 2**-self.exponent)
        return 1.0 if first <= gain else float((first / gain) ** (1 / self.exponent))


def fit(n: Floats, scores: Floats) -> Curve:
    """Return the curve that lies nearest to scores of 0..1, by least squares.

    Parameters
    ----------
    n, scores
        (k,), at least three different numbers.

    Examples
    --------
    >>> n = np.array([5.0, 10, 20, 50, 100])
    >>> fitted = fit(n, 0.9 - 0.6 * n**-0.7)
    >>> round(fitted.ceiling, 2), round(fitted.lost, 2), round(fitted.exponent, 2)
    (0.9, 0.6, 0.7)
    """

    def residuals(p: Floats) -> Floats:
        return np.asarray(Curve(*map(float, p)).at(n) - scores)

    best = None
    for exponent in (0.3, 1.0):
        found = least_squares(
            residuals,
            x0=(min(0.99, float(scores.max()) + 0.02), 0.5, exponent),
            bounds=((0.0, 0.0, _EXPONENTS[0]), (1.0, _MOST_LOST, _EXPONENTS[-1])),
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return Curve(*map(float, best.x))


def fit_draws(n: Floats, scores: Floats) -> list[Curve]:
    """Return the curve of each draw: of many exponents the one whose curve lies nearest, by linear least squares.

    Parameters
    ----------
    n
        (k,), at least three different numbers.
    scores
        (draws, k), of 0..1.

    Examples
    --------
    >>> n = np.array([5.0, 10, 20, 50, 100])
    >>> (found,) = fit_draws(n, (0.9 - 0.6 * n**-0.7)[None])
    >>> round(found.ceiling, 2), round(found.lost, 2), round(found.exponent, 2)
    (0.9, 0.6, 0.7)
    """
    best = np.full((len(scores), 4), np.inf)
    for exponent in _EXPONENTS:
        x = n**-exponent
        apart = x - x.mean()
        lost = np.clip(-(scores @ apart) / (apart @ apart), 0, _MOST_LOST)
        ceiling = np.clip(scores.mean(axis=1) + lost * x.mean(), 0, 1)
        # where the ceiling is at its bound the loss that fits to it
        lost = np.clip((ceiling[:, None] - scores) @ x / (x @ x), 0, _MOST_LOST)
        cost = ((ceiling[:, None] - lost[:, None] * x - scores) ** 2).sum(axis=1)
        nearer = cost < best[:, 0]
        best[nearer] = np.stack([cost, ceiling, lost, np.full_like(cost, exponent)], axis=1)[nearer]
    return [Curve(*map(float, row[1:])) for row in best]


def fit_learning_curves(source: Source, *, metric: str = "accuracy", gain: float = 0.01) -> Result:
    """Fit each method's score against the images, and the cells, that it was trained on.

    The score is ``ceiling - lost * n ** -exponent``. Intervals are those of a bootstrap: every draw takes a resample of
    the test images (the same for all sizes, where runs have them) and of the seeds of each size.

    Parameters
    ----------
    source
        A results folder with runs of ``train_images``.
    metric
        Of the scores.
    gain
        Annotating twice as much pays while it brings at least so much.

    Returns
    -------
    Result
        A row a task, method, training tissue and size: images, cells, score (mean over seeds), low and high over
        seeds, runs. Part ``fits``: a row each, against images and cells, with the ceiling, the score at the largest
        size and at twice that, and ``stop``, from where on twice as many bring less than ``gain``; with 95 % intervals.

    Raises
    ------
    SegbenchError
        The metric is unknown, or ``gain`` is not between 0 and 1.
    """
    check_metric(metric)
    if not 0 < gain < 1:
        raise SegbenchError(f"gain must lie between 0 and 1, found {gain}")
    sql = (importlib.resources.files("segbench.analysis") / "learning_curve.sql").read_text()
    rows = source.frame(sql).with_columns(pl.col(metric).alias("score")).drop_nulls("score")
    health = source.health()
    warnings = [] if health.runs else list(health.warnings)
    if not rows.height:
        warnings.append(
            f"{source.label} have no run on a part of the training images: give a grid train_images, such as "
            "[5, 10, 20, 50, all]"
        )
    unknown = rows.filter(pl.col("images").is_null() | pl.col("cells").is_null())
    if unknown.height:
        warnings.append(f"{unknown.height} runs of an older segbench do not tell their images: left out")
    rows = rows.drop_nulls(["images", "cells"])
    sampled = _samples(source, metric) if rows.height and not source.published else {}
    sizes, fits, findings = [], [], []
    for keys, group in groups(rows, _KEYS):
        points = _points(group)
        sizes.append(points)
        if points.height < _LEAST:
            warnings.append(f"{_name(keys)} has {points.height} sizes: a curve needs {_LEAST}, better five")
            continue
        if points.height == _LEAST:
            warnings.append(f"{_name(keys)} has {_LEAST} sizes: the curve goes through all of them, nothing checks it")
        for against in ("images", "cells"):
            fitted = _fitted(group, points, against, sampled, gain)
            fits.append({**keys, "against": against, **fitted})
            if against == "images":
                findings.append(_tell(keys, fitted, metric, gain))
    if fits:
        warnings.append("validation images are the same for every size: they must be annotated, too")
    table = pl.concat(sizes) if sizes else _points(rows)
    return Result(
        "learning-curve", source.label, table, tuple(findings), tuple(warnings), sql,
        {"fits": pl.DataFrame(fits, schema=_FITTED)},
    )  # fmt: skip


def _points(rows: pl.DataFrame) -> pl.DataFrame:
    return (
        rows.group_by(*_KEYS, pl.col("train_images").fill_null(pl.col("images")).alias("images"), maintain_order=True)
        .agg(
            pl.col("cells").mean(),
            pl.col("score").mean(),
            pl.col("score").min().alias("low"),
            pl.col("score").max().alias("high"),
            pl.len().alias("runs"),
        )
        .sort(*_KEYS, "images")
    )


def _samples(source: Source, metric: str) -> dict[str, Floats]:
    """Return each run's metric in every resample of its test images."""
    value = "(map + ap50 + ap75 + ar50 + ar75) / 5" if metric == "accuracy" else metric
    found = source.frame(f"select run_id, {value} as score from resamples order by run_id, resample")
    return {str(keys["run_id"]): group["score"].to_numpy() for keys, group in groups(found, ["run_id"])}


def _fitted(
    group: pl.DataFrame, points: pl.DataFrame, against: str, sampled: dict[str, Floats], gain: float
) -> dict[str, float | int | None]:
    n = points[against].to_numpy().astype(np.float64)
    largest = float(n.max())
    curve = fit(n, points["score"].to_numpy())
    draws = _draws(group, points, sampled)
    drawn = fit_draws(n, np.stack(draws)) if draws else []
    told: dict[str, float | int | None] = {
        "sizes": points.height,
        "ceiling": curve.ceiling,
        "exponent": curve.exponent,
        "largest": int(largest),
        "score": float(points["score"][int(n.argmax())]),
        "doubled": float(curve.at(2 * largest)),
        "stop": curve.stop(gain),
    }
    for name, values in (
        ("ceiling", [one.ceiling for one in drawn]),
        ("doubled", [float(one.at(2 * largest)) for one in drawn]),
        ("stop", [one.stop(gain) for one in drawn]),
    ):
        low, high = interval(np.asarray(values)) if values else (None, None)
        told |= {
            f"{name}_low": None if low is None else float(low),
            f"{name}_high": None if high is None else float(high),
        }
    return told


def _draws(group: pl.DataFrame, points: pl.DataFrame, sampled: dict[str, Floats]) -> list[Floats]:
    """Return the scores of every size in each draw; none where there is nothing to draw from."""
    sizes = [group.filter(pl.col("train_images").fill_null(pl.col("images")) == images) for images in points["images"]]
    every = [run for size in sizes for run in size["run_id"]]
    resampled = all(run in sampled and np.isfinite(sampled[run]).all() for run in every)
    if not resampled and max(size.height for size in sizes) < 2:
        return []
    rng = np.random.default_rng(_SEED)
    many = min((len(sampled[run]) for run in every), default=0) if resampled else 0
    drawn = []
    for _ in range(min(_DRAWS, RESAMPLES)):
        resample = int(rng.integers(many)) if resampled else 0
        scores = []
        for size in sizes:
            picked = rng.integers(size.height, size=size.height)
            runs, own = size["run_id"].to_list(), size["score"].to_list()
            scores.append(np.mean([sampled[runs[i]][resample] if resampled else own[i] for i in picked]))
        drawn.append(np.asarray(scores, np.float64))
    return drawn


def _name(keys: dict[str, str]) -> str:
    return f"{keys['method']} on {keys['task']} ({keys['train_tissue']})"


def _tell(keys: dict[str, str], fitted: dict[str, float | int | None], metric: str, gain: float) -> str:
    stop, largest = fitted["stop"], fitted["largest"]
    assert stop is not None
    assert largest is not None
    low, high = fitted["stop_low"], fitted["stop_high"]
    between = f" ({_many(low)} to {_many(high)})" if low is not None and high is not None else ""
    reached = "within" if stop <= largest else "beyond"
    return (
        f"{_name(keys)}: {metric} {fitted['score']:.3f} with {largest} images; twice as many bring less than {gain:g} "
        f"from {_many(stop)} images on{between}, {reached} what was tried"
    )


def _many(n: float) -> str:
    return "over a million" if n > 1e6 else f"{math.ceil(n):,}"
