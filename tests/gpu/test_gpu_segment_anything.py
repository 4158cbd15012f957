"""Segment Anything, with a small network of random weights, predicts on a GPU what it predicts on the processor."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from gpu_jobs import ON_CPU, agreement, devices, run, windows

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.run import environments
from segbench.methods import Budget, Devices, Job, Task

Note = Callable[[str, object], None]
SMALL = {"image_size": 128, "embed_dim": 32, "depth": 2, "num_heads": 2}
SAVE = """
import sys, torch
from pathlib import Path
from segbench.methods.segment_anything import build_small
torch.manual_seed(0)
torch.save(build_small(Path(sys.argv[1])).state_dict(), sys.argv[2])
"""


def test_segment_anything_predicts_there_what_it_predicts_on_the_processor(
    tmp_path: Path, record_property: Note
) -> None:
    architecture, weights = tmp_path / "small.json", tmp_path / "small.pth"
    architecture.write_text(json.dumps(SMALL))
    environment = environments.ensure("torch", gpu=not ON_CPU)
    variables = environments.subprocess_env(environment)
    subprocess.run([environment.python, "-c", SAVE, architecture, weights], env=variables, check=True)
    # random weights: thresholds that let their masks pass
    loose = {"points_per_side": 6, "pred_iou_thresh": -1e9, "stability_score_thresh": -1.0, "max_area": 4000}
    small = {"model": str(architecture), "checkpoint": str(weights), **loose}
    job = Job(
        run_id="segment-anything", method=method_object("segment-anything"), budget=Budget(batch_size=1), seed=0,
        task=Task("t", "d", ("nuclear",), "nuclear"), output=str(tmp_path / "there"),
        settings={**get_card("segment-anything").defaults, **small}, devices=devices(),
        predict={"test": dataclasses.replace(windows(tmp_path, "test", 3), labels=None)},
    )  # fmt: skip
    there = run(job).done()
    here = run(dataclasses.replace(job, output=str(tmp_path / "here"), devices=Devices(num_cpus=2))).done()
    same = agreement(there.predictions(), here.predictions())
    record_property("cells predicted", int(there.predictions().scores.size))
    record_property("the same on the processor", f"{same:.0%}")
    assert there.predictions().scores.size > 0
    assert same >= 0.9  # TF32 and another order of sums move a mask's edge, and now and then one over a threshold
    if not ON_CPU:
        assert len(there.result["gpu_names"]) == 1
