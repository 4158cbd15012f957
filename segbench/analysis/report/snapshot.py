"""The store as it was at one moment, in memory: asked often, while the file is free for the grid that is running."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store.opening import in_memory, of_the_file, one_line
from segbench.engine.results.store.reader import read_connection, read_file
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb
    import polars as pl

_OWN_TABLES = "select table_name from duckdb_tables() where not internal order by table_name"
_OWN_VIEWS = "select view_name from duckdb_views() where not internal order by view_oid"


class Snapshot:
    """Answers queries from a copy of a store's tables under the store's own views.

    Parameters
    ----------
    out
        The results folder, or a store's file of any name.

    Raises
    ------
    SegbenchError
        There is no store, it cannot be read, or it lacks the tables of one.
    """

    def __init__(self, out: ResultsFolder | Path) -> None:
        import duckdb

        # A store may come from anyone: no query over it needs a file or the network
        self._connection = in_memory()
        self._known: dict[tuple[str, str], pl.DataFrame] = {}
        engine = importlib.resources.files("segbench.engine.results.store")
        # Made by this version's migrations: the store of an older one fills what it knows
        for script in sorted((engine / "migrations").iterdir(), key=lambda item: item.name):
            if script.name.endswith(".sql"):
                self._connection.execute(script.read_text())
        with _opened(out) as store:
            try:
                known = set(self._names(_OWN_TABLES))
                for (table,) in store.execute(_OWN_TABLES).fetchall():
                    if table in known:
                        self._take(table, store.sql(f"select * from {table}").to_arrow_table())
            except duckdb.Error as error:
                told = SegbenchError(f"{out} holds no segbench store: {one_line(error, 2)}")
                raise of_the_file(error, _file(out)) or told from None
        self._connection.execute((engine / "views.sql").read_text())
        # Computed once, in the order in which they build on each other, for they are asked for many times
        for view in self._names(_OWN_VIEWS):
            self._connection.execute(f"create table made as select * from {view}")
            self._connection.execute(f"drop view {view}")
            self._connection.execute(f"alter table made rename to {view}")

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Return the rows of one query; raises SegbenchError where DuckDB refuses it."""
        import duckdb
        import polars as pl

        # the copy never changes, and the sections ask the same for each of their metrics
        key = sql, repr(list(parameters))
        if key in self._known:
            return self._known[key]
        try:
            frame = pl.from_arrow(self._connection.sql(sql, params=list(parameters)).to_arrow_table())
        except duckdb.Error as error:
            raise SegbenchError(one_line(error, 2)) from None
        assert isinstance(frame, pl.DataFrame)
        self._known[key] = frame
        return frame

    def _names(self, sql: str) -> list[str]:
        return [name for (name,) in self._connection.execute(sql).fetchall()]

    def _take(self, table: str, rows: Any) -> None:
        self._connection.register("rows", rows)
        self._connection.execute(f"insert into {table} by name select * from rows")
        self._connection.unregister("rows")


def _opened(out: ResultsFolder | Path) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    if isinstance(out, ResultsFolder):
        return read_connection(out)
    return read_file(out) if out.is_file() else read_connection(ResultsFolder.open(out))


def _file(out: ResultsFolder | Path) -> Path:
    return out.store if isinstance(out, ResultsFolder) else out
