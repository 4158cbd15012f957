"""Two processes train together where there is one GPU, which NCCL refuses and gloo does not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gpu_jobs import ON_CPU, devices, run, training

Note = Callable[[str, object], None]
TOGETHER = ("mask-rcnn", "mask2former", "resnest")


@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_train_together_on_one_gpu(name: str, tmp_path: Path, record_property: Note) -> None:
    job = training(name, tmp_path, steps=4, batch=4)
    job = dataclasses.replace(job, devices=devices(0.25, 2))
    ran = run(job).done()
    losses = list(ran.losses.values())
    assert np.isfinite(losses).all()
    assert ran.result["processes"] == 2
    assert len(ran.predictions()) == 6
    assert json.loads((ran.folder.path / "stages" / "train" / "mark.json").read_text())["status"] == "done"
    record_property("loss", f"{losses[0]:.3g} to {losses[-1]:.3g}")
    if not ON_CPU:
        assert len(ran.result["gpu_names"]) == 1
