"""Scores COCO JSON files as pycocotools' ``COCOeval`` does: categories, crowds, area ranges, limits of detections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils

from segbench.engine.files.coco import CocoObject, Id, check_segmentation, read_results, read_truth
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
from segbench.engine.metrics.run_lengths import decode_texts, match_in_order, measure_masks, overlapping_pairs
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
    by_mask = iou_type == "segm"
    true_file = read_truth(truth, by_mask, texts=not by_mask)
    found_file = read_results(predictions, true_file, by_mask, texts=not by_mask)
    sizes = {name: image.size for name, image in true_file.images.items()}
    categories = sorted(true_file.categories, key=_by_kind)
    true = _Objects.of(true_file.objects, sizes, iou_type, lambda n: f"{truth}, annotation {true_file.objects[n].id}")
    found = _Objects.of(found_file.objects, sizes, iou_type, lambda n: f"{predictions}, result {n}")
    ranges = {ALL_AREAS: _EVERY_AREA, **area_ranges}
    shape = (IOU_THRESHOLDS.size, RECALL_THRESHOLDS.size, len(categories), len(ranges), len(limits))
    precision, score_thresholds = -np.ones(shape), -np.ones(shape)
    recall = -np.ones((shape[0], *shape[2:]))
    images = sorted(sizes, key=_by_kind)
    n_found = 0
    for k, category in enumerate(categories):
        parts: list[_Matched] = []
        for n, image in enumerate(images):
            places = true.at(image, category), found.at(image, category)
            n_found += places[1].size
            if places[0].size or places[1].size:
                parts.append(_match(true, found, *places, ranges, limits[-1]))
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
        n_truth=int(np.count_nonzero(~true.crowd)),
        n_predictions=n_found,
        notes=(*true_file.notes, *found_file.notes, *_beyond(found, categories, limits[-1])),
    )


def _beyond(found: _Objects, categories: Sequence[Id], limit: int) -> Iterator[str]:
    """Yield a line where predictions are beyond the limit of detections."""
    over = [places.size - limit for (_, category), places in found.places.items() if category in categories]
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


def _by_kind(name: Id) -> tuple[bool, Id]:
    return isinstance(name, str), name


@dataclass(frozen=True)
class _Objects:
    """The N objects of a file, with what is compared of them."""

    places: Mapping[tuple[Id, Id], npt.NDArray[np.int64]]
    """By image and category: which objects, in the file's order."""
    scores: npt.NDArray[np.float64]
    """(N,)."""
    areas: npt.NDArray[np.float64]
    """(N,), as area ranges take them."""
    crowd: npt.NDArray[np.bool_]
    """(N,)."""
    boxes: Sequence[Any] | None
    """Of each object, where boxes are compared."""
    masks: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]] | None
    """Runs, their offsets, areas and bounding boxes, where masks are."""

    @classmethod
    def of(
        cls,
        objects: Sequence[CocoObject],
        sizes: Mapping[Id, tuple[int, int]],
        kind: IouType,
        where: Callable[[int], str],
    ) -> _Objects:
        """Decode the objects; raises SegbenchError, which says ``where`` one is, for what is no mask."""
        grouped: defaultdict[tuple[Id, Id], list[int]] = defaultdict(list)
        for n, one in enumerate(objects):
            grouped[one.image, one.category].append(n)
        size_of = [sizes[one.image] for one in objects]
        masks, boxes = None, None
        if kind == "bbox":
            boxes = [_box(one, size) for one, size in zip(objects, size_of, strict=True)]
            own = [
                _area(one, size) if one.area is None else one.area for one, size in zip(objects, size_of, strict=True)
            ]
        else:
            masks = _decoded(objects, size_of, where)
            own = [
                float(area) if one.area is None else one.area
                for one, area in zip(objects, masks[2].tolist(), strict=True)
            ]
        return cls(
            places={key: np.array(found, np.int64) for key, found in grouped.items()},
            scores=np.array([one.score for one in objects], dtype=np.float64),
            areas=np.array(own, dtype=np.float64),
            crowd=np.array([one.crowd for one in objects], dtype=np.bool_),
            boxes=boxes,
            masks=masks,
        )

    def at(self, image: Id, category: Id) -> npt.NDArray[np.int64]:
        """Return which objects an image has of a category."""
        return self.places.get((image, category), _NOWHERE)


_NOWHERE = np.zeros(0, np.int64)


def _decoded(
    objects: Sequence[CocoObject], sizes: Sequence[tuple[int, int]], where: Callable[[int], str]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    texts = [_text(one.segmentation, size) for one, size in zip(objects, sizes, strict=True)]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    data = np.frombuffer(b"".join(texts), np.uint8)
    heights = np.array([size[0] for size in sizes], np.int64)
    pixels = np.array([size[0] * size[1] for size in sizes], np.int64)
    runs, run_offsets, sound = decode_texts(data, offsets, pixels)
    for n in np.flatnonzero(~sound).tolist():
        check_segmentation(objects[n].segmentation, where(n), sizes[n])
        raise SegbenchError(f"{where(n)}: the mask does not fill an image of {sizes[n][1]} x {sizes[n][0]} pixels")
    return runs, run_offsets, *measure_masks(runs, run_offsets, heights)


def _text(segmentation: Any, size: tuple[int, int]) -> bytes:
    """Return a mask's run lengths as COCO's text."""
    if isinstance(segmentation, Mapping) and isinstance(segmentation["counts"], str):
        return segmentation["counts"].encode("ascii", "replace")
    counts: bytes = _run_lengths(segmentation, size)["counts"]
    return counts


def _match(
    true: _Objects,
    found: _Objects,
    true_places: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
    ranges: AreaRanges,
    limit: int,
) -> _Matched:
    places = places[np.argsort(-found.scores[places], kind="stable")[:limit]]
    crowd, true_areas, found_areas = true.crowd[true_places], true.areas[true_places], found.areas[places]
    pairs = _pairs(true, found, true_places, places)
    result = _Matched(found.scores[places], [], [], [])
    for low, high in ranges.values():
        left_out = crowd | (true_areas < low) | (true_areas > high)
        matches, ignored = match_in_order(*pairs, left_out, crowd, MATCH_THRESHOLDS)
        outside = (found_areas < low) | (found_areas > high)
        unmatched = np.where(outside, _EVERY_THRESHOLD & ~matches, 0).astype(np.uint16)
        result.matches.append(matches)
        result.ignored.append(ignored | unmatched)
        result.n_truth.append(int(np.count_nonzero(~left_out)))
    return result


def _pairs(
    true: _Objects, found: _Objects, true_places: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return the pairs that could match at the lowest threshold."""
    crowd, least = true.crowd[true_places], float(MATCH_THRESHOLDS[0])
    if true.masks is not None and found.masks is not None:
        return overlapping_pairs(found.masks, true.masks, places, true_places, crowd, least)
    assert true.boxes is not None
    assert found.boxes is not None
    ious = np.zeros((places.size, true_places.size))
    if ious.size:
        sides = [found.boxes[n] for n in places], [true.boxes[n] for n in true_places]
        ious = np.asarray(mask_utils.iou(*sides, [int(c) for c in crowd])).reshape(ious.shape)
    of_found, of_truth = np.nonzero(ious >= least)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of_found, minlength=places.size))]).astype(np.int64)
    return of_truth, ious[of_found, of_truth], offsets


def _box(one: CocoObject, size: tuple[int, int]) -> Any:
    return list(one.box) if one.box else mask_utils.toBbox(_run_lengths(one.segmentation, size)).tolist()


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
