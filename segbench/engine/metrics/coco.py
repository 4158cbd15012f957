"""Turns matches into COCO's precision, recall and score thresholds, equal to pycocotools' to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.compiled import compiled

Array = npt.NDArray[Any]

IOU_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""(T,), COCO's IoU thresholds. ``np.arange`` gives other last bits."""
RECALL_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
"""(R,), the recalls at which COCO reads precision."""
MATCH_THRESHOLDS: npt.NDArray[np.float64] = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
"""(T,), what an IoU must reach to match: ``COCOeval.evaluateImg`` starts from these."""


def order_by_score(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return the stable order of descending score, as ``np.argsort(-scores, kind="mergesort")`` has it; no NaN.

    Examples
    --------
    >>> order_by_score(np.array([0.5, 0.9, 0.5, -1.0]))
    array([1, 0, 2, 3], dtype=int32)
    """
    keys = np.negative(scores, dtype=np.float64)
    keys += 0.0  # turns -0.0 into 0.0, whose bits differ
    return _radix_order(keys.view(np.uint64))


def accumulate(
    order: npt.NDArray[np.int32],
    matches: npt.NDArray[np.uint16],
    scores: npt.NDArray[np.float64],
    n_truth: int,
    ignored: npt.NDArray[np.uint16] | None = None,
    n_bits: int = IOU_THRESHOLDS.size,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return precision (T, R), recall (T,) and score thresholds (T, R) as ``COCOeval.accumulate`` does.

    Parameters
    ----------
    order
        (D,), the detections that count, by descending score.
    matches
        (M,), bit t is set where a detection matches at threshold t.
    scores
        (M,).
    n_truth
        How many true objects are to be found; with none, everything is -1.
    ignored
        (M,), bit t is set where a detection is neither true nor false at threshold t. None: nowhere.
    n_bits
        T, up to 16, where the bits stand for something else than COCO's IoU thresholds.

    Notes
    -----
    COCO's precision at the n-th counted detection is tp / (tp + fp + eps), its envelope the maximum from
    there on, read at the first detection that reaches each of the recalls. Precision rises at true positives
    only, so the maximum over each stretch between two recalls is kept while the detections go by, compared as
    exact fractions and divided once at the end.
    """
    if ignored is None:
        ignored = np.zeros(0, np.uint16)
    return _accumulate(order, matches, ignored, scores, n_truth, n_bits, RECALL_THRESHOLDS)


@compiled
def _accumulate(
    order: Array,
    matches: Array,
    ignored: Array,
    scores: Array,
    n_truth: int,
    n_thresholds: int,
    recalls: Array,
) -> tuple[Array, Array, Array]:
    n_recalls = recalls.size
    precision, recall = -np.ones((n_thresholds, n_recalls)), -np.ones(n_thresholds)
    score_thresholds = -np.ones((n_thresholds, n_recalls))
    if n_truth == 0:
        return precision, recall, score_thresholds
    precision[:], score_thresholds[:] = 0.0, 0.0
    needed = _needed(recalls, n_truth)
    best_tp, best_n = np.zeros((n_thresholds, n_recalls), np.int64), np.ones((n_thresholds, n_recalls), np.int64)
    tp, stretch = np.zeros(n_thresholds, np.int64), np.zeros(n_thresholds, np.int64)
    n_ignored = np.zeros(n_thresholds, np.int64)
    if order.size > 0:
        # recall 0 is reached at the first detection, be it true or not
        score_thresholds[:, 0] = scores[order[0]]
    for i in range(order.size):
        d = order[i]
        skipped = np.int64(ignored[d]) if ignored.size > 0 else np.int64(0)
        true = np.int64(matches[d]) & ~skipped
        t = 0
        while (true | skipped) >> t:
            if (skipped >> t) & 1:
                n_ignored[t] += 1
            elif (true >> t) & 1:
                tp[t] += 1
                before = stretch[t]
                _end_row(t, tp[t], i + 1 - n_ignored[t], needed, stretch, best_tp, best_n)
                for r in range(before + 1, stretch[t] + 1):
                    score_thresholds[t, r] = scores[d]
            t += 1
    for t in range(n_thresholds):
        recall[t] = tp[t] / n_truth
        _envelope(stretch[t], best_tp[t], best_n[t], precision[t])
    return precision, recall, score_thresholds


@compiled
def _needed(recalls: Array, n_truth: Any) -> Array:
    """Return how many true positives reach each recall, by the floating-point comparison of COCO's searchsorted."""
    needed = np.zeros(recalls.size, np.int64)
    for r in range(1, recalls.size):
        k = np.int64(np.floor(recalls[r] * n_truth))
        while k > 0 and (k - 1) / n_truth >= recalls[r]:
            k -= 1
        while k / n_truth < recalls[r]:
            k += 1
        needed[r] = k
    return needed


@compiled
def accumulate_resamples(
    matches: Array,
    images: Array,
    ends: Array,
    weights: Array,
    n_truth: Array,
    n_thresholds: int,
    recalls: Array,
) -> tuple[Array, Array]:
    """Return the mean precision (B, T) and the recall (B, T) of sets of images that repeat some and leave out others.

    Parameters
    ----------
    matches, images
        (D,) uint16 and int32: the detections that count, by descending score, and the images they are in.
    ends
        (D,) int64: where the detections end that follow each one without change of score and image. Copies of an image
        stand one after the other, so such a stretch is gone through whole, once a copy.
    weights
        (B, N) int64, how often each image is in each resample.
    n_truth
        (N,) int64, true cells an image.
    n_thresholds, recalls
        T, up to 16, and the (R,) recall thresholds.

    Notes
    -----
    Along detections that all match at a threshold, precision rises: only where such a row ends can it be the highest of
    a stretch of recalls. So the counts of true positives of all thresholds go up together, by a row of a table, and a
    threshold is looked at only where a row of its matches ends. Copies of one detection are a row themselves.
    """
    n_resamples, n_recalls = weights.shape[0], recalls.size
    precision, recall = -np.ones((n_resamples, n_thresholds)), -np.ones((n_resamples, n_thresholds))
    ones = _bit_table(n_thresholds)
    best_tp, best_n = np.empty((n_thresholds, n_recalls), np.int64), np.empty((n_thresholds, n_recalls), np.int64)
    tp, stretch, present = np.empty(16, np.int32), np.empty(n_thresholds, np.int64), np.empty(matches.size, np.int64)
    envelope = np.empty(n_recalls)
    for b in range(n_resamples):
        total = np.sum(weights[b] * n_truth)
        if total == 0:
            continue
        needed = _needed(recalls, total)
        best_tp[:], best_n[:], tp[:], stretch[:] = 0, 1, 0, 0
        n_present = 0
        for i in range(matches.size):
            present[n_present] = i
            n_present += weights[b, images[i]] > 0
        counted, before = np.int64(0), np.int64(0)
        k = 0
        while k < n_present:
            i = present[k]
            end, copies = ends[i], weights[b, images[i]]
            step = copies if end == i + 1 else 1
            for _ in range(1 if end == i + 1 else copies):
                for d in range(i, end):
                    now = np.int64(matches[d])
                    if before & ~now:
                        _end_rows(before & ~now, tp, counted, needed, stretch, best_tp, best_n)
                    for t in range(16):
                        tp[t] += np.int32(step) * ones[now, t]
                    counted += step
                    before = now
            k += end - i
        _end_rows(before, tp, counted, needed, stretch, best_tp, best_n)
        for t in range(n_thresholds):
            recall[b, t] = tp[t] / total
            precision[b, t] = _envelope(stretch[t], best_tp[t], best_n[t], envelope) / n_recalls
    return precision, recall


@compiled
def _bit_table(n_bits: int) -> Array:
    """Return the bits of every number below 2 to the ``n_bits``, (2^n_bits, 16) int32."""
    bits = np.zeros((1 << n_bits, 16), np.int32)
    for number in range(1 << n_bits):
        for t in range(n_bits):
            bits[number, t] = (number >> t) & 1
    return bits


@compiled
def _end_rows(
    ended: Any, tp: Array, counted: Any, needed: Array, stretch: Array, best_tp: Array, best_n: Array
) -> None:
    """End the rows of true positives at the thresholds whose bits are set in ``ended``."""
    t = 0
    while ended:
        if ended & 1:
            _end_row(t, tp[t], counted, needed, stretch, best_tp, best_n)
        ended >>= 1
        t += 1


@compiled
def _end_row(t: int, tp: Any, counted: Any, needed: Array, stretch: Array, best_tp: Array, best_n: Array) -> None:
    """Keep the precision after a row of true positives at threshold t, if the highest of its stretch of recalls."""
    r = stretch[t]
    while r + 1 < needed.size and needed[r + 1] <= tp:
        r += 1
    stretch[t] = r
    if tp * best_n[t, r] >= best_tp[t, r] * counted:
        best_tp[t, r], best_n[t, r] = tp, counted


@compiled
def _envelope(last: int, best_tp: Array, best_n: Array, precision: Array) -> float:
    """Write the highest precision from each stretch of recalls up to the last one on, and return the sum of them."""
    highest, total = 0.0, 0.0
    for r in range(last, -1, -1):
        highest = max(highest, best_tp[r] / (np.float64(best_n[r]) + 2.220446049250313e-16))
        precision[r] = highest
        total += highest
    return total


@compiled
def _radix_order(keys: Array) -> Array:
    """Return the stable ascending order of float64 numbers whose bits are ``keys``, which are overwritten."""
    size = keys.size
    order = np.arange(size).astype(np.int32)
    sign = np.uint64(1) << np.uint64(63)
    for i in range(size):
        keys[i] = ~keys[i] if keys[i] & sign else keys[i] | sign
    next_keys, next_order = np.empty(size, np.uint64), np.empty(size, np.int32)
    starts = np.empty(65537, np.int64)
    for digit in range(4):
        shift = np.uint64(16 * digit)
        starts[:] = 0
        for i in range(size):
            starts[np.int64((keys[i] >> shift) & np.uint64(0xFFFF)) + 1] += 1
        if size > 0 and starts[np.int64((keys[0] >> shift) & np.uint64(0xFFFF)) + 1] == size:
            continue
        for value in range(65536):
            starts[value + 1] += starts[value]
        for i in range(size):
            bucket = np.int64((keys[i] >> shift) & np.uint64(0xFFFF))
            next_keys[starts[bucket]], next_order[starts[bucket]] = keys[i], order[i]
            starts[bucket] += 1
        keys, next_keys = next_keys, keys
        order, next_order = next_order, order
    return order
