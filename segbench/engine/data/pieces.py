"""Instances cut out of windows, as small masks with their place in the whole image, and which of two are one cell."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from segbench.methods.predictions import Instances, LabelInstances, MaskInstances

TOP, LEFT, BOTTOM, RIGHT = range(4)
Box = tuple[int, int, int, int]
"""Top, left, bottom, right; the last two are the first row and column beyond."""


@dataclass(frozen=True)
class Pieces:
    """The k instances of one window."""

    boxes: npt.NDArray[np.int64]
    """(k, 4), top, left, bottom, right in the whole image."""
    areas: npt.NDArray[np.int64]
    """(k,), pixels."""
    scores: npt.NDArray[np.float64]
    """(k,)."""
    bits: npt.NDArray[np.uint8]
    """All masks end to end, each as large as its box, row by row."""
    offsets: npt.NDArray[np.int64]
    """(k + 1,), where each mask begins and ends."""

    def mask(self, k: int) -> npt.NDArray[np.bool_]:
        """Return one instance's mask, as large as its box."""
        top, left, bottom, right = self.boxes[k]
        return self.bits[self.offsets[k] : self.offsets[k + 1]].reshape(bottom - top, right - left).view(np.bool_)


def pieces_of(instances: Instances, top: int, left: int, size: tuple[int, int]) -> Pieces:
    """Return the instances of a window that lies at (top, left); those without a pixel are left out.

    Parameters
    ----------
    instances
        A label map with scores, or overlapping masks with scores.
    top, left
        Where the window's first pixel lies in the whole image.
    size
        Height and width of the window; raises ValueError where the instances are of another.
    """
    scores = np.asarray(instances.scores, np.float64)
    if isinstance(instances, LabelInstances):
        labels = np.ascontiguousarray(instances.labels, np.int32)
        if labels.shape != size:
            raise ValueError(f"a window of {size} pixels, its label map is {labels.shape}")
        boxes, areas = _boxes_of_labels(labels, scores.size)
    else:
        runs, cuts = _joined(instances, size)
        boxes, areas = _boxes_of_runs(runs, cuts, size[0])
    sides = boxes[:, BOTTOM:] - boxes[:, :BOTTOM]
    offsets = np.concatenate([[0], np.cumsum(sides[:, 0] * sides[:, 1])]).astype(np.int64)
    bits = np.zeros(offsets[-1], np.uint8)
    if isinstance(instances, LabelInstances):
        _fill_from_labels(labels, boxes, offsets, bits)
    else:
        _fill_from_runs(runs, cuts, size[0], boxes, offsets, bits)
    there = areas > 0
    placed = boxes + np.array([top, left, top, left])
    # masks without a pixel have no bits: what is left fits the offsets
    kept = np.concatenate([offsets[:-1][there], offsets[-1:]])
    return Pieces(placed[there], areas[there], scores[there], bits, kept)


def matches(one: Pieces, other: Pieces, region: Box, above: float) -> list[tuple[float, int, int]]:
    """Return (IoU, instance of one, instance of other) where the IoU in a region is above a bound, the highest first.

    Parameters
    ----------
    one, other
        The instances of two windows.
    region
        What both windows show; only pixels in it count, so that a part is compared with the same part.
    above
        The bound.
    """
    found = _matches(
        one.boxes, one.offsets, one.bits, other.boxes, other.offsets, other.bits, np.array(region, np.int64), above
    )
    return sorted(((float(iou), int(i), int(j)) for iou, i, j in found), key=lambda pair: (-pair[0], pair[1:]))


def _joined(instances: MaskInstances, size: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    for k, counts in enumerate(instances.counts):
        if int(np.sum(counts, dtype=np.int64)) != size[0] * size[1]:
            raise ValueError(f"mask {k} has {int(np.sum(counts))} pixels, its window {size[0]} x {size[1]}")
    cuts = np.concatenate([[0], np.cumsum([len(counts) for counts in instances.counts])]).astype(np.int64)
    return np.concatenate([np.zeros(0), *instances.counts]).astype(np.int64), cuts


@numba.njit(cache=True, nogil=True)
def _boxes_of_labels(labels, k):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    boxes = np.zeros((k, 4), np.int64)
    areas = np.zeros(k, np.int64)
    for y in range(height):
        for x in range(width):
            n = labels[y, x] - 1
            if n < 0 or n >= k:
                continue
            if areas[n] == 0:
                boxes[n] = y, x, y + 1, x + 1
            areas[n] += 1
            boxes[n, 1] = min(boxes[n, 1], x)
            boxes[n, 2] = y + 1
            boxes[n, 3] = max(boxes[n, 3], x + 1)
    return boxes, areas


@numba.njit(cache=True, nogil=True)
def _fill_from_labels(labels, boxes, offsets, bits):  # type: ignore[no-untyped-def]
    for n in range(boxes.shape[0]):
        at = offsets[n]
        for y in range(boxes[n, 0], boxes[n, 2]):
            for x in range(boxes[n, 1], boxes[n, 3]):
                bits[at] = labels[y, x] == n + 1
                at += 1


@numba.njit(cache=True, nogil=True)
def _boxes_of_runs(runs, cuts, height):  # type: ignore[no-untyped-def]
    k = cuts.size - 1
    boxes = np.zeros((k, 4), np.int64)
    areas = np.zeros(k, np.int64)
    for n in range(k):
        at = 0
        for r in range(cuts[n], cuts[n + 1]):
            if (r - cuts[n]) % 2 == 1 and runs[r] > 0:
                first, last = at, at + runs[r] - 1
                left, right = first // height, last // height + 1
                # a run over the end of a column reaches both ends of one
                top = first % height if left + 1 == right else 0
                bottom = last % height + 1 if left + 1 == right else height
                if areas[n] == 0:
                    boxes[n] = top, left, bottom, right
                boxes[n, 0] = min(boxes[n, 0], top)
                boxes[n, 2] = max(boxes[n, 2], bottom)
                boxes[n, 3] = right
                areas[n] += runs[r]
            at += runs[r]
    return boxes, areas


@numba.njit(cache=True, nogil=True)
def _fill_from_runs(runs, cuts, height, boxes, offsets, bits):  # type: ignore[no-untyped-def]
    for n in range(cuts.size - 1):
        width = boxes[n, 3] - boxes[n, 1]
        at = 0
        for r in range(cuts[n], cuts[n + 1]):
            if (r - cuts[n]) % 2 == 1:
                for p in range(at, at + runs[r]):
                    bits[offsets[n] + (p % height - boxes[n, 0]) * width + p // height - boxes[n, 1]] = 1
            at += runs[r]


@numba.njit(cache=True, nogil=True)
def _count_in(box, offset, bits, region):  # type: ignore[no-untyped-def]
    width = box[3] - box[1]
    n = 0
    for y in range(max(box[0], region[0]), min(box[2], region[2])):
        for x in range(max(box[1], region[1]), min(box[3], region[3])):
            n += bits[offset + (y - box[0]) * width + x - box[1]]
    return n


@numba.njit(cache=True, nogil=True)
def _matches(boxes_a, offsets_a, bits_a, boxes_b, offsets_b, bits_b, region, above):  # type: ignore[no-untyped-def]
    found = [(0.0, 0, 0) for _ in range(0)]
    in_b = np.array([_count_in(boxes_b[j], offsets_b[j], bits_b, region) for j in range(boxes_b.shape[0])])
    both = np.zeros(4, np.int64)
    for i in range(boxes_a.shape[0]):
        a = boxes_a[i]
        in_a = _count_in(a, offsets_a[i], bits_a, region)
        if in_a == 0:
            continue
        for j in range(boxes_b.shape[0]):
            b = boxes_b[j]
            if in_b[j] == 0 or b[0] >= a[2] or b[2] <= a[0] or b[1] >= a[3] or b[3] <= a[1]:
                continue
            for side in range(2):
                both[side] = max(a[side], b[side], region[side])
                both[side + 2] = min(a[side + 2], b[side + 2], region[side + 2])
            shared = 0
            for y in range(both[0], both[2]):
                for x in range(both[1], both[3]):
                    one = bits_a[offsets_a[i] + (y - a[0]) * (a[3] - a[1]) + x - a[1]]
                    shared += one & bits_b[offsets_b[j] + (y - b[0]) * (b[3] - b[1]) + x - b[1]]
            iou = shared / (in_a + in_b[j] - shared)
            if iou > above:
                found.append((iou, i, j))
    return found
