"""The parts of the trained methods that need no library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segbench.engine.run.check import draw_discs
from segbench.errors import SegbenchError
from segbench.methods import Arrays, ImageStack
from segbench.methods.cellpose import plan_epochs
from segbench.methods.planes import fit_normalisation, three_planes
from segbench.methods.predictions import run_lengths
from segbench.methods.stardist import augment


def test_augmentation_moves_image_and_labels_together() -> None:
    rng = np.random.default_rng(0)
    (image,), (labels,) = draw_discs(1)
    seen = set()
    for _ in range(50):
        changed, moved = augment(image[0], labels, rng)
        assert changed.dtype == np.float32
        assert np.array_equal(np.sort(moved.ravel()), np.sort(labels.ravel()))
        # bright stays bright: were they moved differently, discs and ground would mix
        assert changed[moved > 0].mean() - changed[moved == 0].mean() > 0.2
        seen.add(moved.tobytes())
    assert len(seen) == 8  # the square's symmetries


def test_augmentation_changes_brightness_within_the_published_range() -> None:
    rng = np.random.default_rng(1)
    flat = np.full((64, 64), 0.5, np.float32)
    means = [augment(flat, np.zeros((64, 64), np.int32), rng)[0].mean() for _ in range(300)]
    assert 0.5 * 0.6 - 0.2 <= min(means) < 0.2
    assert 1.0 < max(means) <= 0.5 * 2 + 0.2 + 0.01


def test_several_channels_and_windows_that_are_not_square_are_augmented() -> None:
    rng = np.random.default_rng(2)
    image, labels = np.zeros((32, 48, 2), np.float32), np.zeros((32, 48), np.int32)
    for _ in range(10):
        changed, moved = augment(image, labels, rng)
        assert (changed.shape, moved.shape) == ((32, 48, 2), (32, 48))


@pytest.mark.parametrize("windows", [1, 7, 80, 1000, 14_107])
@pytest.mark.parametrize("epochs", [1, 2, 5, 25, 100, 101, 500])
def test_cellpose_sees_as_many_windows_as_the_budget_says(windows: int, epochs: int) -> None:
    plan = plan_epochs(windows, 8, epochs)
    steps = plan.epochs * plan.steps_per_epoch
    asked = epochs * -(-windows // 8)
    assert asked * 0.99 - plan.steps_per_epoch <= steps <= asked
    if epochs <= 100 and asked >= 200:
        assert 200 <= plan.epochs < 400


def test_run_lengths_are_those_that_pycocotools_reads() -> None:
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    drawn = [rng.random((9, 7)) < share for share in rng.random(20)]
    for mask in (*drawn, rng.random((1, 9)) > 0.5, np.zeros((4, 4), bool), np.ones((3, 2), bool)):
        size = list(mask.shape)
        rle = coco.frPyObjects({"size": size, "counts": run_lengths(mask).tolist()}, *size)
        assert np.array_equal(coco.decode(rle).astype(bool), mask)
    assert run_lengths(np.ones((3, 2), bool)).tolist() == [0, 6]


def test_one_two_or_three_channels_become_three_planes() -> None:
    one, two, three = (np.arange(c * 4, dtype=np.float32).reshape(c, 2, 2) for c in (1, 2, 3))
    assert np.array_equal(three_planes(one), np.stack([one[0]] * 3))
    assert np.array_equal(three_planes(two), np.stack([two[0], two[1], np.zeros((2, 2))]))
    assert np.array_equal(three_planes(three), three)
    with pytest.raises(SegbenchError, match="takes 1 to 3 channels, found 4"):
        three_planes(np.zeros((4, 2, 2), np.float32))


def test_the_normalisation_fits_the_chosen_windows_and_leaves_an_empty_plane_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(5, 2, 16, 16)) * [[[[2]], [[3]]]] + [[[[1]], [[-1]]]]).astype(np.float32)
    np.save(tmp_path / "x.npy", images)
    fitted = fit_normalisation(ImageStack(Arrays(str(tmp_path / "x.npy"), (0, 1))), [0, 2, 4])
    chosen = images[[0, 2, 4]]
    assert fitted.mean == pytest.approx((chosen[:, 0].mean(), chosen[:, 1].mean(), 0), abs=1e-5)
    assert fitted.std == pytest.approx((chosen[:, 0].std(), chosen[:, 1].std(), 1), abs=1e-5)
