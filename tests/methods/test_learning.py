"""StarDist and Cellpose learn: real libraries, real training, on drawn discs; builds environments where needed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.metrics import evaluate_labels
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, Devices, Job, PredictionSet, Task

pytestmark = pytest.mark.heavy


@dataclasses.dataclass(frozen=True)
class Short:
    """A training that a test can wait for."""

    name: str
    budget: Budget
    settings: dict[str, Any]
    size: int = 96
    """Pixels of an image's side."""
    n_train: int = 32
    n_test: int = 6
    n_channels: int = 1
    learns: bool = True
    """False for a few steps that only show that they can be taken."""


SHORT = {
    "stardist": Short(
        "stardist", Budget(batch_size=8, epochs=4, steps_per_epoch=40), {"patch_size": 64, "learning_rate": 1e-3}
    ),
    "cellpose": Short("cellpose", Budget(batch_size=8, epochs=14), {"crop": 64, "diam_mean": 14.0}, n_train=24),
    # processors without instructions for bfloat16 take many times as long for it: very few, very small steps
    "cellpose-2ch-bfloat16": Short(
        "cellpose",
        Budget(batch_size=2, epochs=1),
        {"crop": 32, "diam_mean": 12.0, "precision": "bfloat16"},
        48,
        4,
        1,
        2,
        False,
    ),
}


@pytest.fixture(scope="module", params=SHORT)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, dict[str, Any]]:
    """Train a method on drawn windows and predict others; returns the job and its result."""
    short = SHORT[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    arrays = {}
    for seed, (split, n) in enumerate({"train": short.n_train, "val": 3, "test": short.n_test}.items()):
        images, labels = draw_discs(n, short.size, short.n_channels, seed, n_discs=10)
        np.save(folder / f"{split}_x.npy", images)
        np.save(folder / f"{split}_y.npy", labels)
        channels = tuple(range(short.n_channels))
        arrays[split] = Arrays(str(folder / f"{split}_x.npy"), channels, None, str(folder / f"{split}_y.npy"))
    job = Job(
        run_id=short.name, method=method_object(short.name), budget=short.budget, seed=1, output=str(folder / "run"),
        task=Task("t", "d", ("nuclear", "membrane")[: short.n_channels], "nuclear"), train=arrays["train"],
        val=arrays["val"], predict={"test": dataclasses.replace(arrays["test"], labels=None)},
        settings={**get_card(short.name).defaults, **short.settings}, devices=Devices(num_cpus=1),
    )  # fmt: skip
    return job, run(job, folder / "job.json")


def run(job: Job, path: Path) -> dict[str, Any]:
    job.write(path)
    environment = environments.ensure(get_card(job.run_id).environment, gpu=False)
    command = [environment.python, "-m", "segbench.methods", path]
    done = subprocess.run(command, env=environments.subprocess_env(environment), stdout=subprocess.DEVNULL, check=False)
    result: dict[str, Any] = json.loads((Path(job.output) / "result.json").read_text())
    assert (done.returncode, result["error"]) == (0, None), (Path(job.output) / "log.txt").read_text()[-3000:]
    return result


def predicted(job: Job) -> PredictionSet:
    return PredictionSet(Path(job.output) / "predictions" / "test")


def test_it_learns_to_find_discs(trained: tuple[Job, dict[str, Any]], request: pytest.FixtureRequest) -> None:
    job, result = trained
    assert job.train is not None
    losses = [point["loss"] for point in result["history"] if point["loss"] is not None]
    assert np.isfinite(losses).all()
    if not SHORT[request.node.callspec.params["trained"]].learns:
        return
    assert losses[-1] < 0.5 * losses[0]
    found = list(predicted(job))
    truth = np.load(Path(job.output).parent / "test_y.npy")
    scores = evaluate_labels(list(truth), [f.labels for f in found], [f.scores for f in found]).pooled
    assert scores.ap50 > 0.9
    everything = np.concatenate([f.scores for f in found])
    assert everything.min() >= 0
    assert everything.max() <= 1
    assert np.ptp(everything) > 0


def test_its_result_tells_what_ran(trained: tuple[Job, dict[str, Any]]) -> None:
    job, result = trained
    card = get_card(job.run_id)
    pins = environments.lock_versions(card.environment)
    assert {library: result["versions"][library] for library in card.libraries} == {
        library: pins[library] for library in card.libraries
    }
    assert job.train is not None
    assert result["n_train_images"] == len(np.load(job.train.images))
    assert result["n_train_cells"] == sum(
        int(labels.max()) for labels in np.load(Path(job.output).parent / "train_y.npy")
    )
    assert result["epochs"] == job.budget.epochs
    steps = job.budget.steps_per_epoch or result["n_train_images"] // job.budget.batch_size
    assert result["iterations"] == (job.budget.epochs or 0) * steps
    assert result["n_parameters"] > 1e6
    assert any(point["val_loss"] for point in result["history"])
    assert result["timings"]["train"] > 0.1
    assert not (Path(job.output) / "work").exists()


def test_its_saved_model_predicts_the_same_in_a_new_process(
    trained: tuple[Job, dict[str, Any]], tmp_path: Path
) -> None:
    job, _ = trained
    before = predicted(job).labels.copy(), predicted(job).scores.copy()
    result = run(dataclasses.replace(job, train=None, val=None), tmp_path / "again.json")
    assert result["timings"]["train"] is None
    assert np.array_equal(predicted(job).labels, before[0])
    assert np.allclose(predicted(job).scores, before[1], atol=1e-5)
