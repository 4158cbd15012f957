"""Keeps the state of a training where a later attempt at the same run finds it."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from segbench.small_files import write_whole

_STATE = "state.json"


class Checkpoints:
    """The newest state of a training that may be killed, whole or not there at all.

    A method asks ``latest()`` before its first step, and after each step whether it is ``due()``; what it writes under
    ``writing()`` replaces the state before. The seconds of training that led to a state are kept with it, so that T is
    the time of the training that counts: what a killed attempt had done after its last checkpoint is done again.

    Parameters
    ----------
    folder
        Where the state is kept; None to keep none.
    every_s
        Seconds between two checkpoints.
    writes
        False for all but the first of several processes that train together: they read.

    Examples
    --------
    >>> from segbench import Checkpoints
    >>> Checkpoints(None).latest() is None
    True
    """

    def __init__(self, folder: Path | None, every_s: float = 600.0, *, writes: bool = True) -> None:
        self._folder, self._every_s, self._writes = folder, every_s, writes
        self.earlier_s = 0.0
        """Seconds of training of the state that was taken up; 0 for a training that starts anew."""
        self.history: list[dict[str, Any]] = []
        """The loss history up to that state."""
        self._began = self._last = time.monotonic()

    def begin(self, history: list[dict[str, Any]] | None = None) -> None:
        """Start the clock of this attempt's training; ``history`` is the live list that checkpoints keep a copy of."""
        self._live: Sequence[dict[str, Any]] = [] if history is None else history
        self._began = self._last = time.monotonic()

    def latest(self) -> Path | None:
        """Return the folder of the newest state, from which training is then taken to go on; None if there is none."""
        if self._folder is None or not (self._folder / _STATE).is_file():
            return None
        state = json.loads((self._folder / _STATE).read_text())
        self.earlier_s, self.history = float(state["train_s"]), list(state["history"])
        return self._folder / str(state["folder"])

    def due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        return self._folder is not None and self._writes and time.monotonic() - self._last >= self._every_s

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """Give an empty folder to write into; it becomes the newest state when the block ends without an error."""
        if self._folder is None or not self._writes:
            raise ValueError("these checkpoints are not kept: ask due() first")
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f"state-{time.time_ns()}"
        new.mkdir()
        try:
            yield new
            train_s = self.earlier_s + time.monotonic() - self._began
            state = {"folder": new.name, "train_s": train_s, "history": [*self.history, *self._live]}
            write_whole(self._folder / _STATE, json.dumps(state))
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        for old in self._folder.glob("state-*"):
            if old != new:
                shutil.rmtree(old, ignore_errors=True)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove every state: the training has ended."""
        if self._folder is not None and self._writes:
            shutil.rmtree(self._folder, ignore_errors=True)
