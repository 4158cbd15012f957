"""Grids on a real Ray: what ends well, what is killed, what is launched again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from segbench.engine.grid import BudgetChange, Filters, ResourceChange
from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.status import grid_status, request_cancel
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.engine.scheduler import (
    Event,
    Finished,
    GridRequest,
    LaunchOptions,
    Note,
    Progressed,
    Started,
    Summary,
    launch,
    plan,
)
from segbench.errors import SegbenchError

TASK = "synthetic-nuclear-1ch"
RAY = {"num_cpus": 2}
pytestmark = pytest.mark.usefixtures("local_ray")


def grid_file(folder: Path, **changes: Any) -> Path:
    """Write a grid file of the plugin's method, and return its path."""
    content = {"methods": ["threshold"], "tasks": [TASK], **changes}
    path = folder / f"grid-{len(list(folder.glob('grid-*')))}.yaml"
    path.write_text(json.dumps(content))
    return path


def run_grid(out: Path, path: Path, observed: list[Event] | None = None, **options: Any) -> Summary | None:
    """Launch a grid file into ``out``."""
    events = observed if observed is not None else []
    return launch(GridRequest(grid_file=path), ResultsFolder(out), LaunchOptions(cpu=True, **options), events.append)[1]


@pytest.mark.usefixtures("plugin")
def test_a_grid_runs_is_recorded_and_is_not_run_again(tmp_path: Path) -> None:
    out, events = tmp_path / "out", []
    path = grid_file(tmp_path, tissues=["all", "Breast"])
    summary = run_grid(out, path, events)
    assert summary is not None
    assert [outcome.status for outcome in summary.outcomes] == [Status.DONE] * 2
    assert {type(event) for event in events} >= {Started, Finished}

    attempts = query(ResultsFolder(out), "select * from attempts").to_dicts()
    assert len(attempts) == 2
    by_tissue = {row["train_tissue"]: row for row in attempts}
    assert by_tissue["all"]["n_train_images"] > by_tissue["Breast"]["n_train_images"] > 0
    for row in attempts:
        assert row["n_train_cells"] > 0
        assert row["versions"]
        assert row["peak_memory_bytes"] > 1e6
        assert row["host"]
        assert row["git_commit"]
        assert row["lock_hash"]
        assert json.loads(row["settings"]).items() >= {"seconds": 0.0, "fail": "", "margin": 0.1}.items()
        assert (out / row["folder"] / "examples.npz").exists()
    phases = set(query(ResultsFolder(out), "select distinct phase from phases")["phase"])
    assert phases == {
        "wait",
        "data",
        "environment",
        "import",
        "load",
        "train",
        "calibrate",
        "save",
        "predict",
        "evaluate",
    }
    sql = "select test_tissue, sum(n_truth) as cells from accuracy where task = test_task group by test_tissue"
    tested = query(ResultsFolder(out), sql)
    assert tested.height == 11
    pooled = tested.filter(test_tissue="all")["cells"].item()
    assert pooled == tested.filter(tested["test_tissue"] != "all")["cells"].sum() > 0

    # a model of all tissues is applied to the other modality, and its nuclei are dilated against whole cells
    sql = (
        "select train_tissue, test_task, operation, count(distinct radius), count(*) "
        "from accuracy group by all order by all"
    )
    other = "synthetic-wholecell-1ch"
    assert query(ResultsFolder(out), sql).rows() == [
        ("Breast", TASK, "none", 1, 11),
        ("all", TASK, "none", 1, 11),
        ("all", other, "dilate", 21, 21 * 11),
        ("all", other, "none", 1, 11),
    ]

    sql = "select n_truth, n_predictions from cell_metrics where task = test_task and test_tissue = 'all'"
    assert set(query(ResultsFolder(out), sql).rows()) <= set(
        query(ResultsFolder(out), "select n_truth, n_predictions from evaluations").rows()
    )

    assert run_grid(out, path) is None
    assert query(ResultsFolder(out), "select count(*) from attempts").item() == 2
    assert {planned.status for planned in plan(GridRequest(grid_file=path), ResultsFolder(out))} == {"done"}
    status = grid_status(ResultsFolder(out))
    assert (status.driven, dict(status.counts())) == (False, {"done": 2})


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("fail", "status", "words"),
    [
        ("raise", Status.FAILED, "told to fail"),
        ("memory", Status.OUT_OF_MEMORY, "told to run out"),
        ("nan", Status.DIVERGED, "nan"),
        ("exit", Status.FAILED, "status 7"),
    ],
)
def test_a_method_that_fails_is_recorded_with_its_reason(tmp_path: Path, fail: str, status: Status, words: str) -> None:
    summary = run_grid(tmp_path, grid_file(tmp_path, settings={"threshold": {"fail": fail}}))
    assert summary is not None
    row = query(ResultsFolder(tmp_path), "select status, error from attempts").row(0)
    assert row[0] == summary.outcomes[0].status == status
    assert words in row[1].lower()
    assert query(ResultsFolder(tmp_path), "select count(*) from evaluations").item() == 0
    # it has no result, so it is run again, as a new attempt
    assert run_grid(tmp_path, tmp_path / "grid-0.yaml") is not None
    assert query(ResultsFolder(tmp_path), "select max(attempt) from attempts").item() == 2


@pytest.mark.usefixtures("plugin")
def test_a_run_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    summary = run_grid(tmp_path, grid_file(tmp_path, settings={"threshold": {"seconds": 60}}), timeout_s=3)
    assert summary is not None
    assert summary.outcomes[0].status is Status.TIMEOUT


@pytest.mark.usefixtures("plugin")
def test_a_killed_subprocess_fails_its_run_and_the_grid_goes_on(tmp_path: Path) -> None:
    path = grid_file(
        tmp_path,
        blocks=[
            {"methods": ["threshold"], "tasks": [TASK], "seeds": [0, 1]},
            {"methods": ["watershed"], "tasks": [TASK]},
        ],
        settings={"threshold": {"seconds": 4}},
    )  # fmt: skip
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in ("blocks", "settings")}))
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            time.sleep(0.05)
            for progress in tmp_path.glob("runs/*/attempt-001/progress.jsonl"):
                job = progress.with_name("job.json").read_text()
                if "Threshold" in job and '"train"' in progress.read_text():
                    killed.append(method_process(progress.parent))
                    os.kill(killed[0], signal.SIGKILL)
                    return

    killer = threading.Thread(target=kill)
    killer.start()
    summary = run_grid(tmp_path, path)
    killer.join(timeout=10)
    assert summary is not None
    assert sorted(outcome.status for outcome in summary.outcomes) == [Status.DONE, Status.DONE, Status.FAILED]
    row = query(ResultsFolder(tmp_path), "select error, log_tail from attempts where status = 'failed'").row(0)
    assert "SIGKILL" in row[0]


def method_process(folder: Path) -> int:
    """Return the id of the process that runs the job of an attempt's folder."""
    for process in psutil.process_iter(["cmdline"]):
        if process.info["cmdline"] and process.info["cmdline"][-1] == str(folder / "job.json"):
            return int(process.pid)
    raise AssertionError(f"no process runs {folder}")


DRIVER = textwrap.dedent(
    """
    import pathlib, sys
    from segbench.engine.results.folder import ResultsFolder
    from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
    launch(GridRequest(grid_file=pathlib.Path(sys.argv[1])),
           ResultsFolder.open(sys.argv[2]), LaunchOptions(cpu=True, num_cpus=2))
    """
)


@pytest.mark.usefixtures("plugin")
def test_a_record_that_a_method_writes_before_it_kills_its_worker_is_not_believed(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    perfect = make_record(ap50=1.0).model_dump(mode="json", exclude={"digest"})
    (tmp_path / "obstacle-record").write_text(json.dumps(perfect))
    settings = {"threshold": {"fail": "forge", "obstacle": str(tmp_path / "obstacle")}}
    summary = run_grid(tmp_path / "out", grid_file(tmp_path, tissues=["Breast"], settings=settings))
    assert summary is not None
    (outcome,) = summary.outcomes
    assert (outcome.status, outcome.attempt) == (Status.DONE, 2)
    assert outcome.ap50 is not None
    assert outcome.ap50 < 1
    attempts = query(ResultsFolder(tmp_path / "out"), "select attempt, status from attempts order by all").rows()
    assert attempts == [(1, "lost"), (2, "done")]


@pytest.mark.usefixtures("plugin")
def test_a_killed_driver_loses_no_finished_run_and_doubles_none(tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = grid_file(tmp_path, seeds=list(range(8)), settings={"threshold": {"seconds": 1.0}})
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(path), str(out)], start_new_session=True)
    try:
        wait_for(lambda: len(list(out.glob(f"runs/*/*/{RECORD_NAME}"))) >= 3, 120)
        assert ResultsFolder(out).launch.is_held()
        with pytest.raises(SegbenchError, match="another 'segbench grid launch'"):
            run_grid(out, path)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    finished = {record.parent.parent.name for record in out.glob(f"runs/*/*/{RECORD_NAME}")}
    wait_for(lambda: not ResultsFolder(out).launch.is_held(), 30)
    assert grid_status(ResultsFolder(out)).counts()["interrupted"] >= 1

    summary = run_grid(out, path)
    assert summary is not None
    rows = query(ResultsFolder(out), "select run_id, count(*) as n from attempts where status = 'done' group by run_id")
    assert rows.height == 8
    assert set(rows["n"]) == {1}
    again = {outcome.run_id for outcome in summary.outcomes}
    assert not again & finished
    first = query(ResultsFolder(out), "select run_id, attempt from attempts where status = 'done'").rows()
    assert all(attempt == 1 for run, attempt in first if run in finished)
    # what the dead driver had started is gone: nothing of this grid still runs
    wait_for(
        lambda: not any(str(out) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])), 30
    )


@pytest.mark.usefixtures("plugin")
def test_cancelling_ends_what_runs_and_keeps_what_had_finished(tmp_path: Path) -> None:
    path = grid_file(
        tmp_path,
        seeds=list(range(6)),
        settings={"threshold": {"seconds": 30}},
    )
    quick = grid_file(tmp_path)
    assert run_grid(tmp_path, quick) is not None
    events: list[Event] = []

    def cancel() -> None:
        wait_for(lambda: sum(isinstance(event, Progressed) for event in events) >= 2, 60)
        request_cancel(ResultsFolder(tmp_path))

    canceller = threading.Thread(target=cancel)
    canceller.start()
    summary = run_grid(tmp_path, path, events)
    canceller.join(timeout=10)
    assert summary is not None
    assert summary.cancelled
    statuses = dict(query(ResultsFolder(tmp_path), "select status, count(*) from runs_latest group by status").rows())
    assert statuses["done"] == 1
    assert statuses["cancelled"] >= 2
    assert any(isinstance(event, Note) and "cancelling" in event.text for event in events)
    wait_for(
        lambda: not any(str(tmp_path) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])),
        30,
    )
    with pytest.raises(SegbenchError, match="nothing to cancel"):
        request_cancel(ResultsFolder(tmp_path))


def wait_for(condition: Any, seconds: float) -> None:
    """Wait until a condition holds; fails where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.usefixtures("plugin")
def test_a_run_that_no_node_can_hold_is_refused_at_once(tmp_path: Path) -> None:
    request = GridRequest(grid_file=grid_file(tmp_path), resources=ResourceChange(memory_gb=100_000))
    with pytest.raises(SegbenchError, match="--memory-gb"):
        launch(request, ResultsFolder(tmp_path), LaunchOptions(cpu=True))
    assert query(ResultsFolder(tmp_path), "select count(*) from attempts").item() == 0


def test_what_cannot_be_run_is_said_before_anything_is(tmp_path: Path) -> None:
    for request, words in (
        (GridRequest(preset="paper", filters=Filters(methods=("stardist",))), "segbench data prepare livecell PATH"),
        (GridRequest(dataset="sinthetic"), "did you mean synthetic"),
        (GridRequest(preset="demo", dataset="synthetic"), "give one of preset, grid and dataset"),
        (GridRequest(preset="demos"), "did you mean demo"),
    ):
        with pytest.raises(SegbenchError, match=words):
            launch(request, ResultsFolder(tmp_path / "out"), LaunchOptions(cpu=True))
    assert not (tmp_path / "out").exists()


def test_the_plan_names_every_run_with_what_it_asks_for(tmp_path: Path) -> None:
    rows = [
        planned.row()
        for planned in plan(GridRequest(preset="paper", budget=BudgetChange(scale=0.5)), ResultsFolder(tmp_path))
    ]
    assert len(rows) == 138
    for row in rows:
        assert row["id"]
        assert row["status"] == "to do"
        assert row["num_gpus"] > 0
        assert row["memory_gb"] > 0
    cellpose = next(row for row in rows if row["method"] == "cellpose" and row["task"] == "tissuenet-nuclear-2ch")
    # published: 25 h standardised on one GPU
    assert cellpose["gpu_hours"] == pytest.approx(12.5)


@pytest.mark.usefixtures("plugin")
def test_a_full_disk_ends_in_one_line_and_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "small"
    out.mkdir()
    size = "size=3m"
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(out)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        path = grid_file(tmp_path, seeds=list(range(6)))
        with pytest.raises(SegbenchError, match="launch again"):
            run_grid(out, path)
        subprocess.run(["mount", "-o", "remount,size=200m", str(out)], check=True)
        assert run_grid(out, path) is not None
        rows = query(
            ResultsFolder(out), "select run_id, count(*) from attempts where status = 'done' group by run_id"
        ).rows()
        assert [n for _, n in rows] == [1] * 6
    finally:
        subprocess.run(["umount", "--lazy", str(out)], check=True)
