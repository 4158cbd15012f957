"""On real data, COCO's fixtures and two CODEX fields of thousands of cells, the evaluator equals pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pycoco_reference import image_of_labels, reference_scores, run_coco, unequal_elements
from scipy import ndimage

from segbench.engine.metrics import COCO_AREAS, evaluate_coco_json, evaluate_labels, measure_cells

FIELDS = ("X003_Y004", "X004_Y003")
PREDICTED = ("Cellpose-0.6.1", "DeepCell-0.9.0_membrane")
# full digits of pycocotools 2.0.11, from the fixture's README
COCO_SUMMARIES = {
    "segm": [
        0.3195452758576433, 0.5622883972521636, 0.29892653412086784, 0.3873740315997838, 0.31018272403369485,
        0.3269339071005138, 0.2682297225711534, 0.41544868114906375, 0.4168394992198818, 0.4694498622754236,
        0.37675922666197265, 0.3814715099715099,
    ],
    "bbox": [
        0.5045806987249628, 0.6969727247299577, 0.5729816669904824, 0.5856257209410443, 0.5193996948036719,
        0.5013978986347466, 0.38681277964578054, 0.5936795762842003, 0.595352982877607, 0.6398109626113442,
        0.5664205978994309, 0.5642905982905982,
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def coco(testdata: Path) -> Path:
    return testdata / "coco-fixture"


def field(testdata: Path, name: str, who: str) -> np.ndarray:
    return tifffile.imread(testdata / "codex-two-experts" / name / f"mask_{who}.tif")


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_coco_hundred_images_give_the_twelve_numbers(coco: Path, iou_type: str) -> None:
    truth, found = coco / "instances_val2014_100.json", coco / f"instances_val2014_fake{iou_type}100_results.json"
    result = evaluate_coco_json(truth, found, max_detections=(1, 10, 100), iou_type=iou_type)
    assert result.summary() == pytest.approx(COCO_SUMMARIES[iou_type], abs=1e-15)
    assert (len(result.categories), result.n_images, result.n_truth) == (80, 100, 830)

    theirs = run_coco(
        json.loads(truth.read_text()),
        json.loads(found.read_text()),
        max_detections=(1, 10, 100),
        area_ranges={"all": (0, 1e10), **COCO_AREAS},
        iou_type=iou_type,
    )
    np.testing.assert_array_equal(result.precision, theirs.eval["precision"])
    np.testing.assert_array_equal(result.recall, theirs.eval["recall"])
    np.testing.assert_array_equal(result.score_thresholds, theirs.eval["scores"])
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.summarize()
    assert result.summary() == theirs.stats.tolist()


@pytest.mark.parametrize("who", PREDICTED)
@pytest.mark.parametrize("expert", ["expert1", "expert2"])
def test_dense_cells_give_the_reference_figures(coco: Path, who: str, expert: str) -> None:
    dense = coco / "dense-cells"
    result = evaluate_coco_json(
        dense / f"gt_{expert}.json", dense / f"pred_{who}.json", max_detections=(2000, 2500, 3000)
    )
    expected = json.loads((dense / "faster_coco_eval_1.8.0_maxDets_2000_2500_3000.json").read_text())[f"{who}|{expert}"]
    ours, ours_2000 = result.metrics(), result.metrics("all", 2000)
    named = {"AP": "map", "AP50": "ap50", "AP75": "ap75", "AR": "ar", "AR50": "ar50", "AR75": "ar75"}
    assert {key: ours[name] for key, name in named.items()} == pytest.approx(
        {key: expected[key] for key in named}, abs=1e-9
    )
    assert (ours_2000["map"], ours_2000["ar"]) == pytest.approx(
        (expected["AP_maxDets2000"], expected["AR_maxDets2000"]), abs=1e-9
    )
    assert (result.n_truth, result.n_predictions) == (expected["n_gt"], expected["n_pred"])


@pytest.mark.parametrize("who", PREDICTED)
def test_codex_label_maps_give_the_reference_figures(testdata: Path, who: str) -> None:
    """The same cells as label maps, each with the score that the fixture's mask of it has."""
    dense = testdata / "coco-fixture" / "dense-cells"
    results = json.loads((dense / f"pred_{who}.json").read_text())
    names = [image["file_name"][-9:] for image in json.loads((dense / "gt_expert1.json").read_text())["images"]]
    truth = [field(testdata, name, "expert1") for name in names]
    found = [field(testdata, name, who) for name in names]
    scores = []
    for image, labels in enumerate(found, start=1):
        of_box = {(*r["bbox"], r["area"]): r["score"] for r in results if r["image_id"] == image}
        areas = np.bincount(labels.ravel())
        scores.append(
            [
                of_box[box[1].start, box[0].start, box[1].stop - box[1].start, box[0].stop - box[0].start, areas[label]]
                for label, box in enumerate(ndimage.find_objects(labels), start=1)
                if box is not None
            ]
        )
    expected = json.loads((dense / "faster_coco_eval_1.8.0_maxDets_2000_2500_3000.json").read_text())[f"{who}|expert1"]
    for limit, keys in ((3000, {"AP": "map", "AP50": "ap50", "AP75": "ap75", "AR": "ar", "AR75": "ar75"}),
                        (2000, {"AP_maxDets2000": "map", "AR_maxDets2000": "ar"})):  # fmt: skip
        ours = evaluate_labels(truth, found, scores, max_detections=limit).pooled.metrics()
        assert {key: ours[name] for key, name in keys.items()} == pytest.approx(
            {key: expected[key] for key in keys}, abs=1e-9
        )


@pytest.mark.parametrize("who", [*PREDICTED, "expert2"])
def test_codex_windows_equal_pycocotools(testdata: Path, who: str) -> None:
    """Eight of sixteen windows a field, since pycocotools takes a minute for the fields whole."""
    truth, found = (
        [
            part
            for name in FIELDS
            for rows in np.split(field(testdata, name, whose), 4)
            for part in np.split(rows, 4, axis=1)[::2]
        ]
        for whose in ("expert1", who)
    )
    rng = np.random.default_rng(0)
    scores = [rng.random(np.count_nonzero(np.unique(labels))) for labels in found]
    groups = [FIELDS[n // 8] for n in range(16)]
    images = [image_of_labels(*image) for image in zip(truth, found, scores, strict=True)]
    ours = evaluate_labels(truth, found, scores, groups)
    assert unequal_elements(ours.pooled, reference_scores(images, 3000)) == 0
    assert unequal_elements(ours.groups[FIELDS[0]], reference_scores(images[:8], 3000)) == 0
    assert ours.pooled.n_truth > 3000


def test_experts_who_disagree_are_seen_in_every_metric(testdata: Path) -> None:
    truth = [field(testdata, name, "expert1") for name in FIELDS]
    itself = measure_cells(evaluate_labels(truth, truth).images)
    other = measure_cells(evaluate_labels(truth, [field(testdata, name, "expert2") for name in FIELDS]).images)
    assert itself.panoptic_quality == itself.aggregated_jaccard == itself.seg == 1.0
    assert other.panoptic_quality < 0.5
    assert other.merges > other.splits  # the second expert drew fewer, larger cells
