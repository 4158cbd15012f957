"""Run by the torch environment's Python: interrupts trainings and goes on with them, beside ones not interrupted.

    python resume.py CLASS JOB.json [CLASS JOB.json ...]

Writes resume.json beside each job: the largest difference of any weight between
the two, and how far training moved them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import segbench.methods.mmdet as family
from segbench.methods.base import ImageStack, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job


class KilledError(RuntimeError):
    """Stands for the end of the process."""


class Dying(Progress):
    """Ends the training once so many steps are told."""

    def __init__(self, after: int) -> None:
        super().__init__(Path(os.devnull))
        self._after = after

    def train(self, **told: Any) -> None:
        super().train(**told)
        if told["step"] == self._after:
            raise KilledError


def trained(class_name: str, job: Job, progress: Progress, kept: Path | None) -> Any:
    assert job.train is not None
    method = getattr(family, class_name)()
    method.import_library(job)
    method.load(job, ImageStack(job.train), None)
    before = {key: value.clone() for key, value in method._model.state_dict().items()}
    checkpoints = Checkpoints(kept, every_s=0.0)
    checkpoints.begin(progress.history)
    method.train(job, progress, checkpoints)
    return before, method


def largest(a: dict[str, Any], b: dict[str, Any]) -> float:
    return max(float((a[key].float() - b[key].float()).abs().max()) for key in a if a[key].numel())


def resume(class_name: str, path: Path) -> None:
    job = Job.read(path)
    before, whole = trained(class_name, job, Progress(Path(os.devnull)), None)
    kept = path.with_name("kept")
    try:
        trained(class_name, job, Dying(4), kept)
    except KilledError:
        interrupted = True
    progress = Progress(Path(os.devnull))
    # a new process would draw other first weights if it did not take up the state
    _, resumed = trained(class_name, dataclasses.replace(job, output=f"{job.output}-2"), progress, kept)
    report = {
        "interrupted": interrupted,
        "first_step": progress.history[0]["step"],
        "steps": progress.history[-1]["step"],
        "difference": largest(whole._model.state_dict(), resumed._model.state_dict()),
        "moved": largest(before, whole._model.state_dict()),
        "extra_equal": whole._extra_state() == resumed._extra_state(),
    }
    path.with_name("resume.json").write_text(json.dumps(report))


if __name__ == "__main__":
    for name, job_file in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        resume(name, Path(job_file))
