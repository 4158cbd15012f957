"""COCO JSON is checked whole before anything of it reaches compiled code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as mask_utils

from segbench.engine.files.coco import check_segmentation, read_results, read_truth
from segbench.engine.files.coco_masks import mask_of, run_lengths
from segbench.engine.metrics import evaluate_coco_json
from segbench.errors import SegbenchError

SQUARE = [[2, 2, 2, 6, 6, 6, 6, 2]]
SIZE = (9, 12)


def dataset(**change: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 16, "segmentation": SQUARE}
    return {
        "images": [{"id": 1, "file_name": "a.tif", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [annotation | change],
    }


def results(**change: Any) -> list[dict[str, Any]]:
    return [{"image_id": 1, "category_id": 1, "segmentation": SQUARE, "score": 0.5} | change]


def scored(folder: Path, truth: Any, found: Any) -> Any:
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (truth, found), strict=True):
        path.write_text(json.dumps(content))
    return evaluate_coco_json(*paths)


WRONG_SEGMENTATIONS = [
    ([], "a segmentation is a list of polygons"),
    (None, "a segmentation is a list of polygons"),
    ("SQUARE", "a segmentation is a list of polygons"),
    ([[1, 2]], "three points or more"),
    ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
    ([[1, 2, 3, 4, 5, "6"]], "something else than numbers"),
    ([[[1, 2], [3, 4], [5, 6]]], "three points or more"),
    ([[1, 2, 3, 4, 5, None]], "something else than numbers"),
    ([[2e8, 2, 2, 6, 6, 6]], r"x = 2e\+08, far outside of an image of 12 x 9"),
    ([[2, -5000, 2, 6, 6, 6]], "y = -5000, far outside"),
    ([[2, 2, 2, float("nan"), 6, 6]], "not finite"),
    ([[2, 2, 2, float("inf"), 6, 6]], "not finite"),
    ({"counts": [108]}, "counts and size"),
    ({"size": [9], "counts": [108]}, r"the mask's size is \[9\], the image's \[9, 12\]"),
    ({"size": None, "counts": [108]}, "the mask's size is null"),
    ({"size": [9, 12], "counts": [1, 2]}, "add up to 3, the image has 108 pixels"),
    ({"size": [9, 12], "counts": [10**12]}, "whole numbers from 0"),
    ({"size": [9, 12], "counts": [-1, 109]}, "whole numbers from 0"),
    ({"size": [9, 12], "counts": [True, 107]}, "whole numbers from 0"),
    ({"size": [9, 12], "counts": None}, "counts is null"),
    ({"size": [9, 12], "counts": 108}, "counts is 108"),
    ({"size": [9, 12], "counts": "not a mask"}, "no text of run lengths"),
    ({"size": [9, 12], "counts": "ü"}, "no text of run lengths"),
    ({"size": [9, 12], "counts": "o" * 40}, "no text of run lengths"),
    ({"size": [9, 12], "counts": ""}, "add up to 0"),
]


@pytest.mark.parametrize(("segmentation", "message"), WRONG_SEGMENTATIONS)
def test_what_is_no_mask_is_refused_by_name(tmp_path: Path, segmentation: Any, message: str) -> None:
    with pytest.raises(SegbenchError, match=rf"truth.json, annotation 1: .*{message}"):
        scored(tmp_path, dataset(segmentation=segmentation), results())
    with pytest.raises(SegbenchError, match=rf"results.json, result 0: .*{message}"):
        scored(tmp_path, dataset(), results(segmentation=segmentation))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "images is null; it must be a list"),
        ({"images": [{"id": 1, "height": None, "width": 12}]}, "height is null"),
        ({"images": [{"id": 1, "height": "64px", "width": 12}]}, "height is '64px'"),
        ({"images": [{"id": 1, "height": 0, "width": 12}]}, "height is 0"),
        ({"images": [{"id": 1, "height": 10**6, "width": 10**6}]}, "pixels are more than"),
        ({"images": [{"id": 1, "height": 9, "width": 12}] * 2}, "the id 1 appears twice"),
        ({"images": [{"id": 1, "height": 9, "width": 12}, {"id": "2", "height": 9, "width": 12}]}, "numbers and text"),
        ({"images": [{"id": None, "height": 9, "width": 12}]}, "id is null"),
        ({"images": [{"id": [1], "height": 9, "width": 12}]}, r"id is \[1\]"),
        ({"annotations": [None]}, "annotation number 0 is null"),
        ({"annotations": [{"id": 1}]}, "'image_id' is missing"),
        ({"annotations": 7}, "annotations is 7"),
        ({"categories": [{}]}, "'id' is missing"),
    ],
)
def test_wrong_datasets_are_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        scored(tmp_path, dataset() | change, results())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "1"}, "image_id is '1' and others are like 1"),
        ({"category_id": None}, "category_id is null"),
        ({"score": None}, "the score is null"),
        ({"score": True}, "the score is True"),
        ({"score": float("inf")}, "the score is inf"),
        ({"bbox": [1, 2, 3]}, "the bbox is"),
        ({"bbox": [1, 2, -3, 4]}, "must not be negative"),
    ],
)
def test_wrong_results_are_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SegbenchError, match=rf"result 0.*{message}"):
        scored(tmp_path, dataset(), results(**change))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    found = scored(tmp_path, dataset(category_id=7), results(category_id=0))
    assert found.notes == (
        "truth.json: 1 of 1 annotations name a category that is not listed: left out",
        "results.json: 1 of 1 results have category 0, which the truth lacks: left out",
    )
    truth = dataset()
    truth["annotations"].append(truth["annotations"][0] | {"id": 2, "image_id": 5})
    assert "1 of 2 annotations name an image that is not listed" in scored(tmp_path, truth, results()).notes[0]
    assert scored(tmp_path, dataset(), results()).notes == ()


def test_annotations_by_id_and_ids_of_text_are_read(tmp_path: Path) -> None:
    by_id = dataset() | {"annotations": {"1": dataset()["annotations"][0]}}
    assert scored(tmp_path, by_id, results()).metrics()["ar"] == 1.0
    named = dataset(image_id="a")
    named["images"][0]["id"] = "a"
    assert scored(tmp_path, named, results(image_id="a")).metrics()["ar"] == 1.0


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_mask_that_pycocotools_writes_is_accepted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 70)), int(rng.integers(1, 70))
    mask = (rng.random(size) < rng.random()).astype(np.uint8)
    encoded = mask_utils.encode(np.asfortranarray(mask))
    check_segmentation({"size": list(size), "counts": encoded["counts"].decode()}, "x", size)
    check_segmentation(encoded, "x", size)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(-9, 9), max_size=9),
    st.lists(st.lists(st.floats(), max_size=9), max_size=3),
    st.dictionaries(st.sampled_from(["size", "counts", "id"]), st.text(max_size=5), max_size=3),
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.sampled_from(["images", "annotations", "categories", "results"]),
    key=st.sampled_from(
        [
            "id",
            "image_id",
            "category_id",
            "height",
            "width",
            "segmentation",
            "bbox",
            "area",
            "iscrowd",
            "score",
            "file_name",
        ]
    ),
    value=ODD,
    whole=st.booleans(),
)
def test_any_value_in_any_place_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, place: str, key: str, value: Any, whole: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    truth, found = dataset(), results()
    if place == "results":
        found = value if whole else [found[0] | {key: value}]
    elif whole:
        truth[place] = value
    else:
        truth[place] = [truth[place][0] | {key: value}]
    try:
        scored(folder, truth, found)
    except SegbenchError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nonsense", '{"images": NaN}', b"\xed\xa0\x80"])
def test_files_that_are_no_json_are_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SegbenchError, match=r"t\.json"):
        read_truth(path)
    (tmp_path / "sound.json").write_text(json.dumps(dataset()))
    with pytest.raises(SegbenchError, match=r"t\.json"):
        read_results(path, read_truth(tmp_path / "sound.json"))


MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=7))


@settings(max_examples=60, deadline=None)
@given(MASKS, st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_run_lengths_are_drawn_and_written_as_pycocotools_does(mask: npt.NDArray[np.bool_], around: list[int]) -> None:
    top, bottom, left, right = around
    whole = np.pad(mask, ((top, bottom), (left, right)))
    runs = run_lengths(mask, top, left, whole.shape)
    encoded = mask_utils.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert runs == {"size": list(whole.shape), "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(drawn(runs), whole)


@pytest.mark.parametrize(
    ("counts", "pixels"),
    [
        ([0, 0, 2, 0, 1, 1, 0, 2], [3, 4, 5]),
        ([6], []),
        ([0, 6], [0, 1, 2, 3, 4, 5]),
        ([6, 0], []),
        ([0, 0, 6], []),
        ([], []),
    ],
)
def test_empty_runs_draw_nothing_wherever_they_stand(counts: list[int], pixels: list[int]) -> None:
    found = drawn({"size": [2, 3], "counts": counts})
    assert np.flatnonzero(found.T).tolist() == pixels
    if sum(counts) == 6:
        rle = mask_utils.frPyObjects({"size": [2, 3], "counts": counts}, 2, 3)
        np.testing.assert_array_equal(found, mask_utils.decode(rle))


def drawn(runs: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Return the mask of run lengths on its whole image."""
    found = np.zeros(runs["size"], np.bool_)
    mask, top, left = mask_of(runs, *runs["size"])
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return found
