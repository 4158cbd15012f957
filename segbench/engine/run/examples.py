"""Keeps a few test windows of a run, with truth and prediction, for people to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segbench.engine.metrics import evaluate_labels, paint_instances
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


def write_examples(
    attempt: AttemptFolder, task: Task, fingerprint: str, images_path: Path, channels: Sequence[int], labels_path: Path,
    predictions: PredictionSet, rows: Sequence[int], tissues: Sequence[str], names: Sequence[str],
) -> None:  # fmt: skip
    """Write test windows with truth and prediction into an attempt's folder: arrays, and what they are.

    The arrays are ``rows`` (k,) int64, ``images`` (k, C, H, W) uint8, ``truth`` and ``prediction`` (k, H, W)
    int32 and ``ap50`` (k,) float64, AP50 of that window alone, NaN where it has no truth.
    """
    images, labels = np.load(images_path, mmap_mode="r"), np.load(labels_path, mmap_mode="r")
    shown, truths, maps, ap50 = [], [], [], []
    for row in rows:
        instances = predictions[row]
        truth = np.array(labels[row])
        if isinstance(instances, LabelInstances):
            prediction, scores = instances.labels, instances.scores
        else:
            prediction, scores = paint_instances(instances, (predictions.height, predictions.width))
        value = evaluate_labels([truth], [prediction], [scores]).pooled.ap50
        ap50.append(value if value >= 0 else np.nan)
        shown.append(np.round(np.clip(images[row][list(channels)], 0, 1) * 255).astype(np.uint8))
        truths.append(truth)
        maps.append(prediction)
    np.savez_compressed(
        attempt.example_arrays, rows=np.asarray(rows, np.int64), images=np.asarray(shown), truth=np.asarray(truths),
        prediction=np.asarray(maps), ap50=np.asarray(ap50, np.float64),
    )  # fmt: skip
    meta = {
        "task": task.name, "dataset": task.dataset, "fingerprint": fingerprint, "channels": list(task.channels),
        "tissues": list(tissues), "images": list(names),
    }  # fmt: skip
    write_whole(attempt.example_facts, json.dumps(meta, indent=1))
