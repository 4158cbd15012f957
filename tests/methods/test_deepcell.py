"""Mesmer, FeatureNet and RetinaMask: compatibility, resuming, several devices, upstream's equals, tuning, learning."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, Devices, ImageStack, Job, PredictionSet, Task
from segbench.methods.deepcell import FeatureNet, Mesmer, RetinaMask
from segbench.methods.deepcell.base import DeepcellMethod
from segbench.methods.deepcell.matching import f1_at_half
from segbench.methods.deepcell.windows import cut

PARTS = Path(__file__).parent / "deepcell_parts.py"
METHODS = {"mesmer": Mesmer, "featurenet": FeatureNet, "retinamask": RetinaMask}


def run_parts(*names: str) -> dict[str, Any]:
    """Run parts in one process of the environment, which is built where needed; returns what each found, by name."""
    environment = environments.ensure("tensorflow", gpu=False)
    variables = {**environments.subprocess_env(environment), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [environment.python, PARTS, *names], env=variables, capture_output=True, text=True, check=False, timeout=850
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def errors() -> dict[str, str | None]:
    found: dict[str, str | None] = run_parts("compat")["compat"]
    return found


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """The parts that may share a process: importing TensorFlow and DeepCell takes as long as each of them."""
    return run_parts("resume", "retinamask", "tuned")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("item", "error"),
    [
        ("legacy_keras", "ImportError: cannot import name 'conv_utils'"),
        ("legacy_optimizers", "ValueError: decay is deprecated"),
        ("no_tensorflow_addons", "ModuleNotFoundError: No module named 'tensorflow_addons'"),
        ("no_spektral", "ModuleNotFoundError: No module named 'spektral'"),
        ("old_numpy_names", "AttributeError: module 'numpy' has no attribute 'float'"),
        ("misspelt_expand_dims", "AttributeError: module 'numpy' has no attribute 'epxnad_dims'"),
        ("has_area", "OverflowError"),
        ("stand-in", "ImportError: tensorflow_addons.image.rotate is for tracking cells"),
    ],
)
def test_without_this_item_deepcell_fails(errors: dict[str, str | None], item: str, error: str) -> None:
    assert (errors[item] or "").startswith(error)


@pytest.mark.heavy
def test_with_every_item_deepcell_works(errors: dict[str, str | None]) -> None:
    assert errors["nothing"] is None


@pytest.mark.heavy
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(parts: dict[str, Any]) -> None:
    found = parts["resume"]
    assert "error" not in found, found["error"]
    done = found["earlier"][-1]
    assert done < found["interrupted_after"]
    assert done == 6  # an epoch of two steps into the second network
    after = [point for point in found["whole"] if point[0] > done]
    np.testing.assert_allclose(found["after"], after, rtol=1e-5)
    assert found["differs"] == 0
    assert [point[1] for point in found["whole"]] == [1, 1, 2, 2]  # an epoch of the budget is one of each network
    assert [point[0] for point in found["whole"]] == [2, 4, 6, 8]
    # and the same training on two replicas
    assert found["replicas"] == 2
    assert np.isfinite(found["mirrored"]).all()
    assert found["mirrored"][1] < found["mirrored"][0]
    assert found["mirrored_images"] == 2


@pytest.mark.heavy
def test_retinamask_finds_what_upstreams_whole_graph_finds_and_more_than_its_300(parts: dict[str, Any]) -> None:
    found = parts["retinamask"]
    assert "error" not in found, found["error"]
    assert found["difference"] < 1e-4
    assert max(found["found"]) > 300
    assert max(found["instances"]) > 300
    assert found["pixels"] == [60 * 50]


@pytest.mark.heavy
def test_a_tuned_postprocessing_is_kept_with_the_model(parts: dict[str, Any]) -> None:
    found = parts["tuned"]
    assert "error" not in found, found["error"]
    assert found["chosen"]["small_objects_threshold"] == 5
    assert set(found["chosen"]) == {"radius", "maxima_threshold", "interior_threshold", "small_objects_threshold"}
    assert found["same"]
    assert found["odd"] == [[50, 50]] * 3


SHORT: dict[str, tuple[Budget, dict[str, Any], float, float]] = {
    # budget, settings, the share of the first loss that must be reached, AP50 on unseen images (0.0 before training)
    "mesmer": (Budget(batch_size=4, epochs=24), {"postprocessing": "tuned"}, 0.6, 0.15),
    "featurenet": (
        Budget(batch_size=2, epochs=4),
        # half as many channels: a quarter of the time
        {"postprocessing": "tuned", "learning_rate": 1e-2, "n_conv_filters": 16, "n_dense_filters": 32},
        0.65,
        0.3,
    ),
    "retinamask": (Budget(batch_size=2, epochs=3), {"postprocessing": "detections"}, 0.6, 0.3),
}


@pytest.mark.heavy
@pytest.mark.parametrize("name", METHODS)
def test_the_published_architecture_learns(name: str, tmp_path: Path) -> None:
    budget, settings, share, bar = SHORT[name]
    arrays = {}
    for seed, (split, n) in enumerate({"train": 16, "val": 2, "test": 8}.items()):
        images, labels = draw_discs(n, 64, 1, seed)
        np.save(tmp_path / f"{split}_x.npy", images)
        np.save(tmp_path / f"{split}_y.npy", labels)
        arrays[split] = Arrays(str(tmp_path / f"{split}_x.npy"), (0,), None, str(tmp_path / f"{split}_y.npy"))
    card = get_card(name)
    job = Job(
        run_id=name, method=method_object(name), task=Task("t", "d", ("nuclear",), "nuclear"), budget=budget,
        seed=1, output=str(tmp_path / "run"), train=arrays["train"], val=arrays["val"],
        predict={"test": dataclasses.replace(arrays["test"], labels=None)},
        settings={**card.defaults, "batch_norm_momentum": 0.9, **settings}, devices=Devices(num_cpus=1),
    )  # fmt: skip
    job.write(tmp_path / "job.json")
    environment = environments.ensure("tensorflow", gpu=False)
    command, variables = (
        job.command(tmp_path / "job.json", environment.python),
        environments.subprocess_env(environment),
    )
    subprocess.run(command, env=variables, stdout=subprocess.DEVNULL, check=False, timeout=850)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["error"] is None, (tmp_path / "run" / "log.txt").read_text()[-3000:]
    losses = [point["loss"] for point in result["history"] if point["val_loss"] is not None]
    stages = 2 if name == "featurenet" else 1
    last = losses[-len(losses) // stages :]  # FeatureNet's two networks have losses of their own
    assert last[-1] < share * last[0]
    assert result["epochs"] == budget.epochs
    assert result["iterations"] == stages * (budget.epochs or 0) * (16 // budget.batch_size)
    pins = environments.lock_versions("tensorflow")
    assert {library: result["versions"][library] for library in card.libraries} == {
        library: pins[library] for library in card.libraries
    }
    found = PredictionSet(tmp_path / "run" / "predictions" / "test")
    assert evaluate_prediction_set(np.load(tmp_path / "test_y.npy"), found).pooled.ap50 >= bar
    assert (found.scores >= 0).all()
    assert (found.scores <= 1).all()


@pytest.mark.parametrize("kind", METHODS.values())
def test_postprocessing_is_checked_before_anything_is_loaded(kind: type[DeepcellMethod]) -> None:
    job = Job("r", "m:M", Task("t", "d", ("nuclear",), "nuclear"), Budget(1, 1), 0, "", settings=kind.card.defaults)
    wrong = dataclasses.replace(job, settings={**job.settings, "postprocessing": "publishd"})
    with pytest.raises(ValueError, match=r"'postprocessing' must be one of upstream, .*, tuned, found 'publishd'"):
        kind().import_library(wrong)
    wrong = dataclasses.replace(job, settings={**job.settings, "postprocessing_arguments": {"maxima_model_smooth": 0}})
    with pytest.raises(ValueError, match=r"'postprocessing_arguments' knows .*; found maxima_model_smooth"):
        kind().import_library(wrong)


@pytest.mark.parametrize("kind", METHODS.values())
def test_every_choice_of_postprocessing_can_be_named(kind: type[DeepcellMethod]) -> None:
    assert next(iter(kind.choices)) == "upstream"
    assert kind.choices["upstream"] == {}
    for choice in (*kind.choices.values(), *kind.grid):
        assert set(choice) <= kind.argument_names


def test_windows_are_cut_into_pieces_that_cover_them(tmp_path: Path) -> None:
    images = np.arange(2 * 100 * 70, dtype=np.float32).reshape(2, 1, 100, 70)
    labels = np.zeros((2, 100, 70), np.int32)
    labels[0, :10, :10], labels[1, 95:, 65:], labels[1, 80:90, 40:50] = 3, 7, 9
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    stack = ImageStack(Arrays(str(tmp_path / "x.npy"), (0,), None, str(tmp_path / "y.npy")))
    tiles = cut(stack, range(2), 64, 0)
    assert tiles.x.shape == (8, 64, 64, 1)
    assert set(np.unique(tiles.x).tolist()) == set(images.ravel().tolist())
    assert cut(stack, range(2), 64, 1).windows.tolist() == [0, 0, 1, 1]
    assert cut(stack, range(2), 64, 2).windows.tolist() == [1]
    assert len(cut(stack, range(2), 64, 3)) == 0


def test_a_cell_is_found_only_above_half() -> None:
    truth = np.repeat([1, 0, 2], 4)[np.newaxis].astype(np.int32)
    half = np.where(truth == 1, [1, 1, 0, 0] + [0] * 8, 0).astype(np.int32)
    assert f1_at_half([(truth, truth)]) == 1
    assert f1_at_half([(truth, half)]) == 0
    more = np.where(truth == 1, [1, 1, 1, 0] + [0] * 8, 0).astype(np.int32)
    assert f1_at_half([(truth, more)]) == pytest.approx(2 / 3)
    assert f1_at_half([(0 * truth, 0 * truth)]) == 1
