"""Finds the records that lie in a results folder, and takes those that its store lacks into it."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record, RecordSchemaError
from segbench.engine.results.statuses import Status
from segbench.engine.results.store.writer import StoreWriter

_LOG = logging.getLogger(__name__)
BATCH = 2000
"""Records a transaction: some hundred MB of memory, half a second of the store's lock."""


def take_in(
    out: ResultsFolder,
    writer: StoreWriter,
    progress: Callable[[int], None] | None = None,
    aside: list[Path] | None = None,
) -> int:
    """Take every record that the store does not have into it, and return how many were new; measurements, too.

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
    aside
        Gets the names of the records that were set aside.
    """
    moved: list[Path] = [] if aside is None else aside
    writer.add_measurements()
    with _no_collection():
        return _take_in(out, writer, progress, moved)


def _take_in(out: ResultsFolder, writer: StoreWriter, progress: Callable[[int], None] | None, aside: list[Path]) -> int:
    known = writer.known_attempts()
    fresh: list[Record] = []
    new = read = 0
    for attempt in out.recorded():
        if (attempt.run_id, attempt.number) in known:
            continue
        try:
            fresh.append(attempt.read_record())
        except (RecordSchemaError, FileNotFoundError):
            continue
        except (OSError, ValueError) as error:
            _LOG.warning("set aside: %s", " ".join(str(error).split())[:300])
            aside.append(attempt.set_record_aside())
            continue
        if len(fresh) == BATCH:
            new, read = new + _add(out, writer, fresh, aside), read + len(fresh)
            fresh = []
            if progress is not None:
                progress(read)
    return new + _add(out, writer, fresh, aside)


def finished_on_disk(out: ResultsFolder) -> set[str]:
    """Return the runs of which a record says that they are done; nothing of the store is read."""
    found: set[str] = set()
    for attempt in out.recorded():
        if attempt.recorded_attempt().get("status") != Status.DONE:
            continue
        with contextlib.suppress(OSError, ValueError):  # what cannot be used is set aside when the store is free
            attempt.read_record()
            found.add(attempt.run_id)
    return found


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


def _add(out: ResultsFolder, writer: StoreWriter, records: list[Record], aside: list[Path]) -> int:
    before = len(writer.refused)
    new = writer.add(records)
    for record, _ in writer.refused[before:]:
        attempt = out.attempt(record.attempt.run_id, record.attempt.attempt)
        if attempt.has_record():
            aside.append(attempt.set_record_aside())
    return new
