"""Verifies a store against the records that it was made from, and rebuilds it from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.hashes import changed_files
from segbench.engine.results.record import ChangedRecordError, MisplacedRecordError, Record, RecordSchemaError
from segbench.engine.results.statuses import Status
from segbench.engine.results.store.frames import TABLES
from segbench.engine.results.store.opening import ForeignStoreError, free_name, read_by_us, wal_path
from segbench.engine.results.store.reader import query, store_copy
from segbench.engine.results.store.recovery import BATCH, take_in
from segbench.engine.results.store.writer import StoreWriter, insert_rows, remove_store
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import duckdb

_EXPECTED = "expected_"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong between a store and its records."""

    kind: str
    """missing (a record that the store lacks), different, orphan (rows without a record), doubled, unreadable, schema
    (a record of a newer segbench), misplaced (a record that names another run or attempt than its folder) or changed (a
    file of a finished attempt is not what its record says, or the record itself is not what was written)."""
    run_id: str
    attempt: int | None
    detail: str
    folder: AttemptFolder | None = None
    """Of the record that is at fault."""


@dataclass(frozen=True)
class Checked:
    """What ``check_store`` found."""

    records: int
    """Readable records."""
    attempts: int
    """Rows of the table attempts."""
    superseded: int
    """Finished attempts of runs that had a finished attempt already: kept out of the store, as they should be."""
    waiting: int
    """Records that the launch which runs now is about to take in."""
    unhashed: int
    """Finished attempts whose records have no hashes of their files: an older segbench wrote them."""
    elsewhere: int
    """Finished attempts of which only the record is here: merged or fetched without their files."""
    faults: tuple[Fault, ...]


@dataclass
class _Seen:
    keys: dict[tuple[str, int], Status] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    changed: list[Fault] = field(default_factory=list)
    """Not of records, but of the files beside them."""
    unhashed: int = 0
    elsewhere: int = 0

    def look_at_files(self, attempt: AttemptFolder, record: Record) -> None:
        """Compare the files of a finished attempt with its record."""
        if record.attempt.status is not Status.DONE:
            return
        if not record.files:
            self.unhashed += 1
            return
        changed = changed_files(attempt, record.files)
        if changed is None:
            self.elsewhere += 1
        elif changed:
            shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
            self.changed.append(Fault("changed", attempt.run_id, attempt.number, shown, attempt))


def check_store(
    out: ResultsFolder, driven: bool = False, progress: Callable[[int], None] | None = None, files: bool = True
) -> Checked:
    """Compare every record of a results folder with the rows that the store has of it, value by value.

    The files of finished attempts are compared with the hashes in their records.

    The store is copied first, so that a launch that runs meanwhile is not held up.

    Parameters
    ----------
    out
        The results folder.
    driven
        A launch runs in it: records that the store lacks are ``waiting``, not missing.
    progress
        Is told how many records were read so far.
    files
        False to leave the files out: reading them all takes its time.

    Raises
    ------
    SegbenchError
        There is no store, it cannot be read, or a newer segbench wrote it.
    """
    with store_copy(out) as connection, read_by_us(out.store):
        for table in TABLES:
            connection.execute(f"create temp table {_EXPECTED}{table} as select * from {table} limit 0")
        rows = connection.execute("select run_id, attempt, status from attempts").fetchall()
        in_store = {(str(run), int(attempt)): Status(status) for run, attempt, status in rows}
        seen = _Seen()
        batch: list[Record] = []
        for record in _readable(out, seen):
            if files:
                seen.look_at_files(out.attempt(record.attempt.run_id, record.attempt.attempt), record)
            key = (record.attempt.run_id, record.attempt.attempt)
            if key in in_store:
                batch.append(record)
            if len(batch) == BATCH:
                insert_rows(connection, batch, _EXPECTED)
                batch = []
            if progress is not None and len(seen.keys) % BATCH == 0:
                progress(len(seen.keys))
        insert_rows(connection, batch, _EXPECTED)
        missing, superseded = _missing(seen.keys, in_store)
        faults = [
            *seen.faults,
            *seen.changed,
            *([] if driven else missing),
            *_doubled(in_store),
            *_orphans(connection, seen),
            *_different(connection, set(seen.keys) & set(in_store)),
            *_tissues(connection, complete=not seen.faults),
        ]
    return Checked(
        records=len(seen.keys),
        attempts=len(in_store),
        superseded=superseded,
        waiting=len(missing) if driven else 0,
        unhashed=seen.unhashed,
        elsewhere=seen.elsewhere,
        faults=tuple(faults),
    )


@dataclass(frozen=True)
class Repaired:
    """What ``repair_store`` did."""

    records: int
    """Taken into the new store."""
    set_aside: tuple[Path, ...]
    """Records that could not be used, as they are called now."""
    left: tuple[Path, ...]
    """Records of a newer segbench: where they were, and not in the store."""
    lost_rows: tuple[tuple[str, int], ...]
    """Attempts that only the old store knew: their records are gone or unreadable."""
    kept: Path | None
    """The old store, kept because of ``lost_rows``, of tables that are not a store's, or because it could not be read;
    else it is removed."""


def repair_store(out: ResultsFolder, progress: Callable[[int], None] | None = None) -> Repaired:
    """Build the store anew from the records alone, and put it in the old one's place in one step.

    The new store is a file beside the old one until it is whole; dying at any moment leaves one of the two in
    place. An old one that could not be read, or holds more than the records tell, is kept under a name of its own. The
    caller holds the driver's lock.

    Raises
    ------
    SegbenchError
        There is no results folder, the new file cannot be written, or the store is another program's or a newer
        segbench's.
    """
    path = out.store
    before = _Old.of(out)
    if not out.has_runs():
        raise SegbenchError(f"no records in {out}: name the results folder that holds runs/")
    new, old = out.store_beside("repair"), free_name(out.store_beside("before-repair"))
    remove_store(new)
    seen = _Seen()
    for _ in _readable(out, seen):
        pass
    moved = [f.folder.set_record_aside() for f in seen.faults if f.folder and f.kind in _UNUSABLE]
    left = tuple(f.folder.record for f in seen.faults if f.folder and f.kind == "schema")
    writer = StoreWriter(out, path=new)
    records = take_in(out, writer, progress, moved)
    lost = [key for key in before.attempts if key not in seen.keys]
    with new.open("rb") as file:
        os.fsync(file.fileno())
    if path.exists():
        remove_store(old)
        os.link(path, old)
        if wal_path(path).exists():  # it belongs to the old file: the new one must not be taken for its own
            wal_path(path).rename(wal_path(old))
    new.replace(path)
    keep = old.exists() and (not before.readable or bool(lost) or bool(before.names - _names(out)))
    if not keep:
        remove_store(old)
    return Repaired(records, tuple(moved), left, tuple(lost), old if keep else None)


_UNUSABLE = ("unreadable", "misplaced", "changed")


def _readable(out: ResultsFolder, seen: _Seen) -> Iterable[Record]:
    """Yield the records that can be read and lie where they belong; note the others' faults and all keys."""
    for attempt in out.recorded():
        place, path = (attempt.run_id, attempt.number), attempt.record
        try:
            record = attempt.read_record()
        except FileNotFoundError:
            continue
        except RecordSchemaError as error:
            seen.faults.append(Fault("schema", *place, f"{path}: {error}", attempt))
            continue
        except MisplacedRecordError as error:
            seen.faults.append(Fault("misplaced", *place, str(error), attempt))
            continue
        except ChangedRecordError as error:
            seen.faults.append(Fault("changed", *place, str(error), attempt))
            continue
        except (OSError, ValueError) as error:
            seen.faults.append(Fault("unreadable", *place, f"{path}: {_one_line(error, path)}", attempt))
            continue
        seen.keys[place] = record.attempt.status
        yield record


def _missing(
    records: dict[tuple[str, int], Status], in_store: dict[tuple[str, int], Status]
) -> tuple[list[Fault], int]:
    finished = {run for (run, _), status in in_store.items() if status is Status.DONE}
    missing: list[Fault] = []
    superseded = 0
    for (run, attempt), status in records.items():
        if (run, attempt) in in_store:
            continue
        if status is Status.DONE and run in finished:
            superseded += 1
        else:
            missing.append(Fault("missing", run, attempt, "the store has no row of this record"))
    return missing, superseded


def _doubled(in_store: dict[tuple[str, int], Status]) -> list[Fault]:
    finished: dict[str, list[int]] = {}
    for (run, attempt), status in in_store.items():
        if status is Status.DONE:
            finished.setdefault(run, []).append(attempt)
    return [
        Fault(
            "doubled",
            run,
            None,
            f"attempts {', '.join(map(str, sorted(n)))} are all done; a run has one finished attempt",
        )
        for run, n in finished.items()
        if len(n) > 1
    ]


def _orphans(connection: duckdb.DuckDBPyConnection, seen: _Seen) -> list[Fault]:
    named = {(fault.run_id, fault.attempt) for fault in seen.faults}
    faults: list[Fault] = []
    for table in TABLES[:-1]:
        beside = "" if table == "attempts" else "anti join attempts using (run_id, attempt)"
        rows = connection.execute(f"select run_id, attempt, count(*) from {table} {beside} group by all order by all")
        for run, attempt, n in rows.fetchall():
            if table != "attempts":
                faults.append(Fault("orphan", run, attempt, f"{n} rows of {table} belong to no attempt of the store"))
            elif (run, attempt) not in seen.keys and (run, attempt) not in named:
                faults.append(Fault("orphan", run, attempt, "the store has rows, and there is no record"))
    return faults


def _different(connection: duckdb.DuckDBPyConnection, both: set[tuple[str, int]]) -> list[Fault]:
    tables: dict[tuple[str, int], list[str]] = {}
    for table in TABLES[:-1]:
        columns = _columns(connection, table)
        here, expected = f"select {columns} from {table}", f"select {columns} from {_EXPECTED}{table}"
        rows = connection.execute(
            f"select distinct run_id, attempt from "
            f"(({here} except all {expected}) union all ({expected} except all {here})) order by all"
        ).fetchall()
        for run, attempt in rows:
            if (run, attempt) in both:
                tables.setdefault((run, attempt), []).append(table)
    return [
        Fault("different", run, attempt, f"rows differ from the record in: {', '.join(names)}")
        for (run, attempt), names in sorted(tables.items())
    ]


def _tissues(connection: duckdb.DuckDBPyConnection, complete: bool) -> list[Fault]:
    """Compare the table of the data: each of its rows comes from some record, and each record's is there."""
    keys = "dataset_fingerprint, split, target, tissue"
    here, there = "select * from tissues", f"select * from {_EXPECTED}tissues"
    absent = connection.execute(
        f"select {keys} from (select distinct {keys} from {_EXPECTED}tissues) anti join tissues using ({keys})"
    ).fetchall()
    unfounded = connection.execute(f"{here} except {there}").fetchall() if complete else []
    told = [f"no row of {'/'.join(map(str, key))} in tissues" for key in absent]
    told += [f"the row of {row[0]}/{'/'.join(map(str, row[2:5]))} in tissues is no record's" for row in unfounded]
    return [Fault("different", "", None, text) for text in told]


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return a table's columns, JSON written in one way: what was stored by another version has other spaces."""
    rows = connection.execute(
        "select column_name, data_type from duckdb_columns() where table_name = ? and not internal", [table]
    ).fetchall()
    return ", ".join(f"json_extract({name}, '$') as {name}" if kind == "JSON" else f'"{name}"' for name, kind in rows)


@dataclass(frozen=True)
class _Old:
    """What a repair finds in the store that it replaces."""

    readable: bool
    attempts: tuple[tuple[str, int], ...] = ()
    names: frozenset[str] = frozenset()
    """Of its tables and views."""

    @classmethod
    def of(cls, out: ResultsFolder) -> _Old:
        if not out.has_store():
            return cls(readable=True)
        try:
            rows = query(out, "select run_id, attempt from attempts order by all").rows()
            return cls(True, tuple(rows), _names(out))
        except ForeignStoreError:
            raise
        except SegbenchError:
            return cls(readable=False)


def _names(out: ResultsFolder) -> frozenset[str]:
    sql = (
        "select table_name from duckdb_tables() where not internal "
        "union select view_name from duckdb_views() where not internal"
    )
    return frozenset(query(out, sql)["table_name"])


def _one_line(error: Exception, path: Path) -> str:
    return " ".join(str(error).removeprefix(f"{path} is not a record: ").split())
