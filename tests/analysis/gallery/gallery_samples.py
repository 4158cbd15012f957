"""Packages as a gallery reads them: facts and test windows, without weights."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np

from segbench.engine.files.archives import write_archive
from segbench.engine.models.facts import FACTS, DataFacts, ModelFacts, TissueScore, TrainingFacts, package_name
from segbench.engine.models.packages import EXAMPLES

TISSUES = ("Breast", "Colon", "Lung")
METHODS = ("Cellpose", "Mesmer", "StarDist", "Swin-S", "Mask R-CNN", "Watershed")
TASKS = {
    "study-nuclear-1ch": (("nuclear",), "nuclear"),
    "study-nuclear-2ch": (("nuclear", "membrane"), "nuclear"),
    "study-wholecell-2ch": (("nuclear", "membrane"), "wholecell"),
}


def facts_for(number: int, **changes: Any) -> ModelFacts:
    """Return the facts of one of many models."""
    draw = random.Random(number)
    method, task = METHODS[number % len(METHODS)], list(TASKS)[number // len(METHODS) % len(TASKS)]
    channels, target = TASKS[task]
    tissue = "all" if number < 18 else TISSUES[number % 3]
    level = round(0.3 + 0.4 * draw.random(), 4)

    def score(name: str, value: float) -> TissueScore:
        return TissueScore(
            test_tissue=name, accuracy=value, accuracy_low=max(0, value - 0.03), accuracy_high=value + 0.03,
            map=value * 0.8, ap50=value * 1.2, ap75=value * 0.9, ar=value, ar50=value * 1.3, ar75=value,
            n_images=40, n_truth=5000,
        )  # fmt: skip

    told: dict[str, Any] = {
        "name": package_name(method, task, tissue, f"{number:012x}"[::-1]),
        "title": f"{method} for {target} ({task})",
        "run_id": f"{number:012x}"[::-1],
        "method": method.lower().replace(" ", "-"),
        "method_title": method,
        "method_revision": 1,
        "category": "cell-specific",
        "trained": method != "Watershed",
        "task": task,
        "channels": channels,
        "target": target,
        "train_tissue": tissue,
        "seed": 0,
        "made_at": "2026-11-01T10:00:00+00:00",
        "segbench_version": "0.2",
        "method_licence": "BSD-3-Clause",
        "licence": "CC-BY-4.0" if number % 3 else None,
        "authors": ("A. Person",),
        "citation": "Somebody et al., 2021",
        "url": "https://example.org/method",
        "n_parameters": 10_000_000,
        "pixel_size_um": 0.5,
        "diameter_px": 18.0,
        "window": (64, 64),
        "model_bytes": 1000,
        "training": TrainingFacts(
            images=2000, cells=300_000, epochs=100, batch_size=8, predict_image_s=0.02 * draw.random(),
            seconds=None if method == "Watershed" else 3000 * draw.random(), gpu_names=("H100",), num_gpus=1,
        ),
        "data": DataFacts(name="study", kind="tissuenet", fingerprint="f00d", licence="CC-BY-NC-4.0"),
        "scores": (score("all", level), *(score(name, level - 0.02 * n) for n, name in enumerate(TISSUES))),
        "likeness": (tuple(draw.random() for _ in range(12)),) * 3,
    }  # fmt: skip
    return ModelFacts(**(told | changes))


def make_package(folder: Path, number: int, *, pictures: int = 2, **changes: Any) -> Path:
    """Write a package; return its path."""
    facts = facts_for(number, **changes)
    files: dict[str, Path | bytes] = {FACTS: facts.model_dump_json().encode(), "model/weights": bytes(1000)}
    if pictures:
        rng = np.random.default_rng(number // 6)
        rows, columns = np.mgrid[:96, :96]
        truth = np.zeros((pictures, 96, 96), np.int32)
        for k in range(pictures):
            for cell, (y, x) in enumerate(rng.uniform(8, 88, (9, 2)), 1):
                truth[k][np.hypot(rows - y, columns - x) < 8] = cell
        images = np.repeat(np.where(truth > 0, 180, 40)[:, None], len(facts.channels), axis=1)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, images=images.astype(np.uint8), truth=truth, prediction=np.roll(truth, number % 5, axis=2),
            ap50=np.full(pictures, 0.5), tissues=np.asarray(TISSUES[:pictures]),
        )  # fmt: skip
        files[EXAMPLES] = buffer.getvalue()
    path = folder / f"{facts.name}.zip"
    write_archive(path, files)
    return path
