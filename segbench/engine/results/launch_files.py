"""What a launch leaves in its results folder for others to see: its lock, its runs, and where it stands."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segbench.errors import SegbenchError

DRIVER_LOCK = ".driver.lock"
GRID_FILE = "grid.json"
"""The last launch's runs, written once."""
STATE_FILE = "driver.json"
"""Where the launch stands, written every few seconds."""
CANCEL_FILE = ".cancel"
STATE_EVERY_S = 2.0
SILENT_S = 60.0
"""A launch on another machine that has written nothing for so long is taken to be dead."""


@contextlib.contextmanager
def driver_lock(out: Path) -> Iterator[None]:
    """Hold a results folder as its only driver; raises SegbenchError where another one holds it."""
    lock = FileLock(out / DRIVER_LOCK)
    holder = read_driver_state(out) or read_grid_file(out)
    taken = SegbenchError(
        f"another 'segbench grid launch' (process {holder.get('pid')} on {holder.get('host')}) is running in {out}: "
        "wait for it, end it with 'segbench grid cancel', or name another --out"
    )
    try:
        lock.acquire(timeout=1)  # someone who asks for the status holds it for a moment
    except Timeout:
        raise taken from None
    try:
        if _beats_elsewhere(out):
            raise taken
        yield
    finally:
        lock.release()


def is_driven(out: Path) -> bool:
    """Return whether a driver holds the results folder now, on this machine or another that shares the folder."""
    lock = FileLock(out / DRIVER_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return _beats_elsewhere(out)
    lock.release()
    return _beats_elsewhere(out)


def _beats_elsewhere(out: Path) -> bool:
    """Return whether a launch of another machine was alive a minute ago: not every shared mount shares its locks."""
    state = read_driver_state(out)
    if not state or state.get("ended") or state.get("host") == socket.gethostname():
        return False
    with contextlib.suppress(OSError):
        return time.time() - (out / STATE_FILE).stat().st_mtime < SILENT_S
    return False


def read_grid_file(out: Path) -> dict[str, Any]:
    """Return what the last launch wrote of itself: its process, host, time and runs; empty where there was none."""
    return _read_json(out / GRID_FILE)


def read_driver_state(out: Path) -> dict[str, Any]:
    """Return where the last launch stood when it last wrote that; empty where there was none."""
    return _read_json(out / STATE_FILE)


def write_grid_file(out: Path, runs: Iterable[Mapping[str, Any]], launch: Mapping[str, Any]) -> None:
    """Write what is launched: enough to launch the same runs again.

    Parameters
    ----------
    out
        The results folder.
    runs
        As ``run_to_dict`` gives them.
    launch
        How they are run, as JSON-able values; ``read_grid_file`` gives them back beside the runs.
    """
    told = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": datetime.now(UTC).isoformat(), **launch}
    part = out / f"{GRID_FILE}.part"
    with part.open("w") as file:
        # a line a run, never all in memory
        file.write(json.dumps(told)[:-1] + ', "runs": [')
        for n, run in enumerate(runs):
            file.write((",\n" if n else "\n") + json.dumps(run))
        file.write("\n]}\n")
    part.replace(out / GRID_FILE)


def write_driver_state(out: Path, state: Mapping[str, Any]) -> None:
    """Write where the launch stands."""
    part = out / f"{STATE_FILE}.part"
    part.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "at": time.time(), **state}))
    part.replace(out / STATE_FILE)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}
