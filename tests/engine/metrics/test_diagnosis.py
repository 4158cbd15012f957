"""Shares of kinds of error add up to the gap, planted errors are told by their kind, outlines are as defined."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from random_cells import disturbed, label_map, random_masks, scores_for
from scipy import ndimage

from segbench.engine.metrics import evaluate_instances, evaluate_labels
from segbench.engine.metrics.attribution import shares_of
from segbench.engine.metrics.boundaries import BAND_PX, compare_labels, find_boxes
from segbench.engine.metrics.diagnosis import Diagnosis, diagnose_labels, diagnose_prediction_set
from segbench.engine.metrics.faults import KINDS
from segbench.errors import SegbenchError
from segbench.methods.predictions import (
    Instances,
    LabelInstances,
    MaskInstances,
    PredictionSet,
    PredictionWriter,
    run_lengths,
)

Plant = Callable[[np.ndarray], None]


def squares() -> np.ndarray:
    """Return a map of 36 cells of 10 x 10 pixels in pairs that touch, with room between the pairs."""
    labels = np.zeros((128, 128), np.int32)
    for n, (row, column) in enumerate(itertools.product(range(6), range(6))):
        y, x = 4 + 20 * row, 4 + 10 * column + 10 * (column // 2)
        labels[y : y + 10, x : x + 10] = n + 1
    return labels


def lose(labels: np.ndarray) -> None:
    labels[labels == 1] = 0


def invent(labels: np.ndarray) -> None:
    labels[120:126, 2:8] = 90


def quarter(labels: np.ndarray) -> None:
    rows, columns = np.nonzero(labels == 3)
    labels[rows, columns] = 91 + 2 * (rows > rows.mean()) + (columns > columns.mean())


def join(labels: np.ndarray) -> None:
    labels[labels == 6] = 5


def trim(labels: np.ndarray) -> None:
    rows, columns = np.nonzero(labels == 7)
    cut = (rows < rows.min() + 4) | (columns < columns.min() + 4)
    labels[rows[cut], columns[cut]] = 0


PLANTED: dict[str, Plant] = {"missed": lose, "spurious": invent, "split": quarter, "merged": join, "loose": trim}


def planted(*kinds: str) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return three images with the same errors, and scores in no order."""
    truth = [squares()] * 3
    found = [labels.copy() for labels in truth]
    for labels, kind in itertools.product(found, kinds):
        PLANTED[kind](labels)
    rng = np.random.default_rng(5)
    return truth, found, [rng.random(np.unique(labels).size - 1) for labels in found]


def gap(diagnosis: Diagnosis, metric: str = "map", subset: str = "all") -> dict[str, float]:
    return diagnosis.gaps().row(by_predicate=(pl.col("metric") == metric) & (pl.col("subset") == subset), named=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gap_of_one_planted_kind_is_all_its_own(kind: str) -> None:
    diagnosis = diagnose_labels(*planted(kind))
    for metric in ("map", "ap50", "ap75"):
        row = gap(diagnosis, metric)
        assert row["gap"] > 0.005
        assert {name: row[name] for name in KINDS} == pytest.approx(
            {name: row["gap"] if name == kind else 0.0 for name in KINDS}, abs=1e-12
        )


@pytest.mark.parametrize("kinds", [("missed", "loose"), ("split", "merged", "spurious"), KINDS])
def test_planted_kinds_share_the_gap_among_them(kinds: tuple[str, ...]) -> None:
    row = gap(diagnose_labels(*planted(*kinds)), "ap50")
    assert sum(row[kind] for kind in KINDS) == pytest.approx(row["gap"], abs=1e-12)
    assert {kind for kind in KINDS if abs(row[kind]) > 1e-12} == set(kinds)


def test_planted_errors_are_counted_by_their_kind() -> None:
    row = diagnose_labels(*planted(*KINDS)).cells().row(0, named=True)
    # of two equal cells that are one prediction, one is found with IoU 0.5
    told = {"n_truth": 108, "found": 96, "missed": 3, "split": 3, "merged": 3, "loose": 3, "spurious": 3}
    assert {name: row[name] for name in told} == told


def random_sets(n: int) -> Iterator[tuple[np.random.Generator, list[np.ndarray]]]:
    for seed in range(n):
        rng = np.random.default_rng(seed)
        shape = (int(rng.integers(4, 20)), int(rng.integers(4, 20)))
        yield rng, [label_map(rng, shape, int(rng.integers(1, 9))) for _ in range(int(rng.integers(1, 4)))]


def assert_adds_up(diagnosis: Diagnosis, evaluation: object) -> None:
    for subset, scores in evaluation.subsets().items():
        for metric in ("map", "ap50", "ap75"):
            row, value = gap(diagnosis, metric, subset), getattr(scores, metric)
            if value == -1:
                assert row["score"] is row["gap"] is row["missed"] is None
                continue
            assert row["score"] == value
            assert sum(row[kind] for kind in KINDS) == pytest.approx(1 - value, abs=1e-12)
    counts = diagnosis.cells().filter(parted_by="all", subset="all").row(0, named=True)
    assert counts["n_truth"] == sum(counts[name] for name in ("found", "missed", "split", "merged", "loose"))
    assert counts["found"] == evaluation.images.true_positives[:, 0].sum() or evaluation.notes


@pytest.mark.parametrize("limit", [2, 3000])
def test_shares_of_any_label_maps_add_up_to_the_evaluators_gap(limit: int) -> None:
    for rng, truth in random_sets(60):
        found = [disturbed(rng, labels) for labels in truth]
        kind = ("distinct", "few", "constant", "negative")[int(rng.integers(4))]
        scores = [scores_for(rng, np.count_nonzero(np.unique(labels)), kind) for labels in found]
        groups = [f"tissue {rng.integers(2)}" for _ in truth]
        pair = truth, found, scores, groups, limit
        assert_adds_up(diagnose_labels(*pair), evaluate_labels(*pair))


def test_shares_of_overlapping_masks_add_up_to_the_evaluators_gap(tmp_path: Path) -> None:
    for n, (rng, truth) in enumerate(random_sets(25)):
        shape = truth[0].shape
        found = [random_masks(rng, labels, "few")[0] for labels in truth]
        predictions = written(tmp_path / str(n), found, shape)
        for limit in (2, 3000):
            assert_adds_up(
                diagnose_prediction_set(truth, predictions, max_detections=limit),
                evaluate_instances(truth, found, max_detections=limit),
            )


def written(folder: Path, found: list[Instances], shape: tuple[int, int]) -> PredictionSet:
    kind = "labels" if isinstance(found[0], LabelInstances) else "masks"
    with PredictionWriter(folder, kind, len(found), *shape) as writer:
        for instances in found:
            writer.add(instances)
    return PredictionSet(folder)


def test_a_share_is_the_mean_over_all_orders_of_mending() -> None:
    values = np.random.default_rng(0).random((2, 16))
    bit = {"split": 1, "merged": 2, "spurious": 4, "loose": 8}
    shares = dict.fromkeys(KINDS, 0.0)
    for order in itertools.permutations(KINDS):
        missed = place = 0
        for kind in order:
            before = values[missed, place]
            missed, place = (1, place) if kind == "missed" else (missed, place | bit[kind])
            shares[kind] += (values[missed, place] - before) / math.factorial(len(KINDS))
    assert shares_of(values) == pytest.approx(shares)


def test_a_subset_without_true_cells_has_no_gap() -> None:
    empty, cell = np.zeros((4, 4), int), np.eye(4, dtype=int)
    row = gap(diagnose_labels([empty, cell], [cell, cell], groups=["skin", "lung"]), "ap50", "skin")
    assert row["score"] is None
    assert row["spurious"] is None


def test_outlines_equal_the_definition() -> None:
    """Boundary IoU as its authors' ``mask_to_boundary`` has it: eroded by squares, beyond the image is outside."""
    rng = np.random.default_rng(1)
    for _ in range(40):
        one, other = (ndimage.gaussian_filter(rng.random((24, 31)), 3) > 0.5 for _ in range(2))
        if not one.any() or not other.any():
            continue
        maps = one.astype(np.int32), other.astype(np.int32)
        boxes = [find_boxes(labels, 1)[0] for labels in maps]
        got = compare_labels(*maps, *boxes, np.zeros((1, 2), np.int32), BAND_PX)[0]
        bands = [m & ~ndimage.binary_erosion(m, np.ones((3, 3)), iterations=BAND_PX) for m in (one, other)]
        assert got[0] == (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum()
        edges = [m & ~ndimage.binary_erosion(m) for m in (one, other)]
        there, back = (ndimage.distance_transform_edt(~edges[1 - n])[edges[n]] for n in (0, 1))
        assert got[1] == pytest.approx(np.concatenate([there, back]).mean())
        assert got[2] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))


def test_masks_have_the_outlines_of_the_same_label_map(tmp_path: Path) -> None:
    truth, found, scores = planted("loose", "spurious")
    found = [np.unique(labels, return_inverse=True)[1].reshape(labels.shape) for labels in found]
    shape = truth[0].shape
    maps = written(tmp_path / "maps", [LabelInstances(*pair) for pair in zip(found, scores, strict=True)], shape)
    masks = [
        MaskInstances([run_lengths(labels == k) for k in np.unique(labels) if k], given)
        for labels, given in zip(found, scores, strict=True)
    ]
    one = diagnose_prediction_set(truth, maps)
    other = diagnose_prediction_set(truth, written(tmp_path / "masks", masks, shape))
    assert one.cells().equals(other.cells())
    assert one.gaps().equals(other.gaps())
    assert one.calibration().equals(other.calibration())


def test_quarters_of_size_and_density_hold_every_true_cell_once() -> None:
    rng = np.random.default_rng(3)
    truth = [label_map(rng, (40, 40), 20) for _ in range(4)]
    cells = diagnose_labels(truth, [disturbed(rng, labels) for labels in truth]).cells()
    total = cells.row(0, named=True)
    for by in ("size", "density"):
        part = cells.filter(parted_by=by)
        assert part["n_truth"].sum() == total["n_truth"]
        assert part["low"].is_sorted()
    assert cells.filter(parted_by="size")["spurious"].sum() == total["spurious"]


def test_calibration_compares_scores_with_what_is_right() -> None:
    truth, found, _ = planted("spurious")
    scores = [np.where(np.unique(labels)[1:] == 90, 0.15, 0.95) for labels in found]
    table = diagnose_labels(truth, found, scores).calibration()
    assert table.select("bin", "n", "correct").rows() == [(1, 3, 0.0), (9, 108, 1.0)]


def test_scores_outside_of_0_to_1_are_told_apart_by_their_number() -> None:
    truth, found, _ = planted("spurious")
    scores = [10.0 * np.arange(np.unique(labels).size - 1) for labels in found]
    table = diagnose_labels(truth, found, scores).calibration()
    assert table["n"].sum() == sum(map(len, scores))
    assert table.height == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [[0.5]]}, "scores"),
        ({"truth": [-squares()]}, r"truth\[0\] has the label -36"),
        ({"groups": ["lung", "skin"]}, "groups has 2 names for 1"),
        ({"predictions": [squares()[:9]]}, "both maps of a pair"),
        ({"truth": [], "predictions": []}, "no label maps"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        diagnose_labels(**{"truth": [squares()], "predictions": [squares()], **change})
