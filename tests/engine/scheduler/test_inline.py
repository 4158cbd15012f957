"""Grids in this process: the same results as on Ray, without Ray, and as easily followed, cancelled and tried again."""

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

import polars as pl
import pytest

from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.grid import Filters, ResourceChange
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirror import open_results
from segbench.engine.results.status import grid_status, request_cancel
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store
from segbench.engine.scheduler import (
    Event,
    Finished,
    GridRequest,
    LaunchOptions,
    Note,
    Progressed,
    Retries,
    Started,
    Summary,
    launch,
    retry,
)
from segbench.engine.scheduler.gpus import visible_gpus
from segbench.errors import SegbenchError

TINY = DatasetSpec("inline", "synthetic", None, {"layout": "livecell", "seed": 9, "scale": 0.01})
RAY = {"num_cpus": 2}
INLINE = LaunchOptions(executor="inline", cpu=True)
DEMO = GridRequest(preset="demo", filters=Filters(methods=("watershed",)))

WITHOUT_RAY = textwrap.dedent(
    """
    import sys
    from segbench.engine.results.folder import ResultsFolder
    from segbench.engine.grid import Filters
    from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
    demo = GridRequest(preset="demo", filters=Filters(methods=("watershed",)))
    _, summary = launch(demo, ResultsFolder.open(sys.argv[1]), LaunchOptions(executor="inline", cpu=True))
    print([outcome.status.value for outcome in summary.outcomes], "ray" in sys.modules)
    """
)


def request(folder: Path, **changes: Any) -> GridRequest:
    """Return the grid of the plugin's method on a small dataset; the changes are of its settings."""
    register(TINY)
    content = {"methods": ["threshold"], "tasks": ["inline-wholecell"], "tissues": ["BV2"]}
    content |= {"seeds": changes.pop("seeds", [0]), "settings": {"threshold": changes}}
    path = folder / f"grid-{len(list(folder.glob('grid-*')))}.yaml"
    path.write_text(json.dumps(content))
    return GridRequest(grid_file=path)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until a condition holds; fails where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.usefixtures("local_ray")
def test_the_demos_watershed_has_the_same_ids_and_scores_as_on_ray(tmp_path: Path) -> None:
    ray, inline = tmp_path / "ray", tmp_path / "inline"
    launch(DEMO, ResultsFolder(ray), LaunchOptions(cpu=True))
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, str(inline)], capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == "['done', 'done'] False"
    for table in ("evaluations", "images", "resamples", "tissues"):
        here, there = (query(ResultsFolder(out), f"select * from {table}").sort(pl.all()) for out in (inline, ray))
        assert here.height > 0
        assert here.equals(there), table
    facts = "select run_id, attempt, status, method, settings, dataset_fingerprint, num_cpus, num_gpus from attempts"
    assert set(query(ResultsFolder(inline), facts).rows()) == set(query(ResultsFolder(ray), facts).rows())
    # what one has done the other need not do
    assert launch(DEMO, ResultsFolder(ray), INLINE)[1] is None
    assert check_store(ResultsFolder(inline)).faults == ()


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_runs_are_done_one_after_the_other_and_seen_while_they_are(tmp_path: Path) -> None:
    events: list[Event] = []
    states: list[dict[str, Any]] = []

    def observe(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progressed):
            assert ResultsFolder(tmp_path).launch.is_held()
            states.append(ResultsFolder(tmp_path).launch.read_state())

    runs, summary = launch(request(tmp_path, seconds=3.0, seeds=[0, 1]), ResultsFolder(tmp_path), INLINE, observe)
    assert summary is not None
    assert summary.count(Status.DONE) == 2
    began_and_ended = [(type(e), e.run.id) for e in events if isinstance(e, Started | Finished)]
    assert began_and_ended == [(kind, run.id) for run in runs for kind in (Started, Finished)]
    assert any(state["running"] == {runs[1].id: 1} for state in states)
    assert (
        ResultsFolder(tmp_path).launch.read_state()["ended"],
        ResultsFolder(tmp_path).launch.read_state()["counts"],
    ) == (True, {"done": 2})
    assert not ResultsFolder(tmp_path).launch.is_held()


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_what_fails_is_tried_again_as_on_ray(tmp_path: Path) -> None:
    options = INLINE.changed(retries=Retries(failed=1, first_wait_s=0.1), timeout_s=60)
    _, summary = launch(request(tmp_path, fail="raise"), ResultsFolder(tmp_path), options)
    assert summary is not None
    assert [(one.attempt, one.status) for one in summary.outcomes] == [(2, Status.FAILED)]
    memory = tmp_path / "memory"
    asked = request(tmp_path, fail="memory above 2")
    halved = GridRequest(grid_file=asked.grid_file, budget=asked.budget.model_copy(update={"batch_size": 4}))
    launch(halved, ResultsFolder(memory), options)
    rows = query(ResultsFolder(memory), "select attempt, status, batch_size from attempts order by attempt").rows()
    assert rows == [(1, "out-of-memory", 4), (2, "done", 2)]
    slow = tmp_path / "slow"
    launch(request(tmp_path, seconds=60.0), ResultsFolder(slow), options.changed(timeout_s=2))
    assert query(ResultsFolder(slow), "select status from attempts").item() == "timeout"
    _, summary = retry(ResultsFolder(slow), [Status.TIMEOUT], INLINE.changed(timeout_s=1))
    assert summary is not None
    assert [(one.attempt, one.status) for one in summary.outcomes] == [(2, Status.TIMEOUT)]


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_method_that_writes_nonsense_or_removes_its_folder_costs_only_its_own_attempt(tmp_path: Path) -> None:
    out = ResultsFolder(tmp_path / "out")
    gone = request(tmp_path, fail="no folder", seeds=[0, 1])
    once = LaunchOptions(executor="inline", cpu=True, retries=Retries(failed=0))
    _, summary = launch(gone, out, once)
    assert summary is not None
    assert [outcome.status for outcome in summary.outcomes] == [Status.FAILED] * 2
    seen: list[Event] = []
    _, summary = launch(request(tmp_path, fail="noise"), out, once, seen.append)
    assert summary is not None
    assert [outcome.status for outcome in summary.outcomes] == [Status.DONE]
    assert all(isinstance(event.line, dict) for event in seen if isinstance(event, Progressed))
    assert check_store(out).faults == ()


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_launch_is_cancelled_from_elsewhere(tmp_path: Path) -> None:
    events: list[Event] = []
    ended: list[Summary | None] = []
    asked = request(tmp_path, seconds=60.0, seeds=[0, 1])
    launched = threading.Thread(
        target=lambda: ended.append(launch(asked, ResultsFolder(tmp_path), INLINE, events.append)[1])
    )
    launched.start()
    wait_for(lambda: any(isinstance(event, Progressed) for event in events))
    with pytest.raises(SegbenchError, match="another 'segbench grid launch'"):
        launch(asked, ResultsFolder(tmp_path), INLINE)
    request_cancel(ResultsFolder(tmp_path))
    launched.join(timeout=60)
    (summary,) = ended
    assert summary is not None
    assert summary.cancelled
    assert query(ResultsFolder(tmp_path), "select status, error from attempts").rows() == [
        ("cancelled", "cancelled while it ran")
    ]
    assert grid_status(ResultsFolder(tmp_path)).counts()["cancelled"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_ctrl_c_ends_the_run_and_leaves_its_record(tmp_path: Path) -> None:
    register(TINY)
    asked = request(tmp_path, seconds=60.0)
    command = [sys.executable, "-c", "from segbench.cli.app import main; main()", "grid", "launch", "--inline", "--cpu"]
    out = tmp_path / "out"
    process = subprocess.Popen([*command, "--grid", str(asked.grid_file), "--out", str(out)], stderr=subprocess.PIPE)
    try:
        wait_for(lambda: any("train" in path.read_text() for path in out.glob("runs/*/*/progress.jsonl")))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in told
    assert query(ResultsFolder(out), "select status from attempts").item() == "cancelled"
    (folder,) = out.glob("runs/*/attempt-001")
    running = subprocess.run(["pgrep", "-f", str(folder / "job.json")], capture_output=True, check=False)
    assert running.stdout == b""


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_launch_into_a_url_is_uploaded(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    launch(request(tmp_path), open_results(url), INLINE)
    bucket = tmp_path / "bucket"
    assert query(ResultsFolder(bucket), "select status from attempts").item() == "done"
    assert len(list(bucket.glob("runs/*/attempt-001/record.json"))) == 1
    assert json.loads((bucket / "driver.json").read_text())["ended"]


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_run_gets_whole_gpus_of_those_that_this_process_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    events: list[Event] = []
    options = LaunchOptions(executor="inline", address="auto", labels={"a": "b"})
    launch(request(tmp_path), ResultsFolder(tmp_path), options, events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("threshold asks for 0.5 of a GPU" in note and "a whole one" in note for note in notes)
    assert any("--address, --label" in note for note in notes)
    (seen,) = tmp_path.glob("runs/*/attempt-001/seen.json")
    assert json.loads(seen.read_text())["cuda"] == "5"
    assert query(ResultsFolder(tmp_path), "select num_gpus from attempts").item() == 1.0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,3"

    asked = GridRequest(grid_file=tmp_path / "grid-0.yaml", resources=ResourceChange(num_gpus=2))
    launch(asked, ResultsFolder(tmp_path / "both"), options)
    (seen,) = tmp_path.glob("both/runs/*/attempt-001/seen.json")
    assert json.loads(seen.read_text())["cuda"] == "5,3"
    more = GridRequest(grid_file=tmp_path / "grid-0.yaml", resources=ResourceChange(num_gpus=3))
    with pytest.raises(SegbenchError, match="--num-gpus 2"):
        launch(more, ResultsFolder(tmp_path / "three"), options)


@pytest.mark.parametrize(
    ("named", "devices"),
    [("", []), ("-1", []), ("0", ["0"]), ("2, GPU-8f3a", ["2", "GPU-8f3a"]), ("1,-1,2", ["1"]), ("NoDevFiles", [])],
)
def test_the_visible_gpus_are_those_that_cuda_would_use(
    monkeypatch: pytest.MonkeyPatch, named: str, devices: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == devices
