"""Scores COCO JSON files as pycocotools' ``COCOeval`` does: categories, crowds, area ranges, limits of detections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils

from segbench.engine.files.coco import CocoObject, Id, read_results, read_truth
from segbench.engine.metrics.batches import Progress
from segbench.engine.metrics.coco import IOU_THRESHOLDS, MATCH_THRESHOLDS, RECALL_THRESHOLDS, accumulate, order_by_score
from segbench.engine.metrics.evaluation import (
    AP50,
    AP75,
    COCO_AREAS,
    MAX_DETECTIONS,
    AreaRanges,
    Scores,
    beyond_limit,
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
    """COCO's scores of a JSON file of truth and one of predictions; what `evaluate_coco` returns.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import segbench
    >>> cell = {"image_id": 1, "category_id": 3, "bbox": [2, 2, 4, 4]}
    >>> truth = {
    ...     "images": [{"id": 1, "height": 9, "width": 9}],
    ...     "categories": [{"id": 3, "name": "cell"}],
    ...     "annotations": [{**cell, "id": 1, "area": 16}],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = pathlib.Path(folder, "truth.json"), pathlib.Path(folder, "found.json")
    ...     for path, content in zip(paths, (truth, [{**cell, "score": 0.5}])):
    ...         _ = path.write_text(json.dumps(content))
    ...     result = segbench.evaluate_coco(*paths, iou="bbox")
    >>> result.categories, result.n_truth, result.metrics()["ar"]
    ((3,), 1, 1.0)
    """

    precision: npt.NDArray[np.float64] = field(repr=False)
    """(T, R, K, A, M): IoU thresholds, recalls, categories, area ranges (first all), limits of detections."""
    recall: npt.NDArray[np.float64] = field(repr=False)
    """(T, K, A, M)."""
    score_thresholds: npt.NDArray[np.float64] = field(repr=False)
    """(T, R, K, A, M)."""
    categories: tuple[Id, ...]
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
    notes: tuple[str, ...] = ()
    """What was left out of the files, and predictions beyond the limit, each in one line."""

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

    def category(self, category: Id, area: str = ALL_AREAS) -> Scores:
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
    true_file = read_truth(truth, iou_type == "segm")
    found_file = read_results(predictions, true_file, iou_type == "segm")
    images = {name: image.size for name, image in true_file.images.items()}
    categories = sorted(true_file.categories, key=_by_kind)
    true_objects, found_objects = _by_image(true_file.objects), _by_image(found_file.objects)
    ranges = {ALL_AREAS: _EVERY_AREA, **area_ranges}
    shape = (IOU_THRESHOLDS.size, RECALL_THRESHOLDS.size, len(categories), len(ranges), len(limits))
    precision, score_thresholds = -np.ones(shape), -np.ones(shape)
    recall = -np.ones((shape[0], *shape[2:]))
    n_found = 0
    for k, category in enumerate(categories):
        parts: list[_Matched] = []
        for n, image in enumerate(sorted(images, key=_by_kind)):
            true, found = true_objects.get((image, category), []), found_objects.get((image, category), [])
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
        notes=(*true_file.notes, *found_file.notes, *_beyond(found_objects, categories, limits[-1])),
    )


def _beyond(found: Mapping[tuple[Id, Id], list[CocoObject]], categories: Sequence[Id], limit: int) -> Iterator[str]:
    """Yield a line where predictions are beyond the limit of detections."""
    over = [len(objects) - limit for (_, category), objects in found.items() if category in categories]
    over = [n for n in over if n > 0]
    if over:
        yield beyond_limit(sum(over), len(over), limit)


@dataclass(frozen=True)
class _Matched:
    """One image's detections of one category by descending score, matched in each area range."""

    scores: npt.NDArray[np.float64]
    matches: list[npt.NDArray[np.uint16]]
    ignored: list[npt.NDArray[np.uint16]]
    n_truth: list[int]


_EVERY_THRESHOLD = np.uint16((1 << IOU_THRESHOLDS.size) - 1)


def _by_image(objects: Sequence[CocoObject]) -> dict[tuple[Id, Id], list[CocoObject]]:
    """Return the objects by image and category, in the file's order."""
    found: defaultdict[tuple[Id, Id], list[CocoObject]] = defaultdict(list)
    for one in objects:
        found[one.image, one.category].append(one)
    return dict(found)


def _by_kind(name: Id) -> tuple[bool, Id]:
    return isinstance(name, str), name


def _match(
    true: list[CocoObject],
    found: list[CocoObject],
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


def _shape(one: CocoObject, size: tuple[int, int], iou_type: IouType) -> Any:
    """Return the object's box, or its mask as run lengths."""
    if iou_type == "bbox" and one.box:
        return list(one.box)
    mask = _run_lengths(one.segmentation, size)
    return mask_utils.toBbox(mask).tolist() if iou_type == "bbox" else mask


def _run_lengths(segmentation: Any, size: tuple[int, int]) -> Any:
    if isinstance(segmentation, list):
        return mask_utils.merge(mask_utils.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return mask_utils.frPyObjects(segmentation, *size)
    return segmentation


def _area(one: CocoObject, size: tuple[int, int]) -> float:
    if one.segmentation is None:
        assert one.box is not None  # read_results has seen to it
        return float(one.box[2] * one.box[3])
    return float(mask_utils.area(_run_lengths(one.segmentation, size)))
