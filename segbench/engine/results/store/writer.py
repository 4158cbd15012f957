"""The one writer of the store: takes records in, in short transactions."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store.frames import frames
from segbench.engine.results.store.migrate import migrate
from segbench.engine.results.store.opening import one_line, opened, read_by_us, require_own, wal_path

if TYPE_CHECKING:
    import duckdb

_LOG = logging.getLogger(__name__)


class StoreWriter:
    """Takes records into the DuckDB file of one results folder.

    The file is opened for each transaction and closed again, so that any reader finds it free most of the time; where a
    reader holds it, the writer waits. Its methods may be called from several threads.

    Parameters
    ----------
    out
        The results folder; made if missing.
    patience_s
        How long to wait for a reader before giving up; the records stay on disk and are taken in the next time.
    path
        The store's file; None for the results folder's own.
    later
        Open the store at the first transaction alone: a launch goes on while another process holds it.
    """

    def __init__(
        self, out: ResultsFolder, patience_s: float = 30.0, path: Path | None = None, *, later: bool = False
    ) -> None:
        self.out = out.make()
        self.path = out.store if path is None else path
        self.refused: list[tuple[Record, str]] = []
        """Records that the store's own rules forbid (a score twice, say), with what the store says."""
        self._patience_s = patience_s
        # a process's second connection to the file would share or lose the first one's lock
        self._one_at_a_time = threading.RLock()
        self._is_up = False
        if not later:
            self._transact(lambda _: None)

    def _bring_up(self, connection: duckdb.DuckDBPyConnection) -> None:
        require_own(connection, self.path, may_be_new=True)
        with read_by_us(self.path):
            migrate(connection)

    def add(self, records: Sequence[Record], patience_s: float | None = None) -> int:
        """Take records in, all in one transaction; return how many were new.

        An attempt that is there already is left alone, and so is a second finished attempt of a run: a run has one. A
        record that the store's rules forbid is kept out, and in ``refused``; the others are taken in.

        Raises
        ------
        StoreBusyError
            Another process held the store for longer than ``patience_s`` (None for the writer's own); nothing is lost.
        SegbenchError
            The file is damaged or cannot be written.
        """
        if not records:
            return 0
        try:
            return int(self._transact(lambda connection: _insert(connection, records), patience_s))
        except _of_a_record() as error:
            if len(records) == 1:
                told = one_line(error)
                self.refused.append((records[0], told))
                _LOG.warning("kept out %s: %s", records[0].attempt.folder, told)
                return 0
        half = len(records) // 2
        return self.add(records[:half], patience_s) + self.add(records[half:], patience_s)

    def add_measurements(self) -> int:
        """Take the results folder's measurements in that the store lacks; return how many."""
        # they read the store, too
        from segbench.engine.results.measurements import insert_measurements

        return int(self._transact(lambda connection: insert_measurements(connection, self.out)))

    def known_attempts(self) -> set[tuple[str, int]]:
        """Return every attempt in the store as (run id, attempt)."""
        rows = self._transact(lambda connection: connection.execute("select run_id, attempt from attempts").fetchall())
        return {(str(run), int(attempt)) for run, attempt in rows}

    def finished_runs(self) -> set[str]:
        """Return the ids of the runs that have a finished attempt."""
        rows = self._transact(
            lambda connection: connection.execute("select run_id from attempts where status = 'done'").fetchall()
        )
        return {str(run) for (run,) in rows}

    def snapshot(self, to: Path) -> None:
        """Copy the store to another file, whole and between two transactions."""
        with self._one_at_a_time:
            self._transact(
                lambda connection: connection.execute("select 1")
            )  # a log that a killed writer left is taken into the file
            shutil.copyfile(self.path, to)

    def _transact(self, work: Callable[[duckdb.DuckDBPyConnection], Any], patience_s: float | None = None) -> Any:
        patience = self._patience_s if patience_s is None else patience_s
        with (
            self._one_at_a_time,
            opened(self.path, read_only=False, patience_s=patience) as connection,
        ):
            connection.begin()
            if not self._is_up:
                self._bring_up(connection)
            result = work(connection)
            connection.commit()
            self._is_up = True
            return result


def _of_a_record() -> tuple[type[Exception], ...]:
    """Return the errors that a row brings about which a table cannot hold, of the table and of the frame."""
    import duckdb
    import polars as pl

    of_the_table = (duckdb.IntegrityError, duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError)
    return (*of_the_table, pl.exceptions.PolarsError, TypeError, ValueError, OverflowError)


def remove_store(path: Path) -> None:
    """Remove a store's file and the log beside it, where there are any."""
    path.unlink(missing_ok=True)
    wal_path(path).unlink(missing_ok=True)


def _insert(connection: duckdb.DuckDBPyConnection, records: Sequence[Record]) -> int:
    ids = [record.attempt.run_id for record in records]
    there = connection.execute(
        "select run_id, attempt, status from attempts where run_id in (select unnest(?))", [ids]
    ).fetchall()
    present = {(run, n) for run, n, _ in there}
    finished = {run for run, _, status in there if status == Status.DONE}
    fresh: list[Record] = []
    for record in records:
        row = record.attempt
        if (row.run_id, row.attempt) in present or (row.status is Status.DONE and row.run_id in finished):
            continue
        present.add((row.run_id, row.attempt))
        if row.status is Status.DONE:
            finished.add(row.run_id)
        fresh.append(record)
    if fresh:
        insert_rows(connection, fresh)
    return len(fresh)


def insert_rows(connection: duckdb.DuckDBPyConnection, records: Sequence[Record], prefix: str = "") -> None:
    """Insert the rows of records into the tables whose names begin with ``prefix``; nothing is looked up before."""
    for table, rows in frames(connection, records).items():
        if rows.is_empty():
            continue
        conflict = "on conflict do nothing" if table == "tissues" and not prefix else ""
        connection.register("new_rows", rows)
        connection.execute(f"insert into {prefix}{table} by name select * from new_rows {conflict}")
        connection.unregister("new_rows")
