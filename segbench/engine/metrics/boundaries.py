"""Compares the outlines of matched cells: boundary IoU, and how far apart the outlines lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.compiled import compiled

Array = npt.NDArray[Any]

BAND_PX = 2
"""How far from a cell's outline its boundary reaches, in pixels: ``d`` of boundary IoU (Cheng et al., CVPR 2021)."""
BOUNDARY_IOU, MEAN_DISTANCE, DISTANCE_95 = range(3)
"""Columns of what `compare_labels` and `compare_masks` return."""


@compiled
def find_boxes(labels: Array, n: int) -> tuple[Array, Array]:
    """Return where each cell of a map (H, W) of labels 0 to ``n`` lies.

    Returns
    -------
    boxes
        (n, 4) int32: first row, last row, first column, last column of the cell's pixels.
    centres
        (n, 2) float64: the mean row and column of its pixels.
    """
    boxes = np.empty((n, 4), np.int32)
    boxes[:, 0], boxes[:, 1] = labels.shape[0], -1
    boxes[:, 2], boxes[:, 3] = labels.shape[1], -1
    sums, pixels = np.zeros((n, 2)), np.zeros(n, np.int64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            k = labels[y, x] - 1
            if k < 0:
                continue
            boxes[k, 0], boxes[k, 1] = min(boxes[k, 0], y), max(boxes[k, 1], y)
            boxes[k, 2], boxes[k, 3] = min(boxes[k, 2], x), max(boxes[k, 3], x)
            sums[k, 0] += y
            sums[k, 1] += x
            pixels[k] += 1
    for k in range(n):
        sums[k] /= max(1, pixels[k])
    return boxes, sums


@compiled
def compare_labels(
    truth: Array, predictions: Array, boxes: Array, found_boxes: Array, pairs: Array, band: int
) -> Array:
    """Compare the outlines of pairs of cells of two label maps.

    Parameters
    ----------
    truth, predictions
        (H, W) int32, labels from 1.
    boxes, found_boxes
        Of their cells, as `find_boxes` gives them.
    pairs
        (K, 2): the positions (label - 1) of a true cell and of the prediction that matches it.
    band
        Pixels, as `BAND_PX`.

    Returns
    -------
    (K, 3), by the columns above: the IoU of the cells' pixels within ``band`` of their outlines; the mean distance in
    pixels from each cell's outline to the other's, over both; and the greater of the two 95th percentiles. What lies
    beyond the image counts as outside of a cell.
    """
    result = np.zeros((pairs.shape[0], 3))
    for k in range(pairs.shape[0]):
        g, d = pairs[k]
        box = _joint_box(boxes[g], found_boxes[d])
        one = np.zeros((box[1] - box[0] + 3, box[3] - box[2] + 3), np.bool_)
        other = np.zeros_like(one)
        for y in range(box[0], box[1] + 1):
            for x in range(box[2], box[3] + 1):
                one[y - box[0] + 1, x - box[2] + 1] = truth[y, x] == g + 1
                other[y - box[0] + 1, x - box[2] + 1] = predictions[y, x] == d + 1
        _compare(one, other, band, result[k])
    return result


@compiled
def compare_masks(truth: Array, boxes: Array, runs: Array, run_offsets: Array, pairs: Array, band: int) -> Array:
    """Compare the outlines of true cells of a label map and of predicted masks in run lengths; see `compare_labels`.

    ``runs`` and ``run_offsets`` are as `matching.match_masks` takes them: column by column, background first.
    """
    result = np.zeros((pairs.shape[0], 3))
    height = truth.shape[0]
    for k in range(pairs.shape[0]):
        g, d = pairs[k]
        mine = runs[run_offsets[d] : run_offsets[d + 1]]
        box = _joint_box(boxes[g], _box_of_runs(mine, height))
        one = np.zeros((box[1] - box[0] + 3, box[3] - box[2] + 3), np.bool_)
        other = np.zeros_like(one)
        for y in range(box[0], box[1] + 1):
            for x in range(box[2], box[3] + 1):
                one[y - box[0] + 1, x - box[2] + 1] = truth[y, x] == g + 1
        position = np.int64(0)
        for r in range(mine.size):
            for i in range(position, position + np.int64(mine[r]) * (r % 2)):
                other[i % height - box[0] + 1, i // height - box[2] + 1] = True
            position += np.int64(mine[r])
        _compare(one, other, band, result[k])
    return result


@compiled
def _joint_box(one: Array, other: Array) -> Array:
    return np.array(
        [min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3])], np.int64
    )


@compiled
def _box_of_runs(runs: Array, height: int) -> Array:
    box = np.array([height, -1, np.iinfo(np.int32).max, -1], np.int64)
    position = np.int64(0)
    for r in range(runs.size):
        length = np.int64(runs[r])
        if r % 2 == 1 and length > 0:
            first, last = position, position + length - 1
            same = first // height == last // height
            box[0] = min(box[0], first % height if same else 0)
            box[1] = max(box[1], last % height if same else height - 1)
            box[2], box[3] = min(box[2], first // height), max(box[3], last // height)
        position += length
    return box


@compiled
def _compare(one: Array, other: Array, band: int, result: Array) -> None:
    """Compare two masks that have an empty row and column on each side."""
    both = either = 0
    points, other_points = np.empty((one.size, 2), np.int32), np.empty((one.size, 2), np.int32)
    n_points = n_other = 0
    for y in range(one.shape[0]):
        for x in range(one.shape[1]):
            near, other_near = one[y, x] and _is_near(one, y, x, band), other[y, x] and _is_near(other, y, x, band)
            both += near and other_near
            either += near or other_near
            if near and _is_edge(one, y, x):
                points[n_points, 0], points[n_points, 1] = y, x
                n_points += 1
            if other_near and _is_edge(other, y, x):
                other_points[n_other, 0], other_points[n_other, 1] = y, x
                n_other += 1
    result[BOUNDARY_IOU] = both / either
    there, back = (
        _nearest(points[:n_points], other_points[:n_other]),
        _nearest(other_points[:n_other], points[:n_points]),
    )
    result[MEAN_DISTANCE] = (np.sum(there) + np.sum(back)) / (there.size + back.size)
    result[DISTANCE_95] = max(_percentile_95(there), _percentile_95(back))


@compiled
def _percentile_95(values: Array) -> float:
    """Return the 95th percentile as np.percentile does, which takes numba nine seconds to compile."""
    ordered = np.sort(values)
    place = 0.95 * (ordered.size - 1)
    low = int(place)
    high = min(low + 1, ordered.size - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


@compiled
def _is_edge(mask: Array, y: int, x: int) -> bool:
    return not (mask[y - 1, x] and mask[y + 1, x] and mask[y, x - 1] and mask[y, x + 1])


@compiled
def _is_near(mask: Array, y: int, x: int, band: int) -> bool:
    """Return whether something outside of the mask is at most ``band`` rows and columns away."""
    for v in range(y - band, y + band + 1):
        for u in range(x - band, x + band + 1):
            if v < 0 or u < 0 or v >= mask.shape[0] or u >= mask.shape[1] or not mask[v, u]:
                return True
    return False


@compiled
def _nearest(points: Array, others: Array) -> Array:
    """Return the distance from each point to the nearest of the others."""
    distances = np.empty(points.shape[0])
    for i in range(points.shape[0]):
        least = np.int64(1) << np.int64(62)
        for j in range(others.shape[0]):
            dy, dx = np.int64(points[i, 0] - others[j, 0]), np.int64(points[i, 1] - others[j, 1])
            least = min(least, dy * dy + dx * dx)
        distances[i] = np.sqrt(np.float64(least))
    return distances
