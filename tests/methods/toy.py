"""A third party's method for the runner's tests: learns one threshold, misbehaves on request (setting ``do``)."""

# ruff: noqa: ARG002, T201 - it prints as a library would, and ignores what it does not need
from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segbench.methods import Budget, Card, Checkpoints, ImageStack, Job, LabelInstances, Method, Progress, Setting


class Toy(Method):
    """One instance an image: all that is brighter than the mean of the training images."""

    saves_uncalibrated = True
    card = Card(
        name="toy",
        title="Toy",
        family="toy",
        environment="engine",
        category="classical",
        trained=True,
        attention=False,
        budget=Budget(batch_size=2, epochs=3),
        libraries=("scipy",),
        settings={"do": Setting("well", "how a run goes")},
        score_rule="always one half",
    )

    def import_library(self, job: Job) -> None:
        self.job = job
        print("threads", os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"])
        subprocess.run([sys.executable, "-c", "print('a child wrote this')"], check=True)

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        assert train is not None
        self.mean = self.threshold = float(np.mean([train[n] for n in range(len(train))]))

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        do = job.settings["do"]
        epochs = job.budget.epochs or 1
        found = checkpoints.latest()
        done = 0 if found is None else int((found / "epoch.txt").read_text())
        for epoch in range(done + 1, epochs + 1):
            if do == "die" and epoch == 3 and not done:
                os._exit(9)
            progress.train(epoch=epoch, epochs=epochs, step=2 * epoch, loss=1 / epoch)
            if checkpoints.due():
                with checkpoints.writing() as folder:
                    (folder / "epoch.txt").write_text(str(epoch))
                    time.sleep(0.2)
            if do == "raise":
                raise ValueError("the toy\nbroke")
            if do == "nan":
                progress.train(epoch=epoch, step=2 * epoch + 1, loss=float("nan"))
            if do == "memory":
                raise MemoryError
            if do == "sleep":
                subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                time.sleep(600)

    def calibrate(self, job: Job, progress: Progress) -> None:
        if job.settings["do"] == "fail to calibrate" and not Path(job.output, "mended").exists():
            raise ValueError("the toy cannot calibrate")
        self.threshold = self.mean

    def save(self, folder: Path) -> None:
        (folder / "threshold.txt").write_text(repr(self.threshold))

    def restore(self, job: Job, folder: Path) -> None:
        self.threshold = float((folder / "threshold.txt").read_text())

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        if job.settings["do"] == "fail to predict":
            raise ValueError("the toy cannot predict")
        together = self.at_once(4)
        for first in range(0, len(images), together):
            batch = images[first : first + together]
            # the first two fit together, the others one by one
            if job.settings["do"] == "memory in prediction" and len(batch) > (1 if first else 2):
                raise MemoryError(f"{len(batch)} windows")
            for image in batch:
                labels = (image[0] > self.threshold).astype(np.int32)
                yield LabelInstances(labels, np.full(labels.max(), 0.5))

    def n_parameters(self) -> int:
        return 1
