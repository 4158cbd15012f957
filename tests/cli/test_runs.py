"""``segbench runs`` as a user types it: a run is listed, shown, and repeated for real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner, Result

from segbench.cli.app import app
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.engine.scheduler.repeat import compare, run_facts
from segbench.errors import SegbenchError

MakeRecord = Callable[..., Record]
TASK = "synthetic-nuclear-1ch"


def run(*arguments: object) -> Result:
    """Run a command of the runs; user's mistakes are raised as they are."""
    return CliRunner().invoke(app, ["runs", *map(str, arguments)], catch_exceptions=False)


def test_runs_are_listed_and_filtered(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add(
        [
            make_record("1" * 12),
            make_record("2" * 12, method="cellpose", status=Status.FAILED, error="x"),
            make_record("2" * 12, method="cellpose", attempt=2, status=Status.FAILED, error="x"),
        ]
    )
    rows = json.loads(run("list", "--out", tmp_path, "--format", "json").stdout)
    assert [(r["run_id"], r["status"], r["attempts"], r["ap50"]) for r in rows] == [
        ("2" * 12, "failed", 2, None),
        ("1" * 12, "done", 1, 0.8),
    ]
    for option, value in (("--method", "stardist"), ("--status", "done")):
        rows = json.loads(run("list", "--out", tmp_path, option, value, "--format", "json").stdout)
        assert [row["run_id"] for row in rows] == ["1" * 12]
    with pytest.raises(SegbenchError, match="did you mean done"):
        run("list", "--out", tmp_path, "--status", "dome")


def test_a_run_is_shown_by_the_beginning_of_its_id(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add(
        [
            make_record("abc1" * 3, status=Status.LOST, error="node died"),
            make_record("abc1" * 3, attempt=2, versions={"stardist": "0.9"}, git_commit="c" * 40, lock_hash="l" * 16),
            make_record("abd1" * 3),
        ]
    )
    shown = json.loads(run("show", "abc", "--out", tmp_path, "--format", "json").stdout)
    assert shown["run_id"] == "abc1" * 3
    assert shown["settings"] == {"n_rays": 32}
    assert shown["versions"] == {"stardist": "0.9"}
    assert shown["budget"] == {"batch_size": 4, "epochs": 10, "iterations": None, "steps_per_epoch": None}
    assert shown["dataset_source"]["kind"] == "synthetic"
    assert (shown["git_commit"], shown["lock_hash"], shown["host"]) == ("c" * 40, "l" * 16, "h")
    assert [(a["attempt"], a["status"], a["seconds"]) for a in shown["attempts"]] == [(1, "lost", 30), (2, "done", 30)]
    assert shown["phases"] == {"train": 20.0, "wait": 1.0}
    assert [score["ap50"] for score in shown["scores"]] == [0.8]
    table = run("show", "ABC", "--out", tmp_path).output
    assert all(words in table for words in ("n_rays", "attempts", "phases", "scores", "c" * 40))
    for prefix, words in (("ab", "2 runs begin"), ("x", "segbench runs list")):
        with pytest.raises(SegbenchError, match=words):
            run("show", prefix, "--out", tmp_path)


def test_comparing_tells_scores_and_context_apart(tmp_path: Path, make_record: MakeRecord) -> None:
    first, again = tmp_path / "a", tmp_path / "b"
    StoreWriter(ResultsFolder(first)).add([make_record(versions={"numpy": "1", "x": "1"})])
    StoreWriter(ResultsFolder(again)).add([make_record(ap50=0.83, host="other", versions={"numpy": "2", "x": "1"})])
    facts = [run_facts(ResultsFolder(out), "a") for out in (first, again)]
    repeated = compare(*facts)
    assert repeated.agrees
    assert repeated.tolerance == 0.05
    assert [d.apart for d in repeated.differences if d.metric == "ap50"] == [pytest.approx(0.03)]
    assert repeated.context == {"host": ("h", "other"), "version of numpy": ("1", "2")}
    assert not compare(*facts, tolerance=0.02).agrees
    StoreWriter(ResultsFolder(tmp_path / "c")).add([make_record(trained=False)])
    untrained = run_facts(ResultsFolder(tmp_path / "c"), "a")
    assert compare(untrained, untrained).agrees
    assert not compare(untrained, facts[1]).agrees
    StoreWriter(ResultsFolder(tmp_path / "d")).add([make_record(status=Status.FAILED, error="x")])
    assert not compare(facts[0], run_facts(ResultsFolder(tmp_path / "d"), "a"), tolerance=1).agrees


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray", "plugin")
def test_a_run_is_repeated_for_real_and_compared(tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    grid = {
        "methods": ["threshold"],
        "tasks": [TASK],
        "tissues": ["Breast"],
        "settings": {"threshold": {"margin": 0.15}},
    }
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    options = LaunchOptions(cpu=True, num_cpus=1)
    launch(GridRequest(grid_file=tmp_path / "grid.yaml"), ResultsFolder(out), options)
    run_id = query(ResultsFolder(out), "select run_id from attempts").item()
    done = run("repeat", run_id[:6], "--out", out, "--into", again, "--local-cpus", 1, "--format", "json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["agrees"]
    assert told["again_run_id"] == told["run_id"] == run_id
    assert told["scores"]
    assert all(row["apart"] == 0 for row in told["scores"])
    assert query(ResultsFolder(again), "select settings->>'margin', train_tissue from attempts").rows() == [
        ("0.15", "Breast")
    ]
    with pytest.raises(SegbenchError, match="name an empty folder"):
        run("repeat", run_id, "--out", out, "--into", again, "--local-cpus", 1)
    # a result that does not come out again ends with 1
    with duckdb.connect(ResultsFolder(out).store) as connection:
        connection.execute("update evaluations set ap50 = ap50 + 0.2 where test_tissue = 'all'")
    other = run("repeat", run_id, "--out", out, "--local-cpus", 1)
    assert other.exit_code == 1
    assert "the two do not agree: scores that count lie at most 0.2 apart" in other.output


@pytest.mark.slow
def test_a_run_without_a_result_is_not_repeated(tmp_path: Path, make_record: MakeRecord) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add([make_record(status=Status.FAILED, error="x")])
    with pytest.raises(SegbenchError, match="no result to compare with"):
        run("repeat", "aaa", "--out", tmp_path)
