"""The stages of an attempt: a model that is trained stays trained, whatever happens after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store
from segbench.engine.run import attempt as attempts
from segbench.engine.scheduler import GridRequest, LaunchOptions, Retries, launch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plugin")]
INLINE = LaunchOptions(executor="inline", cpu=True, retries=Retries(first_wait_s=0.01))
SECONDS = 0.3
"""Of training."""

Launch = Callable[[], list[tuple[Any, ...]]]


@pytest.fixture
def obstacle(tmp_path: Path) -> Path:
    """Return a file whose content says how prediction fails while it is there."""
    return tmp_path / "obstacle"


@pytest.fixture
def start(tmp_path: Path, obstacle: Path) -> Launch:
    """Return a function that launches one run of the plugin's method and returns all attempts at it."""
    register(DatasetSpec("stages", "synthetic", None, {"layout": "livecell", "seed": 9, "scale": 0.01}))
    settings = {"threshold": {"seconds": SECONDS, "obstacle": str(obstacle)}}
    grid = {"methods": ["threshold"], "tasks": ["stages-wholecell"], "tissues": ["BV2"], "settings": settings}
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps(grid))

    def start() -> list[tuple[Any, ...]]:
        launch(GridRequest(grid_file=path), ResultsFolder(tmp_path), INLINE)
        return query(
            ResultsFolder(tmp_path), "select attempt, status, trained_in from attempts order by attempt"
        ).rows()

    return start


def stages(out: Path) -> list[tuple[Any, ...]]:
    """Return the stages that the store has."""
    return query(
        ResultsFolder(out), "select attempt, stage, number, status, at_once from stages order by started_at"
    ).rows()


def trained_s(out: Path) -> float:
    """Return T of the finished run."""
    return float(query(ResultsFolder(out), "select train_s from timings").item())


def trainings(out: Path) -> int:
    """Return how often the method trained, by the logs of all attempts."""
    return sum(log.read_text().count("training\n") for log in out.glob("runs/*/attempt-*/log.txt"))


def test_out_of_memory_in_prediction_is_tried_again_alone_and_the_training_counts_once(
    start: Launch, obstacle: Path, tmp_path: Path
) -> None:
    obstacle.write_text("memory")
    assert start() == [(1, "done", None)]
    # two windows, then one in the same process, then one in a fresh one
    assert stages(tmp_path) == [
        (1, "train", 1, "done", None),
        (1, "predict", 1, "out-of-memory", None),
        (1, "predict", 2, "done", 1),
        (1, "evaluate", 1, "done", None),
    ]
    assert trainings(tmp_path) == 1
    assert SECONDS <= trained_s(tmp_path) < 2 * SECONDS
    assert query(ResultsFolder(tmp_path), "select load_train_s = load_s + train_s from timings").item()
    assert query(ResultsFolder(tmp_path), "select count(*) from phases where phase = 'train'").item() == 1
    assert query(ResultsFolder(tmp_path), "select loss is not null from history").item()
    (log,) = tmp_path.glob("runs/*/attempt-001/stages/predict/log.txt")
    assert "out of memory with 2 windows at once, going on with 1" in log.read_text()
    assert check_store(ResultsFolder(tmp_path)).faults == ()


@pytest.mark.parametrize("recorded", [True, False])
def test_the_next_attempt_takes_up_the_model_of_one_that_failed_or_was_cut_off(
    start: Launch, obstacle: Path, tmp_path: Path, recorded: bool
) -> None:
    obstacle.write_text("raise" if recorded else "kill")
    assert start() == [(1, "failed", None)]
    assert [row[1:4] for row in stages(tmp_path)] == [
        ("train", 1, "done"),
        ("predict", 1, "failed"),
        ("predict", 2, "failed"),
    ]
    error = query(ResultsFolder(tmp_path), "select error from attempts").item()
    assert ("told to fail in prediction" if recorded else "killed by SIGKILL") in error
    before = trainings(tmp_path)
    if not recorded:  # as a launch that was killed leaves it
        (tmp_path / "results.duckdb").unlink()
        next(tmp_path.glob("runs/*/attempt-001/record.json")).unlink()
    obstacle.unlink()
    assert start() == [*([(1, "failed", None)] if recorded else []), (2, "done", 1)]
    assert (before, trainings(tmp_path)) == (1, 1)
    assert [row[1:4] for row in stages(tmp_path) if row[0] == 2] == [("predict", 1, "done"), ("evaluate", 1, "done")]
    assert SECONDS <= trained_s(tmp_path) < 2 * SECONDS
    (marker,) = tmp_path.glob("runs/*/attempt-001/model/model.json")
    assert json.loads(marker.read_text())["timings"]["train"] == trained_s(tmp_path)


def test_a_training_whose_calibration_failed_is_taken_up_by_the_next_attempt(
    start: Launch, obstacle: Path, tmp_path: Path
) -> None:
    failing = obstacle.with_name("obstacle-calibrating")
    failing.touch()
    assert start() == [(1, "failed", None)]
    failing.unlink()
    assert start() == [(1, "failed", None), (2, "done", None)]
    assert trainings(tmp_path) == 1
    assert SECONDS <= trained_s(tmp_path) < 2 * SECONDS
    assert check_store(ResultsFolder(tmp_path)).faults == ()


def test_predictions_that_could_not_be_scored_are_scored_by_the_next_attempt(
    start: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, calls = attempts.score, []

    def once_too_large(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise MemoryError
        return score(*given)

    monkeypatch.setattr(attempts, "score", once_too_large)
    assert start() == [(1, "out-of-memory", None), (2, "done", 1)]
    assert [(row[0], *row[1:4]) for row in stages(tmp_path)] == [
        (1, "train", 1, "done"),
        (1, "predict", 1, "done"),
        (1, "evaluate", 1, "out-of-memory"),
        (2, "evaluate", 1, "done"),
    ]
    assert not list(tmp_path.glob("runs/*/attempt-002/progress.jsonl")), "no process of the method was started"
    assert query(ResultsFolder(tmp_path), "select count(*) from evaluations").item() > 0


def test_a_hand_made_change_in_a_finished_attempt_is_found(start: Launch, tmp_path: Path) -> None:
    assert start() == [(1, "done", None)]
    out = ResultsFolder(tmp_path)
    assert check_store(out).faults == ()
    (folder,) = tmp_path.glob("runs/*/attempt-001")
    hashed = json.loads((folder / "record.json").read_text())["files"]
    assert {"job.json", "result.json", "log.txt", "model/value.npy", "predictions/test/labels.npy"} < set(hashed)
    with (folder / "predictions" / "test" / "scores.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    (folder / "model" / "value.npy").unlink()
    (fault,) = check_store(out).faults
    assert (fault.kind, fault.attempt) == ("changed", 1)
    assert fault.detail == "model/value.npy is gone, predictions/test/scores.npy was changed"
    assert check_store(out, files=False).faults == ()
    for path in folder.iterdir():  # merged without artifacts
        if path.name != "record.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = check_store(out)
    assert (found.faults, found.elsewhere) == ((), 1)
