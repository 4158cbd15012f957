"""A method sees windows in the scale that its settings ask for, and what it finds lies in the windows themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, Devices, ImageStack, Job, MaskInstances, PredictionSet, Task
from segbench.methods.predictions import run_lengths
from segbench.methods.resampling import brought_back, resampled, resampled_labels


@pytest.fixture
def arrays(tmp_path: Path) -> Arrays:
    """Return four windows of drawn discs."""
    images, labels = draw_discs(4)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "y.npy", labels)
    return Arrays(str(tmp_path / "x.npy"), (0,), None, str(tmp_path / "y.npy"))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("scale", [0.5, 1.875, 3.0])
def test_a_stack_shows_the_same_cells_in_its_scale(arrays: Arrays, scale: float) -> None:
    own = ImageStack(arrays)
    scaled = ImageStack(Arrays(arrays.images, (0,), None, arrays.labels, scale=scale))
    assert scaled.own_size == own.size
    assert scaled[0].shape == (1, *scaled.size)
    assert abs(scaled.size[0] - scale * own.size[0]) <= 16
    assert scaled[0].mean() == pytest.approx(own[0].mean(), abs=0.01)
    back = resampled_labels(scaled.labels(0), own.size)
    assert iou(back > 0, own.labels(0) > 0) > (0.8 if scale < 1 else 0.9)
    assert ImageStack(Arrays(arrays.images, (0,)))[1:3][1].tolist() == own[2].tolist()


def test_resampling_keeps_what_is_even_and_the_middle_of_what_is_not() -> None:
    even = np.full((2, 40, 24), 0.3, np.float32)
    for size in ((20, 12), (55, 24), (96, 96)):
        assert resampled(even, size) == pytest.approx(0.3, abs=1e-6)
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, None].repeat(4, axis=1)
    assert resampled(ramp, (4, 16))[0, 0] == pytest.approx(ramp[0, 0].reshape(16, 4).mean(axis=1), abs=0.02)


def test_masks_come_back_one_by_one_and_without_a_pixel_not_at_all() -> None:
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 8:40, 16:48] = True
    masks[1, 0, 0] = True
    found = brought_back(MaskInstances([run_lengths(mask) for mask in masks], np.array([0.4, 0.9])), (64, 64), (32, 32))
    assert isinstance(found, MaskInstances)
    assert found.scores.tolist() == [0.4]
    assert found.counts[0].tolist() == run_lengths(masks[0, ::2, ::2]).tolist()


@pytest.mark.parametrize(("scale", "predicted"), [(2.0, "auto"), (1.0, 1.5)])
def test_a_method_that_knows_nothing_of_scales_finds_the_cells_where_they_are(
    arrays: Arrays, tmp_path: Path, scale: float, predicted: float | str
) -> None:
    job = Job(
        run_id="r1", method="segbench.methods.watershed:Watershed", task=Task("t", "d", ("nuclear",), "nuclear"),
        budget=Budget(batch_size=1), seed=0, output=str(tmp_path / "run"), devices=Devices(num_cpus=1),
        predict={"test": Arrays(arrays.images, (0,))},
        settings={**watershed_defaults(), "scale": scale, "prediction_scale": predicted},
    )  # fmt: skip
    job.write(tmp_path / "job.json")
    code = [sys.executable, "-m", "segbench.methods", str(tmp_path / "job.json")]
    assert subprocess.run(code, check=False, capture_output=True, env=dict(os.environ)).returncode == 0
    truth = np.load(arrays.labels or "")
    for n, instances in enumerate(PredictionSet(tmp_path / "run" / "predictions" / "test")):
        assert instances.labels.shape == truth[n].shape
        assert iou(instances.labels > 0, truth[n] > 0) > 0.8


def watershed_defaults() -> dict[str, object]:
    from segbench.engine.grid.cards import get_card

    return get_card("watershed").defaults
