"""Reading the store while others write to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

STORE_NAME = "results.duckdb"
_PATIENCE_S = 30.0


def store_path(out: Path) -> Path:
    """Return where the store of a results folder lies."""
    return Path(out) / STORE_NAME


def is_locked(error: BaseException) -> bool:
    """Return whether a DuckDB error says that another process holds the file."""
    return "Could not set lock" in str(error) or "Conflicting lock" in str(error)


@contextmanager
def read_connection(out: Path, patience_s: float = _PATIENCE_S) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the store of a results folder for reading.

    The writer holds the file only for the milliseconds of a transaction; a reader that meets it waits and tries again.
    Close soon: while a reader is open, the writer waits.

    Raises
    ------
    SegbenchError
        There is no store, it is not a DuckDB file, or another process held it for longer than ``patience_s``.
    """
    import duckdb

    path = store_path(out)
    if not path.is_file():
        raise SegbenchError(f"no results in {out}: run 'segbench grid launch --out {out}' first, or name another --out")
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
                    f"{path} has been held by another process for {patience_s:.0f} s; close that DuckDB client"
                ) from None
            time.sleep(0.05)
    try:
        yield connection
    finally:
        connection.close()


def query(out: Path, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """Return the rows of one read-only query over the store of a results folder, as a Polars frame.

    Raises
    ------
    SegbenchError
        The store cannot be read, or DuckDB refuses the query (its own message, one line).
    """
    import duckdb
    import polars as pl

    with read_connection(out) as connection:
        # A results file may come from anyone, and a query from a report: neither needs other files or the network
        connection.execute("set enable_external_access = false")
        try:
            relation = connection.sql(sql, params=list(parameters))
            if relation is None:
                raise SegbenchError("the query returns nothing: write a select")
            frame = pl.from_arrow(relation.to_arrow_table())
            assert isinstance(frame, pl.DataFrame)
            return frame
        except duckdb.Error as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise SegbenchError(" ".join(lines[:2])) from None
