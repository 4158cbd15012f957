"""ResNeSt and CenterMask2 learn, find every cell of a dense window, and their parts do what their sources say."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.run import environments
from segbench.engine.run.check import check_method
from segbench.errors import SegbenchError
from segbench.methods import Arrays, Budget, Devices, Job, PredictionSet, Task
from segbench.methods.detectron2 import CenterMask2, ResNeSt
from segbench.methods.planes import Normalisation

PARTS = Path(__file__).parent / "detectron2_parts.py"
SMALL: Mapping[str, Mapping[str, Any]] = {
    "resnest": {
        "backbone": "resnest14d", "width": 32, "box_units": 128, "box_convolutions": 1, "mask_convolutions": 2,
        "roi_batch": 48, "candidates_train": 500, "proposals_train": 150, "proposals_nms": 0.5,
        "deformable_groups": 0,
    },
    "centermask2": {"backbone": "ese_vovnet19b_slim", "width": 32, "roi_batch": 200, "candidates_train": 500},
}  # fmt: skip
SHORT: Mapping[str, Mapping[str, Any]] = {
    "resnest": {"train_scales": (1.0,), "test_scale": 1.0, "learning_rate": 0.04, "milestones": (0.8,)},
    "centermask2": {"train_scales": (2.0,), "test_scale": 2.0, "learning_rate": 0.02, "milestones": (0.8,)},
}


def draw_rows(n_images: int, side: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return windows (N, 1, H, W) and labels: in each side x side discs of 8 to 10 pixels, 12.8 pixels apart."""
    rng = np.random.default_rng(seed)
    size = round(12.8 * side)
    rows, columns = np.mgrid[:size, :size]
    labels = np.zeros((n_images, size, size), np.int32)
    for n in range(n_images):
        for cell in range(side * side):
            y, x = (12.8 * (np.array(divmod(cell, side)) + 0.5)) + rng.uniform(-0.8, 0.8, 2)
            labels[n][np.hypot(rows + 0.5 - y, columns + 0.5 - x) < rng.uniform(4, 5)] = cell + 1
    noisy = np.where(labels > 0, 0.7, 0.15)[:, np.newaxis] + rng.normal(0, 0.05, (n_images, 1, size, size))
    return noisy.clip(0, 1).astype(np.float32), labels


def arrays(folder: Path, name: str, drawn: tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]) -> Arrays:
    np.save(folder / f"{name}_x.npy", drawn[0])
    np.save(folder / f"{name}_y.npy", drawn[1])
    return Arrays(str(folder / f"{name}_x.npy"), (0,), None, str(folder / f"{name}_y.npy"))


def job_of(name: str, folder: Path, budget: Budget, predict: Mapping[str, Arrays], train: Arrays, **more: Any) -> Job:
    return Job(
        run_id=name, method=method_object(name), budget=budget, seed=1, output=str(folder / "run"),
        task=Task("t", "d", ("nuclear",), "nuclear"), train=train,
        predict={key: dataclasses.replace(value, labels=None) for key, value in predict.items()},
        settings={**get_card(name).defaults, **SMALL[name], **SHORT[name]}, **more,
    )  # fmt: skip


def run(*jobs: Path) -> list[dict[str, Any]]:
    """Run jobs one after the other in one process, for the library takes as long to import as a short training."""
    code = "import sys; from segbench.methods.runner import main; [main([job]) for job in sys.argv[1:]]"
    environment = environments.ensure("torch", gpu=False)
    variables = environments.subprocess_env(environment)
    subprocess.run([environment.python, "-c", code, *jobs], env=variables, stdout=subprocess.DEVNULL, check=False)
    return [result_of(Job.read(path)) for path in jobs]


def result_of(job: Job) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((Path(job.output) / "result.json").read_text())
    assert result["error"] is None, (Path(job.output) / "log.txt").read_text()[-3000:]
    return result


def in_the_environment(*arguments: str) -> str:
    environment = environments.ensure("torch", gpu=False)
    variables = {
        **environments.subprocess_env(environment),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    command = [str(environment.python), "-W", "ignore", str(PARTS), *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


LEARNING: Mapping[str, tuple[int, float]] = {"resnest": (80, 0.75), "centermask2": (60, 0.7)}
"""Iterations, and the AP50 to reach in a crowded window."""


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Job, dict[str, Any]]]:
    """Train small networks of both methods and predict with them; returns jobs and results."""
    jobs = {}
    for name, (iterations, _) in LEARNING.items():
        folder = tmp_path_factory.mktemp(name)
        train = arrays(folder, "train", draw_rows(16, 5, 0))
        predict = {
            "dense": arrays(folder, "dense", draw_rows(1, 20, 1)),
            "few": dataclasses.replace(train, rows=(3, 4)),
        }
        jobs[name] = job_of(name, folder, Budget(batch_size=4, iterations=iterations), predict, train)
        jobs[name].write(folder / "job.json")
    results = run(*(Path(job.output).with_name("job.json") for job in jobs.values()))
    return {name: (job, result) for (name, job), result in zip(jobs.items(), results, strict=True)}


@pytest.mark.heavy
@pytest.mark.parametrize("name", LEARNING)
def test_it_learns_and_finds_all_of_400_cells(learnt: dict[str, tuple[Job, dict[str, Any]]], name: str) -> None:
    job, result = learnt[name]
    iterations, bar = LEARNING[name]
    losses = [point["loss"] for point in result["history"]]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    assert result["iterations"] == iterations
    assert result["n_train_images"] == 16
    found = PredictionSet(Path(job.output) / "predictions" / "dense")
    scores = evaluate_prediction_set(np.load(Path(job.output).with_name("dense_y.npy")), found).pooled
    assert found.scores.size >= 400
    assert scores.ap50 > bar
    assert found.scores.max() <= 1
    assert found.scores.min() >= 0


@pytest.mark.heavy
def test_their_saved_models_predict_the_same_in_a_new_process(learnt: dict[str, tuple[Job, dict[str, Any]]]) -> None:
    before, again = {}, []
    for name, (job, _) in learnt.items():
        before[name] = PredictionSet(Path(job.output) / "predictions" / "few").scores.copy()
        assert before[name].size > 0
        again.append(Path(job.output).with_name("again.json"))
        dataclasses.replace(job, train=None, predict={"few": job.predict["few"]}).write(again[-1])
    run(*again)
    for name, (job, _) in learnt.items():
        assert np.allclose(PredictionSet(Path(job.output) / "predictions" / "few").scores, before[name], atol=1e-5)


@pytest.mark.heavy
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    train = arrays(tmp_path, "train", draw_rows(4, 5, 0))
    devices = Devices(num_cpus=2, processes=2)
    job = job_of("centermask2", tmp_path, Budget(batch_size=4, iterations=3), {"train": train}, train, devices=devices)
    job.write(tmp_path / "job.json")
    environment = environments.ensure("torch", gpu=False)
    command, variables = (
        job.command(tmp_path / "job.json", environment.python),
        environments.subprocess_env(environment),
    )
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=False)
    result = result_of(job)
    assert (result["processes"], result["iterations"], result["batch_size"]) == (2, 3, 4)
    assert len(PredictionSet(tmp_path / "run" / "predictions" / "train")) == 4


@pytest.mark.heavy
def test_the_parts_do_what_their_sources_say(tmp_path: Path) -> None:
    told = json.loads(in_the_environment(str(tmp_path)).splitlines()[-1])
    wrong = {name: problem for name, problem in told.items() if problem is not None}
    assert not wrong, "\n".join(f"{name}: {problem}" for name, problem in wrong.items())
    assert len(told) >= 16


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["resnest", "centermask2"])
def test_the_published_architecture_passes_its_check(name: str) -> None:
    checked = check_method(name)
    assert checked.ok, checked.error
    assert checked.instances is not None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"detections": 100}, "setting detections is 100; no method may be capped below 3000"),
        ({"candidates_test": 1000}, "setting candidates_test is 1000"),
        ({"backbone_norm": "none"}, "setting backbone_norm is 'none'; it is batch or frozen"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: Mapping[str, Any], said: str) -> None:
    normalisation = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(SegbenchError, match=said):
        CenterMask2().build({**CenterMask2.card.defaults, **changed}, normalisation)


def test_no_published_setting_caps_detections() -> None:
    for method in (ResNeSt, CenterMask2):
        assert method.card.defaults["detections"] == 3000
        # the check is quick by its scale and batch alone: it builds what is published
        architecture = {"backbone", "width", "box_convolutions", "mask_convolutions", "tower", "anchor_sizes"}
        assert not architecture & set(method.card.check_settings)
