"""Makes the seeded label maps that the benchmarks evaluate, of the sizes of TissueNet's and LIVECell's test sets."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LabelMapSet:
    """True and predicted label maps with one score a predicted cell."""

    name: str
    truth: npt.NDArray[np.int32]
    """(N, H, W)."""
    predictions: npt.NDArray[np.int32]
    """(N, H, W)."""
    scores: list[npt.NDArray[np.float64]]
    """One array a map, in ascending order of the labels that are visible in it."""


def tissuenet_sized(n_images: int = 1324, seed: int = 0) -> LabelMapSet:
    """Return maps of 256x256 with 168 cells on average: 222,000 cells in 1,324 maps."""
    rng = np.random.default_rng(seed)
    counts = np.clip(rng.normal(173, 40, n_images).astype(int), 20, 400)
    return _make("TissueNet-sized", 256, 256, counts, seed)


def livecell_sized(n_images: int = 1564, seed: int = 1) -> LabelMapSet:
    """Return maps of 520x704 with 300 cells on average and up to 3,000."""
    rng = np.random.default_rng(seed)
    counts = np.clip(rng.lognormal(5.3, 0.9, n_images).astype(int), 5, 3000)
    counts[: max(1, n_images // 500)] = 3000
    return _make("LIVECell-sized", 520, 704, counts, seed)


def dense_sized(n_images: int = 10, seed: int = 2) -> LabelMapSet:
    """Return maps of 1024x1024 with 3,000 cells each."""
    return _make("dense", 1024, 1024, np.full(n_images, 3000), seed)


def _make(name: str, height: int, width: int, counts: npt.NDArray[np.int64], seed: int) -> LabelMapSet:
    truth = np.zeros((counts.size, height, width), np.int32)
    predictions = np.zeros_like(truth)
    scores = []
    for n, count in enumerate(counts):
        rng = np.random.default_rng((seed, n))
        # a jittered grid: cells touch but seldom cover each other
        rows = int(np.ceil(np.sqrt(count * height / width)))
        columns = int(np.ceil(count / rows))
        step_y, step_x = height / rows, width / columns
        grid = np.stack(np.divmod(rng.permutation(rows * columns)[:count], columns), axis=1)
        centres = (grid + 0.5 + rng.uniform(-0.25, 0.25, (count, 2))) * (step_y, step_x)
        axes = np.minimum(rng.uniform(0.36, 0.56, (count, 2)) * (step_y, step_x), 40.0)
        cells = np.column_stack([centres, axes, rng.uniform(0, np.pi, count)])
        _paint(truth[n], cells)
        found = cells[rng.random(count) > 0.07]
        found = found + rng.normal(0, 1, found.shape) * (0.05 * step_y, 0.05 * step_x, 0.3, 0.3, 0.1)
        false = cells[rng.random(count) < 0.05] + rng.normal(0, 1, 5) * (step_y, step_x, 0, 0, 1)
        _paint(predictions[n], np.concatenate([found, false]))
        visible = np.count_nonzero(np.bincount(predictions[n].ravel())[1:])
        scores.append(rng.uniform(0.05, 1.0, visible))
    return LabelMapSet(name, truth, predictions, scores)


@numba.njit(cache=True)
def _paint(labels, cells):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    for k in range(cells.shape[0]):
        y0, x0, a, b, angle = cells[k]
        a, b = max(a, 1.5), max(b, 1.5)
        cos, sin, reach = np.cos(angle), np.sin(angle), max(a, b) + 1
        for y in range(max(0, int(y0 - reach)), min(height, int(y0 + reach) + 2)):
            for x in range(max(0, int(x0 - reach)), min(width, int(x0 + reach) + 2)):
                u, v = (y - y0) * cos + (x - x0) * sin, (x - x0) * cos - (y - y0) * sin
                if (u / a) ** 2 + (v / b) ** 2 <= 1:
                    labels[y, x] = k + 1
