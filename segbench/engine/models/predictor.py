"""A process that predicts with one model, kept for a whole launch: windows go in, their instances come out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import filelock
import numpy as np
import numpy.typing as npt

from segbench.engine.data.cache import default_workers
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.models.trained import TrainedModel
from segbench.engine.run import environments
from segbench.engine.run.process import end, modules_of
from segbench.errors import SegbenchError
from segbench.methods.folder import JobFolder
from segbench.methods.job import Asked, Devices, Job
from segbench.methods.predictions import Instances, LabelInstances, MaskInstances, PredictionSet
from segbench.paths import cache_folder
from segbench.small_files import read_json

_PREFIX, _LOCK = "apply-", "alive.lock"
_SETTLED_S = 60.0
"""A folder that is younger may not have its lock yet."""
_OLD_S = 86400.0
"""One without a lock is of an older segbench, or was never used: this long after its last change it is nobody's."""


def clear_the_dead(folder: Path) -> None:
    """Remove the working folders of predictors that were killed; those of the living hold a lock."""
    for work in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, filelock.Timeout):
            lock = work / _LOCK
            there = lock.exists()
            if time.time() - (lock if there else work).stat().st_mtime < (_SETTLED_S if there else _OLD_S):
                continue
            with filelock.FileLock(lock, timeout=0) if there else contextlib.nullcontext():
                shutil.rmtree(work, ignore_errors=True)


class Predicts(Protocol):
    """What windows are given to, and their instances come from, in order."""

    @property
    def ahead(self) -> int:
        """Batches of windows that are asked for before the first is needed."""

    def ask(self, windows: npt.NDArray[np.float32]) -> None:
        """Ask for the instances of windows (N, C, H, W), the model's channels in its order."""

    def answer(self) -> list[Instances]:
        """Return the instances of the windows that were asked for first and not answered yet."""

    def forget(self) -> None:
        """Drop what is still unanswered."""


class BrokenModelError(SegbenchError):
    """The process of a model dies before it has predicted anything: no image can be segmented with it."""


class Predictor:
    """Predicts with a model in the method's own process, which is started at the first question.

    Parameters
    ----------
    model
        The model.
    use_gpu
        Whether it may use a GPU, where its method does.
    num_cpus
        Its cores; None for all of this machine.
    note
        Is told what becomes of the method's environment, where that is built.

    Raises
    ------
    SegbenchError
        The method's environment cannot be had.
    """

    def __init__(
        self, model: TrainedModel, *, use_gpu: bool = False, num_cpus: int | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        card = get_card(model.method)
        self._model, self._gpu = model, use_gpu and card.resources.num_gpus > 0
        self._cpus = num_cpus or default_workers()
        self._environment = environments.ensure(card.environment, gpu=self._gpu, progress=note)
        cache_folder().mkdir(parents=True, exist_ok=True)
        clear_the_dead(cache_folder())
        # a temporary folder may itself be memory
        self._work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=cache_folder()))
        self._alive = filelock.FileLock(self._work / _LOCK, timeout=60)
        self._alive.acquire()
        self._files = JobFolder(self._work / "job")
        self._process: subprocess.Popen[bytes] | None = None
        self._open: deque[str] = deque()
        self._asked = 0
        self._works = False

    @property
    def ahead(self) -> int:
        """Batches of windows that are asked for before the first is needed."""
        return 2

    def ask(self, windows: npt.NDArray[np.float32]) -> None:
        """Ask for the instances of windows (N, C, H, W), the model's channels in its order."""
        process = self._started()
        self._asked += 1
        asked = Asked(str(self._asked), str(self._work / f"{self._asked}.npy"))
        np.save(asked.images, windows)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: the answer tells why
            process.stdin.write(asked.line().encode() + b"\n")
            process.stdin.flush()
        self._open.append(asked.name)

    @property
    def waiting(self) -> int:
        """How many questions have not been answered yet."""
        return len(self._open)

    def answer(self) -> list[Instances]:
        """Return the instances of the windows that were asked for first and not answered yet.

        Raises
        ------
        SegbenchError
            The method failed on them, or its process has died; a new one is started at the next question.
        BrokenModelError
            It has died without a single answer.
        """
        name = self._open.popleft()
        told = self._read_answer(name)
        folder = self._files.predictions(name)
        (self._work / f"{name}.npy").unlink(missing_ok=True)
        if told.get("error"):
            shutil.rmtree(folder, ignore_errors=True)
            raise SegbenchError(f"{self._model.method} failed: {told['error']}")
        found = [_in_memory(instances) for instances in PredictionSet(folder)]
        shutil.rmtree(folder)
        return found

    def forget(self) -> None:
        """Wait for what is still unanswered, and drop it."""
        while self._open:
            with contextlib.suppress(SegbenchError):
                self.answer()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            end(self._process)
        self._alive.release()
        shutil.rmtree(self._work, ignore_errors=True)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        model, files = self._model, self._files
        card = get_card(model.method)
        files.path.mkdir(parents=True, exist_ok=True)
        job = Job(
            run_id=model.run_id or model.name,
            method=method_object(model.method),
            task=model.task,
            budget=model.budget,
            seed=model.seed,
            output=str(files.path),
            settings=model.settings,
            devices=Devices(min(1.0, card.resources.num_gpus) if self._gpu else 0.0, num_cpus=self._cpus),
            parent_pid=os.getpid(),
            model=None if model.folder is None else str(model.folder),
            asked=True,
        )
        job.write(files.job)
        variables = environments.subprocess_env(self._environment, modules=modules_of(model.method))
        if not self._gpu:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        with files.log.open("ab") as log:
            self._process = subprocess.Popen(
                job.command(files.job, self._environment.python),
                env=variables,
                cwd=files.path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    def _read_answer(self, name: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if told.get("answered") == name:
                self._works = True
                return dict(told)
        code = self._process.wait()
        self._open.clear()
        error = read_json(self._files.result).get("error")
        why = error or (f"its process was ended by signal {-code}" if code < 0 else f"its process ended, status {code}")
        if not self._works:
            raise BrokenModelError(
                f"{self._model.method} failed before it predicted anything: {why}{self._last_line()}"
            )
        return {"error": f"{why}{self._last_line()}"}

    def _last_line(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._files.log.read_text(errors="replace").strip().splitlines()
            if lines and not read_json(self._files.result).get("error"):
                return f"; its log ends with: {lines[-1][:200]}"
        return ""


def _in_memory(instances: Instances) -> Instances:
    """Return instances whose arrays do not lie in the files of a prediction any more."""
    scores = np.array(instances.scores)
    if isinstance(instances, LabelInstances):
        return LabelInstances(np.array(instances.labels), scores)
    return MaskInstances([counts.copy() for counts in instances.counts], scores)
