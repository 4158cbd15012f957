"""Times one public COCO evaluator on pickled data: runs in the peers' environment, prints one JSON line."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import pickle
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

PEERS = {
    "pycocotools": ("pycocotools.coco:COCO", "pycocotools.cocoeval:COCOeval", "pycocotools.mask:encode"),
    "faster-coco-eval": ("faster_coco_eval:COCO", "faster_coco_eval:COCOeval_faster", "faster_coco_eval:mask.encode"),
    "hotcoco": ("hotcoco:COCO", "hotcoco:COCOeval", "hotcoco.mask:encode"),
    "ultrafast-pycocotools": (
        "ultrafast_pycocotools.coco:COCO",
        "ultrafast_pycocotools.cocoeval:COCOeval",
        "ultrafast_pycocotools.mask:encode",
    ),
}
"""By package: where its COCO, its COCOeval and the function that encodes masks are."""
PEERS["vernier"] = (
    "pycocotools.coco:COCO",  # its own reader wants boxes in results, which masks need not have
    "vernier:COCOeval",
    "pycocotools.mask:encode",
)
CELLS_AT_ONCE = 64


def load(place: str) -> Any:
    """Return what ``module:name`` names."""
    module, name = place.split(":")
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def main(peer: str, data: Path, repeats: int) -> dict[str, Any]:
    """Return the CPU seconds of encoding the data's own maps, of loading and of evaluating, and the mAP."""
    coco_class, eval_class, encode = map(load, PEERS[peer])
    with data.open("rb") as file:
        dataset, results, maps = pickle.load(file)
    start = time.process_time()
    for labels in maps:
        present = np.unique(labels)[1:]
        for first in range(0, present.size, CELLS_AT_ONCE):
            encode(np.asfortranarray(labels[:, :, None] == present[first : first + CELLS_AT_ONCE]).view(np.uint8))
    encoding = time.process_time() - start
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = dataset
        truth.createIndex()
        found = truth.loadRes(results)
        if peer == "vernier":
            for one in found.dataset["annotations"]:
                one["bbox"] = list(one["bbox"])  # pycocotools makes arrays of them
    loading = time.process_time() - start
    times = []
    for _ in range(repeats):
        with contextlib.redirect_stdout(io.StringIO()):
            run = eval_class(truth, found, "segm")
            run.params.maxDets = [3000]
            only_all_areas(peer, run)
            start = time.process_time()
            run.evaluate()
            run.accumulate()
            times.append(time.process_time() - start)
    mean = mean_precision(run)
    return {"encode_s": encoding, "load_s": loading, "evaluate_s": statistics.median(times), "map": mean}


def only_all_areas(peer: str, run: Any) -> None:
    """Leave out small, medium and large; vernier's COCOeval cannot, and scores them besides."""
    if peer != "vernier":
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]


def mean_precision(run: Any) -> float:
    """Return the mAP of all areas at the largest limit of detections."""
    precision = np.asarray(run.eval["precision"])[:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def from_files(peer: str, truth: str, results: str) -> dict[str, float]:
    """Return the CPU seconds from two COCO JSON files to precision and recall, and the mAP."""
    coco_class, eval_class, _ = map(load, PEERS[peer])
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco_class(truth)
        found = dataset.loadRes(results)
        if peer == "vernier":
            for one in found.dataset["annotations"]:
                one["bbox"] = list(one["bbox"])  # pycocotools makes arrays of them
        run = eval_class(dataset, found, "segm")
        run.params.maxDets = [3000]
        only_all_areas(peer, run)
        run.evaluate()
        run.accumulate()
    return {"seconds": time.process_time() - start, "map": mean_precision(run)}


if __name__ == "__main__":
    if sys.argv[2] == "--files":
        sys.stdout.write(json.dumps(from_files(sys.argv[1], *sys.argv[3:])) + "\n")
        sys.exit()
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))) + "\n")
