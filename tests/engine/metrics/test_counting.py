"""Maps are matched alike whatever their type, layout and size, in one piece or many, on one thread or more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_cells import disturbed, label_map

from segbench.engine.metrics import Evaluation, batches, counting, evaluate_labels
from segbench.errors import SegbenchError

Maps = list[np.ndarray]


@pytest.fixture(scope="module")
def pair() -> tuple[Maps, Maps]:
    """Return eight maps, of few shapes, with labels below 256."""
    rng = np.random.default_rng(7)
    truth = [label_map(rng, (40 + n % 2, 31), 25) for n in range(8)]
    return truth, [np.minimum(disturbed(rng, labels), 255) for labels in truth]


def alike(one: Evaluation, other: Evaluation) -> bool:
    """Return whether two evaluations are equal to the last bit."""
    columns = one.images.columns(), other.images.columns()
    return (
        np.array_equal(one.pooled.precision, other.pooled.precision)
        and np.array_equal(one.pooled.score_thresholds, other.pooled.score_thresholds)
        and all(np.array_equal(columns[0][name], columns[1][name]) for name in columns[0])
        and all(np.array_equal(a.precision, other.areas[name].precision) for name, a in one.areas.items())
    )


@pytest.mark.parametrize(
    ("true_type", "found_type"),
    [("u1", "u1"), ("u2", "u2"), ("u2", "i4"), ("i8", "u8"), (">u2", "i2"), ("u4", "i1")],
)
def test_any_integer_type_gives_the_same(pair: tuple[Maps, Maps], true_type: str, found_type: str) -> None:
    truth, found = pair
    if found_type == "i1":
        found = [labels % 128 for labels in found]
    expected = evaluate_labels(truth, found, area_ranges={"small": (0, 9)})
    types = [labels.astype(true_type) for labels in truth], [labels.astype(found_type) for labels in found]
    assert alike(evaluate_labels(*types, area_ranges={"small": (0, 9)}), expected)


def test_other_layouts_give_the_same(pair: tuple[Maps, Maps]) -> None:
    truth, found = pair
    wide = [np.repeat(labels, 2, axis=1)[:, ::2] for labels in found]
    assert alike(evaluate_labels([np.asfortranarray(labels) for labels in truth], wide), evaluate_labels(truth, found))


def test_narrow_maps_are_not_copied() -> None:
    for kind in ("u1", "u2", "i4"):
        labels = np.arange(12, dtype=kind).reshape(3, 4)
        assert np.shares_memory(batches.flat_chunk(labels, slice(0, 2), "truth", 0), labels)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_maps_are_counted_in_pieces(
    pair: tuple[Maps, Maps], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of the maps are above the size of a piece, so that counted whole and in pieces stand side by side."""
    truth, found = ([*maps[:4], np.tile(maps[4], (3, 2)), *maps[5:]] for maps in pair)
    expected = evaluate_labels(truth, found)
    for pixels in (31 * 7, 2_000, 1):
        for module in (batches, counting):
            monkeypatch.setattr(module, "CHUNK_PIXELS", pixels)
        assert alike(evaluate_labels(truth, found, threads=threads), expected)


def test_a_list_and_a_stack_give_the_same(pair: tuple[Maps, Maps]) -> None:
    truth, found = (np.stack(maps[::2]) for maps in pair)
    assert alike(evaluate_labels(list(truth), iter(found)), evaluate_labels(truth, found))


def test_many_and_large_labels_give_the_same() -> None:
    rng = np.random.default_rng(0)
    truth = rng.permutation(90_000).reshape(300, 300) // 4
    found = np.where(rng.random(truth.shape) < 0.9, truth, 0)
    expected = evaluate_labels([truth], [found])
    assert alike(evaluate_labels([truth * 20_000], [found * 20_000]), expected)


def test_empty_maps_have_no_cells() -> None:
    nothing = np.zeros((0, 5), np.uint16)
    assert evaluate_labels(
        [nothing, np.eye(3, dtype=int)], [nothing, np.eye(3, dtype=int)]
    ).images.n_truth.tolist() == [0, 1]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.array([[0, -2]], "i4"), r"predictions\[1\] has the label -2"),
        (np.array([[0, -2]], "i2"), r"predictions\[1\] has the label -2"),
        (np.array([[0, -2]], "i8"), r"predictions\[1\] has labels from -2 to 0"),
        (np.array([[0, 2**31]], "u4"), rf"predictions\[1\] has labels from 0 to {2**31}"),
    ],
)
def test_labels_out_of_range_are_refused(found: Any, message: str, threads: int) -> None:
    fine = np.array([[0, 1]])
    with pytest.raises(SegbenchError, match=message):
        evaluate_labels([fine, fine], [fine, found], threads=threads)
