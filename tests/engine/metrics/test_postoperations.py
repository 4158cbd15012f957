"""Post-operations equal their naive definitions, and a sweep equals evaluating every radius apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from random_cells import disturbed, label_map, run_lengths, scores_for
from scipy import ndimage
from skimage.morphology import disk
from skimage.segmentation import expand_labels

from segbench.engine.metrics import (
    apply_post_operation,
    evaluate_labels,
    paint_instances,
    sweep_labels,
    sweep_prediction_set,
)
from segbench.errors import SegbenchError
from segbench.methods.predictions import MaskInstances, PredictionSet, PredictionWriter

Labels = npt.NDArray[np.int32]


def naive_dilate_disk(labels: Labels, radius: int) -> Labels:
    return expand_labels(labels, radius)


def naive_erode_disk(labels: Labels, radius: int) -> Labels:
    result = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        result[ndimage.binary_erosion(labels == label, disk(radius))] = label
    return result


def naive_dilate_cross(labels: Labels, radius: int) -> Labels:
    result = labels.copy()
    for _ in range(radius):
        for label in np.unique(labels[labels > 0]):
            result[ndimage.binary_dilation(result == label) & (result == 0)] = label
    return result


def naive_erode_cross(labels: Labels, radius: int) -> Labels:
    result = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        result[ndimage.binary_erosion(mask, iterations=radius) if radius else mask] = label
    return result


NAIVE = {
    ("dilate", "disk"): naive_dilate_disk,
    ("erode", "disk"): naive_erode_disk,
    ("dilate", "cross"): naive_dilate_cross,
    ("erode", "cross"): naive_erode_cross,
}
OPERATIONS = list(NAIVE)


def random_map(rng: np.random.Generator) -> Labels:
    if rng.random() < 0.3:  # scattered points: many pixels equally far from several cells
        labels = np.zeros((int(rng.integers(1, 40)), int(rng.integers(1, 40))), np.int32)
        for label in range(1, int(rng.integers(2, 12))):
            labels[rng.integers(0, labels.shape[0]), rng.integers(0, labels.shape[1])] = label
        return labels
    shape = (int(rng.integers(1, 50)), int(rng.integers(1, 50)))
    labels = label_map(rng, shape, int(rng.integers(0, 12)))
    return np.kron(labels, np.ones((2, 2), np.int32)) if rng.random() < 0.5 else labels


@pytest.mark.parametrize(("operation", "structure"), OPERATIONS)
def test_post_operation_equals_its_naive_definition(operation: str, structure: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(80):
        labels = random_map(rng)
        radius = int(rng.choice([0, 1, 2, 3, 5, 9, 20, 41]))
        expected = NAIVE[operation, structure](labels, radius)
        np.testing.assert_array_equal(apply_post_operation(labels, operation, radius, structure), expected)


@pytest.mark.parametrize(("operation", "structure"), OPERATIONS)
def test_sweep_equals_evaluating_every_radius(operation: str, structure: str) -> None:
    rng = np.random.default_rng(8)
    truth = [np.kron(label_map(rng, (30, 34), 9), np.ones((2, 2), np.int32)) for _ in range(12)]
    found = [disturbed(rng, labels) for labels in truth]
    scores = [scores_for(rng, np.count_nonzero(np.unique(labels)), "few") for labels in found]
    groups = ["ab"[n % 2] for n in range(12)]
    radii = [0, 1, 2, 3, 4, 7, 12]
    for limit in (5, 3000):
        swept = sweep_labels(truth, found, operation, radii, scores, groups, limit, structure=structure)
        assert list(swept) == radii
        for radius, result in swept.items():
            after = [apply_post_operation(labels, operation, radius, structure) for labels in found]
            left = [
                given[np.isin(np.unique(before[before > 0]), labels)]
                for before, labels, given in zip(found, after, scores, strict=True)
            ]
            apart = evaluate_labels(truth, after, left, groups, limit)
            for swept_scores, apart_scores in zip(
                [result.pooled, *result.groups.values()], [apart.pooled, *apart.groups.values()], strict=True
            ):
                np.testing.assert_array_equal(swept_scores.precision, apart_scores.precision)
                np.testing.assert_array_equal(swept_scores.recall, apart_scores.recall)
                np.testing.assert_array_equal(swept_scores.score_thresholds, apart_scores.score_thresholds)
                assert swept_scores.n_predictions == apart_scores.n_predictions
            for name, column in apart.images.columns().items():
                np.testing.assert_array_equal(result.images.columns()[name], column)


def test_sweep_skips_radii_and_runs_on_two_threads() -> None:
    rng = np.random.default_rng(9)
    truth = np.stack([label_map(rng, (60, 60), 9) for _ in range(40)])
    found = np.stack([disturbed(rng, labels) for labels in truth])
    every, some = sweep_labels(truth, found), sweep_labels(truth, found, radii=[18, 3], threads=2)
    assert list(some) == [3, 18]
    for radius in some:
        np.testing.assert_array_equal(some[radius].pooled.precision, every[radius].pooled.precision)


def test_sweep_of_overlapping_masks_paints_the_best_on_top(tmp_path) -> None:
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 1:5, 1:5], masks[1, 3:7, 3:7], masks[2, 2:4, 2:4] = True, True, True
    instances = MaskInstances([run_lengths(mask) for mask in masks], np.array([0.5, 0.9, 0.3]))
    labels, scores = paint_instances(instances, (8, 8))
    assert scores.tolist() == [0.5, 0.9]  # the third is covered whole
    assert (labels[masks[1]] == 2).all()
    assert (labels[masks[0] & ~masks[1]] == 1).all()
    with PredictionWriter(tmp_path, "masks", 1, 8, 8) as writer:
        writer.add(instances)
    truth = masks[1][None].astype(np.int32)
    swept = sweep_prediction_set(truth, PredictionSet(tmp_path), radii=[0])
    assert swept[0].pooled.n_predictions == 2
    assert swept[0].pooled.map == evaluate_labels(truth, labels[None], [scores]).pooled.map == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("widen", 1), "unknown post-operation 'widen'.*dilate"),
        (("dilate", 1, "square"), "unknown structure 'square'.*disk"),
        (("dilate", -1), "radii go from -1"),
        (("erode", 501), "whole pixels, 0 to 500"),
    ],
)
def test_wrong_post_operations_are_refused(arguments, message) -> None:
    with pytest.raises(SegbenchError, match=message):
        apply_post_operation(np.zeros((4, 4), np.int32), *arguments)
