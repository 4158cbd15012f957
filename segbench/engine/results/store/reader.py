"""Reading the store while others write to it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store.older import add_what_is_missing
from segbench.engine.results.store.opening import of_the_file, one_line, opened, read_by_us, require_own, wal_path
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

_PATIENCE_S = 30.0


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
        It is damaged, no store or a newer segbench's, or another process held it for longer than ``patience_s``.
    """
    with opened(path, read_only=True, patience_s=patience_s) as connection:
        require_own(connection, path)
        add_what_is_missing(connection)
        yield connection


def query(out: ResultsFolder, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
    """Return the rows of one read-only query over the store of a results folder, as a Polars frame.

    Raises
    ------
    SegbenchError
        The store cannot be read, or DuckDB refuses the query (its own message, one line).
    """
    import duckdb

    with read_connection(out) as connection:
        try:
            if len(connection.extract_statements(sql)) > 1:
                raise SegbenchError("the query has two statements or more: ask them one at a time")
            relation = connection.sql(sql, params=list(parameters))
            if relation is None:
                raise SegbenchError("the query returns nothing: write a select")
            return as_frame(relation)
        except duckdb.Error as error:
            raise of_the_file(error, out.store) or SegbenchError(one_line(error, 2)) from None


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
def store_copy(out: ResultsFolder, writes_into: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a private copy of a results folder's store for as long as one likes: nobody waits for it meanwhile.

    The copy is brought up to this segbench's schema and may be written to; it lies in the system's
    temporary folder and goes with the context.

    Parameters
    ----------
    out
        The results folder.
    writes_into
        An empty folder that queries may write to; None for none.

    Raises
    ------
    SegbenchError
        As ``read_connection``.
    """
    from segbench.engine.results.store.migrate import migrate

    path = out.store
    with tempfile.TemporaryDirectory(prefix="segbench-store-") as folder:
        copy = Path(folder) / path.name
        with read_connection(out):
            # the log first: closing the store's own file after it is read gives this process's lock on it away
            if wal_path(path).exists():
                shutil.copyfile(wal_path(path), wal_path(copy))
            shutil.copyfile(path, copy)
        with opened(copy, read_only=False, patience_s=0, writes_into=writes_into, called=path) as connection:
            with read_by_us(path):
                connection.begin()
                migrate(connection)
                connection.commit()
            yield connection
