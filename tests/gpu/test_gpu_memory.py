"""Memory on a GPU: a run keeps to its share, and one that runs out of it is told so or goes on with less at once."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from gpu_jobs import devices, run, training, windows

from segbench.engine.run import environments

Note = Callable[[str, object], None]
pytestmark = pytest.mark.only_gpu
CROWDED = {"mask-rcnn": "CrowdedMaskRCNN", "resnest": "CrowdedResNeSt", "centermask2": "CrowdedCenterMask2"}
"""Not Cellpose: upstream puts tiles of a window through its network, always as many together."""


def memory_of_the_gpu() -> int:
    """Return its bytes."""
    python = environments.ensure("torch", gpu=True).python
    code = "import torch; print(torch.cuda.get_device_properties(0).total_memory)"
    return int(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_a_share_of_a_gpu_is_that_share_of_its_memory(tmp_path: Path, record_property: Note) -> None:
    share = 0.05  # other tests run beside this one
    job = dataclasses.replace(training("mask-rcnn", tmp_path), method="crowded:Greedy", devices=devices(share))
    ran = run(job, modules=("crowded",))
    assert ran.result["error_kind"] == "out-of-memory", ran.log
    held = ran.result["peak_gpu_memory_bytes"] / memory_of_the_gpu()
    record_property("share of the memory that a process with 0.05 of a GPU got", f"{held:.4f}")
    assert 0.9 * share < held <= share


@pytest.mark.parametrize("name", ["mask-rcnn", "resnest", "cellpose"])
def test_out_of_memory_in_training_is_told_as_that(name: str, tmp_path: Path) -> None:
    # 32 windows of 256 px do not fit in a hundredth of a GPU of 80 GB
    job = training(name, tmp_path, steps=2, batch=32, size=256)
    ran = run(dataclasses.replace(job, devices=devices(0.01)))
    assert ran.result["status"] == "failed"
    assert ran.result["error_kind"] == "out-of-memory", ran.log
    mark = json.loads((ran.folder.path / "stages" / "train" / "mark.json").read_text())
    assert mark["status"] == "out-of-memory"
    assert not (ran.folder.path / "stages" / "predict").exists()


@pytest.mark.parametrize("name", CROWDED)
def test_prediction_that_runs_out_of_memory_goes_on_with_fewer_windows_at_once(
    name: str, tmp_path: Path, record_property: Note
) -> None:
    job = training(name, tmp_path)
    large = dataclasses.replace(windows(tmp_path, "large", 8, 512, seed=2), labels=None)
    job = dataclasses.replace(job, method=f"crowded:{CROWDED[name]}", predict={"test": large}, devices=devices(0.9))
    ran = run(job, modules=("crowded",)).done()
    assert len(ran.predictions()) == 8
    mark = json.loads((ran.folder.path / "stages" / "predict" / "mark.json").read_text())
    record_property("windows at once in the end", mark["at_once"])
    assert "out of memory with" in ran.folder.log.read_text()
    assert mark["at_once"] >= 1
