"""Run by InstanSeg's environment: a training that is killed after an epoch and taken up again, and one that is not.

python instanseg_parts.py JOB.json REPORT.json
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from segbench.methods.base import ImageStack, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.instanseg import InstanSeg
from segbench.methods.job import Job


class KilledError(RuntimeError):
    """Stands for the end of the process."""


class Dying(Progress):
    """Ends the training when a step of its second epoch is told."""

    def train(self, **told: Any) -> None:
        super().train(**told)
        if told["epoch"] == 2:
            raise KilledError


def trained(job: Job, progress: Progress, kept: Path | None) -> dict[str, Any]:
    assert job.train is not None
    assert job.val is not None
    method = InstanSeg()
    method.import_library(job)
    method.load(job, ImageStack(job.train), ImageStack(job.val))
    checkpoints = Checkpoints(kept, every_s=0.0)
    checkpoints.begin(progress.history)
    method.train(job, progress, checkpoints)
    return dict(method._model.state_dict())


def main(path: Path, report: Path) -> None:
    job, quiet = Job.read(path), Path(os.devnull)
    whole = trained(job, Progress(quiet), None)
    killed = False
    try:
        trained(job, Dying(quiet), path.parent / "kept")
    except KilledError:
        killed = True
    progress = Progress(quiet)
    resumed = trained(job, progress, path.parent / "kept")
    apart = max(float((whole[key].float() - resumed[key].float()).abs().max()) for key in whole)
    report.write_text(json.dumps({"killed": killed, "epochs": [p["epoch"] for p in progress.history], "apart": apart}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
