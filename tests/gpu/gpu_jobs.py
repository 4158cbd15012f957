"""Jobs of the methods on a GPU, or on the processor while the tests are written, each in a process as a run's is."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, Devices, Job, LabelInstances, PredictionSet, Task
from segbench.methods.folder import JobFolder

HERE = Path(__file__).parent
ON_CPU = os.environ.get("SEGBENCH_GPU_TESTS_ON") == "cpu"
"""Whether the tests run on the processor, to be written there."""
TRAINED = (
    "mask-rcnn", "ms-rcnn", "cascade-mask-rcnn-seesaw", "swin-t", "swin-s", "hrnet", "res2net", "rf-next", "solov2",
    "mask2former", "resnest", "centermask2", "cellpose",
)  # fmt: skip
"""The methods that PyTorch trains."""
SHARE = 0.12
"""Of the GPU that a test's process may fill: eight run at once."""
LIMIT_S = 900 if ON_CPU else 120


@functools.cache
def why_not() -> str | None:
    """Return why there is nothing to test on, in a word; None where there is."""
    if ON_CPU:
        return None
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return "no GPU"
    python = environments.ensure("torch", gpu=True).python
    code = "import torch; print(torch.cuda.is_available())"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout
    return None if said.strip() == "True" else "no CUDA"


def devices(share: float = SHARE, processes: int = 1) -> Devices:
    """Return a part of the GPU and two cores a process, or one core alone."""
    return Devices(0.0 if ON_CPU else share, processes if ON_CPU else 2 * processes, processes)


def windows(folder: Path, name: str, n: int, size: int = 64, seed: int = 0) -> Arrays:
    """Draw windows with their labels; of large ones four, over and over."""
    drawn = n if size < 128 else min(n, 4)
    images, labels = draw_discs(drawn, size, seed=seed, n_discs=min(40, 6 * size * size // 4096))
    which = np.arange(n) % drawn
    np.save(folder / f"{name}_x.npy", images[which])
    np.save(folder / f"{name}_y.npy", labels[which])
    return Arrays(str(folder / f"{name}_x.npy"), (0,), None, str(folder / f"{name}_y.npy"))


def training(name: str, folder: Path, *, steps: int = 4, batch: int = 2, size: int = 64, **settings: Any) -> Job:
    """Return a job of a few steps with the method's own network, as ``segbench methods check`` trains it."""
    card = get_card(name)
    folder.mkdir(parents=True, exist_ok=True)
    per_epoch = max(1, steps // 2)
    budget = Budget(batch, epochs=2) if card.budget.epochs is not None else Budget(batch, iterations=steps)
    test = windows(folder, "test", 6, size, seed=1)
    return Job(
        run_id=name, method=method_object(name), task=Task("discs", "drawn", ("nuclear",), "nuclear"), budget=budget,
        seed=3, output=str(folder / "run"), train=windows(folder, "train", per_epoch * batch, size),
        predict={"test": dataclasses.replace(test, labels=None)},
        settings={**card.defaults, **card.check_settings, **settings}, devices=devices(),
    )  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """How a job's process ended."""

    folder: JobFolder
    status: int
    result: Mapping[str, Any]
    """What it left; nothing where it was killed."""

    @property
    def log(self) -> str:
        """The end of what it wrote."""
        return self.folder.log.read_text()[-3000:] if self.folder.log.exists() else "it wrote nothing"

    @property
    def losses(self) -> dict[int, float]:
        """The losses told, by step."""
        return {point["step"]: point["loss"] for point in self.result["history"] if point["loss"] is not None}

    def predictions(self) -> PredictionSet:
        """Return what it predicted."""
        return PredictionSet(self.folder.predictions("test"))

    def done(self) -> Ran:
        """Return itself, where it ended well."""
        assert self.result.get("status") == "done", f"{self.result.get('error')}\n{self.log}"
        return self


def run(job: Job, *, until: Callable[[JobFolder], bool] | None = None, modules: tuple[str, ...] = ()) -> Ran:
    """Run a job as the engine does: ``python -m segbench.methods JOB`` in the method's environment.

    Parameters
    ----------
    until
        Asked all the time; the process is killed once it is true.
    modules
        Of this folder, which the process is to find.
    """
    environment, path = environment_of(job), written(job)
    return _wait(job, job.command(path, environment.python), _variables(environment, modules), until)


def run_together(*jobs: Job) -> list[Ran]:
    """Run jobs one after the other in one process, by the runner that ``python -m segbench.methods`` calls."""
    environment = environment_of(jobs[0])
    code = "import sys; from segbench.methods.runner import main; sys.exit(max([main([job]) for job in sys.argv[1:]]))"
    command = [str(environment.python), "-c", code, *(str(written(job)) for job in jobs)]
    last = _wait(jobs[-1], command, _variables(environment, ()), None)
    return [*(Ran(JobFolder(Path(job.output)), last.status, _result(job)) for job in jobs[:-1]), last]


def environment_of(job: Job) -> environments.Environment:
    """Return the environment that a job's method runs in."""
    return environments.ensure("cellpose" if "cellpose" in job.method.lower() else "torch", gpu=not ON_CPU)


def written(job: Job) -> Path:
    """Write a job beside its folder; return its path."""
    folder = Path(job.output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".json")
    job.write(path)
    return path


def _variables(environment: environments.Environment, modules: tuple[str, ...]) -> dict[str, str]:
    variables = environments.subprocess_env(environment, ("segbench", *modules))
    return {**variables, "CUDA_VISIBLE_DEVICES": ""} if ON_CPU else variables


def _result(job: Job) -> dict[str, Any]:
    path = JobFolder(Path(job.output)).result
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return result


def _wait(job: Job, command: list[str], variables: dict[str, str], until: Callable[[JobFolder], bool] | None) -> Ran:
    folder, ends = JobFolder(Path(job.output)), time.monotonic() + LIMIT_S
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            if time.monotonic() > ends or (until is not None and until(folder)):
                process.kill()
                break
            time.sleep(0.03)
    if until is None:
        assert time.monotonic() < ends, f"not done after {LIMIT_S} s\n{Ran(folder, 1, {}).log}"
    return Ran(folder, process.returncode, _result(job))


def steps_told(folder: JobFolder) -> int:
    """Return how many training steps a job has told of."""
    if not folder.progress.exists():
        return 0
    lines = [line for line in folder.progress.read_text().splitlines() if line.endswith("}")]
    return max((json.loads(line).get("step") or 0 for line in lines), default=0)


def painted(predictions: PredictionSet, n: int) -> list[npt.NDArray[np.bool_]]:
    """Return the masks of a window."""
    found = predictions[n]
    if isinstance(found, LabelInstances):
        return [found.labels == k for k in range(1, len(found.scores) + 1)]
    shape = predictions.width, predictions.height
    values = [np.arange(len(counts)) % 2 == 1 for counts in found.counts]
    return [np.repeat(v, c).reshape(shape).T for v, c in zip(values, found.counts, strict=True)]


def agreement(one: PredictionSet, other: PredictionSet) -> float:
    """Return the share of the masks of both that the other has, with an IoU above 0.8; 1 where neither has any."""
    total = found = 0
    for n in range(len(one)):
        a, b = painted(one, n), painted(other, n)
        total += len(a) + len(b)
        if not a or not b:
            continue
        flat = [np.array([mask.ravel() for mask in masks], np.float32) for masks in (a, b)]
        both = flat[0] @ flat[1].T
        either = flat[0].sum(1)[:, None] + flat[1].sum(1)[None] - both
        same = both / np.maximum(either, 1) > 0.8
        found += int(same.any(1).sum() + same.any(0).sum())
    return 1.0 if total == 0 else found / total
