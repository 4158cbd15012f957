"""Scores predicted label maps against true ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import matching
from segbench.engine.metrics.batches import Batch, LabelMaps, MapBatch, Progress, mapped, paired_maps
from segbench.engine.metrics.coco import MATCH_THRESHOLDS
from segbench.engine.metrics.counting import count_batch, executor_of
from segbench.engine.metrics.evaluation import (
    MAX_DETECTIONS,
    AreaRanges,
    Detections,
    Evaluation,
    ImageCounts,
    assemble,
    check_group_count,
    checked_groups,
    checked_limit,
    ordered_by_score,
    scores_by_area,
)
from segbench.errors import SegbenchError

ScoreArrays = Sequence[npt.ArrayLike]


def evaluate_labels(
    truth: LabelMaps,
    predictions: LabelMaps,
    scores: ScoreArrays | None = None,
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    *,
    area_ranges: AreaRanges | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score predicted label maps as pycocotools' ``COCOeval`` (segm) does, to the last bit.

    Parameters
    ----------
    truth, predictions
        Stacks (N, H, W), memory-mapped or not, or iterables of (H, W) maps of any size; any
        integer type, 0 is background, labels may have gaps and go up to 2^31 - 1. They are
        streamed: one pass, few maps in memory at a time.
    scores
        One array a map, in ascending order of the map's labels; ties are broken by label, then by image. None: every
        prediction scores 1.0, so that the order is that of the images and of the labels in them.
    groups
        One name a map (its tissue), for scores per group from the same matching.
    max_detections
        Predictions beyond the so many best of an image are dropped, as COCO's ``maxDets``.
    area_ranges
        Names and bounds of cell areas in pixels to score apart, as COCO's ``areaRng``.
    threads
        On how many threads the maps are read and matched.
    progress
        Called with how many images are done.

    Raises
    ------
    SegbenchError
        Where maps, scores and groups do not fit each other, labels are negative or not integers, or a score is NaN.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 0, 2], [1, 1, 0, 2]]])
    >>> evaluate_labels(truth, truth).pooled.map
    1.0
    >>> found = np.array([[[7, 7, 0, 0], [7, 0, 0, 0]]])  # one of two cells, IoU 0.75
    >>> result = evaluate_labels(truth, found, scores=[[0.9]]).pooled
    >>> round(result.ap50, 4), result.ar50, result.ar
    (0.505, 0.5, 0.3)
    """
    names, limit = checked_groups(groups), checked_limit(max_detections)
    nothing, no_offsets = np.zeros(0), np.zeros(1, np.int64)

    pieces = executor_of(threads)

    def match(batch: MapBatch) -> tuple[npt.NDArray[Any], ...]:
        n = len(batch.truth)
        given, cuts = (
            batch_scores(scores, batch.first, n) if scores is not None else (nothing, no_offsets.repeat(n + 1))
        )
        pairs = count_batch(batch, map if pieces is None else pieces.map)
        counts, sums, lowest, *rest = matching.match_pairs(*pairs, given, cuts, limit, MATCH_THRESHOLDS)
        refuse_negative(lowest, batch)
        if scores is not None:
            refuse_other_counts(counts[:, matching.N_PREDICTIONS], np.diff(cuts), batch.first)
        else:
            given = np.ones(rest[0].size)
        matches, kept, *areas = rest
        return counts, sums, given, matches, kept, *(areas if area_ranges is not None else ())

    try:
        parts = list(mapped(match, paired_maps(truth, predictions), threads, progress))
    finally:
        if pieces is not None:
            pieces.shutdown()
    counts, sums, *arrays = joined(parts)
    if scores is not None and len(scores) != len(counts):
        raise SegbenchError(f"scores has {len(scores)} arrays for {len(counts)} label maps; give one array a map")
    return evaluated(counts, sums, arrays, names, area_ranges)


def batch_scores(scores: ScoreArrays, first: int, n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the scores of ``n`` maps from map ``first`` on, end to end, and where each map's begin and end."""
    arrays = [_scores_of_map(array, first + k) for k, array in enumerate(scores[first : first + n])]
    if len(arrays) < n:
        raise SegbenchError(f"scores has {len(scores)} arrays for more label maps; give one array a map")
    cuts = np.zeros(n + 1, np.int64)
    np.cumsum([array.size for array in arrays], out=cuts[1:])
    return np.concatenate(arrays), cuts


def _scores_of_map(given: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    try:
        return np.asarray(given, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise SegbenchError(f"scores[{n}] is {given!r:.60}; give one number a label of map {n}") from None


def refuse_negative(lowest: npt.NDArray[np.int32], batch: Batch | MapBatch) -> None:
    """Raise SegbenchError where a pair of maps has a negative label."""
    for n in np.flatnonzero(lowest < 0):
        what = "truth" if batch.true_map(int(n)).min() < 0 else "predictions"
        raise SegbenchError(
            f"{what}[{batch.first + n}] has the label {lowest[n]}; labels go from 0, the background, up"
        )


def refuse_other_counts(found: npt.NDArray[np.int64], given: npt.NDArray[np.int64], first: int) -> None:
    """Raise SegbenchError where a map has more or fewer labels than scores."""
    for n in np.flatnonzero(found != given):
        raise SegbenchError(
            f"scores[{first + n}] has {given[n]} scores, predictions[{first + n}] {found[n]} labels; give one a label"
        )


def joined(parts: list[tuple[npt.NDArray[Any], ...]]) -> list[npt.NDArray[Any]]:
    """Return each array of the parts end to end, and empty the list; no parts at all raise SegbenchError."""
    if not parts:
        raise SegbenchError("truth and predictions hold no label maps; give at least one pair")
    columns = [list(arrays) for arrays in zip(*parts, strict=True)]
    parts.clear()
    # one column after the other, so that never all are there twice
    return [np.concatenate(columns.pop(0)) for _ in range(len(columns))]


def evaluated(
    counts: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    arrays: Sequence[npt.NDArray[Any]],
    groups: tuple[str, ...] | None,
    area_ranges: AreaRanges | None,
) -> Evaluation:
    """Return the evaluation of matched images.

    ``counts`` (N, ...) and ``sums`` (N, ...) are `matching`'s tables; ``arrays`` holds scores, matches, kept (M,) and,
    for area ranges, areas, matched areas (M,) and the truth's areas (G,).
    """
    check_group_count(groups, len(counts))
    scores, matches, kept, *areas = arrays
    images = np.repeat(np.arange(len(counts), dtype=np.int32), counts[:, matching.N_PREDICTIONS])
    order = ordered_by_score(scores, images)
    detections = Detections(images, scores, matches, kept)
    by_area = None
    if area_ranges is not None:
        own, matched, true = areas
        by_area = scores_by_area(area_ranges, detections, order, own, matched, true, len(counts))
    return assemble(detections, order, ImageCounts.from_tables(counts, sums, groups), by_area)
