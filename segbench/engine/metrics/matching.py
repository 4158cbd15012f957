"""Finds which predicted cell matches which true cell: the joint histogram of two label maps, and COCO's matching on it.

Truth is disjoint here (a label map), which makes matching cheap. A pair with IoU > 0.5 covers more than half of both of
its cells, so among disjoint predictions no other pair with IoU >= 0.5 shares one: all thresholds are decided by the IoU
alone, in any order of the scores. At IoU = 0.5 exactly two predictions can halve one true cell; the one that COCO's
greedy search meets first, in order of score, then of label, wins. (One prediction made of two true halves matches one
of them: it is a true positive either way.) Overlapping predictions take the greedy search itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.compiled import compiled

Array = npt.NDArray[Any]

N_TRUTH, N_PREDICTIONS, PQ_MATCHES, AJI_INTERSECTION, AJI_UNION, SPLITS, MERGES, TRUE_POSITIVES = range(8)
"""Columns of an image's whole numbers; the true positives of each IoU threshold follow."""
PQ_IOU, SEG, MATCHED_IOU = range(3)
"""Columns of an image's sums; the IoU of the matches of each IoU threshold follow."""

_FREE = -1
_HASH = np.uint64(0x9E3779B97F4A7C15)
_LARGEST_TABLE = 1 << 20


@compiled
def collect_pairs(
    truth: Array,
    predictions: Array,
    positions: Array,
    keys: Array,
    values: Array,
    used: Array,
    pair_truth: Array,
    pair_prediction: Array,
    pair_pixels: Array,
    n: int,
) -> Any:
    """Append the pairs of labels of two maps, and how many pixels each has, to those of others.

    Parameters
    ----------
    truth, predictions
        (P,), the pixels of both maps, laid out flat, of any integer type that int32 holds; one or more.
    positions
        (P,) uint32, to be overwritten.
    keys, values, used
        (2^k,) int64, int32 and uint32: a table that comes empty (`new_table`) and is left so.
    pair_truth, pair_prediction, pair_pixels
        (J,) int32, with ``n`` pairs in them.

    Returns
    -------
    How many pairs there are then; -1 where the table is too small, -2 where the arrays are: nothing is appended.
    """
    n_pairs = np.int64(_count_pairs(truth, predictions, positions, keys, values, used))
    if n_pairs < 0:
        keys[:], values[:] = _FREE, 0
        return -1
    fits = n + n_pairs <= pair_truth.size
    for j in range(n_pairs):
        slot = used[j]
        if fits:
            pair_truth[n + j], pair_prediction[n + j] = keys[slot] >> 32, keys[slot] & 0xFFFFFFFF
            pair_pixels[n + j] = values[slot]
        keys[slot], values[slot] = _FREE, 0
    return n + n_pairs if fits else -2


def new_table(size: int) -> tuple[Array, Array, Array]:
    """Return an empty table of pairs; ``size`` is a power of 2."""
    return np.full(size, _FREE, np.int64), np.zeros(size, np.int32), np.empty(size, np.uint32)


@compiled
def merge_pairs(pair_truth: Array, pair_prediction: Array, pair_pixels: Array) -> int:
    """Add up the pixels of equal pairs, in place, and return how many different ones there are: they come first."""
    size = 4096
    while size < 2 * pair_truth.size:
        size *= 2
    keys, places = np.full(size, _FREE, np.int64), np.empty(size, np.int64)
    n = 0
    for j in range(pair_truth.size):
        key = (np.int64(pair_truth[j]) << 32) | np.int64(np.uint32(pair_prediction[j]))
        slot = _find(key, keys)
        if keys[slot] == _FREE:
            keys[slot], places[slot] = key, n
            pair_truth[n], pair_prediction[n], pair_pixels[n] = pair_truth[j], pair_prediction[j], pair_pixels[j]
            n += 1
        else:
            pair_pixels[places[slot]] += pair_pixels[j]
    return n


@compiled
def match_pairs(
    pair_truth: Array,
    pair_prediction: Array,
    pair_pixels: Array,
    pair_offsets: Array,
    scores: Array,
    score_offsets: Array,
    max_detections: int,
    thresholds: Array,
) -> tuple[Array, Array, Array, Array, Array, Array, Array, Array]:
    """Match a batch of pairs of label maps from their joint histograms.

    Parameters
    ----------
    pair_truth, pair_prediction, pair_pixels
        (J,) int32: of each pair of labels of a map that have common pixels their labels, 0 for background, and how many
        pixels; in any order. The labels may be overwritten.
    pair_offsets
        (N + 1,) int64: where the pairs of each map begin and end.
    scores, score_offsets
        (M,) float64 and (N + 1,) int64: the scores of map n in ascending order of its labels. Where their number is not
        that of the labels, order by label stands in; the caller compares the numbers.
    max_detections
        Predictions beyond the so many best of an image are not kept.
    thresholds
        (T,) float64, T <= 16.

    Returns
    -------
    counts, sums
        (N, 7 + T) int64 and (N, 2 + T) float64, by the columns above.
    lowest
        (N,) int32, the smallest label of each pair: negative labels are for the caller to refuse.
    matches, kept, areas, matched_areas
        (M,) uint16 with bit t set where a prediction matches at threshold t, bool, int32 in pixels, and int32: the area
        of the true cell that it matches, 0 for none. By image, then ascending label.
    truth_areas
        (G,) int32, by image, then ascending label.
    """
    n_images, n_thresholds = pair_offsets.size - 1, thresholds.size
    counts = np.zeros((n_images, TRUE_POSITIVES + n_thresholds), np.int64)
    sums = np.zeros((n_images, MATCHED_IOU + n_thresholds), np.float64)
    lowest = np.zeros(n_images, np.int32)
    capacity = max(scores.size, 1024)
    matches, kept = np.empty(capacity, np.uint16), np.empty(capacity, np.bool_)
    areas, matched_areas = np.empty(capacity, np.int32), np.empty(capacity, np.int32)
    truth_areas = np.empty(1024, np.int32)
    n_found = n_true = 0
    tables, ious = np.zeros((9, 4096), np.int32), np.zeros((3, 4096), np.float64)
    for n in range(n_images):
        mine_of = slice(pair_offsets[n], pair_offsets[n + 1])
        true_labels, found_labels, pixels = pair_truth[mine_of], pair_prediction[mine_of], pair_pixels[mine_of]
        for j in range(true_labels.size):
            lowest[n] = min(lowest[n], true_labels[j], found_labels[j])
        if lowest[n] < 0:
            continue
        largest_truth, largest_prediction = _small_labels(true_labels), _small_labels(found_labels)
        tables, ious = _large_enough(tables, ious, max(largest_truth, largest_prediction))
        _add_pixels(tables[_AREA_T], true_labels, pixels)
        _add_pixels(tables[_AREA_P], found_labels, pixels)
        # room for all labels there could be, before the loops that fill it
        if n_true + largest_truth > truth_areas.size:
            truth_areas = _grown(truth_areas, 2 * (n_true + largest_truth))
        if n_found + largest_prediction > areas.size:
            size = 2 * (n_found + largest_prediction)
            matches, kept = _grown(matches, size), _grown(kept, size)
            areas, matched_areas = _grown(areas, size), _grown(matched_areas, size)
        start = n_found
        n_here = _rank_labels(tables[_AREA_T], tables[_SLOT], largest_truth, truth_areas[n_true:])
        n_true += n_here
        counts[n, N_TRUTH] = n_here
        n_found += _rank_labels(tables[_AREA_P], tables[_SLOT], largest_prediction, areas[n_found:])
        mine = scores[score_offsets[n] : score_offsets[n + 1]]
        if mine.size != n_found - start:
            mine = np.zeros(n_found - start, np.float64)
        _match_disjoint(
            true_labels,
            found_labels,
            pixels,
            largest_truth,
            largest_prediction,
            mine,
            thresholds,
            tables,
            ious,
            matches[start:n_found],
            matched_areas[start:n_found],
            counts[n],
            sums[n],
        )
        _keep_best(mine, max_detections, areas[start:n_found], kept[start:n_found])
        tables[_AREA_T, : largest_truth + 1] = 0
        tables[_AREA_P, : largest_prediction + 1] = 0
    return (
        counts,
        sums,
        lowest,
        matches[:n_found].copy(),
        kept[:n_found].copy(),
        areas[:n_found].copy(),
        matched_areas[:n_found].copy(),
        truth_areas[:n_true].copy(),
    )


@compiled
def match_sweep(
    truth: Array,
    grown: Array,
    levels: Array,
    offsets: Array,
    scores: Array,
    score_offsets: Array,
    n_steps: int,
    shrinking: bool,
    max_detections: int,
    thresholds: Array,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Match a batch of label maps at every step of a post-operation, from one histogram.

    Parameters
    ----------
    truth
        (P,) int32, the pixels of all maps one after the other.
    grown
        (P,) int32: the label that a pixel has, or will have, or had.
    levels
        (P,) uint16: a pixel has its label from step ``level`` on (growing), or until before it (`shrinking`).
        ``n_steps`` and above: at none of the steps (growing), at all (shrinking).
    offsets
        (N + 1,) int64: the pixels of map n are ``truth[offsets[n]:offsets[n + 1]]``.
    scores, score_offsets, max_detections, thresholds
        As in `match_pairs`; the scores are those of the labels before the operation, ascending.
    n_steps
        S, the number of steps.

    Returns
    -------
    counts, sums
        (S, N, 7 + T) int64 and (S, N, 2 + T) float64.
    lowest
        (N,) int32.
    matches, kept
        (S, M) uint16 and bool. Labels that vanished are not kept.
    n_labels
        (N,) int64, how many labels each map has before the operation.
    """
    n_images, n_thresholds = offsets.size - 1, thresholds.size
    counts = np.zeros((n_steps, n_images, TRUE_POSITIVES + n_thresholds), np.int64)
    sums = np.zeros((n_steps, n_images, MATCHED_IOU + n_thresholds), np.float64)
    lowest, n_labels = np.zeros(n_images, np.int32), np.zeros(n_images, np.int64)
    capacity = max(scores.size, 1024)
    matches, kept = np.empty((n_steps, capacity), np.uint16), np.empty((n_steps, capacity), np.bool_)
    n_found = 0
    positions = np.empty(np.max(np.diff(offsets)) + 1 if n_images else 1, np.uint32)
    keys, values, used = np.full(4096, _FREE, np.int64), np.zeros(4096, np.int32), np.empty(4096, np.uint32)
    tables, ious = np.zeros((9, 4096), np.int32), np.zeros((3, 4096), np.float64)
    pair_levels = np.zeros((4096, n_steps + 1), np.int32)
    for n in range(n_images):
        first, last = offsets[n], offsets[n + 1]
        pixels = truth[first:last], grown[first:last], levels[first:last]
        n_pairs = _count_levels(*pixels, n_steps, shrinking, positions, keys, values, used, pair_levels)
        while n_pairs < 0:
            size = 2 * keys.size
            keys, values, used = np.full(size, _FREE, np.int64), np.zeros(size, np.int32), np.empty(size, np.uint32)
            pair_levels = np.zeros((size, n_steps + 1), np.int32)
            n_pairs = _count_levels(*pixels, n_steps, shrinking, positions, keys, values, used, pair_levels)
        pair_truth, pair_prediction, lowest[n] = _take_pairs(keys, used[:n_pairs])
        if lowest[n] < 0:
            pair_levels[:n_pairs] = 0
            continue
        largest_truth, largest_prediction = _small_labels(pair_truth), _small_labels(pair_prediction)
        tables, ious = _large_enough(tables, ious, max(largest_truth, largest_prediction))
        # the truth's areas do not change; the labels before the operation are those with pixels at the start
        for level in range(n_steps + 1):
            _add_pixels(tables[_AREA_T], pair_truth, pair_levels[:n_pairs, level])
            if shrinking or level == 0:
                _add_pixels(tables[_AREA_P], pair_prediction, pair_levels[:n_pairs, level])
        step_areas = np.empty(max(largest_truth, largest_prediction), np.int32)
        n_truth = _rank_labels(tables[_AREA_T], tables[_SLOT], largest_truth, step_areas)
        n_mine = _rank_labels(tables[_AREA_P], tables[_SLOT], largest_prediction, step_areas)
        n_labels[n] = n_mine
        if n_found + n_mine > matches.shape[1]:
            size = 2 * (n_found + n_mine)
            matches, kept = _widened(matches, size), _widened(kept, size)
        mine = scores[score_offsets[n] : score_offsets[n + 1]]
        if mine.size != n_mine:
            mine = np.zeros(n_mine, np.float64)
        pair_pixels, step_matched = np.zeros(n_pairs, np.int32), np.empty(n_mine, np.int32)
        for step in range(n_steps):
            _take_step(step, shrinking, pair_levels[:n_pairs], pair_pixels)
            tables[_AREA_P, : largest_prediction + 1] = 0
            _add_pixels(tables[_AREA_P], pair_prediction, pair_pixels)
            _read_areas(tables[_AREA_P], tables[_SLOT], largest_prediction, step_areas[:n_mine])
            counts[step, n, N_TRUTH] = n_truth
            _match_disjoint(
                pair_truth,
                pair_prediction,
                pair_pixels,
                largest_truth,
                largest_prediction,
                mine,
                thresholds,
                tables,
                ious,
                matches[step, n_found : n_found + n_mine],
                step_matched,
                counts[step, n],
                sums[step, n],
            )
            _keep_best(mine, max_detections, step_areas[:n_mine], kept[step, n_found : n_found + n_mine])
        n_found += n_mine
        tables[_AREA_T, : largest_truth + 1] = 0
        tables[_AREA_P, : largest_prediction + 1] = 0
        pair_levels[:n_pairs] = 0
    return counts, sums, lowest, matches[:, :n_found].copy(), kept[:, :n_found].copy(), n_labels


@compiled
def match_masks(
    truth: Array,
    runs: Array,
    run_offsets: Array,
    scores: Array,
    max_detections: int,
    thresholds: Array,
) -> tuple[Array, Array, int, Array, Array, Array, Array, Array]:
    """Match the possibly overlapping masks of one image.

    Parameters
    ----------
    truth
        (P,) int32, the label map in column-major order; tables are as long as its largest label.
    runs, run_offsets
        (L,) uint32 and (D + 1,) int64: the run lengths of mask d are ``runs[run_offsets[d]:run_offsets[d + 1]]``, in
        column-major order, background first. The caller has checked that they sum to P.
    scores
        (D,) float64.
    max_detections, thresholds
        As in `match_pairs`.

    Returns
    -------
    counts, sums, lowest, matches, kept, areas, matched_areas, truth_areas
        As in `match_pairs`, for this image; masks keep their order.
    """
    n_masks, n_thresholds = scores.size, thresholds.size
    counts = np.zeros(TRUE_POSITIVES + n_thresholds, np.int64)
    sums = np.zeros(MATCHED_IOU + n_thresholds, np.float64)
    matches, kept = np.zeros(n_masks, np.uint16), np.zeros(n_masks, np.bool_)
    areas, matched_areas = np.zeros(n_masks, np.int32), np.zeros(n_masks, np.int32)
    lowest, area_t = _label_areas(truth)
    if lowest < 0:
        return counts, sums, lowest, matches, kept, areas, matched_areas, np.empty(0, np.int32)
    truth_areas = area_t[area_t > 0]
    counts[N_TRUTH], counts[N_PREDICTIONS] = truth_areas.size, n_masks
    pairs = mask_pairs(truth, area_t.size, runs, run_offsets, areas)
    order = np.argsort(-scores, kind="mergesort")
    best = order[:max_detections]
    kept[best] = True
    # the cell metrics count all masks, COCO's those within the limit
    _match_in_order(order, pairs, areas, area_t, thresholds, matches, matched_areas, counts, sums)
    if n_masks > max_detections:
        matches[:], matched_areas[:] = 0, 0
        _match_in_order(best, pairs, areas, area_t, thresholds, matches, matched_areas, counts.copy(), sums.copy())
    _count_overlapping(*pairs, areas, area_t, counts, sums)
    return counts, sums, lowest, matches, kept, areas, matched_areas, truth_areas


@compiled
def label_pairs(truth: Array, prediction: Array) -> tuple[Array, Array, Array]:
    """Return the true and the predicted label and the pixels of each pair of labels of two maps, laid out flat."""
    positions = np.empty(truth.size + 1, np.uint32)
    size, n_pairs = 4096, np.int64(-1)
    keys, values, used = np.full(size, _FREE, np.int64), np.zeros(size, np.int32), np.empty(size, np.uint32)
    n_pairs = _count_pairs(truth, prediction, positions, keys, values, used)
    while n_pairs < 0:
        size *= 2
        keys, values, used = np.full(size, _FREE, np.int64), np.zeros(size, np.int32), np.empty(size, np.uint32)
        n_pairs = _count_pairs(truth, prediction, positions, keys, values, used)
    pair_truth, pair_prediction, _ = _take_pairs(keys, used[:n_pairs])
    return pair_truth, pair_prediction, values[used[:n_pairs]]


@compiled
def _label_areas(truth: Array) -> tuple[int, Array]:
    """Return the lowest label of a map, at most 0, and each label's area, of the background 0; no areas if negative."""
    lowest, highest = 0, 0
    for i in range(truth.size):
        lowest, highest = min(lowest, truth[i]), max(highest, truth[i])
    if lowest < 0:
        return lowest, np.zeros(0, np.int32)
    areas = np.zeros(highest + 1, np.int32)
    for i in range(truth.size):
        areas[truth[i]] += 1
    areas[0] = 0
    return lowest, areas


@compiled
def mask_pairs(
    truth: Array, n_labels: int, runs: Array, run_offsets: Array, areas: Array
) -> tuple[Array, Array, Array]:
    """Return the pairs (mask, true cell) with common pixels, by mask, then ascending label; fills the masks' areas.

    Returns
    -------
    pair_truth, pair_pixels
        (J,) int32, the true label and the number of common pixels.
    pair_offsets
        (D + 1,) int64, where each mask's pairs begin and end.
    """
    n_masks = areas.size
    pair_truth, pair_pixels = np.empty(4 * n_masks + 64, np.int32), np.empty(4 * n_masks + 64, np.int32)
    pair_offsets = np.zeros(n_masks + 1, np.int64)
    common, touched = np.zeros(n_labels, np.int32), np.empty(n_labels, np.int32)
    n_pairs = 0
    for d in range(n_masks):
        areas[d], n_touched = _touch(truth, runs[run_offsets[d] : run_offsets[d + 1]], common, touched)
        if n_pairs + n_touched > pair_truth.size:
            pair_truth = _grown(pair_truth, 2 * (n_pairs + n_touched))
            pair_pixels = _grown(pair_pixels, 2 * (n_pairs + n_touched))
        found = np.sort(touched[:n_touched])
        for label in found:
            pair_truth[n_pairs], pair_pixels[n_pairs] = label, common[label]
            common[label] = 0
            n_pairs += 1
        pair_offsets[d + 1] = n_pairs
    return pair_truth, pair_pixels, pair_offsets


@compiled
def _touch(truth: Array, runs: Array, common: Array, touched: Array) -> tuple[Any, int]:
    """Return a mask's area and how many true cells it touches: those in ``touched``, their pixels in ``common``."""
    area, position, n_touched = np.int64(0), np.int64(0), 0
    for r in range(runs.size):
        length = np.int64(runs[r])
        if r % 2 == 1:
            area += length
            for i in range(position, position + length):
                label = truth[i]
                if label > 0:
                    if common[label] == 0:
                        touched[n_touched] = label
                        n_touched += 1
                    common[label] += 1
        position += length
    return area, n_touched


@compiled
def _match_in_order(
    order: Array,
    pairs: tuple[Array, Array, Array],
    areas: Array,
    area_t: Array,
    thresholds: Array,
    matches: Array,
    matched_areas: Array,
    counts: Array,
    sums: Array,
) -> None:
    """Give each mask in turn the best free true cell, of equals the later, as COCOeval does; count the pairs."""
    taken = np.zeros(area_t.size, np.uint16)
    for d in order:
        for t in range(thresholds.size):
            iou, label, pixels = _best_free(d, t, pairs, areas, area_t, taken, thresholds[t])
            if label == 0:
                continue
            taken[label] |= np.uint16(1 << t)
            matches[d] |= np.uint16(1 << t)
            matched_areas[d] = area_t[label]
            counts[TRUE_POSITIVES + t] += 1
            sums[MATCHED_IOU + t] += iou
            if t == 0 and 3 * pixels > area_t[label] + areas[d]:
                counts[PQ_MATCHES] += 1
                sums[PQ_IOU] += iou


@compiled
def _best_free(
    d: int, t: int, pairs: tuple[Array, Array, Array], areas: Array, area_t: Array, taken: Array, least: Any
) -> tuple[Any, Any, Any]:
    """Return IoU, label and common pixels of the best true cell that is free at threshold t; label 0 for none."""
    pair_truth, pair_pixels, pair_offsets = pairs
    best, best_label, best_pixels = least, 0, 0
    for j in range(pair_offsets[d], pair_offsets[d + 1]):
        label, pixels = pair_truth[j], pair_pixels[j]
        iou = pixels / (area_t[label] + areas[d] - pixels)
        if (taken[label] >> t) & 1 == 0 and iou >= best:
            best, best_label, best_pixels = iou, label, pixels
    return best, best_label, best_pixels


_AREA_T, _AREA_P, _SLOT, _INSIDE_T, _INSIDE_P, _OWNER, _BEST_P, _BEST_PIXELS, _USED = range(9)
_BEST_IOU, _SEG_IOU, _IOU_P = range(3)


@compiled
def _grown(array: Array, size: int) -> Array:
    larger = np.empty(size, array.dtype)
    larger[: array.size] = array
    return larger


@compiled
def _widened(array: Array, size: int) -> Array:
    wider = np.empty((array.shape[0], size), array.dtype)
    wider[:, : array.shape[1]] = array
    return wider


@compiled
def _take_pairs(keys: Array, used: Array) -> tuple[Array, Array, Any]:
    """Return the true and the predicted labels of a table's pairs, and the smallest of them or 0; empties the table."""
    pair_truth, pair_prediction = np.empty(used.size, np.int32), np.empty(used.size, np.int32)
    lowest = np.int32(0)
    for j in range(used.size):
        slot = used[j]
        pair_truth[j], pair_prediction[j] = keys[slot] >> 32, keys[slot] & 0xFFFFFFFF
        keys[slot] = _FREE
        lowest = min(lowest, pair_truth[j], pair_prediction[j])
    return pair_truth, pair_prediction, lowest


@compiled
def _add_pixels(area_of: Array, labels: Array, pixels: Array) -> None:
    for j in range(labels.size):
        area_of[labels[j]] += pixels[j]


@compiled
def _take_step(step: int, shrinking: bool, pair_levels: Array, pair_pixels: Array) -> None:
    """Bring the pixels that each pair has from one step of a post-operation to the next, from nothing to step 0."""
    if shrinking and step == 0:
        for level in range(1, pair_levels.shape[1]):
            pair_pixels += pair_levels[:, level]
    elif shrinking:
        pair_pixels -= pair_levels[:, step]
    else:
        pair_pixels += pair_levels[:, step]


@compiled
def _read_areas(area_of: Array, slot_of: Array, largest: int, areas: Array) -> None:
    """Write the labels' areas at their slots; 0 for a label that has no pixels any more."""
    areas[:] = 0
    for label in range(1, largest + 1):
        if area_of[label] > 0:
            areas[slot_of[label]] = area_of[label]


@compiled
def _rank_labels(area_of: Array, slot_of: Array, largest: int, areas: Array) -> int:
    """Number the labels that have pixels, ascending, write their areas end to end, and return how many there are."""
    n = 0
    for label in range(1, largest + 1):
        slot_of[label] = n
        areas[n] = area_of[label]
        n += area_of[label] > 0
    return n


@compiled
def _large_enough(tables: Array, ious: Array, largest: int) -> tuple[Array, Array]:
    if largest < tables.shape[1]:
        return tables, ious
    size = tables.shape[1]
    while size <= largest:
        size *= 2
    return np.zeros((tables.shape[0], size), np.int32), np.zeros((ious.shape[0], size), np.float64)


@compiled
def _small_labels(labels: Array) -> int:
    """Return the largest label, after replacing labels too large for a table by their ranks."""
    largest = 0
    for j in range(labels.size):
        largest = max(largest, labels[j])
    if largest < max(_LARGEST_TABLE, 2 * labels.size):
        return largest
    present = np.unique(labels)
    offset = 0 if present[0] == 0 else 1
    for j in range(labels.size):
        labels[j] = np.searchsorted(present, labels[j]) + offset
    return int(present.size - 1 + offset)


@compiled
def _find(key: Any, keys: Array) -> Any:
    """Return the slot of a key in the open hash table, or the free slot where it belongs."""
    # unsigned, here and below: for signed indices numba asks at every use whether they count from the end
    mask = np.uint64(keys.size - 1)
    slot = ((np.uint64(key) * _HASH) >> np.uint64(32)) & mask
    while keys[slot] != key and keys[slot] != _FREE:
        slot = (slot + np.uint64(1)) & mask
    return slot


@compiled
def _count_pairs(truth: Array, prediction: Array, positions: Array, keys: Array, values: Array, used: Array) -> Any:
    """Count the pixels of each (true label, predicted label), by runs of equal pairs; -1 where the table is too small.

    ``keys``, ``values`` (2^k,) are the table, ``used`` (2^k,) its occupied slots in order of appearance.
    """
    if truth.size == 0:
        return 0
    n_runs = np.uint64(0)
    label, other = truth[0], prediction[0]
    for i in range(1, truth.size):
        # no branch: a run's end is written always and kept where the pair changes
        positions[n_runs] = i
        n_runs += np.uint64((truth[i] != label) | (prediction[i] != other))
        label, other = truth[i], prediction[i]
    positions[n_runs] = truth.size
    start, n_used = np.uint64(0), np.uint64(0)
    for r in range(n_runs + np.uint64(1)):
        end = np.uint64(positions[r])
        key = (np.int64(truth[start]) << 32) | np.int64(np.uint32(prediction[start]))
        slot = _find(key, keys)
        if keys[slot] == _FREE:
            if 2 * n_used >= keys.size:
                return -1
            keys[slot], used[n_used] = key, slot
            n_used += np.uint64(1)
        values[slot] += np.int32(end - start)
        start = end
    return np.int64(n_used)


@compiled
def _count_levels(
    truth: Array,
    grown: Array,
    levels: Array,
    n_steps: int,
    shrinking: bool,
    positions: Array,
    keys: Array,
    values: Array,
    used: Array,
    pair_levels: Array,
) -> Any:
    """Count the pixels of each (true label, predicted label, level); -1 where the hash table is too small.

    As `_count_pairs`, but ``values`` holds each pair's row of ``pair_levels`` (2^k, S + 1), which come as zeros.
    """
    if truth.size == 0:
        return 0
    n_runs = np.uint64(0)
    for i in range(1, truth.size):
        positions[n_runs] = i
        n_runs += np.uint64((truth[i] != truth[i - 1]) | (grown[i] != grown[i - 1]) | (levels[i] != levels[i - 1]))
    positions[n_runs] = truth.size
    start, n_used = np.uint64(0), np.uint64(0)
    for r in range(n_runs + np.uint64(1)):
        end = np.uint64(positions[r])
        level, label = min(int(levels[start]), n_steps), grown[start]
        if level == n_steps and not shrinking:
            label = np.int32(0)
        key = (np.int64(truth[start]) << 32) | np.int64(np.uint32(label))
        slot = _find(key, keys)
        if keys[slot] == _FREE:
            if 2 * n_used >= keys.size:
                return -1
            keys[slot], used[n_used], values[slot] = key, slot, n_used
            n_used += np.uint64(1)
        pair_levels[values[slot], level] += np.int32(end - start)
        start = end
    return np.int64(n_used)


@compiled
def _keep_best(scores: Array, max_detections: int, areas: Array, kept: Array) -> None:
    """Mark the `max_detections` best predictions that have pixels."""
    n_present = 0
    for d in range(areas.size):
        kept[d] = areas[d] > 0
        n_present += areas[d] > 0
    if n_present <= max_detections:
        return
    n_kept = 0
    for d in np.argsort(-scores, kind="mergesort"):
        kept[d] = kept[d] and n_kept < max_detections
        n_kept += kept[d]


@compiled
def _match_disjoint(
    pair_truth: Array,
    pair_prediction: Array,
    pair_pixels: Array,
    largest_truth: int,
    largest_prediction: int,
    scores: Array,
    thresholds: Array,
    tables: Array,
    ious: Array,
    matches: Array,
    matched_areas: Array,
    counts: Array,
    sums: Array,
) -> None:
    """Match disjoint predictions to disjoint truth and count what the cell metrics need.

    ``tables`` comes with the areas by label and the slot of each predicted label; everything else in it is reset here.
    """
    _clear(tables, ious, largest_truth, largest_prediction)
    matches[:], matched_areas[:] = 0, 0
    _decide_pairs(pair_truth, pair_prediction, pair_pixels, scores, thresholds, tables, ious, matches, matched_areas)
    _count_true_cells(
        tables[_AREA_T, : largest_truth + 1],
        tables[_AREA_P],
        ious[_SEG_IOU],
        tables[_INSIDE_T],
        tables[_BEST_P],
        tables[_BEST_PIXELS],
        tables[_USED],
        counts,
        sums,
    )
    _count_predictions(tables, ious[_IOU_P], largest_prediction, matches, thresholds.size, counts, sums)


@compiled
def _clear(tables: Array, ious: Array, largest_truth: int, largest_prediction: int) -> None:
    for label in range(largest_truth + 1):
        tables[_INSIDE_T, label] = tables[_OWNER, label] = tables[_BEST_P, label] = tables[_BEST_PIXELS, label] = 0
        ious[_BEST_IOU, label] = ious[_SEG_IOU, label] = 0.0
    for label in range(largest_prediction + 1):
        tables[_INSIDE_P, label] = tables[_USED, label] = 0


@compiled
def _decide_pairs(
    pair_truth: Array,
    pair_prediction: Array,
    pair_pixels: Array,
    scores: Array,
    thresholds: Array,
    tables: Array,
    ious: Array,
    matches: Array,
    matched_areas: Array,
) -> None:
    """Note for each pair what it is to its two cells: their match, their best, more than half of them."""
    area_t, area_p, slot_of = tables[_AREA_T], tables[_AREA_P], tables[_SLOT]
    inside_t, inside_p = tables[_INSIDE_T], tables[_INSIDE_P]
    best_p, best_pixels = tables[_BEST_P], tables[_BEST_PIXELS]
    best_iou, seg_iou, iou_p = ious[_BEST_IOU], ious[_SEG_IOU], ious[_IOU_P]
    for j in range(pair_truth.size):
        t, p, pixels = pair_truth[j], pair_prediction[j], pair_pixels[j]
        if t == 0 or p == 0 or pixels == 0:
            continue
        union = area_t[t] + area_p[p] - pixels
        iou = pixels / union
        if iou > best_iou[t] or (iou == best_iou[t] and p < best_p[t]):
            best_iou[t], best_p[t], best_pixels[t] = iou, p, pixels
        if 2 * pixels > area_t[t]:
            inside_p[p] += 1
            seg_iou[t] = iou
        if 2 * pixels > area_p[p]:
            inside_t[t] += 1
        if 2 * pixels < union:
            continue
        if 2 * pixels == union and not _takes_half(t, p, tables, scores, matches, matched_areas):
            continue
        bits = 0
        for k in range(thresholds.size):
            bits |= (iou >= thresholds[k]) << k
        matches[slot_of[p]], matched_areas[slot_of[p]], iou_p[p] = bits, area_t[t], iou


@compiled
def _takes_half(t: Any, p: Any, tables: Array, scores: Array, matches: Array, matched_areas: Array) -> bool:
    """Return whether a prediction wins the true cell that it halves; another half that had won it loses it then."""
    owner, slot_of = tables[_OWNER], tables[_SLOT]
    slot, rival = slot_of[p], owner[t]
    if rival > 0:
        other = slot_of[rival]
        if scores[other] > scores[slot] or (scores[other] == scores[slot] and other < slot):
            return False
        matches[other], matched_areas[other] = 0, 0
    owner[t] = p
    return True


@compiled
def _count_true_cells(
    area_t: Array,
    area_p: Array,
    seg_iou: Array,
    inside_t: Array,
    best: Array,
    best_pixels: Array,
    used: Array,
    counts: Array,
    sums: Array,
) -> None:
    """Count what the true cells give: SEG, splits and AJI; marks the predictions that are some cell's best as used."""
    for t in range(1, area_t.size):
        if area_t[t] == 0:
            continue
        sums[SEG] += seg_iou[t]
        counts[SPLITS] += inside_t[t] > 1
        counts[AJI_INTERSECTION] += best_pixels[t]
        counts[AJI_UNION] += area_t[t]
        if best_pixels[t] > 0:
            counts[AJI_UNION] += area_p[best[t]] - best_pixels[t]
            used[best[t]] = 1


@compiled
def _count_predictions(
    tables: Array, iou_p: Array, largest: int, matches: Array, n_thresholds: int, counts: Array, sums: Array
) -> None:
    """Count what disjoint predictions give: their number, merges, matches, and AJI of those that no cell used."""
    area_p, slot_of, inside_p, used = tables[_AREA_P], tables[_SLOT], tables[_INSIDE_P], tables[_USED]
    for p in range(1, largest + 1):
        if area_p[p] == 0:
            continue
        counts[N_PREDICTIONS] += 1
        counts[MERGES] += inside_p[p] > 1
        if used[p] == 0:
            counts[AJI_UNION] += area_p[p]
        bits = matches[slot_of[p]]
        if bits == 0:
            continue
        iou = iou_p[p]
        if iou > 0.5:
            counts[PQ_MATCHES] += 1
            sums[PQ_IOU] += iou
        for k in range(n_thresholds):
            matched = (bits >> k) & 1
            counts[TRUE_POSITIVES + k] += matched
            sums[MATCHED_IOU + k] += iou * matched


@compiled
def _count_overlapping(
    pair_truth: Array,
    pair_pixels: Array,
    pair_offsets: Array,
    areas: Array,
    area_t: Array,
    counts: Array,
    sums: Array,
) -> None:
    """Count for overlapping masks what the cell metrics need beside the matches."""
    n_masks, size = areas.size, area_t.size
    best_iou, best_mask, best_pixels = np.zeros(size), np.zeros(size, np.int64), np.zeros(size, np.int64)
    seg_iou, inside_t, used = np.zeros(size), np.zeros(size, np.int64), np.zeros(n_masks, np.int64)
    for d in range(n_masks):
        inside = 0
        for j in range(pair_offsets[d], pair_offsets[d + 1]):
            t, pixels = pair_truth[j], pair_pixels[j]
            iou = pixels / (area_t[t] + areas[d] - pixels)
            if iou > best_iou[t]:
                best_iou[t], best_mask[t], best_pixels[t] = iou, d, pixels
            if 2 * pixels > area_t[t]:
                inside += 1
                seg_iou[t] = max(seg_iou[t], iou)
            if 2 * pixels > areas[d]:
                inside_t[t] += 1
        counts[MERGES] += inside > 1
    _count_true_cells(area_t, areas, seg_iou, inside_t, best_mask, best_pixels, used, counts, sums)
    for d in range(n_masks):
        if used[d] == 0:
            counts[AJI_UNION] += areas[d]
