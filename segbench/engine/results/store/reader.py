"""Reading the store while others write to it."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

_PATIENCE_S = 30.0


def wal_path(path: Path) -> Path:
    """Return where DuckDB's write-ahead log of a store lies; there is one only after a writer was killed."""
    return path.with_name(f"{path.name}.wal")


def is_locked(error: BaseException) -> bool:
    """Return whether a DuckDB error says that another process holds the file."""
    return "Could not set lock" in str(error) or "Conflicting lock" in str(error)


def holder(error: BaseException) -> str:
    """Return who holds the file, from DuckDB's error: `` (python3.11, process 4711)``; empty where it does not say.

    Examples
    --------
    >>> holder(OSError("Could not set lock on file: Conflicting lock is held in /usr/bin/duckdb (PID 4711). See also"))
    ' (duckdb, process 4711)'
    """
    found = re.search(r"held in (\S+) \(PID (\d+)\)", str(error))
    return f" ({Path(found[1]).name}, process {found[2]})" if found else ""


@contextmanager
def read_connection(out: ResultsFolder, patience_s: float = _PATIENCE_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the store of a results folder for reading; as ``read_file``, and an error where there is no store."""
    if not out.has_store():
        raise SegbenchError(f"no results in {out}: run 'segbench grid launch --out {out}' first, or name another --out")
    with read_file(out.store, patience_s) as connection:
        yield connection


@contextmanager
def read_file(path: Path, patience_s: float = _PATIENCE_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a store's file of any name for reading.

    The writer holds the file only for the milliseconds of a transaction; a reader that meets it waits and tries again.
    Close soon: while a reader is open, the writer waits.

    Raises
    ------
    SegbenchError
        It is not a DuckDB file, or another process held it for longer than ``patience_s``.
    """
    import duckdb

    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection = duckdb.connect(path, read_only=True)
            break
        except duckdb.IOException as error:
            if not is_locked(error):
                raise SegbenchError(f"{path} cannot be read as a DuckDB store: {str(error).splitlines()[0]}") from None
            if time.monotonic() > deadline:
                raise SegbenchError(
                    f"{path} has been held by another process{holder(error)} for {patience_s:.0f} s; "
                    "close that DuckDB client"
                ) from None
            time.sleep(0.05)
    try:
        yield connection
    finally:
        connection.close()


def query(out: ResultsFolder, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """Return the rows of one read-only query over the store of a results folder, as a Polars frame.

    Raises
    ------
    SegbenchError
        The store cannot be read, or DuckDB refuses the query (its own message, one line).
    """
    import duckdb

    with read_connection(out) as connection:
        # A results file may come from anyone, and a query from a report: neither needs other files or the network
        connection.execute("set enable_external_access = false")
        try:
            relation = connection.sql(sql, params=list(parameters))
            if relation is None:
                raise SegbenchError("the query returns nothing: write a select")
            return as_frame(relation)
        except duckdb.Error as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            newer = _newer(connection)
            raise SegbenchError(" ".join(lines[:2]) + (f" ({newer})" if newer else "")) from None


def as_frame(relation: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    """Return what a query answers as a frame.

    Raises
    ------
    SegbenchError
        Two columns have one name, or a column is of a type that a frame cannot hold (an interval).
    """
    import polars as pl

    twice = next((name for name in relation.columns if relation.columns.count(name) > 1), None)
    if twice is not None:
        raise SegbenchError(f"the query has two columns {twice!r}: give each a name of its own with 'as'")
    try:
        frame = pl.from_arrow(relation.to_arrow_table())
    except pl.exceptions.PolarsError as error:
        raise SegbenchError(
            f"a column of the query cannot be shown ({' '.join(str(error).split())}): cast it, as to varchar"
        ) from None
    assert isinstance(frame, pl.DataFrame)
    return frame


@contextmanager
def store_copy(out: ResultsFolder) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a private copy of a results folder's store for as long as one likes: nobody waits for it meanwhile.

    The copy is brought up to this segbench's schema and may be written to; it lies in the system's
    temporary folder and goes with the context.

    Raises
    ------
    SegbenchError
        As ``read_connection``; or it is no store, or a newer segbench's.
    """
    import duckdb

    from segbench.engine.results.store.migrate import applied, migrate

    path = out.store
    with tempfile.TemporaryDirectory(prefix="segbench-store-") as folder:
        copy = Path(folder) / path.name
        with read_connection(out):
            # the log first: closing the store's own file after it is read gives this process's lock on it away
            if wal_path(path).exists():
                shutil.copyfile(wal_path(path), wal_path(copy))
            shutil.copyfile(path, copy)
        connection = duckdb.connect(copy)
        try:
            if not applied(connection):
                raise SegbenchError(f"{path} holds no segbench store")
            connection.begin()
            migrate(connection)
            connection.commit()
            yield connection
        finally:
            connection.close()


def _newer(connection: duckdb.DuckDBPyConnection) -> str | None:
    import duckdb

    from segbench.engine.results.store.migrate import newer_schema

    try:
        return newer_schema(connection)
    except duckdb.Error:  # not a store at all: the query's own error says more
        return None
