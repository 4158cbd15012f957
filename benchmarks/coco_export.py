"""Turns label maps into a COCO dataset and COCO results, for the evaluators that read nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_utils


def coco_objects(labels: npt.NDArray[np.int32]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the compressed run lengths and the area of each label, ascending."""
    flat = labels.ravel(order="F")
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    of_run = flat[starts]
    order = np.argsort(of_run, kind="stable")
    order = order[of_run[order] > 0]
    cuts = np.flatnonzero(np.diff(of_run[order])) + 1
    for runs in np.split(order, cuts) if order.size else []:
        edges = np.column_stack([starts[runs], ends[runs]]).ravel()
        counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
        rle = mask_utils.frPyObjects({"size": list(labels.shape), "counts": counts.tolist()}, *labels.shape)
        yield {"size": rle["size"], "counts": rle["counts"].decode()}, int((ends[runs] - starts[runs]).sum())


def coco_dataset(
    truth: npt.NDArray[np.int32], predictions: npt.NDArray[np.int32], scores: list[npt.NDArray[np.float64]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return stacks of maps (N, H, W) as a COCO dataset and its results; ids start at 1."""
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for n in range(len(truth)):
        for rle, area in coco_objects(truth[n]):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": n + 1,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": area,
                    "bbox": mask_utils.toBbox(rle).tolist(),
                    "segmentation": rle,
                }
            )
        for (rle, _), score in zip(coco_objects(predictions[n]), scores[n], strict=True):
            results.append({"image_id": n + 1, "category_id": 1, "segmentation": rle, "score": float(score)})
    height, width = truth.shape[1:]
    images = [{"id": n + 1, "height": height, "width": width, "file_name": f"{n}.png"} for n in range(len(truth))]
    dataset = {"info": {}, "licenses": [], "images": images, "annotations": annotations}
    return dataset | {"categories": [{"id": 1, "name": "cell"}]}, results
