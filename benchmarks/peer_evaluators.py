"""Times one public COCO evaluator on a pickled dataset: runs in the peers' environment, prints one JSON line."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pickle
import statistics
import sys
import time
from pathlib import Path
from typing import Any

PEERS = {
    "pycocotools": ("pycocotools.coco:COCO", "pycocotools.cocoeval:COCOeval"),
    "faster-coco-eval": ("faster_coco_eval:COCO", "faster_coco_eval:COCOeval_faster"),
    "hotcoco": ("hotcoco:COCO", "hotcoco:COCOeval"),
    "ultrafast-pycocotools": ("ultrafast_pycocotools.coco:COCO", "ultrafast_pycocotools.cocoeval:COCOeval"),
}
"""By package: where its COCO and its COCOeval are."""


def load(place: str) -> Any:
    """Return what ``module:name`` names."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def main(peer: str, data: Path, repeats: int) -> dict[str, Any]:
    """Return the CPU seconds of loading and of evaluating, and the resulting mAP."""
    coco_class, eval_class = map(load, PEERS[peer])
    with data.open("rb") as file:
        dataset, results = pickle.load(file)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = dataset
        truth.createIndex()
        found = truth.loadRes(results)
    loading = time.process_time() - start
    times = []
    for _ in range(repeats):
        with contextlib.redirect_stdout(io.StringIO()):
            run = eval_class(truth, found, "segm")
            run.params.maxDets = [3000]
            run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
            start = time.process_time()
            run.evaluate()
            run.accumulate()
            times.append(time.process_time() - start)
    precision = run.eval["precision"]
    return {"load_s": loading, "evaluate_s": statistics.median(times), "map": float(precision[precision > -1].mean())}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))) + "\n")
