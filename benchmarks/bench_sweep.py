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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from bench_evaluate import peer
from coco_export import coco_dataset
from label_map_sets import LabelMapSet, tissuenet_sized
from peer_evaluators import PEERS
from skimage.segmentation import expand_labels

from segbench.engine.metrics import evaluate_labels, sweep_labels

os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
RADII = range(21)
PEER_RADII = (0, 10, 20)
SAMPLE = 40
GOAL = 80


@dataclass(frozen=True)
class Sample:
    """Some maps of the set, with their predictions grown by every radius."""

    truth: npt.NDArray[np.int32]
    scores: list[npt.NDArray[np.float64]]
    grown: dict[int, npt.NDArray[np.int32]]
    scale: float
    """Maps of the set for one of the sample."""
    seconds: float
    """What growing took, scaled to the whole set."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment with benchmarks/requirements.txt")
    parser.add_argument("--images", type=int, default=1324, help="maps of 256x256; fewer for a quick look")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    maps = tissuenet_sized(options.images)
    print(f"{maps.name}: {len(maps.truth)} maps of 256x256, radii 0 to 20")
    ours = {operation: time_sweep(maps, operation, options.repeats) for operation in ("dilate", "erode")}
    for operation, seconds in ours.items():
        print(f"  segbench, {operation:7} by all radii          {seconds:9.3f} s")
    sample = grow_sample(maps)
    if options.peers is None:
        print("  no peers: --peers was not given")
        return
    totals = time_peers(sample, options.peers, options.repeats)
    if totals:
        fastest = min(totals, key=lambda name: totals[name])
        both = sample.seconds + totals[fastest]
        print(
            f"  expand_labels + {fastest}: {both:.1f} s, {both / ours['dilate']:.0f} times segbench's sweep "
            f"(goal {GOAL})"
        )


def time_sweep(maps: LabelMapSet, operation: Literal["dilate", "erode"], repeats: int) -> float:
    """Return the median CPU seconds of a sweep by all radii."""
    sweep_labels(maps.truth[:2], maps.predictions[:2], operation, RADII, maps.scores[:2])
    times = []
    for _ in range(repeats):
        start = time.process_time()
        sweep_labels(maps.truth, maps.predictions, operation, RADII, maps.scores)
        times.append(time.process_time() - start)
    return statistics.median(times)


def grow_sample(maps: LabelMapSet) -> Sample:
    """Grow some maps by expand_labels, and check that the sweep's precision is that of the grown maps."""
    n, predictions = len(maps.truth), maps.predictions
    chosen = np.linspace(0, n - 1, min(n, SAMPLE)).astype(int)
    scale = n / chosen.size
    start = time.process_time()
    grown = {r: np.stack([expand_labels(predictions[i], r) if r else predictions[i] for i in chosen]) for r in RADII}
    seconds = (time.process_time() - start) * scale
    print(f"  expand_labels at every radius             {seconds:9.3f} s   scaled from {chosen.size} maps")
    sample = Sample(maps.truth[chosen], [maps.scores[i] for i in chosen], grown, scale, seconds)
    swept = sweep_labels(sample.truth, predictions[chosen], "dilate", RADII, sample.scores)
    for radius in RADII:
        apart = evaluate_labels(sample.truth, grown[radius], sample.scores)
        if not np.array_equal(apart.pooled.precision, swept[radius].pooled.precision):
            raise SystemExit(f"radius {radius}: the sweep differs from expand_labels and evaluate_labels")
    print("  the sweep's precision equals expand_labels + evaluate_labels at every radius, element by element")
    return sample


def time_peers(sample: Sample, python: Path, repeats: int) -> dict[str, float]:
    """Return the seconds of each peer that is installed, for evaluating the whole set at every radius."""
    totals = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {radius: Path(folder) / f"{radius}.pickle" for radius in PEER_RADII}
        for radius, data in files.items():
            data.write_bytes(pickle.dumps((*coco_dataset(sample.truth, sample.grown[radius], sample.scores), [])))
        for name in (name for name in PEERS if name != "pycocotools"):
            found = [peer(python, name, data, repeats) for data in files.values()]
            if None in found:
                print(f"  {name} is not installed beside {python}")
                continue
            seconds = statistics.mean(one["evaluate_s"] for one in found)
            totals[name] = seconds * len(RADII) * sample.scale
            print(
                f"  {name:24} at every radius {totals[name]:9.3f} s   evaluation alone; from {len(files)} radii, "
                f"{len(sample.truth)} maps"
            )
    return totals


if __name__ == "__main__":
    main()
