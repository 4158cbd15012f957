"""The marks that the stages of a job leave, each in a folder of its own: how it stands, how long it took, its log."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segbench.small_files import read_json, write_whole

TRAIN, PREDICT, EVALUATE = STAGES = ("train", "predict", "evaluate")
"""The stages of an attempt, in order; a method that is not trained has no first one."""
RUNNING, DONE = "running", "done"


@dataclass(frozen=True)
class StageMark:
    """How one try at a stage stands."""

    stage: str
    number: int
    """1, 2, ...: tries at this stage in this attempt."""
    status: str
    """``running``, ``done``, or how an attempt ends that is not done."""
    started_at: str
    """ISO 8601, UTC."""
    seconds: float | None = None
    """From its begin to its end on a monotonic clock; None while it runs, and where its process was killed."""
    error: str | None = None
    at_once: int | None = None
    """Of prediction: windows that went through the network together, at its end."""
    log_from: int = 0
    """Where in the attempt's log its own part begins, in bytes."""


@dataclass(frozen=True)
class StageFolder:
    """The folder of one try at a stage.

    Examples
    --------
    >>> StageFolder(Path("attempt-001"), "predict", 2).path.as_posix()
    'attempt-001/stages/predict-2'
    """

    job: Path
    """The folder of the job, or attempt, that it belongs to."""
    stage: str
    number: int = 1

    @property
    def path(self) -> Path:
        """The folder."""
        return self.job / "stages" / (self.stage if self.number == 1 else f"{self.stage}-{self.number}")

    @property
    def mark(self) -> Path:
        """How it stands."""
        return self.path / "mark.json"

    @property
    def log(self) -> Path:
        """Its part of the log."""
        return self.path / "log.txt"

    @property
    def own_job(self) -> Path:
        """The job of a stage that is tried again alone."""
        return self.path / "job.json"

    def read(self) -> StageMark | None:
        """Return the mark; None where there is none that can be read."""
        try:
            return StageMark(**read_json(self.mark))
        except TypeError:
            return None

    def write(self, mark: StageMark) -> None:
        """Write the mark, whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.mark, json.dumps(asdict(mark), indent=1))

    def begin(self, log: Path) -> StageMark:
        """Write that it runs now; ``log`` is the attempt's."""
        start = log.stat().st_size if log.exists() else 0
        mark = StageMark(self.stage, self.number, RUNNING, datetime.now(UTC).isoformat(), log_from=start)
        self.write(mark)
        return mark

    def end(self, mark: StageMark, log: Path, **known: Any) -> None:
        """Write how it ended, and its part of the attempt's log beside that."""
        if log.exists():
            with log.open("rb") as whole, self.log.open("wb") as part:
                # a log that grew too long has lost its beginning
                whole.seek(mark.log_from if mark.log_from <= log.stat().st_size else 0)
                shutil.copyfileobj(whole, part)
        self.write(replace(mark, **known))


def next_try(job: Path, stage: str) -> StageFolder:
    """Return the folder of the first try at a stage that has no mark; the ones before it are the tries so far."""
    number = 1
    while StageFolder(job, stage, number).mark.exists():
        number += 1
    return StageFolder(job, stage, number)


def tries(job: Path) -> Iterator[tuple[StageFolder, StageMark]]:
    """Yield every try at every stage that has left its mark, in order."""
    for stage in STAGES:
        for number in range(1, next_try(job, stage).number):
            folder = StageFolder(job, stage, number)
            mark = folder.read()
            if mark is not None:
                yield folder, mark


def is_done(job: Path, stage: str) -> bool:
    """Return whether a stage has been finished by one of its tries."""
    return any(mark.stage == stage and mark.status == DONE for _, mark in tries(job))


def close_open(job: Path, log: Path, status: str, error: str | None) -> None:
    """Write of the stages that still say that they run how their process ended: it could not do so itself."""
    for folder, mark in list(tries(job)):
        if mark.status == RUNNING:
            folder.end(mark, log, status=status, error=error)


@contextlib.contextmanager
def stage(job: Path, name: str, log: Path, how: Mapping[str, Any] | None = None) -> Iterator[StageFolder]:
    """Mark the next try at a stage while the block runs, and how it ended.

    Parameters
    ----------
    job
        The folder of the job.
    name
        Of the stage.
    log
        Of the attempt, to whose end the stage's own output is written.
    how
        Filled by the block with what the mark is to say besides; after an error ``status`` and ``error`` are asked for.
    """
    folder = next_try(job, name)
    mark, began = folder.begin(log), time.monotonic()
    told: Mapping[str, Any] = {} if how is None else how
    try:
        yield folder
    except BaseException as error:
        failed = {"status": "failed", "error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500], **told}
        folder.end(mark, log, seconds=time.monotonic() - began, **failed)
        raise
    folder.end(mark, log, **{"status": DONE, "seconds": time.monotonic() - began, **told})
