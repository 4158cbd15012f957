"""The folder of one attempt: every path in it, and every read and write of its small files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.methods.folder import JobFolder
from segbench.small_files import read_json, write_whole

if TYPE_CHECKING:
    from segbench.engine.results.record import Record

RUNS = "runs"
"""The folder of all runs, in a results folder."""
RECORD_NAME = JobFolder(Path()).record.name
_PREFIX = "attempt-"
_TAIL_BYTES = 64 * 1024
MOST_AT_ONCE = 2**20
"""Bytes of progress that are read at once; a line is a few dozen."""


def attempt_number(name: str) -> int:
    """Return the number in the name of an attempt's folder; 0 where it is not one.

    Examples
    --------
    >>> attempt_number("attempt-007"), attempt_number("checkpoint-batch-4"), attempt_number("attempt-99999999999")
    (7, 0, 0)
    """
    found = re.fullmatch(rf"{_PREFIX}([0-9]{{3,9}})", name)
    return int(found[1]) if found and name == f"{_PREFIX}{int(found[1]):03d}" else 0


def progress_line(text: bytes | str) -> dict[str, Any] | None:
    """Return what a line of progress tells; None for what is no JSON object: any code of a method may write there.

    Examples
    --------
    >>> progress_line(b'{"phase": "train"}'), progress_line(b"5"), progress_line(b"\\0\\0{"), progress_line(b"\\xff")
    ({'phase': 'train'}, None, None, None)
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class AttemptFolder:
    """Where one try at a run leaves its artifacts, log and record.

    Examples
    --------
    >>> AttemptFolder(Path("results"), "0123456789ab", 7).relative
    'runs/0123456789ab/attempt-007'
    """

    root: Path
    """The results folder's path."""
    run_id: str
    number: int
    """1, 2, ...: tries at the run."""
    url: str | None = None
    """What the results folder is a mirror of; None for a local one."""

    @property
    def name(self) -> str:
        """The folder's own name."""
        return f"{_PREFIX}{self.number:03d}"

    @property
    def relative(self) -> str:
        """The folder as the store and its record name it: relative to the results folder."""
        return f"{RUNS}/{self.run_id}/{self.name}"

    @property
    def run_path(self) -> Path:
        """The folder of the run, which outlives the attempt."""
        return self.root / RUNS / self.run_id

    @property
    def path(self) -> Path:
        """The folder."""
        return self.run_path / self.name

    @property
    def job(self) -> JobFolder:
        """What the method's process reads and writes, which is in this folder too."""
        return JobFolder(self.path)

    @property
    def relative_log(self) -> str:
        """The log, relative to the results folder."""
        return f"{self.relative}/{self.job.log.name}"

    @property
    def record(self) -> Path:
        """The record, which tells that the attempt has ended."""
        return self.path / RECORD_NAME

    @property
    def taken(self) -> Path:
        """What was taken up of earlier attempts: in which the model was trained, and whether predictions came too."""
        return self.path / "stages" / "taken.json"

    @property
    def recipe(self) -> Path:
        """How the images of its dataset became windows: what is needed to apply its model to further images."""
        return self.path / "recipe.json"

    @property
    def broken_record(self) -> Path:
        """A record that could not be used."""
        return self.path / f"{RECORD_NAME}.broken"

    @property
    def claim(self) -> Path:
        """Beside the folder: the SHA-256 of what the attempt's record must hold, where a driver has begun it."""
        return self.run_path / f"{self.name}.claim"

    @property
    def example_arrays(self) -> Path:
        """Test windows with truth and prediction, for people to look at."""
        return self.path / "examples.npz"

    @property
    def example_facts(self) -> Path:
        """What those windows are."""
        return self.path / "examples.json"

    @property
    def unpushed(self) -> Path:
        """A mark: the upload of this attempt has not ended well yet."""
        return self.path / ".unpushed"

    @property
    def next(self) -> AttemptFolder:
        """The folder of the next try at the run."""
        return AttemptFolder(self.root, self.run_id, self.number + 1, self.url)

    def checkpoints(self, batch_size: int) -> Path:
        """Return where the run's training keeps what it needs to go on, with this batch size and no other."""
        return self.run_path / f"checkpoint-batch-{batch_size}"

    def drop_checkpoints(self) -> None:
        """Remove what the run's trainings have kept to go on."""
        import shutil

        for kept in self.run_path.glob("checkpoint-*"):
            shutil.rmtree(kept, ignore_errors=True)

    def make(self) -> AttemptFolder:
        """Make the folder if it is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self

    def has_record(self) -> bool:
        """Return whether the attempt has ended and told how."""
        return self.record.is_file()

    def has_job(self) -> bool:
        """Return whether the method's process has been started, or is about to be."""
        return self.job.job.exists()

    def make_claimed(self, claim: str) -> AttemptFolder:
        """Make the folder for an attempt whose record will hold the claim, which only its worker is told."""
        self.make()
        write_whole(self.claim, hashlib.sha256(claim.encode()).hexdigest())
        return self

    def read_record(self) -> Record:
        """Read the record; raises as ``Record.read``.

        Raises
        ------
        MisplacedRecordError
            It is another attempt's.
        ForgedRecordError
            The attempt is claimed, and what the record should hold is not in it.
        """
        from segbench.engine.results.record import ForgedRecordError, MisplacedRecordError, Record

        found = Record.read(self.record)
        own = found.attempt
        if (own.run_id, own.attempt) != (self.run_id, self.number):
            raise MisplacedRecordError(f"{self.record}: names run {own.run_id}, attempt {own.attempt}")
        try:
            claim = self.claim.read_text()
        except (OSError, ValueError):
            return found
        if hashlib.sha256((found.claim or "").encode()).hexdigest() != claim:
            raise ForgedRecordError(f"{self.record} is not a record: the engine did not write it")
        return found

    def believed_record(self) -> Record:
        """Read the record for a user who named the run; raises SegbenchError where it is damaged or was changed."""
        from segbench.errors import SegbenchError

        try:
            return self.read_record()
        except (OSError, ValueError) as error:
            raise SegbenchError(f"{error}; 'segbench store check' tells all that is damaged") from None

    def write_record(self, record: Record, claim: str | None = None) -> None:
        """Write the record: whole, on the disk, and only then under its name; ``claim`` is that of the attempt."""
        record.model_copy(update={"claim": claim}).write(self.record)

    def drop_record(self) -> bool:
        """Remove what lies where the record is to be, whatever it is; return whether there was anything.

        Only the engine writes records, when an attempt has ended: what is there before is the method's own.
        """
        import shutil

        path = self.record
        if not path.exists() and not path.is_symlink():
            return False
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        return True

    def set_record_aside(self) -> Path:
        """Rename a record that cannot be used; return where it lies now. One that was set aside before stays."""
        to, n = self.broken_record, 1
        while to.exists():
            n += 1
            to = self.broken_record.with_name(f"{self.broken_record.name}-{n}")
        return self.record.rename(to)

    def recorded_attempt(self) -> dict[str, Any]:
        """Return the attempt's row of the record, as it was written and unchecked; empty where there is none."""
        row = read_json(self.record).get("attempt")
        return row if isinstance(row, dict) else {}

    def read_job(self) -> dict[str, Any]:
        """Return the job as it was written; empty where its file is not here, or cut off."""
        return read_json(self.job.job)

    def read_result(self, files: JobFolder | None = None) -> dict[str, Any]:
        """Return what the method's process told at its end, here or in ``files``; empty where it left nothing whole."""
        return read_json((files or self.job).result)

    def log_tail(self, lines: int = 40, characters: int = 8000) -> str | None:
        """Return the last lines of the log; None where there is no log or nothing in it."""
        try:
            with self.job.log.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                last = file.read().decode(errors="replace").splitlines(keepends=True)[-lines:]
        except FileNotFoundError:
            return None
        return "".join(last)[-characters:].strip() or None

    def add_to_log(self, text: str) -> None:
        """Write at the end of the log."""
        self.make()
        with self.job.log.open("a") as log:
            log.write(text)

    def progress_end(self) -> list[str]:
        """Return the last lines of the progress, the newest last; none where there is no such file."""
        try:
            with self.job.progress.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                return file.read().decode(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return []

    def progress_since(self, position: int) -> bytes:
        """Return what the progress holds from a position on; empty where there is no such file."""
        try:
            with self.job.progress.open("rb") as file:
                file.seek(position)
                return file.read(MOST_AT_ONCE)
        except FileNotFoundError:
            return b""
