"""Train every method for a few steps with its check's network, and export, check, import and apply its package.

Run ``python benchmarks/check_packages.py OUT [METHOD ...]`` with the methods' environments built. Each method gets one
attempt on eight windows of drawn cell cultures, as a launch would run it but with the budget of ``segbench methods
check``; its package is written, validated by bioimageio.spec, predicts its test window again, and is imported into
another results folder. A row a method is printed and kept in ``OUT/packages.json``; one that fails is a row with the
reason. Segment Anything gets small weights drawn at random: the published ones are 2.4 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from segbench.engine.data import DatasetSpec, ensure_prepared
from segbench.engine.data.opening import open_source
from segbench.engine.data.registry import register
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.grid import Run
from segbench.engine.grid.cards import all_cards, get_card
from segbench.engine.models.exporting import Told, export_model
from segbench.engine.models.importing import import_package
from segbench.engine.models.packages import opened
from segbench.engine.models.reproduce import reproduce_package
from segbench.engine.models.strict import problems_of
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store.recovery import take_in
from segbench.engine.results.store.writer import StoreWriter
from segbench.engine.run import environments
from segbench.engine.run.attempt import run_attempt
from segbench.engine.run.check import few_steps
from segbench.engine.run.request import AttemptRequest
from segbench.errors import SegbenchError
from segbench.methods.card import Budget, Resources

SIDE = 128
SAM = {"image_size": 128, "embed_dim": 32, "depth": 2, "num_heads": 2}
_DRAW = """
import sys, torch
from pathlib import Path
from segbench.methods.segment_anything import build_small
torch.manual_seed(0)
torch.save(build_small(Path(sys.argv[1])).state_dict(), sys.argv[2])
"""


def settings_of(method: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a method's check."""
    card = get_card(method)
    settings = {**card.defaults, **card.check_settings}
    if method == "segment-anything":
        architecture, weights = folder / "small.json", folder / "small.pth"
        architecture.write_text(json.dumps(SAM))
        environment = environments.ensure("torch", gpu=False)
        command = [str(environment.python), "-c", _DRAW, str(architecture), str(weights)]
        subprocess.run(command, env=environments.subprocess_env(environment), check=True, cwd=folder)
        settings |= {
            "model": str(architecture), "checkpoint": str(weights), "points_per_side": 4, "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.0,
        }  # fmt: skip
    return settings


def budget_of(method: str) -> Budget:
    """Return the few steps of a method's check; Cellpose gets more, for it finds no cell after those."""
    few = few_steps(get_card(method).budget)
    return replace(few, epochs=30) if method == "cellpose" else few


def drawn(folder: Path) -> DatasetSpec:
    """Draw four windows to train on, two to validate and two to test with, and register them as a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    source = open_source(DatasetSpec("drawn", "synthetic", None, {"layout": "livecell", "seed": 3, "scale": 0.01}))
    lines = ["image,mask,split"]
    for split, n in (("train", 4), ("val", 2), ("test", 2)):
        image = next(load for load in source.images(split) if "bv2" in str(load.args[0]))()
        for k in range(n):
            place = np.s_[SIDE * (k // 2) :, SIDE * (k % 2) :]
            pixels, labels = (
                np.ascontiguousarray(array[place][:SIDE, :SIDE])
                for array in (image.pixels[0], image.labels["wholecell"])
            )
            tifffile.imwrite(folder / f"{split}{k}.tif", pixels)
            tifffile.imwrite(folder / f"{split}{k}.labels.tif", labels.astype(np.uint16))
            lines.append(f"{split}{k}.tif,{split}{k}.labels.tif,{split}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    spec = DatasetSpec(
        "packages", "folder", str(folder), {"target": "wholecell", "channels": ["phase"]},
        PreparationSettings(window=SIDE, step=SIDE),
    )  # fmt: skip
    register(spec)
    return spec


def attempt(method: str, number: int, out: ResultsFolder, spec: DatasetSpec) -> str:
    """Run a method for a few steps, as an attempt of a results folder; return the run's id."""
    data = ensure_prepared(spec)
    task = next(task for task in data.tasks if task.target == "wholecell")
    run = Run(
        id=f"{number:012x}", method=method, task=task, train_tissue="all", seed=0,
        budget=budget_of(method), settings=settings_of(method, out.path), fingerprint=data.fingerprint,
        resources=Resources(num_gpus=0, num_cpus=1), final=True,
    )  # fmt: skip
    run_attempt(AttemptRequest(run, 1, spec, out, use_gpu=False, submitted_at=time.time(), timeout_s=1800))
    record = out.attempt(run.id, 1).read_record()
    if record.attempt.status != "done":
        raise SegbenchError(f"not trained: {record.attempt.error}")
    take_in(out, StoreWriter(out))
    return run.id


def check(method: str, number: int, out: ResultsFolder, spec: DatasetSpec) -> dict[str, Any]:
    """Return the row of a method."""
    started = time.monotonic()
    row: dict[str, Any] = {"method": method}
    try:
        run = attempt(method, number, out, spec)
        row["train_s"] = time.monotonic() - started
        started = time.monotonic()
        done = export_model(out, run, out.path / "packages", Told("CC0-1.0", "CC0-1.0", ("A. Person",)))
        row |= {"export_s": time.monotonic() - started, "megabytes": done.path.stat().st_size / 1e6}
        row["problems"] = [line for line in problems_of(done.path) or () if "maintainers" not in line]
        started = time.monotonic()
        with opened(done.path) as package:
            found = reproduce_package(package)
        row |= {"test_s": time.monotonic() - started, "cells": found.expected, "exact": found.exact}
        row |= {"agrees": found.agrees, "worst_iou": found.worst_iou}
        row["imported"] = import_package(done.path, ResultsFolder(out.path / "elsewhere"))[1]
    except SegbenchError as error:
        row["error"] = str(error)
    return row


def main() -> None:
    """Check the methods that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("methods", nargs="*")
    given = parser.parse_args()
    out = ResultsFolder(given.out.absolute()).make()
    (out.path / "packages").mkdir(exist_ok=True)
    spec = drawn(out.path / "drawn")
    kept = out.path / "packages.json"
    rows: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        rows = json.loads(kept.read_text())
    for number, method in enumerate(given.methods or all_cards()):
        rows[method] = check(method, int(time.time()) * 100 + number, out, spec)
        print(json.dumps(rows[method]), flush=True)
        kept.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
