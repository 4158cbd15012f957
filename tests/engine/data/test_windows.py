"""Windows cover the image, and labels are numbered without gaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.engine.data.windows import check_labels, number, positions
from segbench.errors import SegbenchError


@given(st.integers(1, 3000), st.integers(16, 512), st.integers(1, 512))
def test_shifted_windows_cover_every_pixel_and_stay_inside(size: int, window: int, step: int) -> None:
    step = min(step, window)
    starts = positions(size, window, step, "shift")
    covered = np.zeros(size, bool)
    for start in starts:
        covered[start : start + window] = True
    assert covered.all()
    assert len(set(starts)) == len(starts)
    assert size < window or starts[-1] + window == size


@given(st.integers(16, 3000), st.integers(16, 512), st.integers(1, 512))
def test_dropped_windows_keep_the_step(size: int, window: int, step: int) -> None:
    step = min(step, window)
    starts = positions(size, window, step, "drop")
    assert starts == tuple(range(0, step * len(starts), step))
    assert size < window or starts[-1] + window <= size < starts[-1] + step + window


def test_a_512_image_gives_nine_shifted_and_four_dropped_windows() -> None:
    assert len(positions(512, 256, 192, "shift")) ** 2 == 9
    assert len(positions(512, 256, 192, "drop")) ** 2 == 4


def test_a_window_beyond_the_map_keeps_zeros_at_the_bottom_and_the_right() -> None:
    out = np.zeros((8, 8), np.int32)
    labels = np.array([[9, 9, 4], [0, 4, 4]], np.int32)
    assert number(labels, 9, 0, 1, out) == 2
    assert out[:2, :2].tolist() == [[2, 1], [1, 1]]
    assert out.sum() == 5


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
)
def test_labels_of_any_dtype_are_numbered_in_their_order(dtype: type) -> None:
    labels = np.array([[0, 7, 7], [3, 0, 120]]).astype(dtype)
    numbered = check_labels(labels, "mask")
    assert numbered.dtype == np.int32
    assert numbered.tolist() == [[0, 2, 2], [1, 0, 3]]


def test_labels_beyond_sixteen_and_thirty_two_bits_are_told_apart() -> None:
    labels = np.array([[65536, 65537, 0], [2**40, 2**40 + 1, 1]])
    assert check_labels(labels, "mask").tolist() == [[2, 3, 0], [4, 5, 1]]
    assert check_labels(labels[:, :2], "mask").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.array([[0, -1]]), "0 .background. or above, found -1"),
        (np.array([[0.5, 1.0]]), "whole numbers"),
        (np.array([[np.nan, 1.0]]), "whole numbers"),
        (np.array([[True, False]]), "true and false"),
        (np.zeros((2, 2, 2), int), "plane"),
        (np.array([["a"]]), "integers"),
        (np.array([[1j]]), "integers"),
        (np.zeros((0, 4), int), "empty"),
    ],
)  # fmt: skip
def test_what_are_not_labels_is_refused(labels: np.ndarray, why: str) -> None:
    with pytest.raises(SegbenchError, match=f"^mask.png: .*{why}"):
        check_labels(labels, "mask.png")


def test_an_empty_mask_is_allowed() -> None:
    assert check_labels(np.zeros((4, 4), np.uint8), "mask").max() == 0
