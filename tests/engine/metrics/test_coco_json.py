"""COCO JSON with crowds, overlaps, categories, areas and limits equals pycocotools; bad files are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycoco_reference import run_coco
from pycocotools import mask as mask_utils
from random_cells import SCORE_KINDS, label_map, random_masks, run_lengths, scores_for

from segbench.engine.metrics import evaluate_coco_json
from segbench.errors import SegbenchError

AREAS = {"small": (0.0, 9.0), "medium": (9.0, 16.0), "large": (16.0, 1e10)}


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_dataset(rng: np.random.Generator, score_kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a dataset whose objects overlap, some of them crowds, and results for it."""
    shape = (int(rng.integers(5, 16)), int(rng.integers(5, 16)))
    image_ids = rng.permutation(50)[: rng.integers(1, 4)].tolist()
    category_ids = [7, 3, 12][: rng.integers(1, 4)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in image_ids:
        labels = label_map(rng, shape, int(rng.integers(0, 7)))
        true_masks = [mask for mask in random_masks(rng, labels, "few")[1] if mask.any()]
        found_masks = [true_masks[i] for i in rng.integers(0, len(true_masks), 4)] if true_masks else []
        found_masks += random_masks(rng, labels, "few")[1]
        for mask in true_masks:
            crowd = int(rng.random() < 0.2)
            runs = {"size": list(shape), "counts": run_lengths(mask).tolist()}
            annotations.append(
                {"id": 500 - len(annotations), "image_id": image, "category_id": int(rng.choice(category_ids)),
                 "iscrowd": crowd, "area": float(mask.sum()), "segmentation": runs if crowd else encoded(mask)}
            )  # fmt: skip
        for mask, score in zip(found_masks, scores_for(rng, len(found_masks), score_kind), strict=True):
            results.append(
                {"image_id": image, "category_id": int(rng.choice(category_ids)), "segmentation": encoded(mask),
                 "score": float(score)}
            )  # fmt: skip
    images = [{"id": image, "height": shape[0], "width": shape[1]} for image in image_ids]
    dataset = {"info": {}, "images": images, "annotations": annotations}
    return dataset | {"categories": [{"id": k, "name": str(k)} for k in category_ids]}, results


@pytest.mark.slow
@settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    score_kind=st.sampled_from(SCORE_KINDS),
    limits=st.sampled_from([(1, 5, 100), (3000,), (2, 3)]),
)
def test_overlapping_truth_and_crowds_equal_pycocotools(
    tmp_path_factory: pytest.TempPathFactory, seed: int, score_kind: str, limits: tuple[int, ...]
) -> None:
    dataset, results = random_dataset(np.random.default_rng(seed), score_kind)
    folder = tmp_path_factory.getbasetemp()
    truth, found = folder / "truth.json", folder / "results.json"
    truth.write_text(json.dumps(dataset))
    found.write_text(json.dumps(results))

    ours = evaluate_coco_json(truth, found, max_detections=limits, area_ranges=AREAS)

    theirs = run_coco(
        json.loads(truth.read_text()), results, max_detections=limits, area_ranges={"all": (0, 1e10), **AREAS}
    )
    assert list(ours.categories) == theirs.params.catIds
    np.testing.assert_array_equal(ours.precision, theirs.eval["precision"])
    np.testing.assert_array_equal(ours.recall, theirs.eval["recall"])
    np.testing.assert_array_equal(ours.score_thresholds, theirs.eval["scores"])


def one_cell(**change: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    square = [[2, 2, 2, 6, 6, 6, 6, 2]]
    annotation = {"id": 0, "image_id": 1, "category_id": 1, "segmentation": square, "area": 16, "bbox": [2, 2, 4, 4]}
    dataset = {
        "images": [{"id": 1, "height": 9, "width": 9}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "cell"}],
    }
    result = {"image_id": 1, "category_id": 1, "segmentation": square, "score": 0.5} | change
    return dataset, [{key: value for key, value in result.items() if value is not None}]


def write(folder: Path, dataset: Any, results: Any) -> tuple[Path, Path]:
    truth, found = folder / "truth.json", folder / "results.json"
    truth.write_text(json.dumps(dataset))
    found.write_text(json.dumps(results))
    return truth, found


def test_an_object_of_id_0_is_found_as_any_other(tmp_path: Path) -> None:
    """pycocotools reads the match to id 0 as no match; it is the one difference that is meant."""
    files = write(tmp_path, *one_cell())
    assert evaluate_coco_json(*files).metrics()["ar"] == 1.0


def test_boxes_stand_in_for_missing_masks_as_in_pycocotools(tmp_path: Path) -> None:
    files = write(tmp_path, *one_cell(segmentation=None, bbox=[2, 2, 4, 4]))
    assert evaluate_coco_json(*files).metrics()["ar"] == 1.0
    assert evaluate_coco_json(*files, iou_type="bbox").metrics()["ar"] == 1.0


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (one_cell(score=float("nan"))[1], "result 0: the score is nan"),
        (one_cell(score=None)[1], "result 0: 'score' is missing"),
        (one_cell(image_id=2)[1], "image_id 2 is not in the truth"),
        (one_cell(segmentation={"size": [3, 9], "counts": [27]})[1], r"the mask's size is \[3, 9\]"),
        (one_cell(segmentation=[[1, 2]])[1], "three points"),
        (one_cell(segmentation={"size": [9, 9], "counts": "~~"})[1], "result 0: counts is no text of run lengths"),
        (one_cell(segmentation={"size": [9, 9], "counts": "P"})[1], "result 0: counts is no text of run lengths"),
        (one_cell(segmentation={"size": [9, 9], "counts": "é"})[1], "result 0: counts is no text of run lengths"),
        (
            one_cell(segmentation={"size": [9, 9], "counts": "54"})[1],
            "result 0: the run lengths add up to 9, the image",
        ),
        (one_cell(segmentation={"size": [9, 9], "counts": ""})[1], "result 0: the run lengths add up to 0, the image"),
        (one_cell(segmentation={"size": [9, 9], "counts": "o0"})[1], "result 0: the run lengths add up"),
        (one_cell(segmentation=None)[1], "polygons or an object with counts"),
        ({"wrong": 1}, "no COCO results"),
    ],
)
def test_wrong_results_are_refused(tmp_path: Path, results: Any, message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        evaluate_coco_json(*write(tmp_path, one_cell()[0], results))


def test_wrong_datasets_are_refused(tmp_path: Path) -> None:
    dataset, results = one_cell()
    truth, found = write(tmp_path, {**dataset, "annotations": dataset["annotations"] * 2}, results)
    with pytest.raises(SegbenchError, match="annotation 0: this id appears twice"):
        evaluate_coco_json(truth, found)
    truth.write_text("{")
    with pytest.raises(SegbenchError, match="is not JSON"):
        evaluate_coco_json(truth, found)
    truth.write_text("[]")
    with pytest.raises(SegbenchError, match="no COCO dataset"):
        evaluate_coco_json(truth, found)
    with pytest.raises(SegbenchError, match="cannot read"):
        evaluate_coco_json(tmp_path / "none.json", found)
