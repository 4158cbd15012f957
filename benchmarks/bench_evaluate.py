"""Measures the evaluator against pycocotools and its public replacements, on sets of TissueNet's and LIVECell's size.

    python benchmarks/bench_evaluate.py --peers /tmp/peers/bin/python

The peers live in an environment of their own (see benchmarks/requirements.txt); a peer that is missing there is named
and left out. Everything is single-threaded CPU time (medians) unless a line says otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numba
import numpy as np
import psutil
from coco_export import coco_dataset
from label_map_sets import LabelMapSet, livecell_sized, tissuenet_sized
from peer_evaluators import PEERS

from segbench.engine.metrics import bootstrap_intervals, evaluate_labels

HERE = Path(__file__).parent
SAMPLE = 40
GOAL_FASTER, GOAL_FLOOR = 25, 10


def median_cpu(function: Callable[[], object], repeats: int) -> float:
    """Return the median CPU seconds of a call, after one that warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


@numba.njit
def read_once(truth, predictions):  # type: ignore[no-untyped-def]
    """Read every pixel of both stacks: the floor of any evaluator."""
    total = 0
    one, other = truth.reshape(-1), predictions.reshape(-1)
    for i in range(one.size):
        total += one[i] ^ other[i]
    return total


def first_call(cache: Path) -> float:
    """Return the CPU seconds of the first evaluation of a fresh process that keeps its compiled code in ``cache``."""
    code = (
        "import time, numpy as np; start = time.process_time();"
        "from segbench.engine.metrics import evaluate_labels;"
        "a = np.ones((1, 8, 8), np.int32); evaluate_labels(a, a, [[1.0]]); print(time.process_time() - start)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True
    )
    result.check_returncode()
    return float(result.stdout)


def peer(python: Path, name: str, data: Path, repeats: int) -> dict[str, float] | None:
    """Return a peer's times and mAP; None where it is not installed."""
    found = subprocess.run([python, "-c", f"import {PEERS[name][1].split(':')[0]}"], capture_output=True)
    if found.returncode:
        return None
    command = [python, str(HERE / "peer_evaluators.py"), name, str(data), str(repeats)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    result.check_returncode()
    return json.loads(result.stdout.strip().splitlines()[-1])


def measure(maps: LabelMapSet, python: Path | None, repeats: int) -> None:
    """Print the lines of one set."""
    truth, predictions, scores = maps.truth, maps.predictions, maps.scores
    n = len(truth)
    process = psutil.Process()
    result = evaluate_labels(truth[:2], predictions[:2], scores[:2])
    before = process.memory_info().rss
    result = evaluate_labels(truth, predictions, scores)
    after = process.memory_info().rss
    print(
        f"\n{maps.name}: {n} maps of {truth.shape[1]}x{truth.shape[2]}, {result.pooled.n_truth} true and "
        f"{result.pooled.n_predictions} predicted cells, up to {result.images.n_truth.max()} a map; "
        f"mAP {result.pooled.map:.4f}"
    )
    floor = median_cpu(lambda: read_once(truth, predictions), repeats)
    ours = median_cpu(lambda: evaluate_labels(truth, predictions, scores), repeats)
    print(f"  floor: both stacks read once              {floor:9.3f} s")
    print(
        f"  segbench, from label maps                 {ours:9.3f} s   {ours / floor:.1f} x the floor "
        f"(goal {GOAL_FLOOR})"
    )
    walls = {}
    for threads in (1, 2):
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            evaluate_labels(truth, predictions, scores, threads=threads)
            times.append(time.perf_counter() - start)
        walls[threads] = statistics.median(times)
    print(f"  segbench, wall time, 1 and 2 threads      {walls[1]:9.3f} s and {walls[2]:.3f} s")
    print(f"  segbench, memory after less before        {(after - before) / 1e6:9.0f} MB")
    if maps.name.startswith("TissueNet"):
        start = time.process_time()
        bootstrap_intervals(result)
        print(f"  segbench, 1,000 bootstrap resamples       {time.process_time() - start:9.3f} s   (goal 5 s)")
    if python is None:
        print("  no peers: --peers was not given")
        return
    with tempfile.TemporaryDirectory() as folder:
        data, part = Path(folder) / "all.pickle", Path(folder) / "part.pickle"
        # evenly spread over the set, so that dense and empty maps are in it
        chosen = np.linspace(0, n - 1, min(n, SAMPLE)).astype(int)
        scale = n / len(chosen)
        maps_to_encode = [*truth[chosen], *predictions[chosen]]
        with data.open("wb") as file:
            pickle.dump((*coco_dataset(truth, predictions, scores), maps_to_encode), file)
        with part.open("wb") as file:
            few = coco_dataset(truth[chosen], predictions[chosen], [scores[i] for i in chosen])
            pickle.dump((*few, maps_to_encode), file)
        print(f"  seconds {'':22} evaluate   + load + encode   times segbench")
        fastest = None
        for name in PEERS:
            small = name == "pycocotools"
            found = peer(python, name, part if small else data, 1 if small else 3)
            if found is None:
                print(f"  {name} is not installed beside {python}")
                continue
            seconds = np.cumsum(
                [
                    found["evaluate_s"] * (scale if small else 1),
                    found["load_s"] * (scale if small else 1),
                    found["encode_s"] * scale,
                ]
            )
            note = f"  all scaled from {len(chosen)} maps" if small else ""
            if not small and abs(found["map"] - result.pooled.map) > 1e-12:
                note = f"  ANOTHER mAP: {found['map']}"
            times = " / ".join(f"{ratio:.1f}" for ratio in seconds / ours)
            print(f"  {name:30} {seconds[0]:8.3f} {seconds[1]:8.3f} {seconds[2]:8.1f}   {times}{note}")
            if fastest is None or seconds[0] < fastest[1][0]:
                fastest = (name, seconds)
        if fastest is not None:
            ratios = fastest[1] / ours
            print(
                f"  the fastest is {fastest[0]}: segbench is {ratios[0]:.1f} times as fast as its evaluate alone, "
                f"{ratios[1]:.1f} with load, {ratios[2]:.1f} from label maps (goal {GOAL_FASTER})"
            )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="Python of the environment with benchmarks/requirements.txt")
    parser.add_argument("--sets", default="tissuenet,livecell", help="tissuenet, livecell or both")
    parser.add_argument("--images", type=int, help="only so many maps a set, for a quick look")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = first_call(Path(cache)), first_call(Path(cache))
    print(f"import and first call of a process: {cold:.1f} s compiling, {warm:.1f} s from the cache (CPU time)")
    print(
        "A peer's evaluate: evaluate() and accumulate(); load: createIndex() and loadRes() of dictionaries in memory;"
    )
    print(f"encode: its mask.encode of each cell's mask, scaled from {SAMPLE} maps. segbench starts from label maps.")
    for name, make in (("tissuenet", tissuenet_sized), ("livecell", livecell_sized)):
        if name in options.sets.split(","):
            measure(make(options.images) if options.images else make(), options.peers, options.repeats)


if __name__ == "__main__":
    main()
