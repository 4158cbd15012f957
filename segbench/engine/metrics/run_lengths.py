"""Decodes masks in COCO's run lengths, many at once, and finds which of them overlap by how much.

Source of the format: cocodataset/cocoapi, ``common/maskApi.c``. An IoU is the same quotient of whole numbers as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.compiled import compiled

Array = npt.NDArray[Any]

_DIGITS = 12
"""Characters a run may have: five bits each."""


@compiled
def decode_texts(data: Array, offsets: Array, pixels: Array) -> tuple[Array, Array, Array]:
    """Return the run lengths of masks in COCO's text: five bits a character, differences from the fourth run on.

    Parameters
    ----------
    data, offsets
        (C,) uint8 and (D + 1,): the characters of mask d are ``data[offsets[d]:offsets[d + 1]]``.
    pixels
        (D,), of each mask's image.

    Returns
    -------
    runs, run_offsets
        (R,) uint32 and (D + 1,) int64: column by column, background first.
    sound
        (D,) bool: False for what is no such text, or does not fill the image; its runs mean nothing.
    """
    n = offsets.size - 1
    runs, run_offsets = np.empty(data.size, np.uint32), np.zeros(n + 1, np.int64)
    sound = np.zeros(n, np.bool_)
    m = 0
    for d in range(n):
        first = m
        sound[d], m = _decode_text(data[offsets[d] : offsets[d + 1]], pixels[d], runs, first)
        run_offsets[d + 1] = m
    return runs[:m].copy(), run_offsets, sound


@compiled
def _decode_text(text: Array, pixels: Any, runs: Array, first: int) -> tuple[bool, int]:
    m, p, total = first, 0, np.int64(0)
    while p < text.size:
        value, k = np.int64(0), 0
        more = True
        while more:
            if p == text.size or k == _DIGITS:
                return False, first
            c = np.int64(text[p]) - 48
            if c < 0 or c > 63:
                return False, first
            value |= (c & 31) << np.int64(5 * k)
            more = (c & 32) != 0
            p += 1
            k += 1
            if not more and c & 16:
                value -= np.int64(1) << np.int64(5 * k)
        if m - first > 2:
            value += np.int64(runs[m - 2])
        if value < 0 or value > pixels:
            return False, first
        runs[m] = value
        total += value
        m += 1
    return total == pixels, m


@compiled
def measure_masks(runs: Array, run_offsets: Array, heights: Array) -> tuple[Array, Array]:
    """Return each mask's pixels (D,) and its first and last row and column (D, 4); an empty mask has none."""
    n = run_offsets.size - 1
    areas, boxes = np.zeros(n, np.int64), np.zeros((n, 4), np.int64)
    for d in range(n):
        height = np.int64(heights[d])
        top, bottom, left, right = height, np.int64(-1), np.int64(1) << np.int64(40), np.int64(-1)
        position = np.int64(0)
        for r in range(run_offsets[d], run_offsets[d + 1]):
            length = np.int64(runs[r])
            if (r - run_offsets[d]) % 2 == 1 and length > 0:
                last = position + length - 1
                column, end = position // height, last // height
                areas[d] += length
                left, right = min(left, column), max(right, end)
                top = min(top, position - column * height if column == end else np.int64(0))
                bottom = max(bottom, last - end * height if column == end else height - 1)
            position += length
        boxes[d, 0], boxes[d, 1], boxes[d, 2], boxes[d, 3] = top, bottom, left, right
    return areas, boxes


@compiled
def overlapping_pairs(
    found: tuple[Array, Array, Array, Array],
    true: tuple[Array, Array, Array, Array],
    found_places: Array,
    true_places: Array,
    crowd: Array,
    least: float,
) -> tuple[Array, Array, Array]:
    """Return the pairs of masks of one image whose IoU is at least ``least``, which is 0.5 or more.

    Parameters
    ----------
    found, true
        Runs, their offsets, areas and boxes of all masks, as `decode_texts` and `measure_masks` give them.
    found_places, true_places
        (D,) and (G,): which of them are meant.
    crowd
        (G,) bool: the IoU with a crowd is the share of the prediction that lies in it.

    Returns
    -------
    pair_truth, pair_ious, pair_offsets
        (J,) int64, by position in ``true_places``, ascending; (J,) float64; (D + 1,) int64.
    """
    pair_truth, pair_ious = np.empty(64, np.int64), np.empty(64)
    pair_offsets = np.zeros(found_places.size + 1, np.int64)
    found_runs, found_offsets, found_areas, found_boxes = found
    true_runs, true_offsets, true_areas, true_boxes = true
    areas, boxes = true_areas[true_places], true_boxes[true_places]
    n = 0
    for i in range(found_places.size):
        d = found_places[i]
        area, top, bottom, left, right = (
            found_areas[d], found_boxes[d, 0], found_boxes[d, 1], found_boxes[d, 2], found_boxes[d, 3],
        )  # fmt: skip
        for g in range(true_places.size):
            rows = min(bottom, boxes[g, 1]) - max(top, boxes[g, 0]) + 1
            columns = min(right, boxes[g, 3]) - max(left, boxes[g, 2]) + 1
            if rows <= 0 or columns <= 0:
                continue
            # what the boxes share bounds what the masks do
            if not crowd[g] and 3 * rows * columns < area + areas[g]:
                continue
            k = true_places[g]
            common = _common_pixels(
                found_runs[found_offsets[d] : found_offsets[d + 1]], true_runs[true_offsets[k] : true_offsets[k + 1]]
            )
            either = area if crowd[g] else area + areas[g] - common
            if common == 0 or common / either < least:
                continue
            if n == pair_truth.size:
                pair_truth, pair_ious = _twice(pair_truth), _twice(pair_ious)
            pair_truth[n], pair_ious[n] = g, common / either
            n += 1
        pair_offsets[i + 1] = n
    return pair_truth[:n], pair_ious[:n], pair_offsets


@compiled
def _twice(array: Array) -> Array:
    larger = np.empty(2 * array.size, array.dtype)
    larger[: array.size] = array
    return larger


@compiled
def _common_pixels(one: Array, other: Array) -> Any:
    """Return how many pixels two masks have in common."""
    i = j = 0
    end, other_end = np.int64(one[0]), np.int64(other[0])
    position, common = np.int64(0), np.int64(0)
    while True:
        nearest = min(end, other_end)
        if i & 1 and j & 1:
            common += nearest - position
        position = nearest
        if end == nearest:
            i += 1
            if i == one.size:
                return common
            end += np.int64(one[i])
        else:
            j += 1
            if j == other.size:
                return common
            other_end += np.int64(other[j])


@compiled
def match_in_order(
    pair_truth: Array, pair_ious: Array, pair_offsets: Array, ignored: Array, crowd: Array, thresholds: Array
) -> tuple[Array, Array]:
    """Match one image's detections as ``COCOeval.evaluateImg`` does, overlapping and ignored truth and all.

    Parameters
    ----------
    pair_truth, pair_ious, pair_offsets
        As `overlapping_pairs` returns them: the detections by descending score, pairs below the lowest threshold left
        out.
    ignored, crowd
        (G,) bool. A crowd may be matched more than once.
    thresholds
        (T,) float64, ascending, T <= 16.

    Returns
    -------
    matches, to_ignored
        (D,) uint16: bit t is set where a detection is matched, and where it is matched to an ignored object.
    """
    n_detections = pair_offsets.size - 1
    matches, to_ignored = np.zeros(n_detections, np.uint16), np.zeros(n_detections, np.uint16)
    taken = np.zeros(ignored.size, np.uint16)
    for d in range(n_detections):
        for t in range(thresholds.size):
            best, chosen = thresholds[t], np.int64(-1)
            # ignored objects only where no other is near enough
            for of_ignored in (False, True):
                if chosen >= 0:
                    break
                for j in range(pair_offsets[d], pair_offsets[d + 1]):
                    g = pair_truth[j]
                    if ignored[g] != of_ignored or pair_ious[j] < best or ((taken[g] >> t) & 1 and not crowd[g]):
                        continue
                    best, chosen = pair_ious[j], g
            if chosen >= 0:
                taken[chosen] |= np.uint16(1 << t)
                matches[d] |= np.uint16(1 << t)
                if ignored[chosen]:
                    to_ignored[d] |= np.uint16(1 << t)
    return matches, to_ignored
