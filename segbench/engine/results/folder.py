"""The results folder: every path in it, the attempts that lie there, and whether it is local or a mirror of a URL."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbench.engine.results.attempts import RUNS, AttemptFolder, attempt_number
from segbench.engine.results.launch_files import LaunchFiles
from segbench.errors import SegbenchError, unknown_name
from segbench.paths import cache_folder, require_writable_folder
from segbench.small_files import read_json, write_whole

STORE_NAME = "results.duckdb"
_STAGED = ".merge-"


def is_url(out: str | os.PathLike[str]) -> bool:
    """Return whether a results folder is named by a URL.

    Examples
    --------
    >>> is_url("s3://bucket/results"), is_url("/shared/results"), is_url("C:/results")
    (True, False, False)
    """
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", os.fspath(out)) is not None


@dataclass(frozen=True)
class ResultsFolder:
    """What ``--out`` names: the store, the attempts' folders, and the small files of a launch.

    It is handed on as this, never as a bare path, so that nobody but this room knows what lies where, and so that what
    is a mirror of a URL is known from the beginning. ``open`` makes one from what a user wrote.

    Examples
    --------
    >>> out = ResultsFolder(Path("results"))
    >>> out.attempt("0123456789ab", 1).relative, str(out), out.url
    ('runs/0123456789ab/attempt-001', 'results', None)
    """

    path: Path
    """Where it lies on this machine."""
    url: str | None = None
    """What it is a mirror of; None for a local folder."""

    @classmethod
    def open(cls, out: str | os.PathLike[str] | ResultsFolder) -> ResultsFolder:
        """Return the results folder of a path or URL; nothing is fetched, and a local folder need not exist.

        The path of a mirror in the cache stands for its URL, so that what is launched into it gets there.
        """
        if isinstance(out, ResultsFolder):
            return out
        if not isinstance(out, str | os.PathLike):
            raise SegbenchError(f"a results folder is a path or a URL, found {out!r} of type {type(out).__name__}")
        if is_url(out):
            return cls._mirror_of(os.fspath(out).rstrip("/"))
        path = Path(out)
        if path.absolute().parent == _mirrors():
            url = read_json(path / cls._MARK).get("url")
            return cls(path, str(url) if url else None)
        return cls(path)

    @classmethod
    def _mirror_of(cls, url: str) -> ResultsFolder:
        name = re.sub(r"[^A-Za-z0-9]+", "-", url).strip("-")[-60:]
        folder = cls(_mirrors() / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:8]}", url)
        if not folder._mark.exists():
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.note_snapshot(None)
        return folder

    _MARK = "remote.json"

    @property
    def name(self) -> str:
        """What to call it in a title: the last part of its path or URL."""
        return self.url.rpartition("/")[2] if self.url else self.path.resolve().name

    def __str__(self) -> str:
        """Return what a user would write after ``--out``."""
        return self.url or str(self.path)

    def absolute(self) -> ResultsFolder:
        """Return the folder by its absolute path, which is the same on every node."""
        return ResultsFolder(self.path.absolute(), self.url)

    def make(self) -> ResultsFolder:
        """Make the folder if it is missing; raises SegbenchError where it cannot be."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegbenchError(f"cannot write results to {self}: {error.strerror}") from None
        return self

    def require_writable(self) -> None:
        """Raise SegbenchError where results cannot be written here; nothing is made."""
        require_writable_folder(self.path, f"cannot write results to {self}")

    @property
    def store(self) -> Path:
        """The DuckDB file with all results."""
        return self.path / STORE_NAME

    def has_store(self) -> bool:
        """Return whether there is a store; an empty file is none, but what a full disk has left of one."""
        return self.store.is_file() and self.store.stat().st_size > 0

    def store_beside(self, what: str) -> Path:
        """Return a file beside the store: a new one (``repair``), the old one (``before-repair``), a ``snapshot``."""
        return self.path / f"{STORE_NAME}.{what}"

    @property
    def report(self) -> Path:
        """The dashboard."""
        return self.path / "report.html"

    @property
    def launch(self) -> LaunchFiles:
        """What a launch writes of itself."""
        return LaunchFiles(self.path, str(self))

    def repeated_grid(self, run_id: str) -> Path:
        """Return the grid file of a run's repetition."""
        return self.path / f"repeat-{run_id}.yaml"

    def has_runs(self) -> bool:
        """Return whether anything was run here."""
        return (self.path / RUNS).is_dir()

    def run_ids(self) -> list[str]:
        """Return the ids of the runs that have a folder, sorted."""
        try:
            with os.scandir(self.path / RUNS) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []

    def attempt(self, run_id: str, number: int) -> AttemptFolder:
        """Return the folder of an attempt, whether it is there or not."""
        return AttemptFolder(self.path, run_id, number, self.url)

    def attempts(self, run_id: str) -> list[AttemptFolder]:
        """Return the folders of a run's attempts, the first first; none where the run has no folder."""
        try:
            with os.scandir(self.path / RUNS / run_id) as entries:
                numbers = [attempt_number(entry.name) for entry in entries]
        except FileNotFoundError:
            return []
        return [self.attempt(run_id, number) for number in sorted(filter(None, numbers))]

    def next_attempt(self, run_id: str) -> AttemptFolder:
        """Return the folder of the first number that no attempt of a run has."""
        attempts = self.attempts(run_id)
        return self.attempt(run_id, 1 + (attempts[-1].number if attempts else 0))

    def recorded(self) -> Iterator[AttemptFolder]:
        """Yield the folders of the attempts that have a record, in order of names; no record is opened."""
        for run_id in self.run_ids():
            for attempt in self.attempts(run_id):
                if attempt.has_record():
                    yield attempt

    def unpushed(self) -> list[AttemptFolder]:
        """Return the attempts of a mirror whose upload failed or was cut off."""
        attempts = (attempt for run_id in self.run_ids() for attempt in self.attempts(run_id))
        return [attempt for attempt in attempts if attempt.unpushed.exists()]

    def attempt_at(self, relative: str) -> AttemptFolder:
        """Return the attempt that a row of the store names.

        Raises
        ------
        ValueError
            It is no attempt's folder of this results folder: a store may come from anyone.
        """
        parts = relative.split("/")
        if len(parts) == 3 and parts[0] == RUNS and attempt_number(parts[2]) and parts[1] not in ("", ".", ".."):
            found = self.attempt(parts[1], attempt_number(parts[2]))
            if found.path.resolve().is_relative_to(self.path.resolve()):
                return found
        raise ValueError(f"{relative} is no attempt's folder of {self}")

    def find_attempt(self, prefix: str, number: int | None = None) -> AttemptFolder:
        """Return the folder of a run's newest attempt, or of the one with this number.

        Parameters
        ----------
        prefix
            The run's id or the beginning of it.
        number
            None for the newest.

        Raises
        ------
        SegbenchError
            No run's id begins so, several do, or the run has no such attempt.
        """
        names = self.run_ids()
        if not names:
            raise SegbenchError(f"nothing was run in {self}: name another --out")
        found = [name for name in names if name.startswith(prefix)]
        if not found:
            raise unknown_name("run", prefix, names if len(names) <= 20 else [])
        if len(found) > 1:
            raise SegbenchError(
                f"{len(found)} runs begin with {prefix!r}: give more of the id, {' or '.join(found[:5])}"
            )
        attempts = {attempt.number: attempt for attempt in self.attempts(found[0])}
        if not attempts or (number is not None and number not in attempts):
            raise SegbenchError(f"run {found[0]} has no attempt {number or ''}; it has: {sorted(attempts) or 'none'}")
        return attempts[max(attempts) if number is None else number]

    def staged(self, attempt: AttemptFolder) -> Path:
        """Return where an attempt is put together before it gets its name."""
        return attempt.run_path / f"{_STAGED}{attempt.name}"

    def left_staged(self) -> list[Path]:
        """Return what was being put together when somebody was killed."""
        return sorted((self.path / RUNS).glob(f"*/{_STAGED}*"))

    @property
    def _mark(self) -> Path:
        return self.path / self._MARK

    def note_snapshot(self, version: str | None) -> None:
        """Write into a mirror whose it is, for people, and which snapshot of the store there it holds."""
        snapshot = {} if version is None else {"snapshot": version}
        write_whole(self._mark, json.dumps({"url": self.url, **snapshot}))

    def snapshot(self) -> Any:
        """Return which snapshot of its URL's store a mirror holds; None where that is not known."""
        return read_json(self._mark).get("snapshot")


def _mirrors() -> Path:
    return cache_folder() / "mirrors"
