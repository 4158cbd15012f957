"""Runs an attempt's job in the method's own process, and tells how that ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from segbench.engine.grid.cards import method_object
from segbench.engine.results.statuses import ENDED, Status
from segbench.engine.run import environments
from segbench.engine.run.memory import MemoryWatch
from segbench.engine.run.request import AttemptRequest, EndedError
from segbench.methods.folder import JobFolder
from segbench.methods.job import Job

_POLL_S = 0.1
_MARK = "SEGBENCH_PROCESS"
LOG_BYTES = 64 * 2**20
"""Of a log; what is longer loses its beginning."""


def run_process(
    request: AttemptRequest, job: Job, environment: environments.Environment, facts: dict[str, Any],
    path: Path | None = None, files: JobFolder | None = None,
) -> None:  # fmt: skip
    """Run a job to its end; ``facts`` then hold the most memory that was seen, as ``sampled_peak_bytes``.

    The job lies in ``path``, and what it writes in ``files``; None for the attempt's own.

    An interrupt ends the process and all that it has started.

    Raises
    ------
    EndedError
        It ended without a result, or was stopped at its limit.
    """
    files = request.folder.job if files is None else files
    variables = environments.subprocess_env(environment, modules=modules_of(request.run.method))
    if not request.use_gpu:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    mark = variables[_MARK] = secrets.token_hex(8)
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
        code = _wait(process, request.timeout_s, watch, files.log)
    finally:
        _end_left(process.pid, mark)
        cap_log(files.log)
        if request.folder.drop_record():
            name = request.folder.record.name
            request.folder.add_to_log(f"removed the method's own {name}: the engine alone writes it\n")
        facts["sampled_peak_bytes"] = max(before, watch.peak_bytes) or None
    result = request.folder.read_result(files)
    if code != 0 or result.get("status") != Status.DONE:
        raise _failure(code, result, watch, request.run.resources.memory_gb)


def _wait(process: subprocess.Popen[bytes], limit_s: float | None, watch: MemoryWatch, log: Path) -> int:
    """Return the exit status; whatever ends the waiting before ends the process too."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    try:
        # Ray cancels by an interrupt that only Python code notices: a blocking wait would sleep through it
        while (code := process.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise EndedError(Status.TIMEOUT, f"stopped after its limit of {limit_s:.0f} s")
            watch.look()
            cap_log(log)
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


def cap_log(log: Path, most: int = LOG_BYTES) -> None:
    """Cut the beginning of a log that has grown beyond ``most`` bytes: the later half of that stays, with a word."""
    try:
        size = log.stat().st_size
        if size <= most:
            return
        with log.open("r+b") as file:
            file.seek(size - most // 2)
            tail = file.read()
            file.seek(0)
            # who writes it has it open to append, and goes on behind this
            file.truncate()
            file.write(f"[{size - len(tail)} bytes of the log were cut here: it is kept below {most}]\n".encode())
            file.write(tail)
    except OSError:
        return  # the disk is full, or the folder gone: the run's end tells


def _end_left(group: int, mark: str) -> None:
    """End what the method's process has started and left behind: its group, and daemons that have left it.

    Daemons are known by a variable of their environment, which one that clears it escapes.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(_MARK) == mark:
                process.kill()


def modules_of(method: str) -> Sequence[str]:
    """Return the packages that a method's process imports from here."""
    return tuple(dict.fromkeys(("segbench", method_object(method).partition(":")[0].partition(".")[0])))
