"""Runs attempts one after the other in this process, so that a debugger can follow them from launch to score."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import psutil

from segbench.engine.grid import Run
from segbench.engine.order import CPU, GPU, Node
from segbench.engine.results.statuses import Status
from segbench.engine.run.request import AttemptRequest
from segbench.engine.scheduler.executor import Attempt, Ended, Executor
from segbench.engine.scheduler.gpus import smallest_gpu_gb, visible_gpus
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.placement import Fitted, Fitter, Host

_TICK_S = 0.25
_FOR_RAY = {
    "address": "--address",
    "accelerator": "--accelerator",
    "labels": "--label",
    "cluster_file": "--cluster-file",
}


class InlineExecutor(Executor):
    """Runs each attempt where it is waited for: in the thread that launches, in the order in which runs came.

    The method itself runs in its own process, as everywhere.

    Parameters
    ----------
    options
        Which of this machine's devices are used.
    attempt
        What is done for each run.
    """

    def __init__(self, options: LaunchOptions, attempt: Attempt) -> None:
        self._attempt = attempt
        self._devices = [] if options.cpu else visible_gpus()
        self.use_gpu = bool(self._devices)
        self.device = GPU if self.use_gpu else CPU
        cores = len(os.sched_getaffinity(0))
        node = Node(
            "this machine",
            len(self._devices),
            float(min(cores, options.num_cpus or cores)),
            psutil.virtual_memory().total / 1e9,
        )
        self._fitter = Fitter([Host(node, gpu_memory_gb=smallest_gpu_gb() if self.use_gpu else None)], self.use_gpu)
        self._ignored = tuple(name for field, name in _FOR_RAY.items() if getattr(options, field))
        self._waiting: deque[str] = deque()
        self._submitted: AttemptRequest | None = None
        self._cancelled: Ended | None = None

    @property
    def gpus(self) -> int:
        """GPUs that this process sees."""
        return len(self._devices)

    @property
    def gpus_in_use(self) -> float:
        """GPUs of the attempt that runs."""
        return float(len(self._given(self._submitted))) if self._submitted is not None else 0.0

    def fit(self, run: Run) -> Fitted:
        """Return what a run gets: whole GPUs, since nothing runs beside it."""
        fitted = self._fitter.fit(run)
        notes = list(fitted.notes)
        if self._ignored:
            notes.append(f"{', '.join(self._ignored)}: of Ray's nodes, without effect on runs in this process")
        share = fitted.resources.num_gpus
        if self.use_gpu and 0 < share < 1:
            notes.append(f"{run.method} asks for {share:g} of a GPU: nothing runs beside it, it gets a whole one")
            fitted = dataclasses.replace(fitted, resources=dataclasses.replace(fitted.resources, num_gpus=1.0))
        return dataclasses.replace(fitted, notes=tuple(notes))

    def add(self, run: Run, seconds: float) -> None:  # noqa: ARG002 - the order is that in which runs come
        """Let a run wait behind those that wait."""
        self._waiting.append(run.id)

    def ready(self) -> list[str]:
        """Return the next run, where none is under way."""
        return [] if self._submitted is not None or not self._waiting else [self._waiting.popleft()]

    def submit(self, request: AttemptRequest) -> None:
        """Keep the attempt until it is waited for."""
        self._submitted = request

    def wait(self, timeout_s: float, meanwhile: Callable[[], None]) -> list[Ended]:
        """Run the attempt that was submitted, to its end."""
        if self._cancelled is not None:
            ended, self._cancelled = self._cancelled, None
            return [ended]
        if self._submitted is None:
            time.sleep(timeout_s)
            return []
        request, status, error = self._submitted, Status.LOST, "the attempt left no record"
        try:
            with _beside(meanwhile), _seeing(self._given(request)):
                try:
                    self._attempt(request)
                except Exception as failure:  # a fault of the engine's own ends a run, not the launch, as on Ray
                    status, error = Status.FAILED, f"{type(failure).__name__}: {failure}"
        except KeyboardInterrupt:
            self.cancel()
            raise
        self._submitted = None
        return [Ended(request.run.id, lambda: (status, error))]

    def cancel(self) -> None:
        """Note that what was submitted, if it has left no record, did not come to an end."""
        if self._submitted is not None:
            self._cancelled = Ended(
                self._submitted.run.id, lambda: (Status.CANCELLED, "cancelled before it had left its record")
            )
            self._submitted = None

    def _given(self, request: AttemptRequest) -> list[str]:
        return self._devices[: math.ceil(request.run.resources.num_gpus)] if self.use_gpu else []


@contextlib.contextmanager
def _seeing(devices: list[str]) -> Iterator[None]:
    """Let the processes that are started see these GPUs alone."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


@contextlib.contextmanager
def _beside(meanwhile: Callable[[], None]) -> Iterator[None]:
    """Call something a few times a second, in a thread, while this one works.

    Raises
    ------
    KeyboardInterrupt
        In the midst of the work, where ``meanwhile`` has raised it; any other error of it after the work.
    """
    worker, stop = threading.get_ident(), threading.Event()
    failed: list[Exception] = []

    def watch() -> None:
        while not stop.wait(_TICK_S):
            try:
                meanwhile()
            except KeyboardInterrupt:
                # a signal would reach the main thread, which need not be the one that launches
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker), ctypes.py_object(KeyboardInterrupt))
                return
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=watch, name="segbench-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
