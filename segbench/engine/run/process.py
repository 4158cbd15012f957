"""Runs an attempt's job in the method's own process, and tells how that ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segbench.engine.grid.cards import method_object
from segbench.engine.results.statuses import ENDED, Status
from segbench.engine.run import environments
from segbench.engine.run.memory import MemoryWatch
from segbench.engine.run.request import AttemptRequest, EndedError
from segbench.methods.job import Job

_POLL_S = 0.1


def run_process(
    request: AttemptRequest, job: Job, environment: environments.Environment, facts: dict[str, Any],
    path: Path | None = None,
) -> None:  # fmt: skip
    """Run a job to its end; ``facts`` then hold the most memory that was seen, as ``sampled_peak_bytes``.

    The job lies in ``path``; None for the attempt's own.

    An interrupt ends the process and all that it has started.

    Raises
    ------
    EndedError
        It ended without a result, or was stopped at its limit.
    """
    files = request.folder.job
    variables = environments.subprocess_env(environment, modules=modules_of(request.run.method))
    if not request.use_gpu:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    command = job.command(files.job if path is None else path, environment.python)
    with files.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            env=variables,
            cwd=files.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    watch, before = MemoryWatch(process.pid), facts.get("sampled_peak_bytes") or 0
    try:
        code = _wait(process, request.timeout_s, watch)
    finally:
        facts["sampled_peak_bytes"] = max(before, watch.peak_bytes) or None
    result = request.folder.read_result()
    if code != 0 or result.get("status") != Status.DONE:
        raise _failure(code, result, watch, request.run.resources.memory_gb)


def _wait(process: subprocess.Popen[bytes], limit_s: float | None, watch: MemoryWatch) -> int:
    """Return the exit status; whatever ends the waiting before ends the process too."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    try:
        # Ray cancels by an interrupt that only Python code notices: a blocking wait would sleep through it
        while (code := process.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise EndedError(Status.TIMEOUT, f"stopped after its limit of {limit_s:.0f} s")
            watch.look()
            time.sleep(_POLL_S)
    except BaseException:
        end(process)
        raise
    return code


def _failure(code: int, result: Mapping[str, Any], watch: MemoryWatch, reserved_gb: float) -> EndedError:
    """Return what is known of a process that has left no result."""
    if result.get("error"):
        kind = result.get("error_kind", "failed")
        return EndedError(Status(kind) if kind in ENDED else Status.FAILED, str(result["error"]))
    if watch.ran_out(reserved_gb * 1e9, killed=code == -signal.SIGKILL):
        return EndedError(
            Status.OUT_OF_MEMORY,
            f"the kernel ended the method's process for want of memory: it held {watch.peak_bytes / 1e9:.2g} GB of the "
            f"{reserved_gb:g} GB that it had reserved; reserve more with --memory-gb",
        )
    if code < 0:
        name = signal.Signals(-code).name
        return EndedError(Status.FAILED, f"the method's process was killed by {name}: someone or something ended it")
    return EndedError(
        Status.FAILED, f"the method's process ended with status {code} and left no result; its log may tell"
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a method's process with all that it has started, and wait for it."""
    # its own session: this ends the method's children (data loaders, torchrun) too
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def modules_of(method: str) -> Sequence[str]:
    """Return the packages that a method's process imports from here."""
    return tuple(dict.fromkeys(("segbench", method_object(method).partition(":")[0].partition(".")[0])))
