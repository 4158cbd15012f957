"""Keeps a few test windows of a run, with truth and prediction, for people to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import Evaluation, paint_instances
from segbench.engine.results.attempts import AttemptFolder
from segbench.methods.job import Task
from segbench.methods.predictions import LabelInstances, PredictionSet
from segbench.small_files import write_whole

_PER_TISSUE = 2
_MOST = 24


def choose_examples(tissues: Sequence[str], n_cells: Sequence[int], per_tissue: int = _PER_TISSUE) -> list[int]:
    """Choose windows to show: the same for every run of a task, so that methods can be compared.

    Parameters
    ----------
    tissues, n_cells
        Tissue and number of true cells of every test window.
    per_tissue
        How many windows a tissue; those with cells first.

    Returns
    -------
    list of int
        Window numbers, in tissue order; at most 24.

    Examples
    --------
    >>> choose_examples(["lung", "skin", "lung", "lung"], [0, 5, 7, 9], per_tissue=1)
    [2, 1]
    """
    by_tissue: dict[str, list[int]] = {}
    for window, tissue in enumerate(tissues):
        by_tissue.setdefault(tissue, []).append(window)
    chosen: list[int] = []
    for windows in by_tissue.values():
        with_cells = [w for w in windows if n_cells[w] > 0] or windows
        order = np.random.default_rng(0).permutation(len(with_cells))
        chosen.extend(with_cells[i] for i in order[:per_tissue])
    return chosen[:_MOST]


def choose_telling(ap50: npt.NDArray[np.float64], n_cells: npt.NDArray[np.int64]) -> dict[str, int]:
    """Choose a run's own windows to show, out of all test windows: where it does worst, middling and best.

    Parameters
    ----------
    ap50, n_cells
        (N,), of every test window; NaN where it has no score. Of equally good windows, that with the most true cells.

    Returns
    -------
    dict
        Window numbers by ``worst``, ``median`` and ``best``; empty where no window has a score.

    Examples
    --------
    >>> choose_telling(np.array([0.7, 0.0, np.nan, 0.9, 0.0]), np.array([5, 3, 0, 8, 9]))
    {'worst': 4, 'median': 1, 'best': 3}
    """
    order = np.lexsort([-n_cells, ap50])[: np.count_nonzero(~np.isnan(ap50))]
    if not order.size:
        return {}
    # the last of the best are those with the fewest cells
    best = order[ap50[order] == ap50[order[-1]]][0]
    return {"worst": int(order[0]), "median": int(order[(order.size - 1) // 2]), "best": int(best)}


def write_examples(
    attempt: AttemptFolder, task: Task, fingerprint: str, images_path: Path, channels: Sequence[int], labels_path: Path,
    predictions: PredictionSet, tissues: Sequence[str], n_cells: Sequence[int], names: Sequence[str], own: Evaluation,
) -> None:  # fmt: skip
    """Write test windows with truth and prediction into an attempt's folder: arrays, and what they are.

    They are those that every run of the task keeps, then those where this run does worst, middling and best.

    Parameters
    ----------
    tissues, n_cells, names
        Tissue, number of true cells and image of every test window.
    own
        What the run's predictions on its own task scored.

    Notes
    -----
    The arrays are ``rows`` (k,) int64, ``images`` (k, C, H, W) uint8, ``truth`` and ``prediction`` (k, H, W) int32,
    ``ap50`` (k,) float64, AP50 of that window alone, NaN where it has no truth, and ``every_ap50`` (N,), that of every
    test window.
    """
    images, labels = np.load(images_path, mmap_mode="r"), np.load(labels_path, mmap_mode="r")
    every = own.ap50_of_images()
    telling = choose_telling(every, np.asarray(n_cells))
    rows = list(dict.fromkeys([*choose_examples(tissues, n_cells), *telling.values()]))
    shown, truths, maps = [], [], []
    for row in rows:
        instances = predictions[row]
        if isinstance(instances, LabelInstances):
            prediction = instances.labels
        else:
            prediction, _ = paint_instances(instances, (predictions.height, predictions.width))
        shown.append(np.round(np.clip(images[row][list(channels)], 0, 1) * 255).astype(np.uint8))
        truths.append(np.array(labels[row]))
        maps.append(prediction)
    np.savez_compressed(
        attempt.example_arrays, rows=np.asarray(rows, np.int64), images=np.asarray(shown), truth=np.asarray(truths),
        prediction=np.asarray(maps), ap50=every[rows], every_ap50=every.astype(np.float32),
    )  # fmt: skip
    meta = {
        "task": task.name, "dataset": task.dataset, "fingerprint": fingerprint, "channels": list(task.channels),
        "tissues": [tissues[row] for row in rows], "images": [names[row] for row in rows], "telling": telling,
    }  # fmt: skip
    write_whole(attempt.example_facts, json.dumps(meta, indent=1))
