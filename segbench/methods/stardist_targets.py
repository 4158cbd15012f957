"""What StarDist learns of each pixel: nearness to its cell's middle, and the way to the border; upstream's, sooner."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.compiled import compiled


def cell_distances(labels: npt.NDArray[Any], anisotropy: None = None) -> npt.NDArray[np.float32]:
    """Return each pixel's distance to the next pixel outside of its cell, over the cell's largest: ``edt_prob``.

    Upstream transforms the cells one by one (stardist/utils.py, _edt_prob_scipy). Squared distances are whole numbers,
    so that this gives the same to the bit.

    Parameters
    ----------
    labels
        (H, W), not below 0.
    anisotropy
        Of upstream's signature; None.
    """
    if anisotropy is not None:
        raise ValueError(f"anisotropy must be None, found {anisotropy}")
    labels = np.ascontiguousarray(labels)
    if labels.flat[0] > 0 and labels.min() == labels.max():
        # upstream takes the outside for ground where there is none
        return cell_distances(np.pad(labels, 1))[1:-1, 1:-1].copy()
    distances: npt.NDArray[np.float64] = compiled(_distances)(labels, compiled(_steps)(labels))
    largest = np.zeros(int(labels.max()) + 1)
    compiled(_largest)(labels, distances, largest)
    return np.where(labels > 0, distances / (largest + 1e-10)[labels], 0).astype(np.float32)


def ray_lengths(
    labels: npt.NDArray[Any], n_rays: int = 32, grid: tuple[int, int] = (1, 1), mode: str = "cpp"
) -> npt.NDArray[np.float32]:
    """Return the lengths of the rays from each pixel to its cell's border, (H / grid, W / grid, rays): ``star_dist``.

    Upstream's compiled loop (stardist/lib/stardist2d.cpp) with a table for the rays' directions, and without Python's
    lock.

    Parameters
    ----------
    labels
        (H, W).
    n_rays, grid
        Of the network.
    mode
        Of upstream's signature; ``cpp``.
    """
    if mode != "cpp":
        raise ValueError(f"mode must be cpp, found {mode}")
    step = np.float32(2 * np.pi / n_rays)
    angles = (np.arange(n_rays, dtype=np.float32) * step).astype(np.float64)
    ways = np.stack([np.sin(angles), np.cos(angles)], 1).astype(np.float32)
    found: npt.NDArray[np.float32] = compiled(_rays)(np.ascontiguousarray(labels, np.uint16), ways, grid[0], grid[1])
    return found


def _steps(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return how far the next other label above or below is; beyond any distance where there is none."""
    height, width = labels.shape
    far = height * height + width * width + 1
    steps = np.full((height, width), far, np.int64)
    for column in range(width):
        last = -far
        for row in range(1, height):
            if labels[row, column] != labels[row - 1, column]:
                last = row - 1
            steps[row, column] = row - last
        last = 2 * far
        for row in range(height - 2, -1, -1):
            if labels[row, column] != labels[row + 1, column]:
                last = row + 1
            steps[row, column] = min(steps[row, column], last - row)
    return steps


def _distances(labels: npt.NDArray[Any], steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    height, width = labels.shape
    far = height * height + width * width + 1
    found = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            label = labels[row, column]
            if label == 0:
                continue
            best = far * far
            if steps[row, column] < far:
                best = steps[row, column] * steps[row, column]
            for way in (-1, 1):
                place, across = column + way, 1
                while 0 <= place < width and across * across < best:
                    if labels[row, place] != label:
                        best = across * across
                    elif steps[row, place] < far:
                        best = min(best, across * across + steps[row, place] * steps[row, place])
                    place += way
                    across += 1
            found[row, column] = np.sqrt(best)
    return found


def _largest(labels: npt.NDArray[Any], distances: npt.NDArray[np.float64], largest: npt.NDArray[np.float64]) -> None:
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            label = labels[row, column]
            largest[label] = max(largest[label], distances[row, column])


def _rays(
    labels: npt.NDArray[np.uint16], ways: npt.NDArray[np.float32], grid_y: int, grid_x: int
) -> npt.NDArray[np.float32]:
    height, width = labels.shape
    found = np.zeros(((height - 1) // grid_y + 1, (width - 1) // grid_x + 1, len(ways)), np.float32)
    for top in range(found.shape[0]):
        for left in range(found.shape[1]):
            row, column = top * grid_y, left * grid_x
            label = labels[row, column]
            if label == 0:
                continue
            for ray in range(len(ways)):
                down, right = ways[ray, 0], ways[ray, 1]
                y = x = np.float32(0)
                while True:
                    y = np.float32(y + down)
                    x = np.float32(x + right)
                    i = int(np.floor(np.float32(np.float32(row) + y) + 0.5))
                    j = int(np.floor(np.float32(np.float32(column) + x) + 0.5))
                    if i < 0 or i >= height or j < 0 or j >= width or labels[i, j] != label:
                        break
                # the border lies between the last two places
                back = np.float32(1) - np.float32(np.float32(0.5) / max(abs(down), abs(right)))
                y = np.float32(y - np.float32(back * down))
                x = np.float32(x - np.float32(back * right))
                found[top, left, ray] = np.sqrt(np.float32(np.float32(y * y) + np.float32(x * x)))
    return found
