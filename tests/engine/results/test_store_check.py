"""Checking, repairing, merging and exporting stores: what is wrong is found, and nothing is lost or doubled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest

from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import RECORD_SCHEMA, Record, RecordSchemaError
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.check import Fault, check_store, repair_store
from segbench.engine.results.store.frames import TABLES
from segbench.engine.results.store.merge import export_parquet, merge_results
from segbench.engine.results.store.recovery import take_in
from segbench.errors import SegbenchError

MakeRecord = Callable[..., Record]


def put(out: Path, record: Record) -> Path:
    """Write a record into its folder, with an artifact beside it; return its path."""
    folder = out / record.attempt.folder
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(f"log of {record.attempt.host}")
    return record.write(folder / RECORD_NAME)


def rows_of(out: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table, in one order."""
    return {table: sorted(query(ResultsFolder(out), f"select * from {table}").rows(), key=str) for table in TABLES}


@pytest.fixture
def results(tmp_path: Path, make_record: MakeRecord) -> Path:
    """Return a results folder of five runs, one of which failed first; settings hold what is awkward in JSON."""
    out = tmp_path / "results"
    for n in range(5):
        put(out, make_record(f"{n:012x}", settings={"rate": 1e-05, "name": "Zellkern ä ☃", "deep": {"a": [None, 1.0]}}))
    put(out, make_record(f"{5:012x}", status=Status.FAILED, error="x"))
    put(out, make_record(f"{5:012x}", attempt=2))
    take_in(ResultsFolder(out), StoreWriter(ResultsFolder(out)))
    return out


def kinds(out: Path, driven: bool = False) -> list[tuple[str, str, int | None]]:
    """Return the faults without their words."""
    return [(fault.kind, fault.run_id, fault.attempt) for fault in check_store(ResultsFolder(out), driven).faults]


def test_a_sound_store_has_no_fault(results: Path) -> None:
    found = check_store(ResultsFolder(results))
    assert (found.records, found.attempts, found.superseded, found.faults) == (7, 7, 0, ())


def test_every_kind_of_fault_is_found_and_named(results: Path, make_record: MakeRecord) -> None:
    runs = [results / "runs" / f"{n:012x}" / "attempt-001" for n in range(6)]
    content = (runs[0] / RECORD_NAME).read_bytes()
    (runs[0] / RECORD_NAME).write_bytes(content[: len(content) // 2])
    (runs[1] / RECORD_NAME).unlink()
    changed = json.loads((runs[2] / RECORD_NAME).read_text())
    changed["evaluations"][0]["ap50"] += 1e-15
    changed["attempt"]["settings"]["rate"] = 2e-05
    (runs[2] / RECORD_NAME).write_text(json.dumps(changed))
    changed["record_schema"] = RECORD_SCHEMA + 1
    (runs[3] / RECORD_NAME).write_text(json.dumps(changed))
    shutil.copytree(runs[4], results / "runs" / "other" / "attempt-001")
    put(results, make_record("9" * 12))
    put(results, make_record(f"{4:012x}", attempt=2))
    with duckdb.connect(ResultsFolder(results).store) as connection:
        connection.execute("insert into phases values ('nobody', 1, 'train', 3)")
        connection.execute(f"update attempts set status = 'done' where run_id = '{5:012x}'")
    found = check_store(ResultsFolder(results))
    assert {(fault.kind, fault.run_id, fault.attempt) for fault in found.faults} == {
        ("unreadable", f"{0:012x}", 1),
        ("orphan", f"{1:012x}", 1),
        ("changed", f"{2:012x}", 1),
        ("schema", f"{3:012x}", 1),
        ("misplaced", "other", 1),
        ("missing", "9" * 12, 1),
        ("orphan", "nobody", 1),
        ("doubled", f"{5:012x}", None),
        ("different", f"{5:012x}", 1),
    }
    assert found.superseded == 1
    assert ("missing", "9" * 12, 1) not in kinds(results, driven=True)
    assert check_store(ResultsFolder(results), driven=True).waiting == 1
    assert all("\n" not in fault.detail for fault in found.faults)


@pytest.mark.slow
def test_a_changed_row_of_each_table_is_seen(results: Path) -> None:
    for table, change in (
        ("phases", "seconds = seconds + 1"),
        ("images", "splits = splits + 1"),
        ("history", "val_loss = null"),
    ):
        with duckdb.connect(ResultsFolder(results).store) as connection:
            connection.execute(f"update {table} set {change} where run_id = '{3:012x}'")
        assert (
            Fault("different", f"{3:012x}", 1, f"rows differ from the record in: {table}")
            in check_store(ResultsFolder(results)).faults
        )
        repair_store(ResultsFolder(results))
        assert check_store(ResultsFolder(results)).faults == ()
    with duckdb.connect(ResultsFolder(results).store) as connection:
        connection.execute("update tissues set n_cells = n_cells + 1")
    assert kinds(results) == [("different", "", None)]


def test_repair_rebuilds_the_same_store_from_the_records_alone(results: Path) -> None:
    before = rows_of(results)
    ResultsFolder(results).store.unlink()
    assert repair_store(ResultsFolder(results)).records == 7
    assert rows_of(results) == before
    ResultsFolder(results).store.write_bytes(b"not a database" * 1000)
    repaired = repair_store(ResultsFolder(results))
    assert repaired.kept == results / "results.duckdb.before-repair"
    assert repaired.kept.read_bytes().startswith(b"not a database")
    assert rows_of(results) == before


def test_repair_sets_broken_records_aside_and_keeps_a_store_that_knows_more(results: Path) -> None:
    record = results / "runs" / f"{0:012x}" / "attempt-001" / RECORD_NAME
    content = record.read_bytes()[:100]
    record.write_bytes(content)
    (results / "runs" / f"{1:012x}" / "attempt-001" / RECORD_NAME).unlink()
    before = rows_of(results)
    repaired = repair_store(ResultsFolder(results))
    assert repaired.records == 5
    aside = record.with_name("record.json.broken")
    assert repaired.set_aside == (aside,)
    assert aside.read_bytes() == content
    assert repaired.lost_rows == ((f"{0:012x}", 1), (f"{1:012x}", 1))
    assert check_store(ResultsFolder(results)).faults == ()
    # the rows that no record stands for are still there to be looked at
    assert repaired.kept is not None
    with duckdb.connect(repaired.kept, read_only=True) as connection:
        assert connection.execute("select count(*) from attempts").fetchone() == (len(before["attempts"]),)
    assert repair_store(ResultsFolder(results)).kept is None
    names = sorted(path.name for path in results.iterdir())
    assert names == ["results.duckdb", "results.duckdb.before-repair", "runs"]


def test_repair_leaves_nothing_of_a_killed_writers_log(results: Path) -> None:
    # a log that is not the new store's: DuckDB would play it back into it
    with duckdb.connect(ResultsFolder(results).store) as connection:
        connection.execute("pragma disable_checkpoint_on_shutdown")
        connection.execute("delete from attempts")
    assert ResultsFolder(results).store.with_name("results.duckdb.wal").exists()
    repair_store(ResultsFolder(results))
    assert query(ResultsFolder(results), "select count(*) from attempts").item() == 7
    assert check_store(ResultsFolder(results)).faults == ()


def test_an_edited_score_is_not_believed_by_check_repair_or_launch(results: Path) -> None:
    out, run = ResultsFolder(results), f"{2:012x}"
    path = out.attempt(run, 1).record
    edited = path.read_text().replace('"ap50":0.8', '"ap50":0.9').replace('"ap50": 0.8', '"ap50": 0.9')
    assert edited != path.read_text()
    path.write_text(edited)
    (fault,) = check_store(out).faults
    assert (fault.kind, fault.run_id) == ("changed", run)
    assert "was changed after it was written" in fault.detail
    out.attempt(run, 1).broken_record.write_text("of an earlier repair")
    repaired = repair_store(out)
    assert repaired.set_aside == (path.with_name("record.json.broken-2"),)
    assert repaired.set_aside[0].read_text() == edited
    assert (repaired.lost_rows, repaired.kept is not None) == (((run, 1),), True)
    repaired.set_aside[0].rename(path)
    assert take_in(out, StoreWriter(out)) == 0
    assert not path.exists()


def test_a_record_without_what_the_driver_told_the_worker_is_not_the_engines(
    results: Path, make_record: MakeRecord
) -> None:
    out = ResultsFolder(results)
    for n, told in enumerate(("of the driver", None, "a guess")):
        attempt = out.attempt(f"{20 + n:012x}", 1).make_claimed("of the driver")
        attempt.write_record(make_record(f"{20 + n:012x}"), told)
    assert sorted(fault.kind for fault in check_store(out).faults) == ["missing", "unreadable", "unreadable"]
    assert take_in(out, StoreWriter(out)) == 1
    assert [attempt.has_record() for attempt in (out.attempt(f"{20 + n:012x}", 1) for n in range(3))] == [
        True, False, False
    ]  # fmt: skip


def test_repair_tells_the_names_of_what_the_stores_rules_forbid(results: Path, make_record: MakeRecord) -> None:
    out = ResultsFolder(results)
    twice = make_record("9" * 12)
    attempt = out.attempt("9" * 12, 1).make()
    attempt.write_record(twice.model_copy(update={"evaluations": twice.evaluations * 2}))
    attempt.broken_record.write_text("of an earlier repair")
    assert repair_store(out).set_aside == (attempt.broken_record.with_name("record.json.broken-2"),)


def test_a_record_of_a_newer_segbench_is_left_alone(results: Path) -> None:
    path = results / "runs" / "abc" / "attempt-001" / RECORD_NAME
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"record_schema": RECORD_SCHEMA + 1, "what": "else"}))
    with pytest.raises(RecordSchemaError, match="newer segbench"):
        Record.read(path)
    assert take_in(ResultsFolder(results), StoreWriter(ResultsFolder(results))) == 0
    assert repair_store(ResultsFolder(results)).left == (path,)
    assert path.exists()


def test_merging_doubles_nothing_and_keeps_every_attempt(tmp_path: Path, make_record: MakeRecord) -> None:
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    both, lone = "1" * 12, "2" * 12
    put(a, make_record(both, host="a"))
    put(a, make_record(lone, host="a", status=Status.FAILED, error="x"))
    put(b, make_record(both, host="b", status=Status.LOST, error="x"))
    put(b, make_record(both, host="b", attempt=2))
    put(b, make_record(lone, host="b"))
    first, second = merge_results([ResultsFolder(a), ResultsFolder(b)], ResultsFolder(out))
    assert (first.new, first.there, first.finished_before) == (2, 0, 0)
    assert (second.new, second.there, second.finished_before) == (2, 0, 1)
    sql = "select run_id, attempt, host, status from attempts order by all"
    expected = [
        (both, 1, "a", "done"),
        (both, 2, "b", "lost"),
        (lone, 1, "a", "failed"),
        (lone, 2, "b", "done"),
    ]
    assert query(ResultsFolder(out), sql).rows() == expected
    assert (out / "runs" / lone / "attempt-002" / "log.txt").read_text() == "log of b"
    assert check_store(ResultsFolder(out)).faults == ()
    again = merge_results([ResultsFolder(b), ResultsFolder(a)], ResultsFolder(out))
    assert [one.new for one in again] == [0, 0]
    assert query(ResultsFolder(out), sql).rows() == expected
    assert len(list(out.glob("runs/*/*"))) == 4


def test_merging_can_link_or_leave_the_artifacts_out(results: Path, tmp_path: Path) -> None:
    linked, bare = tmp_path / "linked", tmp_path / "bare"
    # what an interrupted merge left behind is cleared away
    (linked / "runs" / f"{0:012x}" / ".merge-attempt-001").mkdir(parents=True)
    merge_results([ResultsFolder(results)], ResultsFolder(linked), link=True)
    merge_results([ResultsFolder(results)], ResultsFolder(bare), artifacts=False)
    name = Path("runs") / f"{0:012x}" / "attempt-001"
    assert (linked / name / "log.txt").samefile(results / name / "log.txt")
    assert [path.name for path in (bare / name).iterdir()] == [RECORD_NAME]
    assert rows_of(linked) == rows_of(bare) == rows_of(results)
    assert not list(linked.glob("runs/*/.merge-*"))
    for source, words in ((results / "runs" / "no", "no results folder"), (linked, "the target itself")):
        with pytest.raises(SegbenchError, match=words):
            merge_results([ResultsFolder(source)], ResultsFolder(linked))


def test_parquet_holds_every_table_and_view(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    counts = export_parquet(ResultsFolder(results), folder)
    assert set(counts) == {
        *TABLES,
        "migrations",
        "runs_latest",
        "accuracy",
        "timings",
        "cell_metrics",
        "leaderboard",
        "accuracy_by_evaluation",
        "measurements",
        "runs_again",
        "controls",
    }
    assert {path.name for path in folder.iterdir()} == {f"{name}.parquet" for name in counts}
    board = pl.read_parquet(folder / "leaderboard.parquet")
    assert board.equals(query(ResultsFolder(results), "select * from leaderboard"))
    assert counts["attempts"] == 7
    (tmp_path / "file").write_text("")
    with pytest.raises(SegbenchError, match="cannot write"):
        export_parquet(ResultsFolder(results), tmp_path / "file" / "below")
