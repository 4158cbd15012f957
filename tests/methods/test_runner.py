"""The runner, as a person at a prompt and as the engine meets it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, Checkpoints, Devices, Job, PredictionSet, Task

MakeJob = Callable[..., Path]


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """Return a function that writes a job of the toy method; ``do`` is its behaviour, the rest changes the job."""
    images, labels = draw_discs(4)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    arrays = Arrays(str(tmp_path / "x.npy"), (0,), None, str(tmp_path / "y.npy"))

    def make(do: str = "well", **changes: Any) -> Path:
        job = Job(
            run_id="r1", method="toy:Toy", task=Task("t", "d", ("nuclear",), "nuclear"),
            budget=Budget(batch_size=2, epochs=3), seed=5, output=str(tmp_path / "run"), train=arrays,
            predict={"test": dataclasses.replace(arrays, rows=(2, 0), labels=None)}, settings={"do": do},
            devices=Devices(num_cpus=1),
        )  # fmt: skip
        path = tmp_path / "job.json"
        dataclasses.replace(job, **changes).write(path)
        return path

    return make


def start(job: Path, **options: Any) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "segbench.methods", str(job)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def run(job: Path) -> tuple[int, str, str]:
    process = start(job)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def result(job: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((job.parent / "run" / "result.json").read_text())
    return content


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_job_runs_by_hand_and_leaves_a_whole_result(make_job: MakeJob) -> None:
    job = make_job()
    code, out, err = run(job)
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["phase"] for line in lines] == [
        "import", "load", "train", "train", "train", "train", "calibrate", "save", "predict", "predict",
    ]  # fmt: skip
    assert lines[3].items() >= {"epoch": 1, "epochs": 3, "loss": 1.0}.items()
    assert (job.parent / "run" / "progress.jsonl").read_text() == out

    found = result(job)
    assert found["status"] == "done"
    assert found["error"] is None
    assert set(found["timings"]) == {"import", "load", "train", "calibrate", "save", "predict"}
    assert all(seconds >= 0 for seconds in found["timings"].values())
    assert found["versions"]["numpy"] == np.__version__
    assert {"python", "scipy"} < set(found["versions"])
    assert found["n_train_images"] == 4
    assert found["n_train_cells"] == sum(labels.max() for labels in np.load(job.parent / "y.npy"))
    assert (found["epochs"], found["iterations"], found["batch_size"], found["n_parameters"]) == (3, 6, 2, 1)
    assert found["step_s"] > 0
    assert [point["loss"] for point in found["history"]] == [1, 0.5, pytest.approx(1 / 3)]
    assert 10e6 < found["peak_memory_bytes"] < 1e9
    assert found["peak_gpu_memory_bytes"] is None
    assert found["gpu_names"] == []

    predictions = PredictionSet(job.parent / "run" / "predictions" / "test")
    truth = np.load(job.parent / "y.npy")[[2, 0]] > 0
    assert np.mean((np.stack([each.labels for each in predictions]) > 0) == truth) > 0.98
    assert predictions.scores.tolist() == [0.5, 0.5]


def test_what_the_method_and_its_children_print_goes_to_the_log(make_job: MakeJob) -> None:
    job = make_job()
    run(job)
    assert (job.parent / "run" / "log.txt").read_text() == "threads 1 PASSIVE\na child wrote this\n"


def test_thread_counts_are_set_before_numpy_is_loaded() -> None:
    code = "import sys, segbench.methods.runner; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_finished_model_predicts_without_training(make_job: MakeJob) -> None:
    job = make_job()
    run(job)
    first = PredictionSet(job.parent / "run" / "predictions" / "test").labels.copy()
    job = make_job(train=None)
    assert run(job)[0] == 0
    assert np.array_equal(PredictionSet(job.parent / "run" / "predictions" / "test").labels, first)
    assert result(job)["timings"]["train"] is None
    (job.parent / "run" / "model" / "model.json").unlink()
    assert run(job)[0] == 1
    assert "holds no finished model" in result(job)["error"]


def test_a_training_whose_calibration_failed_is_not_done_again(make_job: MakeJob) -> None:
    job = make_job("fail to calibrate")
    folder = job.parent / "run"
    assert run(job)[0] == 1
    first = result(job)
    assert first["error"] == "ValueError: the toy cannot calibrate"
    assert not (folder / "model").exists()
    (folder / "mended").touch()
    code, out, _ = run(job)
    assert code == 0
    assert {"load", "restore", "calibrate", "save"} < {json.loads(line)["phase"] for line in out.splitlines()}
    assert '"train"' not in out
    second = result(job)
    assert second["timings"]["train"] == second["resumed_after_s"] == first["timings"]["train"]
    assert (second["history"], second["step_s"]) == (first["history"], first["step_s"])
    assert (folder / "model" / "threshold.txt").is_file()
    assert not (folder / "trained").exists()


def test_an_uncalibrated_model_of_other_settings_is_left_alone(make_job: MakeJob) -> None:
    job = make_job("fail to calibrate")
    run(job)
    job = make_job()
    assert '"train"' in run(job)[1]
    assert result(job)["resumed_after_s"] is None


@pytest.mark.parametrize(
    ("do", "kind", "error"),
    [
        ("raise", "failed", "ValueError: the toy broke"),
        ("nan", "diverged", "DivergedError: the training loss is nan after step 3 (epoch 1)"),
        ("memory", "out-of-memory", "MemoryError:"),
    ],
)
def test_a_failing_method_says_how_it_failed(make_job: MakeJob, do: str, kind: str, error: str) -> None:
    job = make_job(do)
    assert run(job)[0] == 1
    found = result(job)
    assert (found["status"], found["error_kind"], found["error"]) == ("failed", kind, error)
    assert found["timings"]["train"] is not None
    assert found["timings"]["predict"] is None
    assert "Traceback" in (job.parent / "run" / "log.txt").read_text()
    assert not (job.parent / "run" / "model" / "model.json").exists()


def mark(job: Path, stage: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((job.parent / "run" / "stages" / stage / "mark.json").read_text())
    return content


def test_each_stage_leaves_its_mark_its_time_and_its_part_of_the_log(make_job: MakeJob) -> None:
    job = make_job("fail to predict")
    assert run(job)[0] == 1
    train, predict = mark(job, "train"), mark(job, "predict")
    assert (train["status"], train["error"]) == ("done", None)
    assert (predict["status"], predict["error"]) == ("failed", "ValueError: the toy cannot predict")
    assert train["seconds"] > result(job)["timings"]["train"]
    logs = [(job.parent / "run" / "stages" / name / "log.txt").read_text() for name in ("train", "predict")]
    assert "a child wrote this" in logs[0]
    assert "Traceback" not in logs[0]
    assert logs[1].startswith("Traceback")
    assert "".join(logs) == (job.parent / "run" / "log.txt").read_text()


def test_out_of_memory_in_prediction_halves_what_goes_through_the_network_at_once(make_job: MakeJob) -> None:
    arrays = dataclasses.replace(Job.read(make_job()).predict["test"], rows=(3, 0, 2, 1))
    job = make_job(predict={"test": arrays})
    assert run(job)[0] == 0
    whole = PredictionSet(job.parent / "run" / "predictions" / "test").labels.copy()
    assert run(make_job("memory in prediction", predict={"test": arrays}))[0] == 0
    # four do not fit, nor do the last two together: the first two were not predicted again
    assert mark(job, "predict-2")["at_once"] == 1
    log = (job.parent / "run" / "stages" / "predict-2" / "log.txt").read_text()
    assert log.count("out of memory") == 2
    assert np.array_equal(PredictionSet(job.parent / "run" / "predictions" / "test").labels, whole)


def test_a_recorded_attempt_is_not_run_again(make_job: MakeJob) -> None:
    job = make_job()
    run(job)
    (job.parent / "run" / "record.json").write_text("{}")
    before = {path: path.read_bytes() for path in (job.parent / "run").rglob("*") if path.is_file()}
    code, _, err = run(job)
    assert (code, err.count("\n")) == (2, 1)
    assert "holds a recorded attempt" in err
    assert before == {path: path.read_bytes() for path in (job.parent / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("{", "is not JSON"),
        ('{"schema": 99}', "field 'schema' is 99"),
        ('{"schema": 1}', "field 'task' is missing"),
    ],
)
def test_a_bad_job_file_ends_in_one_line_and_status_2(tmp_path: Path, content: str | None, said: str) -> None:
    job = tmp_path / "job.json"
    if content is not None:
        job.write_text(content)
    code, out, err = run(job)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_a_killed_run_leaves_nothing_that_looks_finished(make_job: MakeJob) -> None:
    job = make_job("sleep")
    run(make_job())  # an earlier run of the same job: its result must not outlive the start of the next
    make_job("sleep")
    process = start(job, start_new_session=True)
    try:
        progress = job.parent / "run" / "progress.jsonl"
        stale = job.parent / "run" / "result.json"
        assert wait_for(lambda: not stale.exists() and progress.exists() and "loss" in progress.read_text())
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (job.parent / "run" / "result.json").exists()


def test_sigterm_ends_a_run_at_once(make_job: MakeJob) -> None:
    job = make_job("sleep")
    process = start(job, start_new_session=True)
    try:
        assert wait_for(lambda: (job.parent / "run" / "progress.jsonl").exists())
        process.terminate()
        assert process.wait(timeout=5) == -signal.SIGTERM
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the child it left behind


def test_the_death_of_the_parent_ends_the_run_and_its_children(make_job: MakeJob) -> None:
    code = (
        "import os, subprocess, sys, json, pathlib\n"
        "path = pathlib.Path(sys.argv[1]); job = json.loads(path.read_text()); job['parent_pid'] = os.getpid()\n"
        "path.write_text(json.dumps(job))\n"
        "child = subprocess.Popen([sys.executable, '-m', 'segbench.methods', str(path)], start_new_session=True)\n"
        "print(child.pid, flush=True); child.wait()"
    )
    job = make_job("sleep")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, "-c", code, str(job)], env=env, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    runner = psutil.Process(int(parent.stdout.readline()))
    assert wait_for(lambda: len(runner.children()) == 1)
    family = [runner, *runner.children()]
    parent.kill()
    parent.wait()
    assert wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))


def test_an_engines_job_file_can_be_run_again_by_hand(make_job: MakeJob) -> None:
    job = make_job(parent_pid=2**22 + 1)  # the engine that wrote it has gone
    assert run(job)[0] == 0


def test_a_killed_training_goes_on_from_its_checkpoint_and_its_seconds_are_summed(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job("die", checkpoints=str(tmp_path / "checkpoint"), checkpoint_every_s=0.0)
    assert run(job)[0] == 9
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert state["train_s"] > 0.2
    assert run(job)[0] == 0
    done = result(job)
    assert done["resumed_after_s"] == state["train_s"]
    assert done["timings"]["train"] > state["train_s"] + 0.2, "the second attempt trained one more epoch"
    assert [point["epoch"] for point in done["history"]] == [1, 2, 3], "each epoch once"
    assert not (tmp_path / "checkpoint").exists()


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "kept", 0.0)
    kept.begin()
    with kept.writing() as folder:
        (folder / "weights").write_text("first")
    with pytest.raises(OSError, match="disk full"), kept.writing() as folder:  # noqa: PT012
        (folder / "weights").write_text("half")
        raise OSError("disk full")
    found = Checkpoints(tmp_path / "kept").latest()
    assert found is not None
    assert (found / "weights").read_text() == "first"
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize("how", ["mark cut", "mark of numbers", "file cut", "file changed", "folder gone"])
def test_a_broken_checkpoint_is_dropped_with_a_word_and_the_one_before_it_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    kept = Checkpoints(tmp_path / "kept", 0.0)
    kept.begin([{"epoch": 1, "step": None, "loss": 0.5, "val_loss": None}])
    for text in ("first", "second", "third"):
        with kept.writing() as folder:
            (folder / "weights").write_text(text)
    assert len(list((tmp_path / "kept").glob("state-*"))) == 2
    mark = tmp_path / "kept" / "state.json"
    newest = tmp_path / "kept" / json.loads(mark.read_text())["folder"]
    if how == "mark cut":
        mark.write_bytes(mark.read_bytes()[:10])
    elif how == "mark of numbers":
        mark.write_text("5")
    elif how == "file cut":
        (newest / "weights").write_text("th")
    elif how == "file changed":
        (newest / "weights").write_text("thirD")
    else:
        shutil.rmtree(newest)
    again = Checkpoints(tmp_path / "kept", 0.0)
    found = again.latest()
    assert found is not None
    assert (found / "weights").read_text() == "second"
    assert "dropped the checkpoint" in capsys.readouterr().err
    again.begin()
    with again.writing() as folder:
        (folder / "weights").write_text("fourth")
    last = Checkpoints(tmp_path / "kept").latest()
    assert last is not None
    assert (last / "weights").read_text() == "fourth"
    for path in (tmp_path / "kept").glob("*.json"):
        path.write_text("{")
    assert Checkpoints(tmp_path / "kept").latest() is None
