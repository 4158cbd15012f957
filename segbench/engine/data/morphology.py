"""The shape of cells: area, elongation and convexity of every cell of a label map."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

_SMOOTH = 2
"""Outline points to each side that the smoothed outline averages over."""


@dataclass(frozen=True)
class Morphology:
    """Shapes of the k cells of a label map, in label order 1..k."""

    area: npt.NDArray[np.int32]
    """Pixels of the cell."""
    elongation: npt.NDArray[np.float32]
    """Smaller over larger eigenvalue of the covariance of the boundary's points: 1 round, 0 a line."""
    convexity: npt.NDArray[np.float32]
    """Perimeter of the convex hull over the perimeter of the cell: 1 convex, smaller with every dent."""
    cut: npt.NDArray[np.bool_]
    """True where the cell touches the map's border, so that its shape may be that of a part."""


def measure(labels: npt.NDArray[np.int32]) -> Morphology:
    """Measure every cell of a label map.

    The boundary is the closed chain of the cell's outermost pixels, eight-connected, through pixel centres (as OpenCV's
    ``findContours`` gives it). A chain of unit and diagonal steps is up to 8% longer than the outline it stands for, so
    both perimeters of the convexity are taken of the chain smoothed by a window of five points, and in the covariance
    a point weighs the length of smoothed outline that it stands for: a cell that is turned keeps its shape's
    numbers. Of a cell in several pieces the largest is measured; holes are not seen. Area counts all pixels. A cell
    of one pixel has elongation 1 and convexity 1.

    Parameters
    ----------
    labels
        (H, W) int32, 0 background, 1..k without gaps.

    Examples
    --------
    A disc of radius 20, an ellipse of half-axes 30 and 15, and an L of three squares of side 20:

    >>> y, x = np.mgrid[:128, :128]
    >>> labels = np.zeros((128, 128), np.int32)
    >>> labels[(y - 30) ** 2 + (x - 30) ** 2 <= 20**2] = 1
    >>> labels[((y - 95) / 30) ** 2 + ((x - 30) / 15) ** 2 <= 1] = 2
    >>> labels[60:100, 70:90] = labels[80:100, 70:110] = 3
    >>> shapes = measure(labels)
    >>> shapes.area.tolist()
    [1257, 1407, 1200]
    >>> [round(float(v), 2) for v in shapes.elongation]
    [1.0, 0.34, 0.56]
    >>> [round(float(v), 2) for v in shapes.convexity]
    [1.0, 1.0, 0.94]
    """
    if labels.max(initial=0) == 0:
        none = np.zeros(0, np.float32)
        return Morphology(np.zeros(0, np.int32), none, none, np.zeros(0, np.bool_))
    return Morphology(*_measure(np.ascontiguousarray(labels, np.int32), int(labels.max()), _SMOOTH))


@numba.njit(cache=True, nogil=True)
def _measure(labels, k, smooth):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    area = np.zeros(k, np.int32)
    boxes = np.empty((k, 4), np.int32)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = height, width, -1, -1
    for y in range(height):
        for x in range(width):
            n = labels[y, x] - 1
            if n >= 0:
                area[n] += 1
                boxes[n, 0] = min(boxes[n, 0], y)
                boxes[n, 1] = min(boxes[n, 1], x)
                boxes[n, 2] = max(boxes[n, 2], y)
                boxes[n, 3] = max(boxes[n, 3], x)
    elongation = np.ones(k, np.float32)
    convexity = np.ones(k, np.float32)
    cut = np.zeros(k, np.bool_)
    stack = np.empty((area.max(), 2), np.int32)
    for n in range(k):
        if area[n] == 0:
            continue
        top, left, bottom, right = boxes[n]
        cut[n] = top == 0 or left == 0 or bottom == height - 1 or right == width - 1
        mask = np.zeros((bottom - top + 3, right - left + 3), np.uint8)
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                mask[y - top + 1, x - left + 1] = labels[y, x] == n + 1
        y0, x0 = _largest_piece(mask, stack)
        chain = _boundary(mask, y0, x0)
        outline = _smoothed(chain, smooth)
        elongation[n] = _elongation(chain, outline)
        perimeter = _perimeter(outline)
        if perimeter > 0:
            convexity[n] = min(1.0, _perimeter(_hull(outline)) / perimeter)
    return area, elongation, convexity, cut


@numba.njit(cache=True, nogil=True)
def _largest_piece(mask, stack):  # type: ignore[no-untyped-def]
    """Keep value 2 in the largest eight-connected piece of a zero-bordered mask; return that piece's first pixel."""
    best, best_y, best_x = 0, 0, 0
    for y in range(1, mask.shape[0] - 1):
        for x in range(1, mask.shape[1] - 1):
            if mask[y, x] != 1:
                continue
            stack[0, 0], stack[0, 1] = y, x
            mask[y, x] = 2
            filled, size = 1, 0
            while filled:
                filled -= 1
                cy, cx = stack[filled]
                size += 1
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        if mask[cy + dy, cx + dx] == 1:
                            mask[cy + dy, cx + dx] = 2
                            stack[filled, 0], stack[filled, 1] = cy + dy, cx + dx
                            filled += 1
            if size > best:
                best, best_y, best_x = size, y, x
    return best_y, best_x


@numba.njit(cache=True, nogil=True)
def _boundary(mask, y0, x0):  # type: ignore[no-untyped-def]
    """Return the closed chain (n, 2) of boundary pixels from the first pixel on, by Moore's neighbour walk."""
    step_y = np.array([0, 1, 1, 1, 0, -1, -1, -1])
    step_x = np.array([1, 1, 0, -1, -1, -1, 0, 1])
    chain = np.empty((256, 2), np.float64)
    chain[0, 0], chain[0, 1] = y0, x0
    n = 1
    first = -1
    y, x, look = y0, x0, 5
    while True:
        found = -1
        for turn in range(8):
            d = (look + turn) % 8
            if mask[y + step_y[d], x + step_x[d]]:
                found = d
                break
        if found < 0:
            break
        if y == y0 and x == x0:
            # the walk is closed when it leaves the first pixel the same way for the second time
            if first < 0:
                first = found
            elif first == found:
                n -= 1
                break
        y, x = y + step_y[found], x + step_x[found]
        if n == chain.shape[0]:
            longer = np.empty((2 * n, 2), np.float64)
            longer[:n] = chain
            chain = longer
        chain[n, 0], chain[n, 1] = y, x
        n += 1
        # next, look first at the neighbour after the one that was last seen empty
        look = (found + 6) % 8 if found % 2 == 0 else (found + 5) % 8
    return chain[:n]


@numba.njit(cache=True, nogil=True)
def _elongation(points, outline):  # type: ignore[no-untyped-def]
    """Return the ratio of the eigenvalues; each point weighs the length of smoothed outline that it stands for."""
    n = points.shape[0]
    weights = np.empty(n)
    for i in range(n):
        before, after = outline[i - 1], outline[(i + 1) % n]
        weights[i] = np.hypot(outline[i, 0] - before[0], outline[i, 1] - before[1])
        weights[i] += np.hypot(after[0] - outline[i, 0], after[1] - outline[i, 1])
    total = weights.sum()
    if total == 0:
        return 1.0
    my, mx = (weights * points[:, 0]).sum() / total, (weights * points[:, 1]).sum() / total
    yy = xx = xy = 0.0
    for i in range(n):
        dy, dx = points[i, 0] - my, points[i, 1] - mx
        yy += weights[i] * dy * dy
        xx += weights[i] * dx * dx
        xy += weights[i] * dx * dy
    middle = (yy + xx) / 2
    spread = np.sqrt(((yy - xx) / 2) ** 2 + xy * xy)
    if middle + spread == 0:
        return 1.0
    return max(0.0, middle - spread) / (middle + spread)


@numba.njit(cache=True, nogil=True)
def _smoothed(chain, smooth):  # type: ignore[no-untyped-def]
    n = chain.shape[0]
    # a short chain would shrink to its centre
    reach = min(smooth, n // 8)
    result = np.empty((n, 2), np.float64)
    for i in range(n):
        y = x = 0.0
        for d in range(-reach, reach + 1):
            y += chain[(i + d) % n, 0]
            x += chain[(i + d) % n, 1]
        result[i, 0], result[i, 1] = y / (2 * reach + 1), x / (2 * reach + 1)
    return result


@numba.njit(cache=True, nogil=True)
def _perimeter(points):  # type: ignore[no-untyped-def]
    total = 0.0
    n = points.shape[0]
    for i in range(n):
        j = (i + 1) % n
        total += np.hypot(points[j, 0] - points[i, 0], points[j, 1] - points[i, 1])
    return total


@numba.njit(cache=True, nogil=True)
def _hull(points):  # type: ignore[no-untyped-def]
    """Return the convex hull's corners by Andrew's monotone chain."""
    # sorting by x and then y: coordinates are below 2^20, with at least 2^-20 between different ones
    order = np.argsort(points[:, 1] * 2.0**24 + points[:, 0])
    n = points.shape[0]
    hull = np.empty((2 * n + 1, 2), np.float64)
    m = 0
    for sweep in range(2):
        floor = m + 1
        for i in range(n):
            p = points[order[i] if sweep == 0 else order[n - 1 - i]]
            while m > floor:
                ay, ax = hull[m - 1, 0] - hull[m - 2, 0], hull[m - 1, 1] - hull[m - 2, 1]
                by, bx = p[0] - hull[m - 2, 0], p[1] - hull[m - 2, 1]
                if ax * by - ay * bx > 0:
                    break
                m -= 1
            hull[m, 0], hull[m, 1] = p[0], p[1]
            m += 1
    return hull[: max(m - 1, 1)]
