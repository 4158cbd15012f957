"""Grows or shrinks the cells of label maps, one radius or all radii from one distance computation.

Every operation gives each pixel a label and a level: the smallest radius at which a growing cell has the pixel,
or at which a shrinking cell has lost it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.batches import checked_map
from segbench.engine.metrics.compiled import compiled
from segbench.errors import SegbenchError, unknown_name

Array = npt.NDArray[Any]
Operation = Literal["dilate", "erode"]
Structure = Literal["disk", "cross"]

LARGEST_RADIUS = 500


def apply_post_operation(
    labels: npt.NDArray[Any], operation: Operation, radius: int, structure: Structure = "disk"
) -> npt.NDArray[np.int32]:
    """Return a label map (H, W) with every cell grown or shrunk by ``radius`` pixels.

    Parameters
    ----------
    labels
        (H, W), any integer type, 0 is background.
    operation
        ``"dilate"``: a cell grows over background and stops where it meets another. ``"erode"``: each cell shrinks by
        itself; beyond the image's edge counts as background. Cells may vanish.
    radius
        Pixels, 0 to 500.
    structure
        ``"disk"``: by Euclidean distance. Dilation equals `skimage.segmentation.expand_labels`, erosion equals
        `scipy.ndimage.binary_erosion` of each cell with `skimage.morphology.disk`. ``"cross"``: ``radius`` steps by the
        cross-shaped element of `scipy.ndimage.binary_dilation` and ``binary_erosion``, in each step the cells by turns
        in ascending label order, none over another.

    Raises
    ------
    SegbenchError
        For an unknown operation or structure, a radius out of range, or a map that is none.

    Examples
    --------
    >>> row = np.array([[3, 0, 0, 0, 0, 8]])
    >>> apply_post_operation(row, "dilate", 1)
    array([[3, 3, 0, 0, 8, 8]], dtype=int32)
    """
    checked_operation(operation, structure)
    (radius,) = checked_radii([radius])
    flat = np.ascontiguousarray(checked_map(labels, "map", 0), dtype=np.int32)
    grown, levels = post_operation_levels(flat, operation, structure, np.array([radius]))
    if operation == "dilate":
        return np.where(levels == 0, grown, 0).astype(np.int32)
    return np.where(levels > 0, grown, 0).astype(np.int32)


def checked_operation(operation: str, structure: str) -> None:
    """Raise SegbenchError for an operation or structure that does not exist."""
    if operation not in get_args(Operation):
        raise unknown_name("post-operation", operation, get_args(Operation))
    if structure not in get_args(Structure):
        raise unknown_name("structure", structure, get_args(Structure))


def checked_radii(radii: Sequence[int]) -> tuple[int, ...]:
    """Return the radii in ascending order; what is not a set of whole numbers from 0 to 500 raises SegbenchError."""
    values = sorted(set(radii))
    if not values:
        raise SegbenchError("no radii; give at least one")
    if any(int(value) != value for value in values) or values[0] < 0 or values[-1] > LARGEST_RADIUS:
        raise SegbenchError(f"radii go from {values[0]} to {values[-1]}; they are whole pixels, 0 to {LARGEST_RADIUS}")
    return tuple(int(value) for value in values)


def post_operation_levels(
    labels: npt.NDArray[np.int32], operation: Operation, structure: Structure, radii: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
    """Return label and level of each pixel for ascending ``radii`` (S,).

    Parameters
    ----------
    labels
        (H, W), contiguous.

    Returns
    -------
    grown
        (H, W) int32: for dilation the label that a pixel gets at the largest radius (0: none), for erosion ``labels``.
    levels
        (H, W) uint16: the first of the radii, by position, at which a growing cell has the pixel (S: none), or at
        which a shrinking cell has lost it (S: none).
    """
    largest = int(radii[-1])
    reach = np.arange(2 * (largest + 1) ** 2 + 1)
    # by squared distance, or by steps, to the position of the first radius that reaches so far
    by_squared = np.searchsorted(radii * radii, reach).astype(np.uint16)
    by_steps = np.searchsorted(radii, np.arange(largest + 2)).astype(np.uint16)
    if operation == "dilate":
        if structure == "disk":
            return _dilate_disk(labels, largest, by_squared)
        return _dilate_cross(labels, largest, by_steps)
    if structure == "disk":
        return labels, _erode_disk(labels, largest, by_squared)
    return labels, _erode_cross(labels, largest, by_steps)


@compiled
def _dilate_disk(labels: Array, radius: int, level_of: Array) -> tuple[Array, Array]:
    """Find each pixel's nearest labelled pixel within the radius; of equals the leftmost, then the uppermost.

    That is the choice of scipy's Euclidean feature transform (columns first, then rows, ties to the smaller index), on
    which `expand_labels` rests. First the nearest in the column, then the best of the columns around; distance and
    column are packed in one number, so that the smallest of them decides.
    """
    height, width = labels.shape
    distance, source = _nearest_in_column(labels, radius)
    shift = 0
    while (1 << shift) < 2 * radius + 1:
        shift += 1
    far = np.int32(1 << 30)
    packed, best = np.full(width + 2 * radius, far, np.int32), np.empty(width, np.int32)
    grown, levels = np.empty((height, width), np.int32), np.empty((height, width), np.uint16)
    beyond = level_of[(radius + 1) * (radius + 1)]
    for y in range(height):
        for x in range(width):
            d = distance[y, x]
            packed[radius + x] = (d * d) << shift if d <= radius else far
        best[:] = far
        for j in range(2 * radius + 1):
            offset = np.int32((((j - radius) * (j - radius)) << shift) + j)
            for x in range(width):
                best[x] = min(best[x], packed[x + j] + offset)
        for x in range(width):
            squared = best[x] >> shift
            if squared > radius * radius:
                grown[y, x], levels[y, x] = 0, beyond
            else:
                column = x + (best[x] & ((1 << shift) - 1)) - radius
                grown[y, x], levels[y, x] = source[y, column], level_of[squared]
    return grown, levels


@compiled
def _nearest_in_column(labels: Array, radius: int) -> tuple[Array, Array]:
    """Return, for each pixel, the nearest labelled pixel of its column: its distance and its label (H, W) int32.

    Beyond the radius the distance is ``radius + 1`` and the label 0.
    """
    height, width = labels.shape
    distance, source = np.empty((height, width), np.int32), np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if labels[y, x] != 0:
                distance[y, x], source[y, x] = 0, labels[y, x]
            elif y > 0 and distance[y - 1, x] < radius:
                distance[y, x], source[y, x] = distance[y - 1, x] + 1, source[y - 1, x]
            else:
                distance[y, x], source[y, x] = radius + 1, 0
    for y in range(height - 2, -1, -1):
        for x in range(width):
            if distance[y + 1, x] + 1 < distance[y, x]:
                distance[y, x], source[y, x] = distance[y + 1, x] + 1, source[y + 1, x]
    return distance, source


@compiled
def _erode_disk(labels: Array, radius: int, level_of: Array) -> Array:
    """Find each pixel's squared distance to the nearest pixel that its cell does not have, up to the radius."""
    height, width = labels.shape
    cap = radius + 1
    # distance to the nearest pixel of another label in the same column
    distance = np.empty((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            same = y > 0 and labels[y - 1, x] == labels[y, x]
            distance[y, x] = min(cap, distance[y - 1, x] + 1) if same else 1
    below = np.ones(width, np.int32)
    levels = np.empty((height, width), np.uint16)
    best = np.empty(width, np.int32)
    padded, squares = np.full(width + 2 * cap, -1, np.int32), np.zeros(width + 2 * cap, np.int32)
    for y in range(height - 1, -1, -1):
        for x in range(width):
            same = y + 1 < height and labels[y + 1, x] == labels[y, x]
            below[x] = min(cap, below[x] + 1) if same else 1
            nearest = min(distance[y, x], below[x])
            padded[cap + x], squares[cap + x] = labels[y, x], nearest * nearest
        best[:] = cap * cap
        for j in range(2 * cap + 1):
            offset = np.int32((j - cap) * (j - cap))
            for x in range(width):
                away = squares[x + j] if padded[x + j] == padded[x + cap] else np.int32(0)
                best[x] = min(best[x], away + offset)
        for x in range(width):
            levels[y, x] = level_of[best[x]] if labels[y, x] != 0 else 0
    return levels


@compiled
def _dilate_cross(labels: Array, radius: int, level_of: Array) -> tuple[Array, Array]:
    """Grow all cells step by step; a pixel that several reach in one step goes to the smallest label."""
    height, width = labels.shape
    grown, steps = labels.copy(), np.empty((height, width), np.int32)
    front_y, front_x = np.empty(labels.size, np.int32), np.empty(labels.size, np.int32)
    last = 0
    for y in range(height):
        for x in range(width):
            steps[y, x] = 0 if labels[y, x] != 0 else radius + 1
            if labels[y, x] != 0:
                front_y[last], front_x[last] = y, x
                last += 1
    first = 0
    for step in range(1, radius + 1):
        end = last
        for i in range(first, end):
            y, x = front_y[i], front_x[i]
            for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
                v, u = y + dy, x + dx
                if v < 0 or u < 0 or v >= height or u >= width:
                    continue
                if steps[v, u] > step:
                    steps[v, u], grown[v, u] = step, grown[y, x]
                    front_y[last], front_x[last] = v, u
                    last += 1
                elif steps[v, u] == step:
                    grown[v, u] = min(grown[v, u], grown[y, x])
        first = end
    return grown, _levels_at(steps, level_of)


@compiled
def _levels_at(steps: Array, level_of: Array) -> Array:
    levels = np.empty(steps.shape, np.uint16)
    for y in range(steps.shape[0]):
        for x in range(steps.shape[1]):
            levels[y, x] = level_of[steps[y, x]]
    return levels


@compiled
def _erode_cross(labels: Array, radius: int, level_of: Array) -> Array:
    """Find each pixel's city-block distance to the nearest pixel that its cell does not have, up to the radius."""
    height, width = labels.shape
    cap = radius + 1
    steps = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            above = steps[y - 1, x] if y > 0 and labels[y - 1, x] == label else 0
            left = steps[y, x - 1] if x > 0 and labels[y, x - 1] == label else 0
            steps[y, x] = min(cap, above + 1, left + 1)
    levels = np.empty((height, width), np.uint16)
    for y in range(height - 1, -1, -1):
        for x in range(width - 1, -1, -1):
            label = labels[y, x]
            below = steps[y + 1, x] if y + 1 < height and labels[y + 1, x] == label else 0
            right = steps[y, x + 1] if x + 1 < width and labels[y, x + 1] == label else 0
            steps[y, x] = min(steps[y, x], below + 1, right + 1)
            levels[y, x] = level_of[steps[y, x]] if label != 0 else 0
    return levels
