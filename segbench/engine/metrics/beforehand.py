"""Compiles what scoring label maps takes, ahead of its first use: ``python -m segbench.engine.metrics.beforehand``.

numba keeps it beside the code, for all processes to come; without this the first runs of a new installation each
compile it for a minute.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from segbench.engine.metrics import evaluate_prediction_set, paired_samples, sweep_prediction_set
from segbench.engine.metrics.diagnosis import diagnose_prediction_set
from segbench.methods.predictions import LabelInstances, PredictionSet, PredictionWriter


def compile_scoring() -> None:
    """Score four small label maps as an attempt scores its own, from files."""
    truth = np.zeros((4, 64, 64), np.int32)
    for cell in range(9):
        y, x = 20 * (cell // 3), 20 * (cell % 3)
        truth[:, y : y + 14, x : x + 14] = cell + 1
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "truth.npy", truth)
        with PredictionWriter(Path(folder) / "drawn", "labels", *truth.shape) as writer:
            for labels in truth:
                writer.add(LabelInstances(np.roll(labels, 2, axis=1), np.linspace(0.1, 0.9, 9)))
        true, found = np.load(Path(folder) / "truth.npy", mmap_mode="r"), PredictionSet(Path(folder) / "drawn")
        groups = ["one", "one", "other", "other"]
        own = evaluate_prediction_set(true, found, groups=groups)
        own.ap50_of_images()
        paired_samples(own, list("abcd"), key="beforehand")
        for operation in ("dilate", "erode"):
            sweep_prediction_set(true, found, operation, range(3), groups=groups)
        diagnose_prediction_set(true, found, groups=groups)


if __name__ == "__main__":
    compile_scoring()
