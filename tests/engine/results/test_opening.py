"""Stores that are broken, foreign or hostile: told in one line by every command, never changed, rebuilt by repair."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from segbench.analysis.report.snapshot import Snapshot
from segbench.analysis.source import Source
from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.check import check_store, repair_store
from segbench.engine.results.store.merge import export_parquet, merge_results
from segbench.engine.results.store.opening import DamagedStoreError, ForeignStoreError, wal_path
from segbench.engine.results.store.recovery import take_in
from segbench.errors import SegbenchError

MakeRecord = Callable[..., Record]
FUZZ = Path(__file__).parents[3] / "benchmarks" / "fuzz.py"
WAYS: dict[str, Callable[[ResultsFolder, Path], object]] = {
    "sql": lambda out, _: query(out, "select * from attempts"),
    "analyze": lambda out, _: Source.of_results(out).frame("select * from leaderboard"),
    "report": lambda out, _: Snapshot(out),
    "check": lambda out, _: check_store(out),
    "export": lambda out, folder: export_parquet(out, folder / "tables"),
    "launch": lambda out, _: StoreWriter(out, patience_s=0),
}


@pytest.fixture
def out(tmp_path: Path, make_record: MakeRecord) -> ResultsFolder:
    """Return a results folder of two runs."""
    found = ResultsFolder(tmp_path / "results")
    for n in range(2):
        record = make_record(f"{n:012x}")
        record.write(found.attempt(record.attempt.run_id, 1).make().record)
    take_in(found, StoreWriter(found))
    return found


def flip(path: Path, where: int, bit: int = 0) -> None:
    """Flip a bit of a file."""
    content = bytearray(path.read_bytes())
    content[where] ^= 1 << bit
    path.write_bytes(content)


def zero_pages(path: Path) -> None:
    """Fill all but a file's headers with zeros."""
    path.write_bytes(path.read_bytes()[:16384] + bytes(path.stat().st_size - 16384))


@pytest.mark.parametrize("damage", [lambda path: flip(path, 100), zero_pages], ids=["a bit of byte 100", "pages"])
def test_a_damaged_store_is_one_line_of_every_command_and_repair_keeps_it_and_rebuilds(
    out: ResultsFolder, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(out.store)
    broken = out.store.read_bytes()
    for name, way in WAYS.items():
        with pytest.raises(DamagedStoreError, match="store repair") as caught:
            way(out, tmp_path)
        assert "\n" not in str(caught.value), name
    out.store_beside("before-repair").write_text("of an earlier repair")
    repaired = repair_store(out)
    assert (repaired.records, repaired.kept) == (2, out.store_beside("before-repair-2"))
    assert out.store_beside("before-repair-2").read_bytes() == broken
    assert out.store_beside("before-repair").read_text() == "of an earlier repair"
    assert check_store(out).faults == ()


def test_a_damaged_log_of_a_killed_writer_loses_nothing(out: ResultsFolder, tmp_path: Path) -> None:
    with duckdb.connect(out.store) as connection:
        connection.execute("pragma disable_checkpoint_on_shutdown")
        connection.execute("create table own as select range from range(1000)")
    log = wal_path(out.store)
    flip(log, log.stat().st_size // 2)
    for way in WAYS.values():
        with pytest.raises(DamagedStoreError, match="store repair"):
            way(out, tmp_path)
    assert repair_store(out).kept is not None
    assert check_store(out).faults == ()


def test_a_newer_or_another_programs_database_is_refused_by_every_command_and_stays(
    out: ResultsFolder, tmp_path: Path
) -> None:
    with duckdb.connect(out.store) as connection:
        connection.execute("insert into migrations values (99, '0099_future.sql', '9.9', now())")
        connection.execute("create table own as select 42 as answer")
    newer = out.store.read_bytes()
    out.store.unlink()
    with duckdb.connect(out.store) as connection:
        connection.execute("create table migrations (id uuid); create table attempts (who varchar)")
    other = out.store.read_bytes()
    out.store.unlink()
    with sqlite3.connect(out.store) as connection:
        connection.execute("create table t (a)")
    sqlite = out.store.read_bytes()
    for content in (newer, other, sqlite):
        out.store.write_bytes(content)
        for way in (*WAYS.values(), lambda out, _: repair_store(out)):
            with pytest.raises(ForeignStoreError) as caught:
                way(out, tmp_path)
            assert "\n" not in str(caught.value)
        assert out.store.read_bytes() == content


def test_repair_keeps_a_store_with_tables_of_ones_own(out: ResultsFolder) -> None:
    with duckdb.connect(out.store) as connection:
        connection.execute("create table own as select 42 as answer")
    kept = repair_store(out).kept
    assert kept is not None
    with duckdb.connect(kept, read_only=True) as connection:
        assert connection.execute("select answer from own").fetchone() == (42,)


def test_an_empty_file_that_a_full_disk_left_is_no_store(out: ResultsFolder) -> None:
    out.store.write_bytes(b"")
    with pytest.raises(SegbenchError, match="segbench grid launch"):
        query(out, "select 1")
    assert take_in(out, StoreWriter(out)) == 2
    out.store.write_bytes(b"")
    assert repair_store(out).records == 2
    assert check_store(out).faults == ()


def test_no_table_or_view_of_a_strangers_store_reaches_a_file(out: ResultsFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    tables = tmp_path / "tables"
    for statement, words in (
        (f'create table "{tmp_path}/stolen" as select 1 as a', "after which no file is named"),
        (f"create view peek as select * from read_text('{tmp_path}/secret.txt')", "disabled by configuration"),
    ):
        with duckdb.connect(out.store) as connection:
            connection.execute(statement)
        with pytest.raises(SegbenchError, match=words) as caught:
            export_parquet(out, tables)
        assert "\n" not in str(caught.value)
        assert not tables.exists()
        with duckdb.connect(out.store) as connection:
            connection.execute(f'drop table if exists "{tmp_path}/stolen"; drop view if exists peek')
    assert not list(tmp_path.glob("stolen*"))


def test_merging_writes_nothing_outside_and_follows_no_link(
    out: ResultsFolder, tmp_path: Path, make_record: MakeRecord
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    first = out.attempt(f"{0:012x}", 1)
    (first.path / "log.txt").symlink_to(tmp_path / "secret.txt")
    (first.path / "more").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(first.path / "pipe")
    raw = json.loads(make_record("9" * 12).model_dump_json())
    for n, evil in enumerate(("../../../escaped", str(tmp_path / "escaped"), "a/../../../../escaped")):
        raw["attempt"] |= {"run_id": evil, "folder": f"runs/{evil}/attempt-001"}
        path = out.attempt(f"evil{n}", 1).make().record
        path.write_text(json.dumps(raw))
    (out.path / "runs" / "linked").symlink_to(first.run_path, target_is_directory=True)
    to = ResultsFolder(tmp_path / "to" / "deep" / "merged")
    to.path.mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    (merged,) = merge_results([out], to)
    assert (merged.new, len(merged.unreadable), len(merged.links)) == (2, 4, 3)
    assert {path.name for path in to.attempt(f"{0:012x}", 1).path.iterdir()} == {RECORD_NAME}
    new = {path for path in tmp_path.rglob("*") if path not in before}
    assert all(path.is_relative_to(to.path) for path in new)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "n"),
    [
        ("store records", 8),
        ("checkpoints progress npz grids predictions", 40),
        ("prepared packages", 6),
    ],
)
def test_random_damage_is_told_and_loses_nothing(what: str, n: int) -> None:
    command = [sys.executable, str(FUZZ), *what.split(), "--n", str(n), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
