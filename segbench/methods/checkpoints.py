"""Keeps the state of a training where a later attempt at the same run finds it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.small_files import read_json, write_whole

_MARKS = "state.json", "before.json"
"""What tells of the newest state, and of the one before it."""
_PIECE = 1 << 20


@dataclass(frozen=True)
class _State:
    """A state on the disk that is as it was written."""

    folder: Path
    train_s: float
    history: list[dict[str, Any]]

    @classmethod
    def read(cls, mark: Path) -> _State:
        """Read a state; raises ValueError, KeyError, TypeError, AttributeError or OSError where it is not whole."""
        found = json.loads(mark.read_bytes())
        name, train_s, history = str(found["folder"]), float(found["train_s"]), list(found["history"])
        folder = mark.parent / name
        if "/" in name or not name.startswith("state-") or not folder.is_dir():
            raise ValueError(f"its folder {name} is not there")
        if not (math.isfinite(train_s) and train_s >= 0) or not all(_is_point(point) for point in history):
            raise ValueError("its seconds or its losses are no numbers")
        for path, (size, digest) in dict(found.get("files", {})).items():
            if (folder / path).stat().st_size != size or _digest(folder / path) != digest:
                raise ValueError(f"{name}/{path} is not what was written")
        return cls(folder, train_s, history)


def _is_point(point: Any) -> bool:
    return isinstance(point, dict) and all(value is None or isinstance(value, int | float) for value in point.values())


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _on_the_disk(folder: Path) -> dict[str, tuple[int, str]]:
    """Wait until every file of a folder is on the disk; return their sizes and SHA-256, by their paths in it."""
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = path.stat().st_size, _digest(path)
    return files


class Checkpoints:
    """The newest state of a training that may be killed, whole or not there at all, and the one before it.

    A method asks ``latest()`` before its first step, and after each step whether it is ``due()``; what it writes under
    ``writing()`` becomes the newest state. The seconds of training that led to a state are kept with it, so that T is
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
        """Return the folder of the newest state, from which training is then taken to go on; None if there is none.

        A state that is not what was written (cut off, or a file of it gone) is dropped with a word in the log, and the
        one before it is taken up.
        """
        if self._folder is None:
            return None
        for name in _MARKS:
            mark = self._folder / name
            if not mark.is_file():
                continue
            try:
                state = _State.read(mark)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                self._drop(mark, error)
                continue
            self.earlier_s, self.history = state.train_s, state.history
            return state.folder
        return None

    def _drop(self, mark: Path, error: Exception) -> None:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        sys.stderr.write(f"dropped the checkpoint {mark}: {why}\n")
        if self._writes:
            mark.unlink(missing_ok=True)

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
            newest, before = (self._folder / name for name in _MARKS)
            content = json.dumps(state | {"files": _on_the_disk(new)})
            if newest.is_file():
                newest.replace(before)
            write_whole(newest, content, sync=True)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        kept = {new.name, str(read_json(before).get("folder"))}
        for old in self._folder.glob("state-*"):
            if old.name not in kept and old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
        self._last = time.monotonic()

    def remove(self) -> None:
        """Remove every state: the training has ended."""
        if self._folder is not None and self._writes:
            shutil.rmtree(self._folder, ignore_errors=True)
