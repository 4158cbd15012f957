"""Small random label maps and masks at the evaluator's edges: halves, thresholds, ties, gaps, empty images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segbench.methods.predictions import MaskInstances

SCORE_KINDS = ("distinct", "few", "constant", "negative", "mixed zeros")


def label_map(rng: np.random.Generator, shape: tuple[int, int], n_cells: int) -> npt.NDArray[np.int32]:
    """Return a map of rectangles that may cover each other, with gaps in the labels."""
    labels = np.zeros(shape, np.int32)
    for label in rng.permutation(3 * n_cells)[:n_cells] + 1:
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        labels[y : y + rng.integers(1, 7), x : x + rng.integers(1, 7)] = label
    return labels


def disturbed(rng: np.random.Generator, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return a prediction of a label map: cells shifted, trimmed, halved, joined, lost or invented."""
    kind = rng.integers(0, 6)
    if kind == 0:
        return np.zeros_like(labels)
    if kind == 1:
        return label_map(rng, labels.shape, int(rng.integers(0, 8)))
    found = np.zeros_like(labels)
    new = rng.permutation(200)[: labels.max() + 1] + 1
    for label in np.unique(labels)[1:] if labels.any() else []:
        disturb(rng, labels == label, new[label], found)
    if rng.random() < 0.3 and labels.any():  # join two cells
        two = rng.choice(np.unique(found), 2)
        if two.min() > 0:
            found[found == two[0]] = two[1]
    return found


def disturb(rng: np.random.Generator, cell: npt.NDArray[np.bool_], name: int, found: npt.NDArray[np.int32]) -> None:
    """Write a cell into a prediction under a name: whole, shifted, trimmed, halved, or not at all."""
    rows, columns = np.nonzero(cell)
    take, value = np.ones(rows.size, bool), np.full(rows.size, name)
    deed = rng.integers(0, 6)
    if deed == 0:
        return
    if deed == 1:
        take[: int(rng.integers(0, rows.size))] = False
    elif deed == 2:  # exact halves where the number of pixels is even
        value[rows.size // 2 :] = name + 300
    elif deed == 3:
        take = rng.random(rows.size) < rng.choice([0.5, 0.6, 0.75, 0.9])
    elif deed == 4:
        rows = (rows + 1) % cell.shape[0]
    found[rows[take], columns[take]] = value[take]


def scores_for(rng: np.random.Generator, n: int, kind: str) -> npt.NDArray[np.float64]:
    """Return n scores, distinct or tied."""
    if kind == "few":
        return rng.choice([0.1, 0.5, 0.9], n)
    if kind == "constant":
        return np.full(n, 0.7)
    if kind == "negative":
        return -rng.choice([0.25, 0.5, 3.0], n)
    if kind == "mixed zeros":
        return rng.choice([-0.0, 0.0, 1e-300, -1e-300], n)
    return rng.random(n)


def random_masks(
    rng: np.random.Generator, labels: npt.NDArray[np.int32], score_kind: str
) -> tuple[MaskInstances, list[npt.NDArray[np.bool_]]]:
    """Return overlapping masks, as run lengths and as images: parts of true cells, repeats, unions, empty masks."""
    masks: list[npt.NDArray[np.bool_]] = []
    present = [label for label in np.unique(labels) if label]
    for _ in range(int(rng.integers(0, 12))):
        kind = rng.integers(0, 5)
        if kind == 0 or not present:
            masks.append(label_map(rng, labels.shape, 1) > 0)
        elif kind == 1:
            masks.append(labels == rng.choice(present))
        elif kind == 2:
            masks.append((labels == rng.choice(present)) & (rng.random(labels.shape) < rng.choice([0.5, 0.6, 0.8])))
        elif kind == 3:
            masks.append(np.isin(labels, rng.choice(present, 2)))
        else:
            masks.append(np.roll(labels == rng.choice(present), 1, axis=int(rng.integers(0, 2))))
    counts = [run_lengths(mask) for mask in masks]
    return MaskInstances(counts, scores_for(rng, len(masks), score_kind)), masks


def run_lengths(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Return COCO's uncompressed run lengths in column-major order, background first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [mask.size]])).astype(np.uint32)
