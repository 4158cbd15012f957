"""Tells of each prediction that matches nothing, and of each true cell that nothing matches, what went wrong with it.

A true cell is missed, split or merged, or its outline is loose; a prediction that matches nothing is spurious, or
belongs to one of the last three. Each has one kind, so that mending all of a kind, and all kinds, means something.
Where two kinds would do, a cell is split or merged if its pieces or the cells together would match, loose if one
prediction overlaps it with an IoU of half, then merged or split, and loose if one prediction has to do with it at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.compiled import compiled

Array = npt.NDArray[Any]

KINDS = ("missed", "split", "merged", "spurious", "loose")
"""The kinds of error, in the order in which tables have them."""
RIGHT, MISSED, SPLIT, MERGED, SPURIOUS, LOOSE = range(6)
"""What is noted of a cell: that it is right, or one more than its kind's place in `KINDS`."""
BEYOND = 255
"""Noted of a prediction beyond the limit of detections."""
LEAST_OVERLAP = 0.1
"""An IoU below this is no outline of the cell, however loose: TIDE's bound of background (Bolya et al., ECCV 2020)."""
_OPEN = 254
_SAME_CELL = 0.5


@compiled
def find_faults(
    pair_truth: Array,
    pair_pixels: Array,
    pair_offsets: Array,
    truth_areas: Array,
    areas: Array,
    order: Array,
    thresholds: Array,
) -> tuple[Array, Array, Array, Array]:
    """Match one image at each threshold and say what is wrong with what matches nothing.

    Parameters
    ----------
    pair_truth, pair_pixels, pair_offsets
        (J,), (J,) and (D + 1,): the true cells, by position, with which each prediction shares pixels, and how many.
    truth_areas, areas
        (G,) and (D,), in pixels.
    order
        (K,), the predictions within the limit of detections, by descending score.
    thresholds
        (T,), what an IoU must reach.

    Returns
    -------
    of_predictions, of_truth
        (T, D) and (T, G) uint8, a kind each; `BEYOND` for predictions that are not in ``order``.
    carriers
        (T, G) int32: for a true cell that is split, merged or loose, the prediction whose score it would have; else -1.
    matched
        (G,) int32, the prediction that matches at the first threshold, or -1.
    """
    n_thresholds, n_truth, n_found = thresholds.size, truth_areas.size, areas.size
    of_predictions = np.full((n_thresholds, n_found), np.uint8(BEYOND), np.uint8)
    of_truth = np.full((n_thresholds, n_truth), np.uint8(_OPEN), np.uint8)
    carriers, matched = np.full((n_thresholds, n_truth), -1, np.int32), np.full(n_truth, -1, np.int32)
    pairs = pair_truth, pair_pixels, pair_offsets
    ious, by_iou, owners = _overlaps(pairs, truth_areas, areas, order)
    holders, held, inside, pieces, cells = _holders(pairs, truth_areas, areas, order)
    for t in range(n_thresholds):
        found, true, carrier = of_predictions[t], of_truth[t], carriers[t]
        for d in order:
            found[d] = _OPEN
        _match(pairs, ious, order, thresholds[t], found, true, carrier)
        if t == 0:
            matched[:] = carrier
        carrier[:] = -1
        _find_split(order, holders, inside, pieces, thresholds[t], found, true, carrier)
        _find_merged(pairs, truth_areas, order, held, cells, thresholds[t], found, true, carrier)
        _pair_loosely(by_iou, owners, pair_truth, ious, _SAME_CELL, found, true, carrier)
        _find_merged(pairs, truth_areas, order, held, cells, 0.0, found, true, carrier)
        _find_split(order, holders, inside, pieces, 0.0, found, true, carrier)
        _pair_loosely(by_iou, owners, pair_truth, ious, LEAST_OVERLAP, found, true, carrier)
        for d in order:
            if found[d] == _OPEN:
                told = holders[d] >= 0 and true[holders[d]] != _OPEN
                found[d] = SPLIT if told else SPURIOUS
        for g in range(n_truth):
            if true[g] == _OPEN:
                true[g] = MISSED
    return of_predictions, of_truth, carriers, matched


@compiled
def _overlaps(
    pairs: tuple[Array, Array, Array], truth_areas: Array, areas: Array, order: Array
) -> tuple[Array, Array, Array]:
    """Return the IoU (J,) of each pair, the kept pairs from the highest IoU to `LEAST_OVERLAP`, and whose each is."""
    pair_truth, pair_pixels, pair_offsets = pairs
    ious, owners = np.zeros(pair_truth.size), np.full(pair_truth.size, -1, np.int32)
    n_near = 0
    near = np.empty(pair_truth.size, np.int64)
    for d in order:
        for j in range(pair_offsets[d], pair_offsets[d + 1]):
            ious[j] = pair_pixels[j] / (truth_areas[pair_truth[j]] + areas[d] - pair_pixels[j])
            owners[j] = d
            near[n_near] = j
            n_near += ious[j] >= LEAST_OVERLAP
    near = near[:n_near]
    return ious, near[np.argsort(-ious[near], kind="mergesort")], owners


@compiled
def _holders(
    pairs: tuple[Array, Array, Array], truth_areas: Array, areas: Array, order: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Return who holds whom by more than half.

    Returns
    -------
    holders
        (D,), the true cell that holds a prediction, or -1.
    held
        (D,), how many true cells a prediction holds.
    inside
        (G,), how many predictions a true cell holds.
    pieces, cells
        (G,) and (D,): the IoU of what one holds, put together, with itself. 0 for predictions that overlap.
    """
    pair_truth, pair_pixels, pair_offsets = pairs
    holders, held = np.full(areas.size, -1, np.int32), np.zeros(areas.size, np.int32)
    inside = np.zeros(truth_areas.size, np.int32)
    of_pieces, of_cells = np.zeros((2, truth_areas.size), np.int64), np.zeros((2, areas.size), np.int64)
    for d in order:
        for j in range(pair_offsets[d], pair_offsets[d + 1]):
            g, pixels = pair_truth[j], pair_pixels[j]
            if 2 * pixels > truth_areas[g]:
                held[d] += 1
                of_cells[0, d] += pixels
                of_cells[1, d] += truth_areas[g]
            if 2 * pixels > areas[d]:
                holders[d] = g
                inside[g] += 1
                of_pieces[0, g] += pixels
                of_pieces[1, g] += areas[d]
    pieces = np.where(of_pieces[0] <= truth_areas, of_pieces[0] / (truth_areas + of_pieces[1] - of_pieces[0]), 0.0)
    cells = of_cells[0] / np.maximum(1, areas + of_cells[1] - of_cells[0])
    return holders, held, inside, pieces, cells


@compiled
def _match(
    pairs: tuple[Array, Array, Array],
    ious: Array,
    order: Array,
    least: Any,
    found: Array,
    true: Array,
    carrier: Array,
) -> None:
    """Give each prediction in turn the best free true cell, of equals the later, as COCOeval does."""
    pair_truth, _, pair_offsets = pairs
    for d in order:
        best, chosen = least, -1
        for j in range(pair_offsets[d], pair_offsets[d + 1]):
            if true[pair_truth[j]] == _OPEN and ious[j] >= best:
                best, chosen = ious[j], pair_truth[j]
        if chosen >= 0:
            found[d] = true[chosen] = RIGHT
            carrier[chosen] = d


@compiled
def _pair_loosely(
    by_iou: Array,
    owners: Array,
    pair_truth: Array,
    ious: Array,
    least: float,
    found: Array,
    true: Array,
    carrier: Array,
) -> None:
    """Pair what is open, one to one and the highest IoU first: an outline that is not close enough."""
    for j in by_iou:
        if ious[j] < least:
            break
        d, g = owners[j], pair_truth[j]
        if found[d] == _OPEN and true[g] == _OPEN:
            found[d] = true[g] = LOOSE
            carrier[g] = d


@compiled
def _find_merged(
    pairs: tuple[Array, Array, Array],
    truth_areas: Array,
    order: Array,
    held: Array,
    cells: Array,
    least: float,
    found: Array,
    true: Array,
    carrier: Array,
) -> None:
    """Note the predictions that hold two true cells or more, and those of these cells that are open."""
    pair_truth, pair_pixels, pair_offsets = pairs
    for d in order:
        if held[d] < 2 or cells[d] < least:
            continue
        if found[d] == _OPEN:
            found[d] = MERGED
        for j in range(pair_offsets[d], pair_offsets[d + 1]):
            g = pair_truth[j]
            if 2 * pair_pixels[j] > truth_areas[g] and true[g] == _OPEN:
                true[g] = MERGED
                carrier[g] = d


@compiled
def _find_split(
    order: Array,
    holders: Array,
    inside: Array,
    pieces: Array,
    least: float,
    found: Array,
    true: Array,
    carrier: Array,
) -> None:
    """Note the true cells that hold two predictions or more, and those of these predictions that are open."""
    for d in order:
        g = holders[d]
        if g < 0 or inside[g] < 2 or pieces[g] < least:
            continue
        if true[g] == _OPEN:
            # the first by score: the cell would have been found with it
            true[g] = SPLIT
            carrier[g] = d
        if found[d] == _OPEN:
            found[d] = SPLIT
