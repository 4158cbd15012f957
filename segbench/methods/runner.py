"""Runs one job to its end in this process: the phases, their times, and the result file."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.metadata
import itertools
import json
import os
import platform
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Asked, Job
from segbench.methods.scales import scales_of
from segbench.methods.stages import PREDICT, TRAIN, stage
from segbench.methods.wall import hide
from segbench.own_memory import OwnMemory

# Nothing here may import numpy before the thread counts are set: job and card are plain Python.
from segbench.small_files import read_json, write_whole

if TYPE_CHECKING:
    from segbench.methods.base import ImageStack, Method, Progress
    from segbench.methods.card import Card

USAGE = "usage: python -m segbench.methods JOB.json"
_PARENT_CHECK_S = 0.5
_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run the job file named on the command line; returns the exit status: 0 done, 1 failed, 2 for a bad job file."""
    if list(argv) in (["-h"], ["--help"]):
        sys.stdout.write(
            f"{USAGE}\n\nProgress goes to standard output as JSON lines, all else into the job's folder.\n"
        )
        return 0
    if len(argv) != 1:
        sys.stderr.write(USAGE + "\n")
        return 2
    try:
        job = Job.read(Path(argv[0]))
        if job.method.count(":") != 1:
            raise ValueError(f"{argv[0]}: field 'method' must be 'module:Class', found {job.method!r}")
        folder = JobFolder(Path(job.output))
        folder.path.mkdir(parents=True, exist_ok=True)
        if folder.record.exists():
            raise ValueError(
                f"{folder.path} holds a recorded attempt, which nothing may change: "
                "'segbench methods run' writes into a folder of its own"
            )
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    stream = _redirect(folder.log)
    hide(job.hidden)  # before any thread runs
    _set_threads(job)
    _watch_parent(job)
    if job.rank() == 0:
        for stale in (folder.result, folder.progress):
            stale.unlink(missing_ok=True)
    return _Run(job, stream).run()


class _Run:
    """One job on its way: what is known so far ends in the result file, however it ends."""

    def __init__(self, job: Job, stream: TextIO) -> None:
        from segbench.methods.base import Progress
        from segbench.methods.checkpoints import Checkpoints

        self.job, self.folder, self.stream = _in_scale(job), JobFolder(Path(job.output)), stream
        self.memory = OwnMemory()
        self.first = job.rank() == 0
        self.progress: Progress = Progress(self.folder.progress, stream) if self.first else Progress(Path(os.devnull))
        kept = None if job.checkpoints is None else Path(job.checkpoints)
        self.checkpoints = Checkpoints(kept, job.checkpoint_every_s, writes=self.first)
        self.timings: dict[str, float | None] = dict.fromkeys(
            ("import", "load", "train", "calibrate", "save", "predict")
        )
        self.facts: dict[str, Any] = {}
        self.method: Method | None = None
        self.told: BaseException | None = None
        """The error that stands in the log already."""

    def run(self) -> int:
        """Run all phases; returns the exit status."""
        try:
            self._stages()
        except BaseException as error:
            if error is not self.told:
                traceback.print_exc()
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self._write_result("failed", error)
            return 1
        if self.first:
            self._write_result("done", None)
        return 0

    def _stages(self) -> None:
        job = self.job
        random.seed(job.seed)
        importlib.import_module("numpy").random.seed(job.seed % 2**32)
        trained = False
        with self._stage(TRAIN if job.train is not None and job.model is None else PREDICT) as how:
            method = self._import()
            trained = method.card.trained and job.train is not None and job.model is None
            if trained:
                self._train(method)
            elif self.first:
                self._make_ready(method)
                self._predict_all(method, how)
                if job.asked:
                    self._answer_all(method, how)
                self._write_formats(method)
        if not trained or not self.first:
            return  # of several processes the others have helped to train
        # whatever happens from here on: this model is not trained again
        self.checkpoints.remove()
        with self._stage(PREDICT) as how:
            self._predict_all(method, how)

    def _import(self) -> Method:
        with self._phase("import"):
            module, _, name = self.job.method.partition(":")
            method: Method = getattr(importlib.import_module(module), name)()
            self.method = method
            method.most_at_once = self.job.most_at_once
            with _uncollected():
                method.import_library(self.job)
        return method

    def _make_ready(self, method: Method) -> None:
        job = self.job
        if method.card.trained:
            model = finished_model(self.folder.model if job.model is None else Path(job.model))
            with self._phase("restore"):
                method.restore(job, model)
            return
        with self._phase("load"):
            method.load(job, _stack(job.train), _stack(job.val))

    def _train(self, method: Method) -> None:
        job = self.job
        train, val = _stack(job.train), _stack(job.val)
        if train is None or len(train) == 0:
            raise ValueError("there is no training window")
        if job.budget.epochs == 0:
            self._take_released(method)
            return
        with self._phase("load"):
            method.load(job, train, val)
        before = self._trained_before()
        if before is None:
            self._train_anew(method)
        else:
            self._recall(method, before)
        if not self.first:
            return
        with self._phase("calibrate"):
            while self._ran_out(lambda: method.calibrate(job, self.progress), method):
                pass
        used = method.used_windows()
        self.facts |= count_cells(train, range(len(train)) if used is None else used)
        self._save(method)

    def _take_released(self, method: Method) -> None:
        """Apply a released model as it is: no training, no choice on validation windows, T is not known."""
        self.checkpoints.begin(self.progress.history)
        with self._phase("load"):
            method.begin(self.job)
        self.facts |= {"n_train_images": 0, "n_train_cells": 0, "epochs": 0}
        if self.first:
            self._save(method)

    def _save(self, method: Method) -> None:
        with self._phase("save"):
            _empty(self.folder.model)
            method.save(self.folder.model)
        about = self._identity()
        about |= {"versions": versions_of(method.card), "timings": self.timings, "n_parameters": method.n_parameters()}
        _write_json(self.folder.model_marker, about | self.facts | {"training": self._known()})
        for done in (self.folder.trained, self.folder.work):
            shutil.rmtree(done, ignore_errors=True)

    def _write_formats(self, method: Method) -> None:
        if self.job.formats is not None:
            folder = Path(self.job.formats)
            written = method.other_formats(self.job, folder)
            _write_json(self.folder.formats, {name: asdict(weights) for name, weights in written.items()})

    def _train_anew(self, method: Method) -> None:
        self.checkpoints.begin(self.progress.history)
        with self._phase("train"):
            method.train(self.job, self.progress, self.checkpoints)
        # T is the time of all the training that led to this model, also that of attempts which were lost on the way
        self.timings["train"] = (self.timings["train"] or 0.0) + self.checkpoints.earlier_s
        if not self.first:
            return
        self.facts["step_s"] = steady_step_s(self.progress.paces)
        if method.saves_uncalibrated:
            _empty(self.folder.trained)
            method.save(self.folder.trained)
            _write_json(self.folder.trained_marker, {**self._identity(), "training": self._known()})

    def _identity(self) -> dict[str, Any]:
        job = self.job
        told = {"run_id": job.run_id, "method": job.method, "settings": dict(job.settings), "task": asdict(job.task)}
        return dict(json.loads(json.dumps(_finite(told))))

    def _trained_before(self) -> dict[str, Any] | None:
        """Return what a training of this job told whose calibration was not finished; None where there is none."""
        told = read_json(self.folder.trained_marker)
        return told if told and all(told.get(name) == value for name, value in self._identity().items()) else None

    def _recall(self, method: Method, before: dict[str, Any]) -> None:
        training = before["training"]
        with self._phase("restore"):
            method.restore(self.job, self.folder.trained)
        self.timings["train"] = self.checkpoints.earlier_s = training["timings"]["train"]
        self.checkpoints.history = training["history"]
        self.facts["step_s"] = training["step_s"]

    def _predict_all(self, method: Method, how: dict[str, Any]) -> None:
        with self._phase("predict"):
            for name, arrays in self.job.predict.items():
                self._predict(method, name, arrays, how)

    def _answer_all(self, method: Method, how: dict[str, Any]) -> None:
        """Predict what is asked for until standard input ends; what fails is told, and the next is answered."""
        for line in sys.stdin:
            asked, error = Asked.of(line), None
            n_channels = importlib.import_module("numpy").load(asked.images, mmap_mode="r").shape[1]
            try:
                self._predict(method, asked.name, self._asked_for(asked, n_channels), how)
            except Exception as failure:
                traceback.print_exc()
                error = one_line(failure)
            self.stream.write(Asked.answer(asked.name, error) + "\n")
            self.stream.flush()

    def _asked_for(self, asked: Asked, n_channels: int) -> Arrays:
        return Arrays(asked.images, tuple(range(n_channels)), scale=scales_of(self.job.settings)[1])

    def _predict(self, method: Method, name: str, arrays: Arrays, how: dict[str, Any]) -> None:
        from segbench.methods.base import ImageStack
        from segbench.methods.predictions import PredictionWriter
        from segbench.methods.resampling import brought_back

        folder = self.folder.predictions(name)
        _empty(folder)
        images = ImageStack(arrays)
        total, done, told = len(images), 0, time.monotonic()
        seen, size = images.size, images.own_size
        with PredictionWriter(folder, method.prediction_kind, total, *size) as writer:

            def go_on() -> None:
                nonlocal done, told
                left = images if not done else _without_first(arrays, done, total)
                for instances in method.predict(self.job, left):
                    writer.add(instances if seen == size else brought_back(instances, seen, size))
                    done += 1
                    if done == total or time.monotonic() - told > 1:
                        told = time.monotonic()
                        self.progress.predict(done, total)

            while self._ran_out(go_on, method):
                pass
        how["at_once"] = method.used_at_once

    def _ran_out(self, work: Callable[[], None], method: Method) -> bool:
        """Do some work with the network; True where the memory did not suffice and half as many windows may fit."""
        try:
            work()
        except Exception as error:
            if error_kind(error) != "out-of-memory" or method.used_at_once < 2:
                raise
            told = one_line(error)
        else:
            return False
        # only here has the error let go of what the network held
        most = method.used_at_once // 2
        sys.stderr.write(f"out of memory with {method.used_at_once} windows at once, going on with {most}: {told}\n")
        method.most_at_once = most
        release_memory()
        return True

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[dict[str, Any]]:
        how: dict[str, Any] = {}
        if not self.first:
            yield how
            return
        _flush()
        with stage(self.folder.path, name, self.folder.log, how):
            try:
                yield how
            except BaseException as error:
                self.told = error
                traceback.print_exc()
                kind = error_kind(error)
                how |= {"status": kind, "error": one_line(error)}
                raise
            finally:
                _flush()

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.progress.phase(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = time.perf_counter() - start

    def _write_result(self, status: str, error: BaseException | None) -> None:
        result: dict[str, Any] = {
            "run_id": self.job.run_id,
            "status": status,
            "error": None if error is None else one_line(error),
            "error_kind": None if error is None else error_kind(error),
            **self._known(suppress=error is not None),
        }
        _write_json(self.folder.result, result)

    def _known(self, suppress: bool = False) -> dict[str, Any]:
        """Return what is known of the job so far; ``suppress`` errors of a library that has failed already."""
        method, history = self.method, [*self.checkpoints.history, *self.progress.history]
        known: dict[str, Any] = {
            "timings": dict(self.timings),
            "peak_memory_bytes": self.memory.peak_bytes(),
            "batch_size": self.job.budget.batch_size,
            "epochs": max((point["epoch"] for point in history if point["epoch"] is not None), default=None),
            "iterations": max((point["step"] for point in history if point["step"] is not None), default=None),
            "history": history,
            "resumed_after_s": self.checkpoints.earlier_s or None,
            "processes": self.job.devices.processes,
            "n_train_images": None,
            "n_train_cells": None,
            "step_s": None,
            **self.facts,
        }
        if method is not None:
            known |= {"versions": versions_of(method.card), "score_rule": method.card.score_rule}
        # A library that failed to load cannot tell more; after success its answers count
        known |= {"n_parameters": None, "gpu_names": [], "peak_gpu_memory_bytes": None}
        ready = self.timings["load"] is not None or self.timings.get("restore") is not None
        if method is not None and ready:
            with contextlib.suppress(Exception) if suppress else contextlib.nullcontext():
                known["n_parameters"] = method.n_parameters()
                known["gpu_names"] = method.gpu_names()
                known["peak_gpu_memory_bytes"] = method.peak_gpu_memory_bytes()
        return known


def finished_model(model: Path) -> Path:
    """Return the folder of a trained model; FileNotFoundError where it is not finished."""
    marker = model / JobFolder(model.parent).model_marker.name
    if not marker.is_file():
        raise FileNotFoundError(
            f"{model} holds no finished model (no {marker.name}): a job without training data needs one"
        )
    return model


def steady_step_s(points: Sequence[tuple[float, int]]) -> float | None:
    """Return the seconds that a training step takes once training runs steadily; None where too little was told.

    It is the median over the steps, each as long as the mean of those that were told together, without the first tenth
    and without what came before the first telling.

    Parameters
    ----------
    points
        Seconds on a monotonic clock, and steps done until then.

    Examples
    --------
    >>> steady_step_s([(9.0, 10), (11.0, 20), (13.5, 30), (15.5, 40)])
    0.2
    """
    most = max((step for _, step in points), default=0)
    paces = sorted(
        ((end - start) / (after - before), after - before)
        for (start, before), (end, after) in itertools.pairwise(points)
        if after > before >= most / 10
    )
    half, seen = sum(steps for _, steps in paces) / 2, 0
    for pace, steps in paces:
        seen += steps
        if seen >= half:
            return pace
    return None


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Look for no garbage while a library is imported, and none in what it leaves: a sixth of the time is saved."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.freeze()


def release_memory() -> None:
    """Give back what Python and, where it is loaded, PyTorch keep for later."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def count_cells(stack: ImageStack, windows: Sequence[int]) -> dict[str, int]:
    """Return how many windows and labelled cells there are (``n_train_images``, ``n_train_cells``)."""
    import numpy as np

    cells = sum(int(np.count_nonzero(np.bincount(stack.labels(n).ravel())[1:])) for n in windows)
    return {"n_train_images": len(windows), "n_train_cells": cells}


def versions_of(card: Card) -> dict[str, str]:
    """Return the installed versions of Python, numpy and the card's libraries; a ``NAME-cpu`` stands for NAME."""
    versions = {"python": platform.python_version()}
    for library in dict.fromkeys(("numpy", *card.libraries)):
        for name in (library, f"{library}-cpu"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions.setdefault(library, importlib.metadata.version(name))
    return versions


def one_line(error: BaseException) -> str:
    """Return an error as one line of at most 500 characters.

    Examples
    --------
    >>> one_line(ValueError("first\\n second"))
    'ValueError: first second'
    """
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 500 else text[:497] + "..."


def error_kind(error: BaseException) -> str:
    """Tell apart the ways to fail: ``out-of-memory`` (of the host or a GPU), ``diverged`` or ``failed``.

    Examples
    --------
    >>> error_kind(MemoryError()), error_kind(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    ('out-of-memory', 'out-of-memory')
    >>> error_kind(KeyError(1))
    'failed'
    """
    from segbench.methods.base import DivergedError

    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    if names & {"MemoryError", "OutOfMemoryError", "ResourceExhaustedError"} or (
        "RuntimeError" in names and ("out of memory" in text or "can't allocate memory" in text)
    ):
        return "out-of-memory"
    return "diverged" if isinstance(error, DivergedError) else "failed"


def _in_scale(job: Job) -> Job:
    """Return a job whose windows come in the scales that its settings ask for."""
    train, predicted = scales_of(job.settings)
    if (train, predicted) == (1.0, 1.0):
        return job

    def scaled(arrays: Arrays | None) -> Arrays | None:
        return None if arrays is None else replace(arrays, scale=train)

    predict = {name: replace(arrays, scale=predicted) for name, arrays in job.predict.items()}
    return replace(job, train=scaled(job.train), val=scaled(job.val), predict=predict)


def _stack(arrays: Arrays | None) -> ImageStack | None:
    from segbench.methods.base import ImageStack

    return None if arrays is None else ImageStack(arrays)


def _without_first(arrays: Arrays, n: int, total: int) -> ImageStack:
    from segbench.methods.base import ImageStack

    rows = tuple(range(total)) if arrays.rows is None else arrays.rows
    return ImageStack(replace(arrays, rows=rows[n:]))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _empty(folder: Path) -> None:
    """Make a folder of the run's own, or remove the files that an earlier run of the same job left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(_finite(content), indent=1))


def _finite(value: Any) -> Any:
    """Replace what JSON cannot say: numbers that are not finite become null, numpy's scalars plain ones."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and value - value != 0 else value


def _redirect(log: Path) -> TextIO:
    """Send file descriptors 1 and 2 into the log, whoever writes to them; return the standard output as it was."""
    sys.stdout.flush()
    sys.stderr.flush()
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    return stream


def _set_threads(job: Job) -> None:
    """Tell the libraries, which read these variables when they are loaded, what they may use."""
    for variable in _THREADS:
        os.environ[variable] = str(max(1, job.devices.num_cpus // job.devices.processes))
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that wait by spinning take the other runs' cores
    if job.devices.num_gpus <= 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _watch_parent(job: Job) -> None:
    """End this process, with its children, when the engine's process that started it, or torchrun, is gone."""
    engine, parent, leads = job.parent_pid, os.getppid(), os.getsid(0) == os.getpid()
    if job.devices.processes == 1 and (engine is None or (parent != engine and not leads)):
        return  # by hand: the engine starts each job as the leader of its own session

    def started_by_the_living() -> bool:
        if job.devices.processes == 1:
            return os.getppid() == engine
        return os.getppid() == parent and (engine is None or _alive(engine))

    def watch() -> None:
        while started_by_the_living():
            time.sleep(_PARENT_CHECK_S)
        if job.devices.processes > 1 and os.getppid() == parent:
            os.kill(parent, signal.SIGKILL)
        if leads:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
