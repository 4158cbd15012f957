"""Scores COCO JSON files as pycocotools' ``COCOeval`` does: categories, crowds, area ranges, limits of detections."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils

from segbench.engine.metrics.batches import Progress
from segbench.engine.metrics.coco import IOU_THRESHOLDS, MATCH_THRESHOLDS, RECALL_THRESHOLDS, accumulate, order_by_score
from segbench.engine.metrics.evaluation import (
    AP50,
    AP75,
    COCO_AREAS,
    MAX_DETECTIONS,
    AreaRanges,
    Scores,
    checked_limit,
    frame_schema,
    known,
    mean_of_valid,
)
from segbench.engine.metrics.matching import match_greedily
from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    import polars as pl

IouType = Literal["segm", "bbox"]
ALL_AREAS = "all"
_EVERY_AREA = (0.0, 1e5**2)


@dataclass(frozen=True)
class CocoEvaluation:
    """COCO's scores of a JSON file of truth and one of predictions."""

    precision: npt.NDArray[np.float64] = field(repr=False)
    """(T, R, K, A, M): IoU thresholds, recalls, categories, area ranges (first all), limits of detections."""
    recall: npt.NDArray[np.float64] = field(repr=False)
    """(T, K, A, M)."""
    score_thresholds: npt.NDArray[np.float64] = field(repr=False)
    """(T, R, K, A, M)."""
    categories: tuple[int, ...]
    """(K,), the category ids, ascending."""
    areas: tuple[str, ...]
    """(A,), names of the area ranges, ``all`` first."""
    max_detections: tuple[int, ...]
    """(M,), ascending."""
    n_images: int
    """Images of the truth."""
    n_truth: int
    """True objects of all categories, crowds not counted."""
    n_predictions: int
    """Predicted objects of these categories."""

    def metrics(self, area: str = ALL_AREAS, max_detections: int | None = None) -> dict[str, float]:
        """Return the six metrics as means over categories, for one area range and limit (None: the largest)."""
        a = self.areas.index(area)
        m = -1 if max_detections is None else self.max_detections.index(max_detections)
        precision, recall = self.precision[:, :, :, a, m], self.recall[:, :, a, m]
        return {
            "map": mean_of_valid(precision),
            "ap50": mean_of_valid(precision[AP50]),
            "ap75": mean_of_valid(precision[AP75]),
            "ar": mean_of_valid(recall),
            "ar50": mean_of_valid(recall[AP50]),
            "ar75": mean_of_valid(recall[AP75]),
        }

    def category(self, category: int, area: str = ALL_AREAS) -> Scores:
        """Return one category's scores at the largest limit of detections."""
        k, a = self.categories.index(category), self.areas.index(area)
        return Scores.from_arrays(
            self.precision[:, :, k, a, -1],
            self.recall[:, k, a, -1],
            self.score_thresholds[:, :, k, a, -1],
            n_images=self.n_images,
            n_truth=self.n_truth,
            n_predictions=self.n_predictions,
        )

    def frame(self) -> pl.DataFrame:
        """Return one row for all objects (``subset`` 'all') and one an area range ('area small', ...).

        Returns
        -------
        Columns subset, images, truth, predictions (null for area ranges) and the six metrics, means over the
        categories, null where there is no true object.
        """
        import polars as pl

        rows = [
            {"subset": name if name == ALL_AREAS else f"area {name}", "images": self.n_images}
            | {"truth": self.n_truth if name == ALL_AREAS else None}
            | {"predictions": self.n_predictions if name == ALL_AREAS else None}
            | known(self.metrics(name))
            for name in self.areas
        ]
        return pl.DataFrame(rows, schema=frame_schema())

    def summary(self) -> list[float]:
        """Return the twelve numbers that ``COCOeval.summarize`` prints: AP by threshold and area, AR by limit and area.

        They need three area ranges beside ``all`` and three limits of detections;
        AP and the areas' AR are at the largest.
        """
        if len(self.areas) != 4 or len(self.max_detections) != 3:
            raise SegbenchError(
                "the twelve numbers need 4 area ranges and 3 limits, "
                f"found {len(self.areas)} and {len(self.max_detections)}"
            )
        everything = self.metrics()
        return [
            *(everything[name] for name in ("map", "ap50", "ap75")),
            *(self.metrics(area)["map"] for area in self.areas[1:]),
            *(self.metrics(ALL_AREAS, limit)["ar"] for limit in self.max_detections),
            *(self.metrics(area)["ar"] for area in self.areas[1:]),
        ]


def evaluate_coco_json(
    truth: Path,
    predictions: Path,
    *,
    max_detections: Sequence[int] = (MAX_DETECTIONS,),
    area_ranges: AreaRanges = COCO_AREAS,
    iou_type: IouType = "segm",
    progress: Progress | None = None,
) -> CocoEvaluation:
    """Score a COCO results file against a COCO dataset file, to the last bit as pycocotools 2.0.11.

    Parameters
    ----------
    truth
        A dataset: images, categories, annotations with polygons or run lengths; ``iscrowd`` marks regions where
        predictions are neither right nor wrong.
    predictions
        A list of results (image_id, category_id, score, segmentation or bbox), or
        an object with them under ``annotations``.
    max_detections
        COCO's ``maxDets``.
    area_ranges
        By name, in pixels, beside all areas. As in pycocotools the area of a true object is the file's ``area``, that
        of a predicted one is that of its bbox where results have one, else that of its mask.
    iou_type
        Compare masks or boxes.
    progress
        Called with how many pairs of image and category are done.

    Raises
    ------
    SegbenchError
        Where a file is not what it should be: which annotation, what was found and what would be right.

    Notes
    -----
    pycocotools loses a true object whose id is 0 (a match to it reads as no match) and keeps only the last of objects
    with the same id. Here an id is a name: 0 is as good as any, and ids that appear twice are refused.
    """
    if iou_type not in get_args(IouType):
        raise unknown_name("IoU type", iou_type, get_args(IouType))
    limits = tuple(sorted({checked_limit(limit) for limit in max_detections}))
    images, categories, true_objects = _read_truth(truth, iou_type)
    found_objects = _read_results(predictions, images, iou_type)
    ranges = {ALL_AREAS: _EVERY_AREA, **area_ranges}
    shape = (IOU_THRESHOLDS.size, RECALL_THRESHOLDS.size, len(categories), len(ranges), len(limits))
    precision, score_thresholds = -np.ones(shape), -np.ones(shape)
    recall = -np.ones((shape[0], *shape[2:]))
    n_found = 0
    for k, category in enumerate(categories):
        parts: list[_Matched] = []
        for n, image in enumerate(sorted(images)):
            true, found = true_objects[image, category], found_objects[image, category]
            n_found += len(found)
            if true or found:
                parts.append(_match(true, found, images[image], ranges, limits[-1], iou_type))
            if progress is not None:
                progress(k * len(images) + n + 1)
        if not parts:
            continue
        scores = np.concatenate([part.scores for part in parts])
        rank = np.concatenate([np.arange(part.scores.size) for part in parts])
        order = order_by_score(scores)
        for a in range(len(ranges)):
            matches = np.concatenate([part.matches[a] for part in parts])
            ignored = np.concatenate([part.ignored[a] for part in parts])
            n_truth = sum(part.n_truth[a] for part in parts)
            for m, limit in enumerate(limits):
                within = order[rank[order] < limit]
                precision[:, :, k, a, m], recall[:, k, a, m], score_thresholds[:, :, k, a, m] = accumulate(
                    within, matches, scores, n_truth, ignored
                )
    return CocoEvaluation(
        precision=precision,
        recall=recall,
        score_thresholds=score_thresholds,
        categories=tuple(categories),
        areas=tuple(ranges),
        max_detections=limits,
        n_images=len(images),
        n_truth=sum(not true.crowd for objects in true_objects.values() for true in objects),
        n_predictions=n_found,
    )


@dataclass(frozen=True)
class _Object:
    """One true or predicted object."""

    segmentation: Any
    bbox: Any
    area: float | None
    crowd: bool = False
    score: float = 0.0


@dataclass(frozen=True)
class _Matched:
    """One image's detections of one category by descending score, matched in each area range."""

    scores: npt.NDArray[np.float64]
    matches: list[npt.NDArray[np.uint16]]
    ignored: list[npt.NDArray[np.uint16]]
    n_truth: list[int]


_Objects = Mapping[tuple[int, int], list[_Object]]
_EVERY_THRESHOLD = np.uint16((1 << IOU_THRESHOLDS.size) - 1)


def _match(
    true: list[_Object],
    found: list[_Object],
    size: tuple[int, int],
    ranges: AreaRanges,
    limit: int,
    iou_type: IouType,
) -> _Matched:
    scores = np.array([one.score for one in found], dtype=np.float64)
    best = np.argsort(-scores, kind="stable")[:limit]
    scores, found = scores[best], [found[i] for i in best]
    crowd = np.array([one.crowd for one in true], dtype=np.bool_)
    true_shapes, found_shapes = ([_shape(one, size, iou_type) for one in side] for side in (true, found))
    true_areas, found_areas = (
        np.array([_area(one, size) if one.area is None else one.area for one in side], dtype=np.float64)
        for side in (true, found)
    )
    ious = np.zeros((len(found), len(true)))
    if true and found:
        ious = np.asarray(mask_utils.iou(found_shapes, true_shapes, [int(c) for c in crowd])).reshape(ious.shape)
    result = _Matched(scores, [], [], [])
    for low, high in ranges.values():
        left_out = crowd | (true_areas < low) | (true_areas > high)
        order = np.argsort(left_out, kind="stable")
        matches, ignored = match_greedily(
            np.ascontiguousarray(ious[:, order]), left_out[order], crowd[order], MATCH_THRESHOLDS
        )
        outside = (found_areas < low) | (found_areas > high)
        unmatched = np.where(outside, _EVERY_THRESHOLD & ~matches, 0).astype(np.uint16)
        result.matches.append(matches)
        result.ignored.append(ignored | unmatched)
        result.n_truth.append(int(np.count_nonzero(~left_out)))
    return result


def _shape(one: _Object, size: tuple[int, int], iou_type: IouType) -> Any:
    """Return the object's box, or its mask as run lengths."""
    if iou_type == "bbox" and one.bbox:
        return one.bbox
    mask = _run_lengths(one.segmentation, size)
    return mask_utils.toBbox(mask).tolist() if iou_type == "bbox" else mask


def _run_lengths(segmentation: Any, size: tuple[int, int]) -> Any:
    if isinstance(segmentation, list):
        return mask_utils.merge(mask_utils.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return mask_utils.frPyObjects(segmentation, *size)
    return segmentation


def _area(one: _Object, size: tuple[int, int]) -> float:
    if one.segmentation is None:
        return float(one.bbox[2] * one.bbox[3])
    return float(mask_utils.area(_run_lengths(one.segmentation, size)))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise SegbenchError(f"cannot read {path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SegbenchError(f"{path} is not JSON: {error}") from None


def _read_truth(path: Path, iou_type: IouType) -> tuple[dict[int, tuple[int, int]], list[int], _Objects]:
    """Return image sizes by id, category ids, and true objects by image and category."""
    raw = _read_json(path)
    if not isinstance(raw, dict) or not {"images", "annotations", "categories"} <= raw.keys():
        raise SegbenchError(f"{path} is no COCO dataset: it must be an object with images, annotations and categories")
    images = {}
    for image in raw["images"]:
        _require(image, ("id", "height", "width"), f"{path}, image {image.get('id')}")
        images[image["id"]] = (int(image["height"]), int(image["width"]))
    categories = {category["id"] for category in raw["categories"]}
    objects: defaultdict[tuple[int, int], list[_Object]] = defaultdict(list)
    seen: set[Any] = set()
    for n, annotation in enumerate(raw["annotations"]):
        where = f"{path}, annotation {annotation.get('id', f'number {n}')}"
        _require(annotation, ("id", "image_id", "category_id"), where)
        if annotation["id"] in seen:
            raise SegbenchError(f"{where}: this id appears twice; ids must differ")
        seen.add(annotation["id"])
        if annotation["image_id"] not in images or annotation["category_id"] not in categories:
            continue
        segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
        _check_shape(segmentation, box, where, images[annotation["image_id"]], iou_type)
        objects[annotation["image_id"], annotation["category_id"]].append(
            _Object(segmentation, box, annotation.get("area"), crowd=bool(annotation.get("iscrowd", 0)))
        )
    return images, sorted(categories), objects


def _read_results(path: Path, images: Mapping[int, tuple[int, int]], iou_type: IouType) -> _Objects:
    """Return predicted objects by image and category, with the areas that pycocotools' ``loadRes`` gives them."""
    raw = _read_json(path)
    results = raw.get("annotations") if isinstance(raw, dict) else raw
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise SegbenchError(f"{path} holds no COCO results: it must be a list of objects with image_id and score")
    # loadRes decides by the first result whether boxes give the areas
    by_box = bool(results) and bool(results[0].get("bbox"))
    objects: defaultdict[tuple[int, int], list[_Object]] = defaultdict(list)
    for n, result in enumerate(results):
        where = f"{path}, result {n}"
        _require(result, ("image_id", "category_id", "score"), where)
        image, score = result["image_id"], result["score"]
        if image not in images:
            raise SegbenchError(f"{where}: image_id {image!r} is not in the truth")
        if not isinstance(score, (int, float)) or np.isnan(score):
            raise SegbenchError(f"{where}: the score is {score!r}; scores must be numbers")
        box, segmentation = result.get("bbox"), result.get("segmentation")
        if by_box:
            _require(result, ("bbox",), where)
            x, y, width, height = box
            if segmentation is None:
                segmentation = [[x, y, x, y + height, x + width, y + height, x + width, y]]
        _check_shape(segmentation, box, where, images[image], iou_type)
        area = box[2] * box[3] if by_box else None
        objects[image, result["category_id"]].append(_Object(segmentation, box, area, score=float(score)))
    return objects


def _require(record: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        if key not in record:
            raise SegbenchError(f"{where}: {key!r} is missing; it has {', '.join(record) or 'nothing'}")


def _check_shape(segmentation: Any, box: Any, where: str, size: tuple[int, int], iou_type: IouType) -> None:
    """Raise SegbenchError where there is no box or mask to compare, or one that is none."""
    if iou_type == "bbox" and box:
        if len(box) != 4:
            raise SegbenchError(f"{where}: the bbox is {box}; it must be x, y, width, height")
        return
    if isinstance(segmentation, list):
        if not segmentation or not all(isinstance(polygon, list) and len(polygon) >= 6 for polygon in segmentation):
            raise SegbenchError(f"{where}: the segmentation is no list of polygons of three points or more")
    elif not isinstance(segmentation, dict) or not {"counts", "size"} <= segmentation.keys():
        raise SegbenchError(f"{where}: a segmentation is a list of polygons or an object with counts and size")
    elif list(segmentation["size"]) != list(size):
        raise SegbenchError(f"{where}: the mask's size is {segmentation['size']}, the image's {list(size)}")
