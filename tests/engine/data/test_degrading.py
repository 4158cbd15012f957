"""Degraded windows are ever worse, the same for every method, and cells found in them can be brought back."""

from __future__ import annotations

import numpy as np
import pytest

from segbench.engine.data.degrading import KINDS, Step, brought_back, check_kinds, degraded, seen_part, steps_of
from segbench.errors import SegbenchError


@pytest.fixture(scope="module")
def window() -> np.ndarray:
    """Return two channels (2, 64, 64) with three bright cells."""
    rows, columns = np.mgrid[:64, :64]
    plane = np.full((64, 64), 0.1)
    for row, column in ((14, 14), (30, 40), (50, 20)):
        plane += 0.8 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 30)
    return np.stack([plane, plane[::-1]]).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_keeps_shape_and_range_and_is_the_same_again(kind: str, window: np.ndarray) -> None:
    before = window.copy()
    for step in steps_of([kind], 2):
        worse = degraded(window, step, seed=3)
        assert worse.shape == window.shape
        assert worse.dtype == np.float32
        assert 0 <= worse.min() <= worse.max() <= 1
        assert np.array_equal(worse, degraded(window, step, seed=3))
        assert not np.allclose(worse, window, atol=1e-3)
    assert np.array_equal(window, before)


@pytest.mark.parametrize("kind", ["blur", "noise", "dim", "jpeg"])
def test_each_step_lies_further_from_the_image_than_the_one_before(kind: str, window: np.ndarray) -> None:
    apart = [float(np.abs(degraded(window, step, seed=1) - window).mean()) for step in steps_of([kind], 2)]
    assert apart == sorted(apart)
    assert apart[0] < apart[-1]


@pytest.mark.parametrize("kind", ["smaller", "larger"])
def test_cells_of_a_rescaled_window_come_back_to_where_they_were(kind: str, window: np.ndarray) -> None:
    true = np.asarray(window[0] > 0.45, np.int32)
    for step in steps_of([kind], 2):
        part = seen_part((64, 64), step)
        found = brought_back(np.asarray(degraded(window, step, seed=0)[0] > 0.45, np.int32), step)
        assert not np.delete(found, np.r_[part[0]], axis=0).any()
        common, either = (found & true)[part].sum(), (found | true)[part].sum()
        assert common / either > (0.5 if step.number == 4 else 0.7), step


def test_noise_is_another_in_every_window_and_swapping_needs_two_channels(window: np.ndarray) -> None:
    step = Step("noise", 2)
    assert not np.array_equal(degraded(window, step, seed=0), degraded(window, step, seed=1))
    assert np.array_equal(degraded(window, Step("swap", 1), seed=0), window[::-1])
    assert [step.kind for step in steps_of(["swap"], 1)] == []
    with pytest.raises(SegbenchError, match="one channel cannot be swapped"):
        degraded(window[:1], Step("swap", 1), seed=0)


def test_an_unknown_kind_is_told_with_the_nearest() -> None:
    with pytest.raises(SegbenchError, match="'blurr'"):
        check_kinds(["blurr"])
