"""``segbench store`` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from segbench.cli.app import app
from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.recovery import take_in
from segbench.errors import SegbenchError

MakeRecord = Callable[..., Record]


def run(*arguments: object) -> Result:
    """Run a command of the store; user's mistakes are raised as they are."""
    return CliRunner().invoke(app, ["store", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def results(tmp_path: Path, make_record: MakeRecord) -> Path:
    """Return a results folder of three finished runs."""
    out = tmp_path / "results"
    for n in range(3):
        record = make_record(f"{n:012x}")
        (out / record.attempt.folder).mkdir(parents=True)
        record.write(out / record.attempt.folder / RECORD_NAME)
    take_in(ResultsFolder(out), StoreWriter(ResultsFolder(out)))
    return out


def test_check_tells_one_line_a_fault_and_ends_with_1(results: Path) -> None:
    good = run("check", "--out", results)
    told = "3 finished attempts of an older segbench have no hashes: their files may change"
    assert (good.exit_code, good.output) == (0, f"3 records, 3 attempts in the store; all as it should be; {told}\n")
    record = results / "runs" / f"{1:012x}" / "attempt-001" / RECORD_NAME
    record.write_bytes(record.read_bytes()[:50])
    bad = run("check", "--out", results)
    assert bad.exit_code == 1
    lines = bad.output.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"unreadable: {1:012x} attempt 1: {record}: ")
    assert "segbench store repair" in lines[1]
    as_json = run("check", "--out", results, "--format", "json")
    assert as_json.exit_code == 1
    assert [fault["kind"] for fault in json.loads(as_json.stdout)] == ["unreadable"]
    repaired = run("repair", "--out", results)
    assert repaired.exit_code == 0
    assert f"set aside: {record}.broken" in repaired.output
    assert f"without a record: {1:012x} attempt 1" in repaired.output
    assert "results.duckdb.before-repair" in repaired.output
    assert run("check", "--out", results).exit_code == 0


def test_while_a_launch_runs_check_and_export_work_and_repair_and_merge_are_refused(
    results: Path, tmp_path: Path, make_record: MakeRecord
) -> None:
    late = make_record("9" * 12)
    (results / late.attempt.folder).mkdir(parents=True)
    late.write(results / late.attempt.folder / RECORD_NAME)
    with ResultsFolder(results).launch.hold():
        checked = run("check", "--out", results)
        assert checked.exit_code == 0
        assert "a launch runs: 1 records wait" in checked.output
        assert run("export", "--parquet", tmp_path / "tables", "--out", results).exit_code == 0
        for arguments in (("repair", "--out", results), ("merge", tmp_path / "results", "--out", results)):
            with pytest.raises(SegbenchError, match="is running in"):
                run(*arguments)
    assert run("check", "--out", results).exit_code == 1


def test_merge_and_export(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    merged = run("merge", results, "--out", out, "--no-artifacts", "--format", "json")
    assert json.loads(merged.stdout) == [
        {"source": str(results), "new_attempts": 3, "already_there": 0, "run_finished_before": 0, "unreadable": 0}
    ]
    assert query(ResultsFolder(out), "select count(*) from accuracy").item() == 3
    exported = run("export", "--parquet", tmp_path / "tables", "--out", out, "--format", "csv")
    assert f"{tmp_path}/tables/accuracy.parquet,3" in exported.output.splitlines()


def test_a_url_is_a_results_folder_for_every_reader(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segbench.engine.results import mirror as remote

    url = f"file://{tmp_path}/bucket"
    here = ResultsFolder(results, url)
    for attempt in here.recorded():
        remote.push_attempt(attempt)
    remote.push_store(StoreWriter(here))
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "other machine"))
    asked = CliRunner().invoke(app, ["sql", "select count(*) as n from accuracy", "--out", url, "--format", "csv"])
    assert asked.output == "n\n3\n"
    status = CliRunner().invoke(app, ["grid", "status", "--out", url, "--format", "json"])
    assert {row["status"] for row in json.loads(status.stdout)} == {"done"}
    assert run("check", "--out", url).exit_code == 0
    assert run("merge", url, "--out", tmp_path / "merged").exit_code == 0
    assert query(ResultsFolder(tmp_path / "merged"), "select count(*) from attempts").item() == 3
    with pytest.raises(SegbenchError, match="name a folder"):
        run("merge", url, "--out", url)


def test_mistakes(tmp_path: Path, results: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (("check", "--out", tmp_path / "no"), "no results in"),
        (("repair", "--out", tmp_path / "no"), "no results folder"),
        (("repair", "--out", tmp_path), "no records in"),
        (("merge", tmp_path / "no", "--out", tmp_path / "all"), "no results folder"),
        (("merge", results, "--out", tmp_path / "file"), "is a file"),
        (("merge", results, "--out", tmp_path / "all", "--link", "--no-artifacts"), "exclude each other"),
    ):
        with pytest.raises(SegbenchError, match=words) as caught:
            run(*arguments)
        assert "\n" not in str(caught.value)
