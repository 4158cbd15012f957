"""The one writer of the store: takes records in, in short transactions."""

from __future__ import annotations

import importlib.resources
import json
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench import __version__
from segbench.engine.record import Record, Status
from segbench.engine.store.reader import is_locked, store_path
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb

_RETRY_S = 0.1


class StoreWriter:
    """Takes records into the DuckDB file of one results folder.

    The file is opened for each transaction and closed again, so that any reader finds it free most of the time; where a
    reader holds it, the writer waits.

    Parameters
    ----------
    out
        The results folder; made if missing.
    patience_s
        How long to wait for a reader before giving up; the records stay on disk and are taken in the next time.
    """

    def __init__(self, out: Path, patience_s: float = 30.0) -> None:
        self.out = Path(out)
        self.path = store_path(self.out)
        self._patience_s = patience_s
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegbenchError(f"cannot write results to {self.out}: {error.strerror}") from None
        self._transact(_migrate)

    def add(self, records: Sequence[Record]) -> int:
        """Take records in, all in one transaction; return how many were new.

        An attempt that is there already is left alone, and so is a second finished attempt of a run: a run has one.
        """
        if not records:
            return 0
        return int(self._transact(lambda connection: _insert(connection, records)))

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

    def _transact(self, work: Callable[[duckdb.DuckDBPyConnection], Any]) -> Any:
        import duckdb

        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                connection = duckdb.connect(self.path)
            except duckdb.IOException as error:
                if not is_locked(error):
                    raise SegbenchError(f"cannot open {self.path}: {str(error).splitlines()[0]}") from None
                if time.monotonic() > deadline:
                    raise StoreBusyError(
                        f"{self.path} has been held by another process for {self._patience_s:.0f} s; "
                        "close that DuckDB client. No result is lost: records are taken in the next time"
                    ) from None
                time.sleep(_RETRY_S)
                continue
            try:
                connection.begin()
                result = work(connection)
                connection.commit()
                return result
            except (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException) as error:
                raise SegbenchError(
                    f"cannot write {self.path}: {str(error).splitlines()[0]}. Mend that (a full disk?) and launch again: "
                    "no finished run is lost, its record is taken in then"
                ) from None
            finally:
                connection.close()


class StoreBusyError(SegbenchError):
    """Another process held the store for too long; what was to be written is still on disk as records."""


def _migrate(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "create table if not exists migrations (version integer primary key, name varchar not null, "
        "segbench_version varchar not null, applied_at timestamp with time zone not null)"
    )
    done = {int(row[0]) for row in connection.execute("select version from migrations").fetchall()}
    package = importlib.resources.files("segbench.engine.store")
    scripts = sorted(
        (item for item in (package / "migrations").iterdir() if item.name.endswith(".sql")), key=lambda item: item.name
    )
    known = {int(script.name[:4]) for script in scripts}
    if done - known:
        raise SegbenchError(
            f"the store was written by a newer segbench (schema {max(done)}, this one knows {max(known)}): upgrade segbench"
        )
    for script in scripts:
        version = int(script.name[:4])
        if version not in done:
            connection.execute(script.read_text())
            connection.execute(
                "insert into migrations values (?, ?, ?, ?)", [version, script.name, __version__, datetime.now(UTC)]
            )
    connection.execute((package / "views.sql").read_text())


def _insert(connection: duckdb.DuckDBPyConnection, records: Iterable[Record]) -> int:
    present = {(run, n) for run, n in connection.execute("select run_id, attempt from attempts").fetchall()}
    finished = {run for (run,) in connection.execute("select run_id from attempts where status = 'done'").fetchall()}
    fresh: list[Record] = []
    for record in records:
        row = record.attempt
        if (row.run_id, row.attempt) in present or (row.status is Status.DONE and row.run_id in finished):
            continue
        present.add((row.run_id, row.attempt))
        if row.status is Status.DONE:
            finished.add(row.run_id)
        fresh.append(record)
    if not fresh:
        return 0

    attempts = [record.attempt.model_dump(mode="json") for record in fresh]
    keys = [{"run_id": record.attempt.run_id, "attempt": record.attempt.attempt} for record in fresh]
    pairs = list(zip(keys, fresh, strict=True))
    _append(connection, "attempts", attempts)
    _append(connection, "phases", [{**k, "phase": p, "seconds": s} for k, r in pairs for p, s in r.phases.items()])
    _append(connection, "evaluations", [{**k, **row.model_dump()} for k, r in pairs for row in r.evaluations])
    _append(
        connection,
        "images",
        [
            {**k, "test_task": table.test_task, **dict(zip(table.columns, values, strict=True))}
            for k, r in pairs
            for table in r.images
            for values in zip(*table.columns.values(), strict=True)
        ],
    )
    _append(
        connection,
        "history",
        [{**k, "point": n, **row.model_dump()} for k, r in pairs for n, row in enumerate(r.history)],
    )
    tissues = {
        (t.dataset_fingerprint, t.split, t.target, t.tissue): t.model_dump() for record in fresh for t in record.tissues
    }
    _append(connection, "tissues", list(tissues.values()), on_conflict="on conflict do nothing")
    return len(fresh)


def _append(
    connection: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]], on_conflict: str = ""
) -> None:
    if not rows:
        return
    # The store's own column types decide: rows travel as JSON text and are cast by DuckDB
    columns = connection.execute("select column_name, data_type from duckdb_columns() where table_name = ?", [table])
    structure = json.dumps([dict(columns.fetchall())])
    connection.execute(
        f"insert into {table} by name select unnest(rows, max_depth := 1) from "
        f"(select unnest(from_json(?::json, ?)) as rows) {on_conflict}",
        [json.dumps(rows), structure],
    )
