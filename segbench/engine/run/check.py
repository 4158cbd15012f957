"""Checks that a method works here: trains it for a few steps on tiny drawn images and predicts, in its own process."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.run import environments
from segbench.errors import SegbenchError
from segbench.methods.card import Budget
from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Devices, Job, Task
from segbench.methods.predictions import PredictionSet
from segbench.small_files import read_json

_LIMIT_S = 1800


@dataclass(frozen=True)
class CheckResult:
    """How a method's check ended."""

    method: str
    ok: bool
    seconds: float
    """Of the subprocess, without building its environment."""
    instances: int | None
    """Found in the four predicted windows; after so few steps it may be none."""
    error: str | None


def check_method(name: str, *, gpu: bool = False, progress: Callable[[str], None] | None = None) -> CheckResult:
    """Train a method for a few steps on drawn discs and predict, as a run would; its environment is built where needed.

    Raises
    ------
    SegbenchError
        For unknown and for planned methods. A method that fails is a result, not an error.
    """
    card, target = get_card(name), method_object(name)
    try:
        environment = environments.ensure(card.environment, gpu=gpu and card.resources.num_gpus > 0, progress=progress)
    except SegbenchError as error:
        return CheckResult(name, False, 0.0, None, str(error))
    with tempfile.TemporaryDirectory(prefix="segbench-check-") as text:
        folder = Path(text)
        train, val, test = (_arrays(folder, split, n, seed) for seed, (split, n) in enumerate(_SPLITS.items()))
        job = Job(
            run_id="check",
            method=target,
            task=Task("discs", "drawn", ("nuclear",), "nuclear"),
            budget=few_steps(card.budget),
            seed=0,
            output=str(folder / "run"),
            train=train if card.trained else None,
            val=val,
            predict={"test": replace(test, labels=None)},
            settings={**card.defaults, **card.check_settings},
            devices=Devices(num_gpus=min(1.0, card.resources.num_gpus) if gpu else 0.0, num_cpus=2),
        )
        files = JobFolder(Path(job.output))
        files.path.mkdir()
        job.write(files.job)
        command = job.command(files.job, environment.python)
        variables = environments.subprocess_env(environment, ("segbench", target.partition(":")[0]))
        start = time.monotonic()
        try:
            done = subprocess.run(
                command,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=_LIMIT_S,
                check=False,
                cwd=folder,
            )
        except subprocess.TimeoutExpired:
            return CheckResult(name, False, time.monotonic() - start, None, f"not done after {_LIMIT_S} s")
        seconds = time.monotonic() - start
        if done.returncode != 0:
            return CheckResult(name, False, seconds, None, _reason(files, done))
        predictions = PredictionSet(files.predictions("test"))
        return CheckResult(name, True, seconds, int(predictions.scores.size), None)


def draw_discs(
    n_images: int, size: int = 64, n_channels: int = 1, seed: int = 0, n_discs: int = 6
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Draw bright discs of 5 to 8 pixels radius that do not touch on a dim noisy ground.

    Returns
    -------
    images
        (n_images, n_channels, size, size), values in 0..1; the channels show the same discs with their own noise.
    labels
        (n_images, size, size).
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((n_images, size, size), np.int32)
    for n in range(n_images):
        for _ in range(20 * n_discs):
            radius = rng.uniform(5, 8)
            y, x = rng.uniform(radius, size - radius, 2)
            if labels[n][np.hypot(rows - y, columns - x) < radius + 2].any():
                continue
            labels[n][np.hypot(rows - y, columns - x) < radius] = labels[n].max() + 1
            if labels[n].max() == n_discs:
                break
    clean = np.where(labels > 0, 0.7, 0.15)[:, np.newaxis]
    noisy = clean + rng.normal(0, 0.05, (n_images, n_channels, size, size))
    return np.clip(noisy, 0, 1).astype(np.float32), labels


_SPLITS = {"train": 8, "val": 4, "test": 4}


def _arrays(folder: Path, split: str, n_images: int, seed: int) -> Arrays:
    images, labels = draw_discs(n_images, seed=seed)
    np.save(folder / f"{split}_images.npy", images)
    np.save(folder / f"{split}_labels.npy", labels)
    return Arrays(str(folder / f"{split}_images.npy"), (0,), None, str(folder / f"{split}_labels.npy"))


def few_steps(budget: Budget) -> Budget:
    """Return a method's budget cut to the few steps of its check."""
    return replace(
        budget,
        batch_size=min(2, budget.batch_size),
        epochs=None if budget.epochs is None else 2,
        iterations=None if budget.iterations is None else 4,
        steps_per_epoch=None if budget.steps_per_epoch is None else 2,
    )


def _reason(files: JobFolder, done: subprocess.CompletedProcess[str]) -> str:
    error = read_json(files.result).get("error")
    if error:
        return str(error)
    last = done.stderr.strip().splitlines()[-1:] or ["nothing on standard error"]
    return f"ended with status {done.returncode} and left no result: {last[0]}"
