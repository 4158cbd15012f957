"""What a launch leaves in its results folder for others to see: its lock, its runs, and where it stands."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segbench.errors import SegbenchError
from segbench.small_files import read_json, write_whole

_SILENT_S = 60.0
"""A launch on another machine that has written nothing for so long is taken to be dead."""


@dataclass(frozen=True)
class LaunchFiles:
    """The files of the launch that holds a results folder, or held it last."""

    root: Path
    """The results folder's path."""
    shown: str
    """What the results folder is called in errors: its path or URL."""

    @property
    def lock(self) -> Path:
        """Held by the driver as long as it lives."""
        return self.root / ".driver.lock"

    @property
    def grid(self) -> Path:
        """The launch's runs, written once."""
        return self.root / "grid.json"

    @property
    def state(self) -> Path:
        """Where the launch stands, written every few seconds."""
        return self.root / "driver.json"

    @property
    def cancel(self) -> Path:
        """Is there when someone wants the launch to end."""
        return self.root / ".cancel"

    @property
    def told(self) -> tuple[Path, ...]:
        """What travels to the URL that the folder is a mirror of."""
        return self.grid, self.state

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the results folder as its only driver; raises SegbenchError where another one holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.lock)
        holder = self.read_state() or self.read_grid()
        taken = SegbenchError(
            f"another 'segbench grid launch' (process {holder.get('pid')} on {holder.get('host')}) is running in "
            f"{self.shown}: wait for it, end it with 'segbench grid cancel', or name another --out"
        )
        try:
            lock.acquire(timeout=1)  # someone who asks for the status holds it for a moment
        except Timeout:
            raise taken from None
        try:
            if self._beats_elsewhere():
                raise taken
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Return whether a driver holds the results folder now, on this machine or another that shares the folder."""
        return self.is_held_here() or self._beats_elsewhere()

    def is_held_here(self) -> bool:
        """Return whether the lock is taken, as far as this machine can tell."""
        from filelock import FileLock, Timeout

        if not self.root.is_dir():
            return False
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:  # not ours to write: the lock tells nothing
            return False
        lock.release()
        return False

    def read_grid(self) -> dict[str, Any]:
        """Return what the last launch wrote of itself: process, host, time, options, runs; empty if there is none."""
        return read_json(self.grid)

    def write_grid(self, runs: Iterable[Mapping[str, Any]], launch: Mapping[str, Any]) -> None:
        """Write what is launched: enough to launch the same runs again.

        Parameters
        ----------
        runs
            As ``run_to_dict`` gives them.
        launch
            How they are run, as JSON-able values; ``read_grid`` gives them back beside the runs.
        """
        told = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": datetime.now(UTC).isoformat(), **launch}
        write_whole(self.grid, _lines(told, runs))

    def read_state(self) -> dict[str, Any]:
        """Return where the last launch stood when it last wrote that; empty where there was none."""
        return read_json(self.state)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Write where the launch stands."""
        told = {"pid": os.getpid(), "host": socket.gethostname(), "at": time.time(), **state}
        write_whole(self.state, json.dumps(told))

    def ask_to_end(self) -> None:
        """Ask the launch that holds the folder to end."""
        self.cancel.touch()

    def take_request_to_end(self) -> bool:
        """Return whether someone has asked the launch to end, and forget it."""
        if not self.cancel.exists():
            return False
        self.cancel.unlink(missing_ok=True)
        return True

    def _beats_elsewhere(self) -> bool:
        """Return whether another machine's launch was alive a minute ago: not every shared mount shares its locks."""
        state = self.read_state()
        if not state or state.get("ended") or state.get("host") == socket.gethostname():
            return False
        with contextlib.suppress(OSError):
            return time.time() - self.state.stat().st_mtime < _SILENT_S
        return False


def _lines(told: Mapping[str, Any], runs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    # a line a run, never all in memory
    yield json.dumps(told)[:-1] + ', "runs": ['
    for n, run in enumerate(runs):
        yield (",\n" if n else "\n") + json.dumps(run)
    yield "\n]}\n"
