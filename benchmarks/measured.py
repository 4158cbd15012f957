"""Prepares a dataset in a process of its own, and tells the time and the memory that it took."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.engine.data import DatasetSpec, ensure_prepared


@dataclass(frozen=True)
class Measured:
    """What one preparation took."""

    wall_s: float
    cpu_s: float
    peak_gb: float
    """Of all memory that the process had, pages of files included, which the system takes back when it needs them."""
    own_gb: float
    """Of what is the process's own: no pages of files. Sampled ten times a second."""
    notes: tuple[str, ...]
    cells: int
    windows: int

    def told(self) -> str:
        """Return the figures in one line."""
        return (
            f"{self.wall_s:.0f} s wall, {self.cpu_s:.0f} s CPU; peak memory {self.own_gb:.2f} GB, with pages of files "
            f"{self.peak_gb:.2f} GB; {self.windows:,} windows, {self.cells:,} cells in them"
        )


def prepare_measured(spec: DatasetSpec, cache: Path, workers: int) -> Measured:
    """Prepare a dataset into an empty cache; raises RuntimeError where it fails."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_prepare, args=(spec.to_dict(), str(cache), workers, theirs))
    began = time.perf_counter()
    process.start()
    theirs.close()
    own = 0
    while process.is_alive() and not ours.poll(0.1):
        own = max(own, _kilobytes(process.pid, "RssAnon"))
    result: dict[str, Any] = ours.recv() if ours.poll(1) else {"failed": "it died"}
    wall = time.perf_counter() - began
    process.join()
    if "failed" in result:
        raise RuntimeError(result["failed"])
    return Measured(wall_s=wall, own_gb=own * 1024 / 1e9, **result)


def _prepare(raw: dict[str, Any], cache: str, workers: int, pipe: Any) -> None:
    os.environ["SEGBENCH_CACHE"] = cache
    spec = DatasetSpec.from_dict(raw)
    try:
        prepared = ensure_prepared(spec, lambda *step: _tell(*step), workers)
    except Exception as error:  # the parent tells it
        pipe.send({"failed": str(error)})
        return
    peak = _kilobytes(os.getpid(), "VmHWM")
    times = os.times()
    pipe.send(
        {
            "cpu_s": times.user + times.system,
            "peak_gb": peak * 1024 / 1e9,
            "notes": prepared.notes,
            "cells": prepared.cells().height,
            "windows": sum(map(prepared.n_windows, prepared.splits)),
        }
    )


def _tell(split: str, done: int, total: int) -> None:
    if done == total or done % 500 == 0:
        print(f"  {split}: {done:,} of {total:,} images", flush=True)


def _kilobytes(pid: int | None, field: str) -> int:
    with suppress(OSError), Path(f"/proc/{pid}/status").open() as file:
        for line in file:
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0
