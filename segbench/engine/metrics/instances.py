"""Scores possibly overlapping masks against true label maps, and folders of predictions of either kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import matching
from segbench.engine.metrics.batches import LARGEST_LABEL, LabelMaps, Progress, checked_map, paired
from segbench.engine.metrics.coco import MATCH_THRESHOLDS
from segbench.engine.metrics.evaluation import (
    MAX_DETECTIONS,
    AreaRanges,
    Evaluation,
    checked_groups,
    checked_limit,
)
from segbench.engine.metrics.labels import evaluate_labels, evaluated, joined
from segbench.errors import SegbenchError
from segbench.methods.predictions import MaskInstances, PredictionSet


def evaluate_instances(
    truth: LabelMaps,
    predictions: Iterable[MaskInstances],
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    *,
    area_ranges: AreaRanges | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score possibly overlapping masks as pycocotools' ``COCOeval`` (segm) does, to the last bit.

    Parameters
    ----------
    truth
        As `evaluate_labels` takes it.
    predictions
        The masks of each image as COCO's uncompressed run lengths, with their scores;
        ties are broken by position, then by image.
    groups, max_detections, area_ranges, progress
        As in `evaluate_labels`.

    Raises
    ------
    SegbenchError
        Where masks do not fit their image, or as `evaluate_labels`.
    """
    names, limit = checked_groups(groups), checked_limit(max_detections)
    parts = []
    for n, (labels, found) in enumerate(paired(truth, predictions)):
        flat = _column_major(checked_map(labels, "truth", n), n)
        runs, cuts = checked_runs(found, flat.size, n)
        scores = np.ascontiguousarray(found.scores, dtype=np.float64)
        counts, sums, lowest, *rest = matching.match_masks(flat, runs, cuts, scores, limit, MATCH_THRESHOLDS)
        if lowest < 0:
            raise _negative(lowest, n)
        matches, kept, *areas = rest
        extra = areas if area_ranges is not None else ()
        parts.append((counts[None], sums[None], scores, matches, kept, *extra))
        if progress is not None:
            progress(n + 1)
    counts, sums, *arrays = joined(parts)
    return evaluated(counts, sums, arrays, names, area_ranges)


def evaluate_prediction_set(
    truth: LabelMaps,
    prediction_set: PredictionSet,
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    *,
    area_ranges: AreaRanges | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a folder of predictions, whatever its kind: see `evaluate_labels` and `evaluate_instances`."""
    if prediction_set.kind == "labels":
        scores = scores_of_set(prediction_set)
        return evaluate_labels(
            truth,
            prediction_set.labels,
            scores,
            groups,
            max_detections,
            area_ranges=area_ranges,
            threads=threads,
            progress=progress,
        )
    return evaluate_instances(
        truth, masks_of_set(prediction_set), groups, max_detections, area_ranges=area_ranges, progress=progress
    )


def scores_of_set(prediction_set: PredictionSet) -> list[npt.NDArray[np.float64]]:
    """Return one array of scores an image."""
    return np.split(prediction_set.scores, prediction_set.offsets[1:-1]) if len(prediction_set) else []


def masks_of_set(prediction_set: PredictionSet) -> Iterable[MaskInstances]:
    """Yield each image's masks; a set of label maps raises SegbenchError."""
    for found in prediction_set:
        if not isinstance(found, MaskInstances):
            raise SegbenchError(f"{prediction_set.folder} holds label maps, not masks")
        yield found


def paint_instances(
    instances: MaskInstances, shape: tuple[int, int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return a label map (H, W) of possibly overlapping masks, and its labels' scores in ascending order.

    A pixel goes to the mask of the highest score that covers it, to the first of equals. Labels are the masks'
    positions, counted from 1; a mask that is covered whole has no label and no score.

    Examples
    --------
    >>> two = MaskInstances([np.array([0, 3, 1], np.uint32), np.array([2, 2], np.uint32)], np.array([0.5, 0.9]))
    >>> paint_instances(two, (2, 2))
    (array([[1, 2],
           [1, 2]], dtype=int32), array([0.5, 0.9]))
    """
    height, width = shape
    runs, cuts = checked_runs(instances, height * width, 0)
    scores = np.asarray(instances.scores, dtype=np.float64)
    flat = np.zeros(height * width, np.int32)
    # painted from the worst to the best, so that the best stays on top
    for k in np.argsort(-scores, kind="stable")[::-1]:
        edges = np.cumsum(runs[cuts[k] : cuts[k + 1]], dtype=np.int64)
        for start, stop in zip(edges[0::2], edges[1::2], strict=False):
            flat[start:stop] = k + 1
    present = np.unique(flat)
    labels = np.ascontiguousarray(flat.reshape(width, height).T)
    return labels, scores[present[present > 0] - 1]


def _negative(label: int, n: int) -> SegbenchError:
    return SegbenchError(f"truth[{n}] has the label {label}; labels go from 0, the background, up")


def _column_major(labels: npt.NDArray[Any], n: int) -> npt.NDArray[np.int32]:
    highest = int(labels.max(initial=0))
    if highest > LARGEST_LABEL:
        raise SegbenchError(f"truth[{n}] has the label {highest}; labels go from 0 to {LARGEST_LABEL}")
    if highest > max(labels.size, 1 << 16):
        # the kernel's tables are as long as the largest label
        present, flat = np.unique(labels, return_inverse=True)
        if present[0] < 0:
            raise _negative(present[0], n)
        labels = (flat + (present[0] != 0)).reshape(labels.shape)
    return np.ascontiguousarray(labels.T, dtype=np.int32).reshape(-1)


def checked_runs(found: MaskInstances, pixels: int, n: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return all run lengths end to end, and where each mask's begin and end; SegbenchError for another size."""
    if len(found.counts) != len(found.scores):
        raise SegbenchError(
            f"predictions[{n}] has {len(found.counts)} masks but {len(found.scores)} scores; give one a mask"
        )
    arrays = [np.asarray(counts, dtype=np.uint32) for counts in found.counts]
    cuts = np.concatenate([[0], np.cumsum([array.size for array in arrays])]).astype(np.int64)
    runs = np.concatenate([*arrays, np.zeros(0, np.uint32)])
    totals = np.add.reduceat(np.append(runs, 0).astype(np.int64), cuts[:-1]) if arrays else np.zeros(0, np.int64)
    totals[np.diff(cuts) == 0] = 0
    for k in np.flatnonzero(totals != pixels):
        raise SegbenchError(
            f"predictions[{n}]: the run lengths of mask {k} sum to {totals[k]}, the map has {pixels} pixels"
        )
    return runs, cuts
