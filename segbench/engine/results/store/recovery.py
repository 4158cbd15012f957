"""Finds the records that lie in a results folder, and takes those that its store lacks into it."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from segbench.engine.results.record import RECORD_NAME, Record, RecordSchemaError
from segbench.engine.results.store.writer import StoreWriter

BATCH = 2000
"""Records a transaction: some hundred MB of memory, half a second of the store's lock."""
BROKEN_NAME = f"{RECORD_NAME}.broken"


def take_in(out: Path, writer: StoreWriter, progress: Callable[[int], None] | None = None) -> int:
    """Take every record that the store does not have into it, and return how many were new.

    A record that cannot be read (cut off by a full disk, say), and one that the store's rules forbid, is set aside as
    ``record.json.broken``: its run has no result and is run again. One of a newer segbench is left where it is.

    Parameters
    ----------
    out
        The results folder.
    writer
        Of its store.
    progress
        Is told how many records were read so far, after each transaction.
    """
    with _no_collection():
        return _take_in(out, writer, progress)


def _take_in(out: Path, writer: StoreWriter, progress: Callable[[int], None] | None) -> int:
    known = writer.known_attempts()
    fresh: list[Record] = []
    new = read = 0
    for run_id, attempt, path in record_paths(out):
        if (run_id, attempt) in known:
            continue
        try:
            fresh.append(Record.read(path))
        except (RecordSchemaError, FileNotFoundError):
            continue
        except ValueError:
            set_aside(path)
            continue
        if len(fresh) == BATCH:
            new, read = new + _add(out, writer, fresh), read + len(fresh)
            fresh = []
            if progress is not None:
                progress(read)
    return new + _add(out, writer, fresh)


def set_aside(path: Path) -> Path:
    """Rename a record that cannot be used; return where it lies now."""
    return path.rename(path.with_name(BROKEN_NAME))


def record_paths(out: Path) -> Iterator[tuple[str, int, Path]]:
    """Yield run id, attempt and path of every record of a results folder, in order of names; none is opened."""
    for run in attempt_folders(out):
        for folder in run:
            record = folder / RECORD_NAME
            if record.is_file():
                yield folder.parent.name, attempt_number(folder), record


def attempt_folders(out: Path) -> Iterator[list[Path]]:
    """Yield the attempts' folders of each run, in order, with or without a record."""
    runs = out / "runs"
    if not runs.is_dir():
        return
    with os.scandir(runs) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    for name in names:
        yield attempts_of(runs / name)


def attempts_of(run: Path) -> list[Path]:
    """Return the folders of a run's attempts, the first first; none where the run has no folder."""
    try:
        with os.scandir(run) as entries:
            folders = [run / entry.name for entry in entries if entry.name.startswith("attempt-")]
    except FileNotFoundError:
        return []
    return sorted((folder for folder in folders if attempt_number(folder)), key=attempt_number)


def next_attempt(run: Path) -> int:
    """Return the first number that no attempt of a run has."""
    return 1 + max(map(attempt_number, attempts_of(run)), default=0)


def attempt_number(folder: Path) -> int:
    """Return the number of an attempt's folder, ``attempt-007``; 0 where it is not one."""
    number = folder.name.removeprefix("attempt-")
    return int(number) if number.isdigit() else 0


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the search for cycles off: records have none, and walking their objects took a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _add(out: Path, writer: StoreWriter, records: list[Record]) -> int:
    before = len(writer.refused)
    new = writer.add(records)
    for record, _ in writer.refused[before:]:
        path = out / record.attempt.folder / RECORD_NAME
        if path.is_file():
            set_aside(path)
    return new
