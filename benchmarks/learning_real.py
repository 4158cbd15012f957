"""Shows that methods learn from real nuclei: trains on a part of the 2018 Data Science Bowl's, scores unseen ones.

    python benchmarks/learning_real.py FOLDER instanseg rtmdet-ins

FOLDER holds ``images``, ``masks`` (of the same names) and ``index.csv`` with the columns ``image`` and ``split``.
Prints AP50 on unseen windows after one step and after the training, with that one's CPU seconds. One thread, no GPU.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from learning_check import PRESETS, ap50
from rich.console import Console
from rich.table import Table
from skimage.io import imread

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.run import environments
from segbench.methods import Arrays, Budget, Devices, Job, Task
from segbench.methods.folder import JobFolder

SIDE = 128
"""Of a window, in pixels: the middle of an image."""
COUNTS = {"train": 48, "val": 8, "test": 24}
"""Windows of a split, of images spread over all of it."""
TRAININGS: Mapping[str, tuple[Budget, Budget, Mapping[str, Any]]] = {
    "instanseg": (
        Budget(batch_size=3, epochs=1, steps_per_epoch=1),
        Budget(batch_size=3, epochs=20, steps_per_epoch=16),
        {"layers": [16, 32, 64], "crop": 128, "window": 64, "learning_rate": 3e-3, "val_windows": 8},
    ),
    "rtmdet-ins": (
        Budget(batch_size=48, epochs=1),
        Budget(batch_size=4, epochs=25),
        {"learning_rate_batch": 4, "learning_rate": 2e-3, "options": PRESETS["rtmdet-ins"].settings["options"]},
    ),
}
"""One step, a training, and what differs from the card's settings, by method."""


def windows(folder: Path, split: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images (N, 1, SIDE, SIDE) in 0..1 and labels (N, SIDE, SIDE) of a split."""
    with (folder / "index.csv").open() as file:
        names = [Path(row["image"]).name for row in csv.DictReader(file) if row["split"] == split]
    images, labels = [], []
    for name in names[:: max(1, len(names) // (2 * COUNTS[split]))]:
        image, mask = imread(folder / "images" / name).astype(np.float32), imread(folder / "masks" / name)
        image = image if image.ndim == 2 else image[..., 0]
        top, left = ((whole - SIDE) // 2 for whole in image.shape)
        place = slice(top, top + SIDE), slice(left, left + SIDE)
        if mask[place].any() and len(images) < COUNTS[split]:
            images.append(image[place] / max(1.0, float(image.max())))
            labels.append(mask[place].astype(np.int32))
    return np.stack(images)[:, np.newaxis].astype(np.float32), np.stack(labels)


def trained(method: str, budget: Budget, settings: Mapping[str, Any], folder: Path) -> tuple[float, float, int]:
    """Train and predict; return AP50 on the test windows, CPU seconds and steps."""
    card = get_card(method)
    arrays = {
        split: Arrays(str(folder / f"{split}_images.npy"), (0,), None, str(folder / f"{split}_labels.npy"))
        for split in COUNTS
    }
    job = Job(
        run_id=method, method=method_object(method), budget=budget, seed=1, output=str(folder / "run"),
        task=Task("nuclei", "dsb2018", ("nuclear",), "nuclear"), train=arrays["train"], val=arrays["val"],
        predict={"test": dataclasses.replace(arrays["test"], labels=None)},
        settings={**card.defaults, **settings}, devices=Devices(num_cpus=1),
    )  # fmt: skip
    files = JobFolder(Path(job.output))
    files.path.mkdir(exist_ok=True)
    job.write(files.job)
    built = environments.ensure(card.environment, gpu=False)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = job.command(files.job, built.python)
    subprocess.run(command, env=environments.subprocess_env(built), stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(files.result.read_text())
    if result["status"] != "done":
        raise RuntimeError(f"{method}: {result['error']}\n{files.log.read_text()[-2000:]}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ap50(folder, files, "test"), seconds, result["iterations"]


def main() -> int:
    """Train the methods that are named; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the images")
    parser.add_argument("methods", nargs="+", metavar="METHOD", choices=sorted(TRAININGS))
    arguments = parser.parse_args()
    table = Table("method", "steps", "AP50 after one step", "AP50", "CPU, s", title="learning from real nuclei")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for split in COUNTS:
            images, labels = windows(arguments.folder, split)
            np.save(folder / f"{split}_images.npy", images)
            np.save(folder / f"{split}_labels.npy", labels)
        for method in arguments.methods:
            one, many, settings = TRAININGS[method]
            first, _, _ = trained(method, one, settings, folder)
            last, seconds, steps = trained(method, many, settings, folder)
            table.add_row(method, str(steps), f"{first:.3f}", f"{last:.3f}", f"{seconds:.0f}")
    Console(width=100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
