"""What a launch shows of itself: to other processes, to other machines, and after its death."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.grid import run_from_dict, run_to_dict
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.status import grid_status, launch_state, log_text
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.engine.run.memory import MemoryWatch
from segbench.engine.scheduler import GridRequest, LaunchOptions, Retries, launch, retry
from segbench.engine.scheduler.retries import again
from segbench.errors import SegbenchError

TINY = DatasetSpec("seen", "synthetic", None, {"layout": "livecell", "seed": 6, "scale": 0.01})
TASK = "seen-wholecell"
RAY = {"num_cpus": 2}


@pytest.fixture
def tiny() -> None:
    """Register a small dataset."""
    register(TINY)


def ask(*words: str) -> str:
    """Run a command and return what it printed."""
    result = CliRunner().invoke(app, ["grid", *words], env={"COLUMNS": "250"})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.usefixtures("plugin", "local_ray", "tiny")
def test_a_launch_is_seen_followed_retried_and_its_logs_are_read(tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "grid.yaml"
    blocks = [{"methods": ["threshold"], "tasks": [TASK], "tissues": ["BV2"], "seeds": [0, 1]}]
    path.write_text(json.dumps({"blocks": blocks, "settings": {"threshold": {"seconds": 6}}}))
    launched = threading.Thread(
        target=launch,
        args=(GridRequest(grid_file=path), ResultsFolder(out), LaunchOptions(cpu=True, timeout_s=300)),
    )
    launched.start()
    deadline = time.monotonic() + 120
    while not any(
        "train" in row["doing"]
        for row in (launch_state(ResultsFolder(out)).running if ResultsFolder(out).launch.state.exists() else ())
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    state = launch_state(ResultsFolder(out))
    assert state.driven
    assert state.waiting + len(state.running) == 2
    assert all(Path(row["log"]).parent.name == "attempt-001" for row in state.running)
    assert grid_status(ResultsFolder(out)).counts()["running"] == len(state.running)
    watched = ask("status", "--watch", "--out", str(out))  # until it has ended
    launched.join()
    assert "2 done" in watched
    assert "no launch runs" in watched
    assert not launch_state(ResultsFolder(out)).driven


@pytest.mark.usefixtures("plugin", "local_ray", "tiny")
def test_what_failed_is_tried_again_alone_and_its_log_is_read(tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "grid.yaml"
    blocks = [{"methods": ["threshold", "watershed"], "tasks": [TASK], "tissues": ["BV2"]}]
    path.write_text(json.dumps({"blocks": blocks, "settings": {"threshold": {"fail": "raise"}}}))
    options = LaunchOptions(cpu=True)
    launch(GridRequest(grid_file=path), ResultsFolder(out), options)
    listed = ResultsFolder(out).launch.read_grid()["runs"]
    assert json.loads(json.dumps([run_to_dict(run_from_dict(run)) for run in listed])) == listed

    assert retry(ResultsFolder(out), [Status.LOST]) == ([], None)
    runs, summary = retry(ResultsFolder(out))
    assert [run.method for run in runs] == ["threshold"]
    assert summary is not None
    assert [(one.attempt, one.status) for one in summary.outcomes] == [(2, Status.FAILED)]
    assert ResultsFolder(out).launch.read_grid()["runs"] == listed
    name = runs[0].id
    counts = dict(query(ResultsFolder(out), "select run_id, count(*) from attempts group by run_id").rows())
    assert counts.pop(name) == 2
    assert list(counts.values()) == [1]

    shown = json.loads(ask("status", "--out", str(out), "--format", "json"))
    (row,) = [row for row in shown if row["run_id"] == name]
    assert row["status"] == "failed"
    assert row["log"] == f"runs/{name}/attempt-002/log.txt"
    assert "told to fail" in ask("logs", name[:8], "--out", str(out))
    assert "told to fail" in ask("logs", name[:8], "--follow", "--attempt", "1", "--out", str(out))
    assert ask("logs", name, "--path", "--out", str(out)).strip().endswith("attempt-002/log.txt")


def test_a_launch_on_another_machine_is_seen_by_what_it_writes(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="no launch has told"):
        launch_state(ResultsFolder(tmp_path))
    ResultsFolder(tmp_path).launch.write_state({"ended": False, "counts": {"done": 3}, "waiting": 2, "running": {}})
    state = ResultsFolder(tmp_path).launch.read_state()
    assert not ResultsFolder(tmp_path).launch.is_held()  # of this machine, and nobody holds the lock
    elsewhere = {**state, "host": "another-machine"}
    ResultsFolder(tmp_path).launch.state.write_text(json.dumps(elsewhere))
    assert ResultsFolder(tmp_path).launch.is_held()
    assert launch_state(ResultsFolder(tmp_path)).line().startswith("3 done; 0 running, 2 waiting; process")
    with pytest.raises(SegbenchError, match="on another-machine"), ResultsFolder(tmp_path).launch.hold():
        pass
    os.utime(ResultsFolder(tmp_path).launch.state, (time.time() - 120, time.time() - 120))
    assert not ResultsFolder(tmp_path).launch.is_held()
    assert "no launch runs" in launch_state(ResultsFolder(tmp_path)).line()
    with ResultsFolder(tmp_path).launch.hold():
        assert ResultsFolder(tmp_path).launch.is_held()


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="nothing was run"):
        ResultsFolder(tmp_path).find_attempt("aa")
    for name in ("aa11", "aa22", "bb33"):
        for attempt in ("attempt-001", "attempt-010"):
            (tmp_path / "runs" / name / attempt).mkdir(parents=True)
    assert ResultsFolder(tmp_path).find_attempt("b").relative == "runs/bb33/attempt-010"
    assert ResultsFolder(tmp_path).find_attempt("aa1", 1).relative == "runs/aa11/attempt-001"
    for prefix, attempt, words in (
        ("aa", None, "2 runs begin with 'aa'"),
        ("c", None, "unknown run"),
        ("b", 3, "no attempt 3"),
    ):
        with pytest.raises(SegbenchError, match=words):
            ResultsFolder(tmp_path).find_attempt(prefix, attempt)
    assert list(log_text(ResultsFolder(tmp_path).attempt("bb33", 1))) == []


@pytest.mark.usefixtures("plugin")
def test_each_way_to_end_has_its_own_retries() -> None:
    from dataclasses import replace

    from segbench.engine.grid import Block, BudgetChange, Catalogue, GridSpec, expand

    spec = GridSpec(
        blocks=(Block(methods=("threshold",), tasks=("livecell-wholecell",)),), budget=BudgetChange(batch_size=5)
    )
    (run,) = expand(spec, Catalogue().with_study())
    limits = Retries(failed=1, lost=3, first_wait_s=1.0, longest_wait_s=3.0)
    waits = [again(run, Status.LOST, {Status.LOST: n}, limits) for n in (1, 2, 3, 4)]
    assert [one and one.wait_s for one in waits] == [1.0, 2.0, 3.0, None]
    assert again(run, Status.FAILED, {Status.FAILED: 1}, limits) is not None
    assert again(run, Status.FAILED, {Status.FAILED: 1}, Retries()) is None
    halved = again(run, Status.OUT_OF_MEMORY, {Status.OUT_OF_MEMORY: 1}, limits)
    assert halved is not None
    assert halved.run.budget.batch_size == 2
    assert halved.run.id == run.id
    assert again(halved.run, Status.OUT_OF_MEMORY, {Status.OUT_OF_MEMORY: 2}, limits) is None
    single = replace(run, budget=replace(run.budget, batch_size=1))
    assert again(single, Status.OUT_OF_MEMORY, {Status.OUT_OF_MEMORY: 1}, limits) is None
    for status in (Status.TIMEOUT, Status.DIVERGED, Status.CANCELLED, Status.DONE):
        assert again(run, status, {status: 1}, limits) is None


def test_a_process_that_was_killed_with_all_its_memory_in_use_ran_out_of_memory() -> None:
    watch = MemoryWatch(os.getpid())
    watch._next = 0.0
    watch.look()
    held = watch.peak_bytes
    assert held > 20e6
    assert watch.ran_out(reserved_bytes=held, killed=True)
    assert not watch.ran_out(reserved_bytes=held, killed=False)
    assert not watch.ran_out(reserved_bytes=2 * held, killed=True)


def test_pages_of_mapped_files_are_not_a_process_own_memory(tmp_path: Path) -> None:
    np.zeros(100_000_000, np.uint8).tofile(tmp_path / "windows")
    mapped = np.memmap(tmp_path / "windows", np.uint8, "r")
    peaks = []
    for use in (lambda: 0, lambda: int(mapped[::4096].sum()), lambda: np.ones(100_000_000, np.uint8)):
        watch, kept = MemoryWatch(os.getpid()), use()
        watch._next = 0.0
        watch.look()
        peaks.append(watch.peak_bytes)
        del kept
    assert abs(peaks[1] - peaks[0]) < 30e6
    assert peaks[2] - peaks[0] > 70e6
