"""The evaluator equals pycocotools 2.0.11 element by element, on thousands of random sets of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycoco_reference import Image, image_of_labels, reference_scores, unequal_elements
from random_cells import SCORE_KINDS, disturbed, label_map, random_masks, scores_for

from segbench.engine.metrics import Scores, evaluate_instances, evaluate_labels

BOUNDS = {"small": (0.0, 9.0), "medium": (9.0, 16.0), "large": (16.0, 1e10)}
cases = settings(
    max_examples=1100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def assert_equal(ours: Scores, theirs: Scores) -> None:
    assert unequal_elements(ours, theirs) == 0
    assert ours.metrics() == theirs.metrics()
    assert (ours.n_images, ours.n_truth) == (theirs.n_images, theirs.n_truth)


@pytest.mark.slow
@cases
@given(
    seed=st.integers(0, 2**32 - 1),
    n_images=st.integers(1, 4),
    score_kind=st.sampled_from(SCORE_KINDS),
    max_detections=st.sampled_from([1, 5, 100, 3000]),
    n_groups=st.integers(0, 3),
    with_areas=st.booleans(),
)
def test_label_maps_equal_pycocotools(
    seed: int, n_images: int, score_kind: str, max_detections: int, n_groups: int, with_areas: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(4, 20)), int(rng.integers(4, 20)))
    truth = [label_map(rng, shape, int(rng.integers(0, 9))) for _ in range(n_images)]
    found = [disturbed(rng, labels) for labels in truth]
    scores = [scores_for(rng, np.count_nonzero(np.unique(labels)), score_kind) for labels in found]
    groups = [f"tissue {rng.integers(0, n_groups)}" for _ in truth] if n_groups else None
    images = [image_of_labels(*image) for image in zip(truth, found, scores, strict=True)]

    ours = evaluate_labels(truth, found, scores, groups, max_detections, area_ranges=BOUNDS if with_areas else None)

    assert_equal(ours.pooled, reference_scores(images, max_detections))
    for name, group in ours.groups.items():
        members = [image for image, of in zip(images, groups or [], strict=True) if of == name]
        assert_equal(group, reference_scores(members, max_detections))
    for name, scores_of_range in ours.areas.items():
        assert unequal_elements(scores_of_range, reference_scores(images, max_detections, BOUNDS[name])) == 0


@pytest.mark.slow
@cases
@given(
    seed=st.integers(0, 2**32 - 1),
    n_images=st.integers(1, 4),
    score_kind=st.sampled_from(SCORE_KINDS),
    max_detections=st.sampled_from([1, 5, 100, 3000]),
    with_areas=st.booleans(),
)
def test_overlapping_masks_equal_pycocotools(
    seed: int, n_images: int, score_kind: str, max_detections: int, with_areas: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(4, 20)), int(rng.integers(4, 20)))
    truth = [label_map(rng, shape, int(rng.integers(0, 9))) for _ in range(n_images)]
    found = [random_masks(rng, labels, score_kind) for labels in truth]
    groups = [f"tissue {rng.integers(0, 2)}" for _ in truth]
    images = [
        Image(image_of_labels(labels, labels, []).truth, masks, instances.scores, shape)
        for labels, (instances, masks) in zip(truth, found, strict=True)
    ]

    ours = evaluate_instances(
        truth,
        [instances for instances, _ in found],
        groups,
        max_detections,
        area_ranges=BOUNDS if with_areas else None,
    )

    assert_equal(ours.pooled, reference_scores(images, max_detections))
    for name, group in ours.groups.items():
        members = [image for image, of in zip(images, groups, strict=True) if of == name]
        assert_equal(group, reference_scores(members, max_detections))
    for name, scores_of_range in ours.areas.items():
        assert unequal_elements(scores_of_range, reference_scores(images, max_detections, BOUNDS[name])) == 0


@pytest.mark.parametrize("threshold", range(10))
def test_iou_exactly_on_a_threshold_equals_pycocotools(threshold: int) -> None:
    """A prediction inside a true cell of 20 rows, with 10 to 19 of them: IoU 0.5, 0.55, ... 0.95."""
    truth, found = np.zeros((20, 3), np.int32), np.zeros((20, 3), np.int32)
    truth[:, 1] = 1
    found[: 10 + threshold, 1] = 1
    ours = evaluate_labels([truth], [found], [[0.5]]).pooled
    assert_equal(ours, reference_scores([image_of_labels(truth, found, [0.5])], 3000))
