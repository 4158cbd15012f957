"""A third party's method for the engine's tests: a threshold that takes time, fails or runs out of memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segbench.methods import (
    Budget,
    Card,
    Checkpoints,
    ImageStack,
    Job,
    LabelInstances,
    Method,
    Progress,
    Resources,
    Setting,
)


class Threshold(Method):
    """Learns one grey value, the training images' mean plus a margin; instances are the rows of cells above it."""

    saves_uncalibrated = True
    card = Card(
        name="threshold",
        title="Threshold",
        family="baseline",
        environment="engine",
        category="classical",
        trained=True,
        attention=False,
        budget=Budget(batch_size=1, epochs=1),
        resources=Resources(num_gpus=0.5, num_cpus=1, memory_gb=0.5),
        libraries=("scikit-image",),
        settings={
            "seconds": Setting(0.0, "how long training takes", unit="seconds", minimum=0),
            "fail": Setting(
                "",
                "how training ends",
                choices=("", "raise", "memory", "memory above 2", "exit", "nan", "noise", "no folder", "look", "forge"),
            ),
            "obstacle": Setting("", "a file: while it is there prediction fails as it says", neutral_default=True),
            "over": Setting(0.0, "of a cell above the learnt value", neutral_default=True, prediction=True),
            "margin": Setting(0.1, "of the threshold above the mean", minimum=-1, maximum=1),
        },
        score_rule="mean grey value of an instance",
        data_parallel="library",
        resumable=True,
        may_halve_batch=True,
    )

    def import_library(self, job: Job) -> None:
        """Import scikit-image."""
        self._began = time.time()
        import skimage.measure

        self._label = skimage.measure.label

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Keep the training images."""
        self._images = train

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Take the mean, slowly if told to."""
        assert self._images is not None
        if job.settings["fail"] == "raise":
            raise RuntimeError("told to fail")
        if job.settings["fail"] == "memory" or (job.settings["fail"] == "memory above 2" and job.budget.batch_size > 2):
            raise MemoryError("told to run out")
        if job.settings["fail"] == "exit":
            os._exit(7)
        if job.settings["fail"] == "noise":
            with (Path(job.output) / "progress.jsonl").open("ab") as progress_file:
                progress_file.write(b"\0\0\0{}\n\xff\xfe\n5\n[1]\n")
            (Path(job.output) / "record.json").write_text('{"attempt": {"status": "done"}}')
            time.sleep(1)
        if job.settings["fail"] == "look":
            assert job.train is not None
            places = [Path(job.train.images).parents[0], Path(job.train.images).parents[2], *map(Path, job.hidden)]
            found = {str(place): [str(path) for path in place.rglob("labels-*-test.npy")] for place in places}
            (Path(job.output) / "found.json").write_text(json.dumps(found))
        if job.settings["fail"] == "forge" and not Path(job.settings["obstacle"] + "-forged").exists():
            Path(job.settings["obstacle"] + "-forged").touch()
            own = {"run_id": job.run_id, "attempt": 1, "folder": f"runs/{job.run_id}/attempt-001"}
            record = json.loads(Path(job.settings["obstacle"] + "-record").read_text())
            record["attempt"] |= own
            (Path(job.output) / "record.json").write_text(json.dumps(record))
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if job.settings["fail"] == "no folder":
            shutil.rmtree(job.output)
        sys.stdout.write("training\n")
        kept = checkpoints.latest()
        done = 0.0 if kept is None else float(np.load(kept / "done.npy"))
        while done < float(job.settings["seconds"]):
            time.sleep(0.05)
            done += 0.05
            if checkpoints.due():
                with checkpoints.writing() as folder:
                    np.save(folder / "done.npy", done)
        # what it was given, and when it had it
        seen = {"cuda": os.environ.get("CUDA_VISIBLE_DEVICES"), "raylet": os.environ.get("RAY_RAYLET_PID")}
        seen |= {"from": self._began, "to": time.time(), "batch_size": job.budget.batch_size}
        (Path(job.output) / "seen.json").write_text(json.dumps(seen))
        self._value = float(np.mean([image.mean() for image in self._images])) + float(job.settings["margin"])
        progress.train(epoch=1, epochs=1, loss=float("nan") if job.settings["fail"] == "nan" else self._value)

    def calibrate(self, job: Job, progress: Progress) -> None:
        """Fail where told to."""
        if job.settings["obstacle"] and Path(job.settings["obstacle"] + "-calibrating").exists():
            raise RuntimeError("told to fail in calibration")

    def save(self, folder: Path) -> None:
        """Write the value."""
        np.save(folder / "value.npy", self._value)

    def restore(self, job: Job, folder: Path) -> None:
        """Read the value."""
        self._value = float(np.load(folder / "value.npy"))

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        """Yield connected regions above the value."""
        obstacle = Path(job.settings["obstacle"]) if job.settings["obstacle"] else None
        together = self.at_once(2)
        if obstacle is not None and obstacle.exists():
            told = obstacle.read_text()
            if told == "raise":
                raise RuntimeError("told to fail in prediction")
            if told == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if told == "memory" and job.most_at_once != 1:
                raise MemoryError(f"told to run out with {together} windows")
        for image in images:
            labels = self._label(image[0] > self._value + job.settings["over"]).astype(np.int32)
            counts = np.bincount(labels.ravel(), minlength=1)
            sums = np.bincount(labels.ravel(), image[0].ravel())
            yield LabelInstances(labels, (sums[1:] / counts[1:]).astype(np.float64))
