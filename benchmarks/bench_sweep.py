"""Measures a sweep of 21 dilation radii against expand_labels at every radius with the fastest public evaluator.

    python benchmarks/bench_sweep.py --peers /tmp/peers/bin/python

The peers live in an environment of their own (see benchmarks/requirements.txt). Single-threaded CPU time.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_evaluate import peer
from coco_export import coco_dataset
from label_map_sets import tissuenet_sized
from peer_evaluators import PEERS
from skimage.segmentation import expand_labels

from segbench.engine.metrics import evaluate_labels, sweep_labels

os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
RADII = range(21)
SAMPLE = 40
GOAL = 80


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment with benchmarks/requirements.txt")
    parser.add_argument("--images", type=int, default=1324, help="maps of 256x256; fewer for a quick look")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    maps = tissuenet_sized(options.images)
    truth, predictions, scores = maps.truth, maps.predictions, maps.scores
    n = len(truth)
    print(f"{maps.name}: {n} maps of 256x256, radii 0 to 20")
    ours = {}
    for operation in ("dilate", "erode"):
        sweep_labels(truth[:2], predictions[:2], operation, RADII, scores[:2])
        times = []
        for _ in range(options.repeats):
            start = time.process_time()
            sweep_labels(truth, predictions, operation, RADII, scores)
            times.append(time.process_time() - start)
        ours[operation] = statistics.median(times)
        print(f"  segbench, {operation:7} by all radii          {ours[operation]:9.3f} s")

    chosen = np.linspace(0, n - 1, min(n, SAMPLE)).astype(int)
    scale = n / chosen.size
    start = time.process_time()
    grown = {r: np.stack([expand_labels(predictions[i], r) if r else predictions[i] for i in chosen]) for r in RADII}
    expanding = (time.process_time() - start) * scale
    print(f"  expand_labels at every radius             {expanding:9.3f} s   scaled from {chosen.size} maps")

    part = truth[chosen], [scores[i] for i in chosen]
    swept = sweep_labels(part[0], predictions[chosen], "dilate", RADII, part[1])
    for radius in RADII:
        apart = evaluate_labels(part[0], grown[radius], part[1])
        if not np.array_equal(apart.pooled.precision, swept[radius].pooled.precision):
            raise SystemExit(f"radius {radius}: the sweep differs from expand_labels and evaluate_labels")
    print("  the sweep's precision equals expand_labels + evaluate_labels at every radius, element by element")
    if options.peers is None:
        print("  no peers: --peers was not given")
        return
    totals = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in PEERS:
            if name == "pycocotools":
                continue
            seconds = 0.0
            for radius in (0, 10, 20):
                data = Path(folder) / f"{radius}.pickle"
                if not data.exists():
                    with data.open("wb") as file:
                        pickle.dump((*coco_dataset(part[0], grown[radius], part[1]), []), file)
                found = peer(options.peers, name, data, options.repeats)
                if found is None:
                    print(f"  {name} is not installed beside {options.peers}")
                    break
                seconds += found["evaluate_s"]
            else:
                totals[name] = seconds / 3 * len(RADII) * scale
                print(
                    f"  {name:24} at every radius {totals[name]:9.3f} s   evaluation alone; from 3 radii, "
                    f"{chosen.size} maps"
                )
    if totals:
        fastest = min(totals, key=lambda name: totals[name])
        both = expanding + totals[fastest]
        print(
            f"  expand_labels + {fastest}: {both:.1f} s, {both / ours['dilate']:.0f} times segbench's sweep "
            f"(goal {GOAL})"
        )


if __name__ == "__main__":
    main()
