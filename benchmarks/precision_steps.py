"""Run by a method's environment: trains jobs in several precisions and tells the loss of every step.

    python precision_steps.py REPORT.json PRECISION,... JOB.json...

Writes for each job, by precision, its losses, or what went wrong.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from segbench.methods.base import ImageStack, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job


def losses_of(job: Job) -> list[float | None]:
    """Train as the runner does and return the losses that were told."""
    module, _, name = job.method.partition(":")
    method: Any = getattr(importlib.import_module(module), name)()
    assert job.train is not None
    method.import_library(job)
    method.load(job, ImageStack(job.train), None if job.val is None else ImageStack(job.val))
    progress = Progress(Path(os.devnull))
    method.train(job, progress, Checkpoints(None))
    return [point["loss"] for point in progress.history]


def main(report: str, precisions: str, *jobs: str) -> None:
    """Write the report anew after each training, so that one that is ended has told what it knows."""
    found: dict[str, dict[str, Any]] = {}
    for path in jobs:
        job = Job.read(Path(path))
        mine = found[job.run_id] = {}
        for precision in precisions.split(","):
            settings = {**job.settings, "precision": precision}
            try:
                mine[precision] = losses_of(dataclasses.replace(job, settings=settings))
            except Exception:
                mine[precision] = traceback.format_exc()
            Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
