"""What pycocotools 2.0.11 says: the reference that the evaluator must equal, run on masks and scores."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segbench.engine.metrics import Scores


@dataclass
class Image:
    """One image's true and predicted masks."""

    truth: list[npt.NDArray[np.bool_]]
    predictions: list[npt.NDArray[np.bool_]]
    scores: npt.NDArray[np.float64]
    shape: tuple[int, int]


def image_of_labels(truth: npt.NDArray[Any], prediction: npt.NDArray[Any], scores: npt.ArrayLike) -> Image:
    """Return the masks of two label maps in ascending label order."""

    def masks(labels: npt.NDArray[Any]) -> list[npt.NDArray[np.bool_]]:
        return [labels == label for label in np.unique(labels) if label != 0]

    return Image(masks(truth), masks(prediction), np.asarray(scores, dtype=np.float64), truth.shape)


def run_coco(
    dataset: dict[str, Any],
    results: list[dict[str, Any]],
    *,
    max_detections: Sequence[int],
    area_ranges: Mapping[str, tuple[float, float]] | None = None,
    iou_type: str = "segm",
) -> COCOeval:
    """Return pycocotools' evaluation of a COCO dataset and a list of results; None area ranges: all areas."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        if results:
            found = truth.loadRes([dict(result) for result in results])
        else:
            found = COCO()
            found.dataset = {**dataset, "annotations": []}
            found.createIndex()
        run = COCOeval(truth, found, iou_type)
        run.params.maxDets = list(max_detections)
        ranges = {"all": (0, 1e10)} if area_ranges is None else dict(area_ranges)
        run.params.areaRng, run.params.areaRngLbl = [list(r) for r in ranges.values()], list(ranges)
        run.evaluate()
        run.accumulate()
    return run


def reference_scores(images: Sequence[Image], max_detections: int, area: tuple[float, float] | None = None) -> Scores:
    """Return pycocotools' precision, recall and scores of images in this order."""
    infos, annotations, results = [], [], []
    for n, image in enumerate(images, start=1):
        infos.append({"id": n, "height": image.shape[0], "width": image.shape[1]})
        for mask in image.truth:
            rle = _encoded(mask)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": n, "category_id": 1, "iscrowd": 0,
                 "area": int(mask.sum()), "segmentation": rle}
            )  # fmt: skip
        for mask, score in zip(image.predictions, image.scores, strict=True):
            results.append({"image_id": n, "category_id": 1, "segmentation": _encoded(mask), "score": float(score)})
    dataset = {"info": {}, "images": infos, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    run = run_coco(
        dataset,
        results,
        max_detections=[max_detections],
        area_ranges=None if area is None else {"asked": area},
    )
    return Scores.from_arrays(
        run.eval["precision"][:, :, 0, 0, 0],
        run.eval["recall"][:, 0, 0, 0],
        run.eval["scores"][:, :, 0, 0, 0],
        n_images=len(images),
        n_truth=len(annotations),
        n_predictions=len(results),
    )


def unequal_elements(ours: Scores, theirs: Scores) -> int:
    """Return how many elements of precision, recall and scores differ by ``==``."""
    return sum(
        int(np.sum(getattr(ours, name) != getattr(theirs, name)))
        for name in ("precision", "recall", "score_thresholds")
    )


def _encoded(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    return mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
