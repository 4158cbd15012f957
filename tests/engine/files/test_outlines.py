"""Outlines along the edges of pixels lose none of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.draw import polygon

from segbench.engine.files.outlines import Ring, checked_ring, fill, is_outside, trace
from segbench.errors import SegbenchError

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9))


def filled(rings: list[Ring], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    canvas = np.zeros(shape, np.bool_)
    mask, top, left = fill(rings, *shape)
    canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return canvas


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_a_mask_traced_and_filled_is_the_mask(mask: npt.NDArray[np.bool_]) -> None:
    rings = [ring for piece in trace(mask) for ring in piece]
    np.testing.assert_array_equal(filled(rings, mask.shape), mask)


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_no_ring_passes_a_point_twice_and_a_piece_has_one_outer_ring(mask: npt.NDArray[np.bool_]) -> None:
    for outer, *holes in trace(mask):
        for n, ring in enumerate((outer, *holes)):
            x, y = ring.T
            turned = np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))
            assert len({tuple(point) for point in ring.tolist()}) == len(ring)
            assert (turned > 0) == (n == 0)


def test_any_polygon_is_filled_by_the_pixels_whose_centres_it_holds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        ring = rng.random((rng.integers(3, 9), 2)) * 60 - 5
        expected = np.zeros((50, 40), np.bool_)
        expected[polygon(ring[:, 1] - 0.5, ring[:, 0] - 0.5, expected.shape)] = True
        np.testing.assert_array_equal(filled([ring], expected.shape), expected)


def test_what_lies_beside_the_image_is_outside_and_draws_nothing() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4.0]])
    for shift, outside in (((-4, 0), True), ((0, 10), True), ((-3, 0), False), ((11, 9), False), ((12, 9), True)):
        moved = square + shift
        assert is_outside([moved], 10, 12) is outside
        assert fill([moved], 10, 12)[0].any() != outside


def test_an_outline_that_crosses_every_row_over_and_over_is_refused() -> None:
    zigzag = np.column_stack([np.arange(20_000) % 90, np.arange(20_000) % 2 * 5000.0])
    with pytest.raises(SegbenchError, match=r"crosses rows .* it is no cell's"):
        fill([zigzag], 5000, 100)


def test_an_outline_of_less_than_three_points_draws_nothing() -> None:
    for points in ([], [[1, 1]], [[1, 1], [4, 4]], [[1, 1], [4, 4], [1, 1]]):
        assert not fill([checked_ring(points, "a.geojson")], 9, 9)[0].any()
    assert not is_outside([checked_ring([], "a.geojson")], 9, 9)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0, 0], [1, 1], [float("nan"), 2]], "not finite"),
        ([[0, 0], [1, 1], [float("inf"), 2]], "not finite"),
        ([[0, 0], [1, 1], [1e300, 2]], "further than any picture"),
        ([[0, 0], [1, 1], ["2", 2]], "something else"),
        ([[0, 0], [1, 1], [10**400, 2]], "something else"),
        ([[0, 0], [1, 1], [2]], "something else"),
        ([[0, 0], [1, 1], {"x": 2}], "something else"),
        (7, "something else"),
        (None, "something else"),
    ],
)
def test_a_ring_is_made_of_finite_points(points: object, message: str) -> None:
    with pytest.raises(SegbenchError, match=rf"a\.geojson, feature 3: .*{message}"):
        checked_ring(points, "a.geojson, feature 3")
