"""Confidence intervals of COCO's metrics by drawing images again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.coco import IOU_THRESHOLDS, RECALL_THRESHOLDS, accumulate_resamples, order_by_score
from segbench.engine.metrics.evaluation import AP50, AP75, METRICS, Evaluation
from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Interval:
    """A metric's percentile interval."""

    low: float
    """Its lower end; NaN where no resample had truth."""
    high: float
    """Its upper end."""
    samples: npt.NDArray[np.float64] = field(repr=False)
    """(B,), the metric in each resample, -1.0 where one had no truth."""


def confidence_intervals(
    evaluation: Evaluation, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> pl.DataFrame:
    """Return how sure each metric is: percentile intervals over resamples of the images (Efron, 1979).

    A resample draws as many images as there are, with replacement, and is evaluated as COCO evaluates that set of
    images; nothing is matched again.

    Parameters
    ----------
    evaluation
        What `evaluate` returned, or one radius of a `sweep`.
    resamples
        How many are drawn; at least 1.
    confidence
        The intervals' coverage, between 0 and 1.
    seed
        Equal seeds draw equal resamples.

    Returns
    -------
    One row a metric of all images (``subset`` 'all') and of each group: ``subset``, ``metric``, ``value``, ``low`` and
    ``high``, all in 0..1; null where the subset has no true cell.

    Raises
    ------
    SegbenchError
        ``resamples``, ``confidence`` or ``seed`` is out of range, or ``evaluation`` is none.

    Examples
    --------
    >>> import numpy as np
    >>> import segbench
    >>> truth = np.zeros((4, 1, 8), int)
    >>> truth[:, 0, :3] = 1
    >>> found = truth.copy()
    >>> found[3, 0, 1:3] = 0  # the cell of the last image is not found
    >>> result = segbench.evaluate(truth, found)
    >>> segbench.confidence_intervals(result, resamples=200).row(4)
    ('all', 'ar50', 0.75, 0.5, 1.0)
    """
    import polars as pl

    if not isinstance(evaluation, Evaluation):
        found = type(evaluation).__name__
        raise SegbenchError(f"evaluation is of type {found}; give what evaluate(truth, predictions) returns")
    rows: list[dict[str, Any]] = []
    for name, scores in evaluation.subsets().items():
        group = name if name in evaluation.groups else None
        drawn = bootstrap_intervals(evaluation, n_resamples=resamples, confidence=confidence, seed=seed, group=group)
        for metric, value in scores.row().items():
            low, high = (None, None) if value is None else (drawn[metric].low, drawn[metric].high)
            rows.append({"subset": name, "metric": metric, "value": value, "low": low, "high": high})
    text = dict.fromkeys(("subset", "metric"), pl.String)
    return pl.DataFrame(rows, schema={**text, **dict.fromkeys(("value", "low", "high"), pl.Float64)})


def bootstrap_intervals(
    evaluation: Evaluation,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    group: str | None = None,
) -> dict[str, Interval]:
    """Return, by metric, the percentile interval over resamples of images (Efron, 1979).

    A resample draws as many images as there are, with replacement, and is evaluated as COCO evaluates that set of
    images, repeated images one after the other; nothing is matched again.

    Parameters
    ----------
    evaluation
        The result of `evaluate_labels`, `evaluate_instances` or a sweep.
    n_resamples
        B.
    confidence
        Between 0 and 1.
    seed
        Equal seeds draw equal resamples.
    group
        Draw the images of this group only.

    Raises
    ------
    SegbenchError
        For a confidence or number of resamples out of range, or an unknown group.
    """
    if not 0 < confidence < 1:
        raise SegbenchError(f"the confidence is {confidence}; it lies between 0 and 1, as 0.95")
    if n_resamples < 1:
        raise SegbenchError(f"{n_resamples} resamples; draw at least 1")
    if seed < 0:
        raise SegbenchError(f"the seed is {seed}; a seed is 0 or a larger whole number")
    members = np.arange(len(evaluation.images))
    if group is not None:
        if group not in evaluation.groups:
            raise unknown_name("group", group, evaluation.groups)
        members = np.flatnonzero(np.array([name == group for name in evaluation.images.groups or ()]))
    rng = np.random.default_rng(seed)
    weights = np.zeros((n_resamples, len(evaluation.images)), np.int64)
    weights[:, members] = rng.multinomial(members.size, np.full(members.size, 1 / members.size), n_resamples)
    samples = resampled_metrics(evaluation, weights)
    tail = 50 * (1 - confidence)
    intervals = {}
    for name in METRICS:
        valid = samples[name][samples[name] > -1]
        low, high = np.percentile(valid, [tail, 100 - tail]) if valid.size else (np.nan, np.nan)
        intervals[name] = Interval(float(low), float(high), samples[name])
    return intervals


def paired_samples(
    evaluation: Evaluation, units: Sequence[str], *, n_resamples: int = 200, key: str = ""
) -> dict[str, npt.NDArray[np.float64]]:
    """Return, by metric, the values (B,) in resamples that are the same for every method scored on the same images.

    Ranks and differences of methods are resampled by taking each method's value of the same resample: the draws depend
    on ``units`` and ``key`` alone, not on what was predicted.

    Parameters
    ----------
    evaluation
        N evaluated windows.
    units
        N names: windows of one name (those cut from one image) are drawn together.
    n_resamples
        B.
    key
        What tells this test set's draws from those of another with equal names, such as its fingerprint.

    Raises
    ------
    SegbenchError
        Where ``units`` does not name every window.
    """
    if len(units) != len(evaluation.images):
        raise SegbenchError(f"{len(units)} names for {len(evaluation.images)} windows")
    names, member = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    seed = hashlib.sha256("\n".join([key, *names.tolist()]).encode()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    drawn = rng.multinomial(names.size, np.full(names.size, 1 / max(1, names.size)), n_resamples)
    return resampled_metrics(evaluation, drawn[:, member])


def resampled_metrics(evaluation: Evaluation, weights: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the six metrics (B,) of sets that hold image n ``weights[b, n]`` times, copies one after the other."""
    detections = evaluation.detections
    order = order_by_score(detections.scores)
    order = order[detections.kept[order]]
    scores, images = detections.scores[order], detections.images[order]
    starts = np.ones(order.size + 1, np.bool_)
    starts[1:-1] = (scores[1:] != scores[:-1]) | (images[1:] != images[:-1])
    edges = np.flatnonzero(starts)
    ends = np.repeat(edges[1:], np.diff(edges))
    precision, recall = accumulate_resamples(
        detections.matches[order],
        images,
        ends,
        np.ascontiguousarray(weights, dtype=np.int64),
        np.ascontiguousarray(evaluation.images.n_truth),
        IOU_THRESHOLDS.size,
        RECALL_THRESHOLDS,
    )
    return {
        "map": precision.mean(axis=1),
        "ap50": precision[:, AP50],
        "ap75": precision[:, AP75],
        "ar": recall.mean(axis=1),
        "ar50": recall[:, AP50],
        "ar75": recall[:, AP75],
    }
