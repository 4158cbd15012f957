"""Finished runs predicted and scored again: new rows that say so, and nothing of the runs changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.errors import SegbenchError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plugin")]


def runs(*arguments: object, status: int = 0) -> list[dict[str, Any]]:
    """Run a command of ``segbench runs`` and return its rows."""
    given = ["runs", *map(str, arguments), "--format", "json"]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == status, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def files(folder: Path) -> dict[Path, bytes]:
    """Return every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_scored_and_predicted_again_beside_what_it_has(tmp_path: Path) -> None:
    register(DatasetSpec("again", "synthetic", None, {"layout": "livecell", "seed": 9, "scale": 0.01}))
    grid = GridRequest.of(grid={"methods": ["threshold"], "tasks": ["again-wholecell"], "tissues": ["BV2"]})
    out = ResultsFolder(tmp_path)
    ((run,), _) = launch(grid, out, LaunchOptions(executor="inline", cpu=True))
    first = files(tmp_path / "runs" / run.id)
    scores = "select test_tissue, operation, radius, map, ap50, n_predictions from evaluations where run_id = ?"
    shown = query(out, "select * from accuracy"), query(out, "select * from leaderboard")

    (scored,) = runs("evaluate", run.id[:6], "--out", tmp_path)
    assert (scored["of_run"], scored["stage"], scored["status"]) == (run.id, "evaluate", "done")
    assert query(out, scores, [scored["run_id"]]).equals(query(out, scores, [run.id]))
    (predicted,) = runs("predict", "--all", "--set", "over=0.2", "--out", tmp_path)
    assert (predicted["of_run"], predicted["stage"], predicted["status"]) == (run.id, "predict", "done")
    counts = [query(out, scores, [run_id])["n_predictions"].sum() for run_id in (run.id, predicted["run_id"])]
    assert counts[0] != counts[1]

    assert files(tmp_path / "runs" / run.id) == first
    rows = query(out, "select stage, of_run, of_attempt, settings->>'over' as over from runs_again order by started_at")
    assert rows.rows() == [("evaluate", run.id, 1, "0.0"), ("predict", run.id, 1, "0.2")]
    # what stands beside a run is no run of the grid, and trained nothing
    assert query(out, "select * from accuracy").equals(shown[0])
    assert query(out, "select * from leaderboard").equals(shown[1])
    assert query(out, "select count(*) from phases where phase = 'train'").item() == 1
    assert [row[0] for row in query(out, "select stage from stages order by started_at").rows()] == [
        "train", "predict", "evaluate", "evaluate", "predict", "evaluate",
    ]  # fmt: skip
    assert launch(grid, out, LaunchOptions(executor="inline", cpu=True))[1] is None
    assert check_store(out).faults == ()

    with pytest.raises(SegbenchError, match=r"margin of threshold decides what is trained.*of prediction are over"):
        runs("predict", run.id, "--set", "margin=0.2", "--out", tmp_path)
    with pytest.raises(SegbenchError, match="name runs by their ids, or all"):
        runs("evaluate", "--out", tmp_path)
    (tmp_path / "runs" / run.id / "attempt-001" / "model" / "model.json").unlink()
    (row,) = runs("predict", run.id, "--out", tmp_path, status=1)
    assert "the model of run" in row["error"]
