"""The methods on MMDetection: operators, parts, two steps of each, learning, resuming, two processes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow_networks import narrow

import segbench.methods.mmdet as family
from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.errors import SegbenchError
from segbench.methods import Arrays, Budget, Devices, Job, PredictionSet, Task
from segbench.methods.base import ImageStack
from segbench.methods.mmdet.pretrained import find_weights
from segbench.methods.mmdet.zoo import RECIPES

HERE = Path(__file__).parent
CLASSES = {
    kind.card.name: kind.__name__
    for kind in vars(family).values()
    if isinstance(kind, type) and getattr(kind, "card", None) is not None
}


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
    return result_of(folder)


def run_jobs(environment: environments.Environment, *jobs: Path) -> None:
    """Run several jobs one after the other in one process: the library takes as long to import as a short training."""
    code = "import sys; from segbench.methods.runner import main; [main([job]) for job in sys.argv[1:]]"
    command = [str(environment.python), "-c", code, *map(str, jobs)]
    variables = environments.subprocess_env(environment)
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "run" / "result.json").read_text())
    assert result["status"] == "done", (result["error"], (folder / "run" / "log.txt").read_text()[-3000:])
    return result


@pytest.fixture(scope="module")
def checked(environment: environments.Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    report = tmp_path_factory.mktemp("checked") / "report.json"
    run_script(environment, "checking.py", report, "operators", "pieces", "together")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.mark.heavy
@pytest.mark.parametrize("module", ["operators", "pieces", "together"])
def test_its_parts_agree_with_what_is_written_of_them(checked: dict[str, Any], module: str) -> None:
    report = checked[module]
    assert len(report) >= 5
    assert {name: error for name, error in report.items() if error is not None} == {}


FEW: dict[str, Any] = {"proposals": 8, "rois": 8, "queries": 20, "candidates": 50, "score_threshold": 0.0}
"""Of what the published networks look at, which is most of their time: the networks stay."""


@pytest.fixture(scope="module")
def exercised(
    environment: environments.Environment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Take every method's published network through two steps, a reload and a prediction, all in one process."""
    folder, arguments = tmp_path_factory.mktemp("exercise"), []
    for name, kind in CLASSES.items():
        (folder / name).mkdir()
        few: dict[str, Any] = {key: value for key, value in FEW.items() if key in settings_of(name)}
        if "proposals" in few:
            # anchors that reach over the border count, since at 64 px none of the coarsest levels' lies within it
            few["options"] = {"model.train_cfg.rpn.allowed_border": -1}
        if name == "solov2":
            few["options"] = {"model.mask_head.num_grids": [10, 9, 6, 4, 3]}
        job = job_for(name, folder / name, Budget(batch_size=2, epochs=2), **few)
        dataclasses.replace(job, predict={"test": dataclasses.replace(job.predict["test"], rows=(0,))}).write(
            folder / name / "job.json"
        )
        arguments += [kind, str(folder / name / "job.json")]
    run_script(environment, "exercise.py", *arguments)
    return {name: json.loads((folder / name / "exercise.json").read_text()) for name in CLASSES}


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_published_network_trains_two_steps_and_predicts_the_same_after_a_reload(
    exercised: dict[str, dict[str, Any]], name: str
) -> None:
    report = exercised[name]
    assert "error" not in report, report["error"]
    assert len(report["losses"]) == 2
    assert np.isfinite(report["losses"]).all()
    assert report["parameters"] > 3e7
    # small discs are cells of RTMDet's finest level: the coarse ones' boxes and masks have nothing to learn from them
    coarse = ("rtm_reg.1", "rtm_reg.2", *(f"{part}.{n}" for part in ("kernel_convs", "rtm_kernel") for n in (1, 2)))
    zero = [each for each in report["zero"] if not each.removeprefix("bbox_head.").startswith(coarse)]
    assert (report["without"], report["not_finite"], zero) == ([], [], [])
    assert report["same_after_reload"]
    assert report["same_state"]
    if name == "rf-next":
        assert report["searched"] == 107
        assert report["dilations"] != [1]


def settings_of(name: str) -> dict[str, Any]:
    return dict(getattr(family, CLASSES[name]).card.defaults)


LEARNING: dict[str, tuple[int, float, dict[str, Any]]] = {
    # epochs of four steps, the AP50 to reach, and what differs from the card's settings
    "mask-rcnn": (15, 0.5, {"proposals": 3000, "rois": 24, "optimizer": "AdamW", "learning_rate": 1e-3}),
    "solov2": (20, 0.3, {"optimizer": "AdamW", "learning_rate": 2e-4}),
    "mask2former": (26, 0.5, {"queries": 50, "learning_rate": 5e-4}),
    "rtmdet-ins": (20, 0.3, {"learning_rate": 2e-3}),
}


@pytest.fixture(scope="module")
def learnt(environment: environments.Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train narrow networks of four kinds, all in one process; returns the folder of each."""
    folders, jobs = {name: tmp_path_factory.mktemp(name) for name in LEARNING}, []
    for name, (epochs, _, settings) in LEARNING.items():
        folder = folders[name]
        options = narrow(name, 64) | ({"model.train_cfg.num_points": 1024} if name == "mask2former" else {})
        job = job_for(
            name,
            folder,
            Budget(2, epochs=epochs),
            8,
            learning_rate_batch=2,
            options=options,
            warmup_steps=5,
            **settings,
        )
        if name == "mask-rcnn":
            images, labels = crowd()
            np.save(folder / "dense_x.npy", images)
            np.save(folder / "dense_y.npy", labels)
            job = dataclasses.replace(job, predict={**job.predict, "dense": Arrays(str(folder / "dense_x.npy"), (0,))})
        job.write(folder / "job.json")
        jobs.append(folder / "job.json")
    run_jobs(environment, *jobs)
    return folders


@pytest.mark.heavy
@pytest.mark.parametrize("name", LEARNING)
def test_it_learns_to_find_discs(learnt: dict[str, Path], name: str) -> None:
    folder = learnt[name]
    losses = [point["loss"] for point in result_of(folder)["history"]]
    tenth = len(losses) // 10
    assert np.mean(losses[-tenth:]) < 0.5 * np.mean(losses[:tenth])
    assert scored(folder, "test", "y").ap50 > LEARNING[name][1]
    if name == "mask-rcnn":
        # the same network finds the 400 cells of a crowded image: there is no limit of 100
        assert PredictionSet(folder / "run" / "predictions" / "dense").scores.size > 300
        assert scored(folder, "dense", "dense_y").recall[0] > 0.8


def scored(folder: Path, predictions: str, truth: str) -> Any:
    found = PredictionSet(folder / "run" / "predictions" / predictions)
    return evaluate_prediction_set(np.load(folder / f"{truth}.npy"), found).pooled


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
    arguments: list[object] = []
    for name in ("swin-t", "rtmdet-ins"):  # one whose state is the weights, and one with an average beside them
        (tmp_path / name).mkdir()
        budget = Budget(batch_size=2, epochs=3)
        job_for(name, tmp_path / name, budget, 4, learning_rate=1e-3, learning_rate_batch=2, options=narrow(name))
        arguments += [CLASSES[name], tmp_path / name / "job.json"]
    run_script(environment, "resume.py", *arguments)
    for name in ("swin-t", "rtmdet-ins"):
        report = json.loads((tmp_path / name / "resume.json").read_text())
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
        **narrow("swin-t"), "model.backbone.drop_path_rate": 0.0, "model.train_cfg.rpn.sampler.num": 8192,
        "model.train_cfg.rpn_proposal.max_per_img": 20, "model.train_cfg.rcnn.assigner.pos_iou_thr": 0.999,
        "model.train_cfg.rcnn.assigner.neg_iou_thr": 0.999, "model.train_cfg.rcnn.assigner.min_pos_iou": 0.999,
    }  # fmt: skip
    weights, alone = [], []
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
        weights.append(Path(job.output) / "model" / "weights.pth")
        if processes == 2:
            run_job(environment, dataclasses.replace(job, devices=Devices(num_cpus=2, processes=2)), folder)
        else:
            alone.append(folder / "job.json")
    run_jobs(environment, *alone)
    for folder in tmp_path.iterdir():
        assert result_of(folder)["iterations"] == 4
        assert result_of(folder)["processes"] == int(folder.name[0])
    same, other = json.loads(run_script(environment, "difference.py", *weights))
    assert same < 1e-4
    # half of the windows being others shows: a process that kept its gradients to itself would not pass
    assert other > 1e-3


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    job = job_for("swin-t", tmp_path, Budget(batch_size=3, epochs=1))
    job = dataclasses.replace(job, devices=Devices(num_cpus=2, processes=2))
    assert job.train is not None
    with pytest.raises(SegbenchError, match="a batch of 3 cannot be shared by 2 processes; give a multiple of 2"):
        family.SwinT().load(job, ImageStack(job.train), None)


def test_weights_that_cannot_be_fetched_say_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path))
    nowhere = dataclasses.replace(RECIPES["hrnet"].imagenet, url="http://127.0.0.1:9/hrnet.pth")
    recipe = dataclasses.replace(RECIPES["hrnet"], imagenet=nowhere)
    with pytest.raises(SegbenchError) as error:
        find_weights("imagenet", recipe, "hrnet")
    assert "http://127.0.0.1:9/hrnet.pth cannot be fetched" in str(error.value)
    assert f"'segbench methods weights add {nowhere.name} FILE'" in str(error.value)
    assert list((tmp_path / "pretrained").glob("*")) == []
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
