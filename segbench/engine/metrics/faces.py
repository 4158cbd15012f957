"""The evaluator's faces: label maps, overlapping masks, or a folder of predictions against true label maps."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segbench.engine.metrics.evaluation import MAX_DETECTIONS, Evaluation, Scores
from segbench.errors import SegbenchError
from segbench.methods.predictions import MaskInstances, PredictionSet

LabelMaps = npt.NDArray[np.integer[Any]] | Iterable[npt.NDArray[np.integer[Any]]]


def evaluate_labels(
    truth: LabelMaps,
    predictions: LabelMaps,
    scores: Sequence[npt.ArrayLike] | None = None,
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Evaluation:
    """Score predicted label maps (H, W) against true ones; scores are one array a map in ascending order of its labels."""

    def instances(n: int, labels: npt.NDArray[np.integer[Any]]) -> MaskInstances:
        present = [int(i) for i in np.unique(labels) if i]
        given = np.ones(len(present)) if scores is None else np.asarray(scores[n], dtype=np.float64)
        return MaskInstances([_counts(labels == i) for i in present], given)

    return evaluate_instances(
        truth, [instances(n, np.asarray(m)) for n, m in enumerate(predictions)], groups, max_detections
    )


def evaluate_instances(
    truth: LabelMaps,
    predictions: Iterable[MaskInstances],
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Evaluation:
    """Score possibly overlapping masks against true label maps (H, W)."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for n, (labels, found) in enumerate(zip(truth, predictions, strict=True), start=1):
        labels = np.asarray(labels)
        height, width = labels.shape
        images.append({"id": n, "height": height, "width": width})
        for value in np.unique(labels):
            if value:
                rle = mask_utils.encode(np.asfortranarray(labels == value, dtype=np.uint8))
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": n, "category_id": 1, "iscrowd": 0,
                     "area": int(mask_utils.area(rle)), "segmentation": rle}
                )  # fmt: skip
        if len(found.counts) != len(found.scores):
            raise SegbenchError(f"image {n - 1}: {len(found.counts)} instances but {len(found.scores)} scores")
        for counts, score in zip(found.counts, found.scores, strict=True):
            rle = mask_utils.frPyObjects({"size": [height, width], "counts": [int(c) for c in counts]}, height, width)
            results.append({"image_id": n, "category_id": 1, "segmentation": rle, "score": float(score)})
    names = sorted(set(groups or ()))
    members = {name: [i["id"] for i, g in zip(images, groups or (), strict=True) if g == name] for name in names}

    def subset(ids: list[int]) -> Scores:
        inside = set(ids)
        truths = [a for a in annotations if a["image_id"] in inside]
        found = [dict(r) for r in results if r["image_id"] in inside]
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {
                "info": {},
                "images": [i for i in images if i["id"] in inside],
                "annotations": truths,
                "categories": [{"id": 1, "name": "cell"}],
            }
            coco.createIndex()
            if found:
                detections = coco.loadRes(found)
            else:
                detections = COCO()
                detections.dataset = {**coco.dataset, "annotations": []}
                detections.createIndex()
            run = COCOeval(coco, detections, "segm")
            run.params.maxDets = [max_detections]
            run.params.areaRng, run.params.areaRngLbl = run.params.areaRng[:1], ["all"]
            run.evaluate()
            run.accumulate()
        return Scores.from_arrays(
            run.eval["precision"][:, :, 0, 0, 0],
            run.eval["recall"][:, 0, 0, 0],
            run.eval["scores"][:, :, 0, 0, 0],
            n_images=len(ids),
            n_truth=len(truths),
            n_predictions=len(found),
        )

    return Evaluation(subset([i["id"] for i in images]), {name: subset(ids) for name, ids in members.items()})


def evaluate_prediction_set(
    truth: LabelMaps,
    prediction_set: PredictionSet,
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Evaluation:
    """Score a folder of predictions, whatever its kind, against true label maps (H, W)."""
    if prediction_set.kind == "labels":
        cuts = prediction_set.offsets
        scores = [prediction_set.scores[cuts[n] : cuts[n + 1]] for n in range(len(prediction_set))]
        return evaluate_labels(truth, prediction_set.labels, scores, groups, max_detections)
    masks = (found for found in prediction_set if isinstance(found, MaskInstances))
    return evaluate_instances(truth, masks, groups, max_detections)


def _counts(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [mask.size]])).astype(np.uint32)
