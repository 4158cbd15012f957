"""Shapes of known figures come out as geometry says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial import ConvexHull
from skimage.draw import polygon as draw_polygon

from segbench.engine.data.morphology import measure

Points = npt.NDArray[np.float64]


def _ellipse(a: float, b: float, degrees: float) -> Points:
    t = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    turn = np.deg2rad(degrees)
    y, x = a * np.cos(t), b * np.sin(t)
    return np.column_stack([y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)])


def _l_shape(side: float, degrees: float) -> Points:
    corners = np.array([[0, 0], [2, 0], [2, 2], [1, 2], [1, 1], [0, 1]]) * side - side
    turn = np.deg2rad(degrees)
    return corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])


def _exact(outline: Points) -> tuple[float, float]:
    """Return elongation and convexity of a closed outline, its boundary taken at equal distances."""
    closed = np.vstack([outline, outline[:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    at = np.linspace(0, along[-1], 20_000, endpoint=False)
    points = np.column_stack([np.interp(at, along, closed[:, k]) for k in (0, 1)])
    low, high = np.linalg.eigvalsh(np.cov(points.T))
    return float(low / high), float(ConvexHull(outline).area / along[-1])


def _drawn(outline: Points) -> npt.NDArray[np.int32]:
    labels = np.zeros((200, 200), np.int32)
    labels[draw_polygon(*(outline.T + 100.3), labels.shape)] = 1
    return labels


@pytest.mark.parametrize("degrees", [0, 17, 30, 45, 80])
@pytest.mark.parametrize("outline", [_ellipse(30, 30, 0), _ellipse(40, 20, 0), _ellipse(50, 10, 0), _l_shape(35, 0)])
def test_shapes_equal_geometry_in_every_direction(outline: Points, degrees: float) -> None:
    turn = np.deg2rad(degrees)
    turned = outline @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    shapes = measure(_drawn(turned))
    elongation, convexity = _exact(outline)
    assert shapes.elongation[0] == pytest.approx(elongation, abs=0.025)
    assert shapes.convexity[0] == pytest.approx(convexity, abs=0.012)


def test_a_disc_is_round_and_convex_at_every_size() -> None:
    for radius in (3, 5, 8, 13, 40):
        shapes = measure(_drawn(_ellipse(radius, radius, 0)))
        assert shapes.elongation[0] > 0.8
        assert 0.99 < shapes.convexity[0] <= 1


def test_tiny_cells_have_shapes_too() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[1, 1] = 1
    labels[3, 2:9] = 2
    labels[6:8, 6:8] = 3
    shapes = measure(labels)
    assert shapes.area.tolist() == [1, 7, 4]
    assert shapes.elongation.tolist() == [1, 0, 1]
    assert shapes.convexity.tolist() == [1, 1, 1]


def test_the_largest_piece_of_a_torn_cell_is_measured_and_all_of_it_counted() -> None:
    whole = _drawn(_ellipse(20, 20, 0))
    torn = whole.copy()
    torn[2:5, 2:30] = 1
    assert measure(torn).area[0] == measure(whole).area[0] + 3 * 28
    assert measure(torn).elongation[0] == measure(whole).elongation[0]
    assert measure(torn).convexity[0] == measure(whole).convexity[0]


def test_holes_do_not_change_the_outline() -> None:
    labels = _drawn(_ellipse(20, 20, 0))
    pierced = labels.copy()
    pierced[98:103, 98:103] = 0
    assert measure(pierced).convexity[0] == measure(labels).convexity[0]


def test_cells_at_the_border_are_marked_as_cut() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[0:3, 5:8], labels[9:12, 9:12], labels[15:18, 17:20] = 1, 2, 3
    assert measure(labels).cut.tolist() == [True, False, True]


def test_a_map_without_cells_has_no_shapes() -> None:
    assert measure(np.zeros((8, 8), np.int32)).area.size == 0


def test_touching_cells_are_measured_apart() -> None:
    alone = np.zeros((40, 40), np.int32)
    alone[5:20, 5:20] = 1
    together = alone.copy()
    together[5:20, 20:35] = 2
    both = measure(together)
    assert both.convexity[0] == measure(alone).convexity[0]
    assert both.area.tolist() == [225, 225]
