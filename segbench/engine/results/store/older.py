"""Lets today's questions be asked of a store that an older segbench has written, without changing it."""

from __future__ import annotations

import importlib.resources
import re
from typing import TYPE_CHECKING

from segbench.engine.results.store.migrate import applied, migrate, migrations

if TYPE_CHECKING:
    import duckdb

_COLUMNS = """\
select table_name, column_name, data_type, column_default
from duckdb_columns()
where database_name = current_database() and not internal and table_name in (
    select table_name from duckdb_tables() where database_name = current_database()
)
order by table_name, column_index"""


def add_what_is_missing(connection: duckdb.DuckDBPyConnection) -> None:
    """Give a connection the tables, columns and views that a store of an older schema lacks, as temporary ones.

    A table that it lacks is empty, a column has its default or is null. Nothing is written, so that a store opened for
    reading alone answers, too; the next launch into its folder brings it up to date for good.
    """
    if applied(connection) >= {step.version for step in migrations()}:
        return
    from segbench.engine.results.store.opening import in_memory

    with in_memory() as newest:
        migrate(newest)
        wanted = newest.execute(_COLUMNS).fetchall()
    there: dict[str, set[str]] = {}
    for table, column, *_ in connection.execute(_COLUMNS).fetchall():
        there.setdefault(table, set()).add(column)
    row = connection.execute("select current_database()").fetchone()
    assert row is not None
    for table in dict.fromkeys(table for table, *_ in wanted):
        missing = [
            f'cast({default or "null"} as {kind}) as "{column}"'
            for name, column, kind, default in wanted
            if name == table and column not in there.get(table, ())
        ]
        if table not in there:
            connection.execute(f"create temp view {table} as select {', '.join(missing)} where false")
        elif missing:
            connection.execute(
                f'create temp view {table} as select *, {", ".join(missing)} from "{row[0]}".main.{table}'
            )
    views = importlib.resources.files("segbench.engine.results.store") / "views.sql"
    connection.execute(re.sub(r"create or replace view", "create or replace temp view", views.read_text()))
