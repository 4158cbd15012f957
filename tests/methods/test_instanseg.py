"""InstanSeg learns to find discs, predicts the same from what it saved, and goes on where it was killed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.run import environments
from segbench.engine.run.check import check_method, draw_discs
from segbench.methods import Arrays, Budget, Devices, ImageStack, Job, PredictionSet, Task
from segbench.methods.instanseg import InstanSeg
from segbench.methods.instanseg.windows import Crops

SMALL = {
    "layers": [16, 32], "crop": 64, "window": 32, "learning_rate": 5e-3, "hot_start_epochs": 6, "val_windows": 2,
    "calibration_windows": 2, "max_seeds": 200,
}  # fmt: skip
RUN_ALL = "import sys; from segbench.methods.runner import main; sys.exit(max([main([job]) for job in sys.argv[1:]]))"


def drawn(folder: Path, name: str, n: int, seed: int) -> Arrays:
    images, labels = draw_discs(n, seed=seed)
    np.save(folder / f"{name}-images.npy", images)
    np.save(folder / f"{name}-labels.npy", labels)
    return Arrays(str(folder / f"{name}-images.npy"), (0,), None, str(folder / f"{name}-labels.npy"))


def job_in(folder: Path, budget: Budget, **settings: Any) -> Job:
    return Job(
        run_id="instanseg", method="segbench.methods.instanseg:InstanSeg", budget=budget, seed=1,
        output=str(folder / "run"), task=Task("discs-nuclear-1ch", "discs", ("nuclear",), "nuclear"),
        train=drawn(folder, "train", 16, 0), val=drawn(folder, "val", 4, 1),
        predict={"test": dataclasses.replace(drawn(folder, "test", 6, 2), labels=None)},
        settings={**InstanSeg.card.defaults, **SMALL, **settings}, devices=Devices(num_cpus=1),
    )  # fmt: skip


def test_an_epochs_crops_are_its_own_and_their_labels_turn_with_them(tmp_path: Path) -> None:
    stack = ImageStack(drawn(tmp_path, "train", 5, 0))
    crops = Crops(stack, [0, 2, 3], 40, lambda image: image, batch=2, steps=3, seed=4)
    first, again, other = (list(crops.epoch(n)) for n in (0, 0, 1))
    assert len(first) == 3
    for (images, labels), (images_again, _) in zip(first, again, strict=True):
        assert images.shape == (2, 1, 40, 40)
        assert labels.shape == (2, 1, 40, 40)
        assert np.array_equal(images, images_again)
        # bright stays bright: were they turned differently, discs and ground would mix
        assert images[labels > 0].mean() - images[labels == 0].mean() > 0.4
    assert not np.array_equal(first[0][0], other[0][0])
    assert next(iter(dataclasses.replace(crops, side=999).epoch(0)))[0].shape == (2, 1, 64, 64)


def test_what_it_cannot_train_on_is_refused(tmp_path: Path) -> None:
    job = job_in(tmp_path, Budget(batch_size=2, epochs=1))
    assert job.train is not None
    with pytest.raises(ValueError, match="keep_best needs validation windows and there are none: set it to false"):
        InstanSeg().load(job, ImageStack(job.train), None)
    np.save(job.train.labels or "", np.zeros((16, 64, 64), np.int32))
    with pytest.raises(ValueError, match="no training window has a cell"):
        InstanSeg().load(job, ImageStack(job.train), None)


def run(script: list[str], *arguments: Path) -> None:
    built = environments.ensure("instanseg", gpu=False)
    variables = environments.subprocess_env(built) | {"OMP_NUM_THREADS": "1"}
    command = [str(built.python), *script, *map(str, arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step, a training, and what it saved predicting again: three jobs in one process."""
    folder = tmp_path_factory.mktemp("instanseg")
    jobs = {}
    for name, budget in (("before", Budget(4, 1, steps_per_epoch=1)), ("after", Budget(4, 16, steps_per_epoch=10))):
        (folder / name).mkdir()
        jobs[name] = job_in(folder / name, budget)
    jobs["again"] = dataclasses.replace(
        jobs["after"], train=None, val=None, model=f"{folder}/after/run/model", output=f"{folder}/again/run"
    )
    for name, job in jobs.items():
        job.write(folder / f"{name}.json")
    run(["-c", RUN_ALL], *(folder / f"{name}.json" for name in jobs))
    return folder


def found(folder: Path, name: str) -> PredictionSet:
    return PredictionSet(folder / name / "run" / "predictions" / "test")


@pytest.mark.heavy
def test_it_learns_to_find_discs(folder: Path) -> None:
    truth = np.load(folder / "after" / "test-labels.npy")
    before, after = (evaluate_prediction_set(truth, found(folder, name)).pooled.ap50 for name in ("before", "after"))
    assert before < 0.1
    assert after > 0.5
    result = json.loads((folder / "after" / "run" / "result.json").read_text())
    assert (result["epochs"], result["iterations"], result["n_train_images"]) == (16, 160, 16)
    losses = [point["loss"] for point in result["history"]]
    assert losses[5] < 0.8 * losses[0]  # of the hot start, whose losses are others than those after it
    scores = found(folder, "after").scores
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert np.ptp(scores) > 0


@pytest.mark.heavy
def test_what_it_saved_predicts_the_same(folder: Path) -> None:
    after, again = found(folder, "after"), found(folder, "again")
    assert np.array_equal(after.labels, again.labels)
    assert np.allclose(after.scores, again.scores, atol=1e-5)


@pytest.mark.heavy
def test_a_training_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    job_in(tmp_path, Budget(2, 3, steps_per_epoch=2)).write(tmp_path / "job.json")
    run([str(Path(__file__).with_name("instanseg_parts.py"))], tmp_path / "job.json", tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["killed"]
    assert report["epochs"] == [2, 3]
    assert report["apart"] < 1e-6


@pytest.mark.heavy
def test_its_check_passes_with_the_published_network() -> None:
    checked = check_method("instanseg")
    assert checked.ok, checked.error
