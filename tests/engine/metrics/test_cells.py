"""The cell metrics equal their definitions, computed naively; the bootstrap equals evaluating the resampled images."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from random_cells import disturbed, label_map, run_lengths, scores_for
from scipy.optimize import linear_sum_assignment

from segbench.engine.metrics import (
    IOU_THRESHOLDS,
    METRICS,
    bootstrap_intervals,
    evaluate_instances,
    evaluate_labels,
    measure_cells,
    paired_samples,
)
from segbench.engine.metrics.bootstrap import resampled_metrics
from segbench.errors import SegbenchError
from segbench.methods.predictions import MaskInstances


def naive(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Compute the metrics of one pair of maps from masks, with Hungarian matching."""
    true_masks = [truth == label for label in np.unique(truth) if label]
    found_masks = [found == label for label in np.unique(found) if label]
    shared = np.array([[np.sum(t & p) for p in found_masks] for t in true_masks]).reshape(
        len(true_masks), len(found_masks)
    )
    true_areas = np.array([mask.sum() for mask in true_masks])
    found_areas = np.array([mask.sum() for mask in found_masks])
    unions = true_areas[:, None] + found_areas[None] - shared if true_masks and found_masks else shared
    iou = shared / np.maximum(unions, 1)
    result: dict[str, float] = {}
    cells = len(true_masks) + len(found_masks)
    for threshold in IOU_THRESHOLDS:
        rows, columns = linear_sum_assignment(-(iou >= threshold).astype(float))
        tp = int(np.sum(iou[rows, columns] >= threshold))
        name = f"{round(100 * threshold)}"
        result[f"f1_{name}"] = 2 * tp / cells if cells else np.nan
        result[f"tp_fp_fn_ap_{name}"] = tp / (cells - tp) if cells else np.nan
    pairs = iou[iou > 0.5]
    result["dq"] = 2 * pairs.size / cells if cells else np.nan
    result["sq"] = pairs.mean() if pairs.size else 0.0
    result["pq"] = result["dq"] * result["sq"]
    intersection, union, taken = 0, 0, set()
    for t in range(len(true_masks)):
        if found_masks and shared[t].any():
            best = int(np.argmax(iou[t]))
            intersection, union = intersection + shared[t, best], union + unions[t, best]
            taken.add(best)
        else:
            union += true_areas[t]
    union += sum(found_areas[p] for p in range(len(found_masks)) if p not in taken)
    result["aji"] = intersection / union if union else np.nan
    seg = [
        max((iou[t, p] for p in range(len(found_masks)) if 2 * shared[t, p] > true_areas[t]), default=0.0)
        for t in range(len(true_masks))
    ]
    result["seg"] = float(np.mean(seg)) if seg else np.nan
    result["splits"] = int(np.sum(np.sum(2 * shared > found_areas[None], axis=1) > 1)) if shared.size else 0
    result["merges"] = int(np.sum(np.sum(2 * shared > true_areas[:, None], axis=0) > 1)) if shared.size else 0
    return result


def test_cell_metrics_equal_their_definitions() -> None:
    rng = np.random.default_rng(11)
    truth = [label_map(rng, (24, 24), int(rng.integers(0, 10))) for _ in range(200)]
    found = [disturbed(rng, labels) for labels in truth]
    columns = measure_cells(evaluate_labels(truth, found).images, pooled=False).columns()
    expected = [naive(*pair) for pair in zip(truth, found, strict=True)]
    for name in expected[0]:
        np.testing.assert_allclose(columns[name], [row[name] for row in expected], rtol=1e-12, err_msg=name)
    assert columns["splits"].sum() > 5
    assert columns["merges"].sum() >= 5


@pytest.mark.slow
def test_disjoint_masks_have_the_metrics_of_their_label_map() -> None:
    rng = np.random.default_rng(12)
    truth = [label_map(rng, (24, 24), int(rng.integers(1, 10))) for _ in range(60)]
    found = [disturbed(rng, labels) for labels in truth]
    masks = [
        MaskInstances(counts := [run_lengths(labels == k) for k in np.unique(labels) if k], np.ones(len(counts)))
        for labels in found
    ]
    of_labels, of_masks = evaluate_labels(truth, found), evaluate_instances(truth, masks)
    for name, column in of_labels.images.columns().items():
        np.testing.assert_allclose(of_masks.images.columns()[name], column, rtol=1e-12, err_msg=name)


def test_pooled_metrics_add_the_counts_up_and_groups_choose_images() -> None:
    rng = np.random.default_rng(13)
    truth = [label_map(rng, (24, 24), 6) for _ in range(20)]
    found = [disturbed(rng, labels) for labels in truth]
    images = evaluate_labels(truth, found, groups=["ab"[n % 2] for n in range(20)]).images
    tp, cells = images.true_positives[::2, 0].sum(), (images.n_truth + images.n_predictions)[::2].sum()
    assert measure_cells(images, group="a").f1[0] == 2 * tp / cells
    assert measure_cells(images, pooled=False).f1.shape == (20, 10)


def test_image_counts_are_rows_for_sql() -> None:
    truth = np.zeros((3, 6, 6), np.int32)
    truth[:2, :3, :3] = 5
    images = evaluate_labels(truth, truth, groups=["a", "b", "b"]).images
    frame = pl.DataFrame(images.columns())
    query = 'select "group", sum(tp_75) as tp, sum(n_truth) as n from self group by "group" order by "group"'
    assert frame.sql(query).rows() == [("a", 1, 1), ("b", 1, 1)]


@pytest.mark.parametrize("score_kind", ["distinct", "few", "constant"])
def test_a_resample_is_the_evaluation_of_the_drawn_images(score_kind: str) -> None:
    rng = np.random.default_rng(14)
    truth = [label_map(rng, (24, 24), int(rng.integers(0, 9))) for _ in range(12)]
    found = [disturbed(rng, labels) for labels in truth]
    scores = [scores_for(rng, np.count_nonzero(np.unique(labels)), score_kind) for labels in found]
    for limit in (3, 3000):
        result = evaluate_labels(truth, found, scores, max_detections=limit)
        weights = rng.multinomial(12, np.full(12, 1 / 12), 40)
        samples = resampled_metrics(result, weights)
        for b, drawn in enumerate(weights):
            images = np.repeat(np.arange(12), drawn)
            again = evaluate_labels(
                [truth[n] for n in images], [found[n] for n in images], [scores[n] for n in images], None, limit
            ).pooled
            for name in METRICS:
                assert samples[name][b] == pytest.approx(getattr(again, name), abs=1e-12)


def test_intervals_surround_the_estimate_and_repeat_with_the_seed() -> None:
    rng = np.random.default_rng(15)
    truth = [label_map(rng, (60, 60), 12) for _ in range(60)]
    found = [disturbed(rng, labels) for labels in truth]
    result = evaluate_labels(truth, found, groups=["ab"[n % 2] for n in range(60)])
    wide, narrow = bootstrap_intervals(result), bootstrap_intervals(result, confidence=0.5)
    for name in METRICS:
        assert wide[name].low < narrow[name].low < getattr(result.pooled, name) < narrow[name].high < wide[name].high
    assert bootstrap_intervals(result)["map"].low == wide["map"].low
    assert bootstrap_intervals(result, seed=1)["map"].low != wide["map"].low
    group = bootstrap_intervals(result, group="a")["ap50"]
    assert group.low < result.groups["a"].ap50 < group.high
    with pytest.raises(SegbenchError, match="unknown group 'c'"):
        bootstrap_intervals(result, group="c")
    with pytest.raises(SegbenchError, match="between 0 and 1"):
        bootstrap_intervals(result, confidence=95)


def test_methods_scored_on_the_same_images_share_their_resamples() -> None:
    rng = np.random.default_rng(16)
    truth = [label_map(rng, (60, 60), 12) for _ in range(24)]
    names = [f"image-{n // 4}" for n in range(24)]
    better = evaluate_labels(truth, truth)
    worse = evaluate_labels(truth, [disturbed(rng, labels) for labels in truth])
    samples = paired_samples(worse, names, n_resamples=50, key="k")
    assert samples["map"].shape == (50,)
    assert samples["map"].min() < worse.pooled.map < samples["map"].max()
    assert (paired_samples(better, names, n_resamples=50, key="k")["ap50"] == 1).all()
    again = paired_samples(worse, names, n_resamples=50, key="k")
    assert all((samples[name] == again[name]).all() for name in METRICS)
    assert (samples["map"] != paired_samples(worse, names, n_resamples=50, key="other")["map"]).any()
    # one image: every resample is the set itself
    alone = paired_samples(worse, ["image"] * 24, n_resamples=3)
    assert alone["map"] == pytest.approx([worse.pooled.map] * 3)
    with pytest.raises(SegbenchError, match="2 names for 24 windows"):
        paired_samples(worse, ["a", "b"])
