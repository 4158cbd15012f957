"""The ten methods on MMDetection: operators, parts, two steps of each, learning, resuming, two processes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import segbench.methods.mmdet as family
from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.errors import SegbenchError
from segbench.methods import Arrays, Budget, Devices, Job, PredictionSet, Task
from segbench.methods.base import ImageStack
from segbench.methods.mmdet.base import to_instances
from segbench.methods.mmdet.pretrained import find_weights
from segbench.methods.mmdet.zoo import RECIPES

HERE = Path(__file__).parent
CLASSES = {
    kind.card.name: kind.__name__
    for kind in vars(family).values()
    if isinstance(kind, type) and getattr(kind, "card", None) is not None
}
SMALL_SWIN = {"model.backbone.depths": [1, 1, 1, 1]}


@pytest.fixture(scope="module")
def environment() -> environments.Environment:
    found = environments.find("torch", gpu=False)
    if found is None:
        pytest.skip("the environment 'torch' is not built here (segbench methods install torch)")
    return found


def run_script(environment: environments.Environment, script: str, *arguments: object) -> str:
    command = [str(environment.python), str(HERE / script), *map(str, arguments)]
    # the scripts import what lies beside them, which a method's process never does
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": ""}
    variables = environments.subprocess_env(environment) | own
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def job_for(name: str, folder: Path, budget: Budget, n_images: int = 2, **settings: Any) -> Job:
    """Return a job on drawn discs that predicts what it was trained on."""
    images, labels = draw_discs(n_images, 64, seed=1)
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", labels)
    arrays = Arrays(str(folder / "x.npy"), (0,), None, str(folder / "y.npy"))
    card = getattr(family, CLASSES[name]).card
    job = Job(
        run_id=name,
        method=f"segbench.methods.mmdet:{CLASSES[name]}",
        budget=budget,
        seed=1,
        output=str(folder / "run"),
        task=Task("discs", "drawn", ("nuclear",), "nuclear"),
        train=arrays,
        predict={"test": dataclasses.replace(arrays, labels=None)},
        settings={**card.defaults, **card.check_settings, **settings},
        devices=Devices(num_cpus=1),
    )
    job.write(folder / "job.json")
    return job


def run_job(environment: environments.Environment, job: Job, folder: Path) -> dict[str, Any]:
    job.write(folder / "job.json")
    variables = environments.subprocess_env(environment)
    command = job.command(folder / "job.json", environment.python)
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    log = Path(job.output) / "log.txt"
    result: dict[str, Any] = json.loads((Path(job.output) / "result.json").read_text())
    assert result["status"] == "done", (result["error"], log.read_text()[-3000:])
    return result


@pytest.mark.heavy
@pytest.mark.parametrize("script", ["operators.py", "pieces.py"])
def test_its_parts_agree_with_what_is_written_of_them(
    environment: environments.Environment, tmp_path: Path, script: str
) -> None:
    run_script(environment, script, tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report) >= 5
    assert {name: error for name, error in report.items() if error is not None} == {}


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_published_network_trains_two_steps_and_predicts_the_same_after_a_reload(
    environment: environments.Environment, tmp_path: Path, name: str
) -> None:
    # anchors that reach over the border count, since at 64 px none of the coarsest levels' lies within it
    two_stages = {"options": {"model.train_cfg.rpn.allowed_border": -1}} if "proposals" in settings_of(name) else {}
    job_for(name, tmp_path, Budget(batch_size=2, epochs=2), **two_stages)
    run_script(environment, "exercise.py", CLASSES[name], tmp_path / "job.json")
    report = json.loads((tmp_path / "exercise.json").read_text())
    assert len(report["losses"]) == 2
    assert np.isfinite(report["losses"]).all()
    assert report["parameters"] > 3e7
    assert (report["without"], report["not_finite"], report["zero"]) == ([], [], [])
    assert report["same_after_reload"]
    if name == "rf-next":
        assert report["searched"] == 107
        assert report["dilations"] != [1]


def settings_of(name: str) -> dict[str, Any]:
    return dict(getattr(family, CLASSES[name]).card.defaults)


@pytest.fixture(scope="module")
def learning_check() -> ModuleType:
    path = HERE.parents[2] / "benchmarks" / "learning_check.py"
    spec = importlib.util.spec_from_file_location("learning_check", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["learning_check"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["mask-rcnn", "solov2", "mask2former"])
def test_it_learns_to_find_discs(
    environment: environments.Environment, learning_check: ModuleType, tmp_path: Path, name: str
) -> None:  # fmt: skip
    got = learning_check.learn(name, learning_check.PRESETS[name], tmp_path)
    assert got.last_loss < 0.5 * got.first_loss
    assert got.ap50_train > 0.5
    if name != "mask-rcnn":
        return
    # the same network finds the 400 cells of a crowded image: there is no limit of 100
    images, labels = crowd()
    np.save(tmp_path / "dense_x.npy", images)
    np.save(tmp_path / "dense_y.npy", labels)
    job = Job.read(tmp_path / "run" / "job.json")
    dense = Arrays(str(tmp_path / "dense_x.npy"), (0,))
    settings = {**job.settings, "proposals": 3000}
    again = dataclasses.replace(job, train=None, val=None, predict={"dense": dense}, settings=settings)
    run_job(environment, again, tmp_path)
    found = PredictionSet(Path(job.output) / "predictions" / "dense")
    assert found.scores.size > 300
    assert evaluate_prediction_set(labels, found).pooled.recall[0] > 0.8


def crowd() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw 400 discs of 5 px radius on a grid in a window of 256 px."""
    rows, columns = np.mgrid[:256, :256]
    labels = np.zeros((1, 256, 256), np.int32)
    for n in range(400):
        y, x = (n // 20 + 0.5) * 12.8, (n % 20 + 0.5) * 12.8
        labels[0][np.hypot(rows - y, columns - x) < 5] = n + 1
    noise = np.random.default_rng(0).normal(0, 0.05, (1, 1, 256, 256))
    return np.clip(np.where(labels > 0, 0.7, 0.15)[:, None] + noise, 0, 1).astype(np.float32), labels


@pytest.mark.heavy
def test_an_interrupted_training_ends_as_one_that_was_not(
    environment: environments.Environment, tmp_path: Path
) -> None:
    job_for("swin-t", tmp_path, Budget(batch_size=2, epochs=3), 4, learning_rate=1e-3, options=SMALL_SWIN)
    run_script(environment, "resume.py", CLASSES["swin-t"], tmp_path / "job.json")
    report = json.loads((tmp_path / "resume.json").read_text())
    assert report["interrupted"]
    assert (report["first_step"], report["steps"]) == (4, 6)
    assert report["difference"] < 1e-5
    assert report["moved"] > 5e-4


@pytest.mark.heavy
def test_two_processes_train_as_one_with_all_of_the_batch(
    environment: environments.Environment, tmp_path: Path
) -> None:
    """Each loss is a mean over samples, so that the mean of two processes is that of one where both have as many.

    Therefore: a network without batch norm and without chance (no drop path, no flips, every anchor
    and every proposal in the loss), and windows with the same cells but other noise, so that both
    processes have the same number of positives.
    """
    sure = {
        **SMALL_SWIN, "model.backbone.drop_path_rate": 0.0, "model.train_cfg.rpn.sampler.num": 8192,
        "model.train_cfg.rpn_proposal.max_per_img": 20, "model.train_cfg.rcnn.assigner.pos_iou_thr": 0.999,
        "model.train_cfg.rcnn.assigner.neg_iou_thr": 0.999, "model.train_cfg.rcnn.assigner.min_pos_iou": 0.999,
    }  # fmt: skip
    weights = []
    for processes, noise in ((1, 0), (2, 0), (1, 1)):
        folder = tmp_path / f"{processes}-{noise}"
        folder.mkdir()
        job = job_for(
            "swin-t", folder, Budget(batch_size=2, epochs=2), 4, optimizer="SGD", learning_rate=0.02,
            learning_rate_batch=2, flips=False, rois=4096, options=sure,
        )  # fmt: skip
        labels = np.load(folder / "y.npy")
        np.save(folder / "y.npy", np.stack([labels[0]] * 4))
        shift = np.random.default_rng(0).normal(0, 0.1, (4, 1, 64, 64))
        shift[2:] += noise * np.random.default_rng(1).normal(0, 0.1, (2, 1, 64, 64))
        np.save(folder / "x.npy", (np.where(labels[0] > 0, 0.7, 0.2) + shift).astype(np.float32))
        devices = Devices(num_cpus=processes, processes=processes)
        result = run_job(environment, dataclasses.replace(job, devices=devices), folder)
        assert result["iterations"] == 4
        assert result["processes"] == processes
        weights.append(Path(job.output) / "model" / "weights.pth")
    one, two, other = weights
    assert float(run_script(environment, "difference.py", one, two)) < 1e-4
    # half of the windows being others shows: a process that kept its gradients to itself would not pass
    assert float(run_script(environment, "difference.py", one, other)) > 1e-3


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    job = job_for("swin-t", tmp_path, Budget(batch_size=3, epochs=1))
    job = dataclasses.replace(job, devices=Devices(num_cpus=2, processes=2))
    assert job.train is not None
    with pytest.raises(SegbenchError, match="a batch of 3 cannot be shared by 2 processes; give a multiple of 2"):
        family.SwinT().load(job, ImageStack(job.train), None)


def test_empty_masks_and_low_scores_are_left_out() -> None:
    masks = np.zeros((3, 4, 4), bool)
    masks[0, 1, 1] = masks[2, 2] = True
    found = to_instances(masks, np.array([0.9, 0.8, 0.01]), 0.05)
    assert (found.scores.tolist(), [c.tolist() for c in found.counts]) == ([0.9], [[5, 1, 10]])
    assert to_instances(np.zeros((0, 4, 4), bool), np.zeros(0), 0.05).counts == []


def test_weights_that_cannot_be_fetched_say_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    recipe = dataclasses.replace(RECIPES["hrnet"], imagenet="http://127.0.0.1:9/hrnet.pth")
    with pytest.raises(SegbenchError) as error:
        find_weights("imagenet", recipe, "hrnet")
    assert f"put the file http://127.0.0.1:9/hrnet.pth at {tmp_path / 'pretrained' / 'hrnet.pth'}" in str(error.value)
    assert "\n" not in str(error.value)
    assert find_weights("none", recipe, "hrnet") is None


def test_windows_without_a_cell_only_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    np.save(tmp_path / "y.npy", np.zeros((2, 8, 8), np.int32))
    arrays = Arrays(str(tmp_path / "x.npy"), (0,), None, str(tmp_path / "y.npy"))
    job = Job(
        run_id="r", method="", task=Task("t", "d", ("nuclear",), "nuclear"), budget=Budget(2, epochs=1), seed=0,
        output=str(tmp_path), train=arrays, settings=family.HRNet.card.defaults,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no training window has a cell"):
        family.HRNet().load(job, ImageStack(arrays), None)
