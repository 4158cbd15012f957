"""Brings the tables of a store up to this segbench's schema: migrations in order, once each, all or none."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from segbench import __version__
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Migration:
    """One step of the schema; a released one is never changed, a new step is added after it."""

    version: int
    """1, 2, ...: the first four digits of the file's name."""
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Return the steps that this segbench knows, in order."""
    return list(_own())


@cache
def _own() -> tuple[Migration, ...]:
    # read once: every question to a store asks for them
    folder = importlib.resources.files("segbench.engine.results.store") / "migrations"
    found = [
        Migration(int(item.name[:4]), item.name, item.read_text())
        for item in folder.iterdir()
        if item.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda step: step.version))


def applied(connection: duckdb.DuckDBPyConnection) -> set[int]:
    """Return the versions of the steps that a store has had; empty for a file that is no store yet."""
    there = connection.execute(
        "select count(*) from duckdb_tables() where table_name = 'migrations' and database_name = current_database()"
    ).fetchone()
    if not there or not there[0]:
        return set()
    return {int(version) for (version,) in connection.execute("select version from migrations").fetchall()}


def newer_schema(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Return one line where a newer segbench has written the store; None where this one knows all its steps."""
    done, known = applied(connection), {step.version for step in migrations()}
    if done <= known:
        return None
    return (
        f"the store was written by a newer segbench (schema {max(done)}, this one knows {max(known)}): upgrade segbench"
    )


def migrate(connection: duckdb.DuckDBPyConnection, steps: Sequence[Migration] | None = None) -> list[int]:
    """Apply the steps that a store has not had, and make the views anew; the caller holds a transaction.

    Parameters
    ----------
    connection
        Open for writing, in a transaction: where a step fails nothing of any step stays.
    steps
        In the order of their versions; None for this segbench's own.

    Returns
    -------
    list of int
        The versions that were applied now.

    Raises
    ------
    SegbenchError
        The store has had a step that is not among ``steps``: it is newer.
    """
    steps = migrations() if steps is None else steps
    connection.execute(
        "create table if not exists migrations (version integer primary key, name varchar not null, "
        "segbench_version varchar not null, applied_at timestamp with time zone not null)"
    )
    done, known = applied(connection), {step.version for step in steps}
    if done - known:
        raise SegbenchError(
            f"the store was written by a newer segbench (schema {max(done)}, this one knows {max(known)}): "
            "upgrade segbench"
        )
    fresh = [step for step in steps if step.version not in done]
    for step in fresh:
        connection.execute(step.sql)
        connection.execute(
            "insert into migrations values (?, ?, ?, ?)", [step.version, step.name, __version__, datetime.now(UTC)]
        )
    connection.execute((importlib.resources.files("segbench.engine.results.store") / "views.sql").read_text())
    return [step.version for step in fresh]
