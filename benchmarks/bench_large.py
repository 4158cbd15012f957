"""Measures the evaluator where maps are large, narrow or many: a slide on threads, types, lists, ten million cells.

    python benchmarks/bench_large.py                       # the checkout that is installed
    python benchmarks/bench_large.py --before CHECKOUT     # an older one beside it, alternating, and the ratios

Medians of alternating repeats; CPU seconds, but for threads, where it is time on the clock: let nothing else run then.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
import psutil
from label_map_sets import tissuenet_sized

SLIDE_CELLS, MANY_CELLS = 60_000, 10_000_000
TILE = 32
"""Pixels a side that a cell of the slide has to itself."""


def slide(n_cells: int, tile: int = TILE) -> tuple[np.ndarray, np.ndarray]:
    """Return one true and one predicted map of about so many cells, (1, H, W) int32."""
    side = int(np.ceil(np.sqrt(n_cells)))
    labels = np.arange(1, side * side + 1, dtype=np.int32).reshape(side, side)
    y, x = np.mgrid[:tile, :tile]
    inside = np.hypot(y - tile / 2, x - tile / 2) < 0.45 * tile
    truth = np.kron(labels, inside.astype(np.int32))
    found = np.roll(truth, (tile // 10, tile // 16), axis=(0, 1))
    return truth[None], found[None]


def fields(n_cells: int, of_each: int = 2_500) -> Iterator[np.ndarray]:
    """Yield maps with so many cells in all, made as they are asked for."""
    one = slide(of_each, 10)[0][0]
    for _ in range(n_cells // of_each):
        yield one


def times(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the seconds of one call."""
    start = clock()
    function()
    return clock() - start


def measure(what: str, repeats: int) -> dict[str, Any]:
    """Return the seconds of one thing, and what it says of the cells."""
    from segbench.engine.metrics import evaluate_labels

    if what == "ten million cells":
        evaluate_labels(fields(5_000), fields(5_000))
        process, start = psutil.Process(), time.process_time()
        before = process.memory_info().rss
        result = evaluate_labels(fields(MANY_CELLS), fields(MANY_CELLS))
        seconds = time.process_time() - start
        status = Path("/proc/self/status").read_text().splitlines()
        peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1])
        return {"seconds": seconds, "gigabytes": (peak * 1024 - before) / 1e9, "ap50": result.ap50}
    if what.startswith("slide"):
        pair, threads = slide(SLIDE_CELLS), int(what.split()[1])
        call, clock = (lambda: evaluate_labels(*pair, threads=threads)), time.perf_counter
    else:
        kind, form = what.split()
        maps = tissuenet_sized(400)
        pair = maps.truth.astype(kind), maps.predictions.astype(kind)
        pair = pair if form == "stack" else (list(pair[0]), list(pair[1]))
        call, clock = (lambda: evaluate_labels(*pair, maps.scores)), time.process_time
    call()
    return {"seconds": min(times(call, clock) for _ in range(repeats)), "ap50": call().ap50}


THINGS = ("slide 1", "slide 2", "int32 stack", "int32 list", "uint16 stack", "uint16 list", "ten million cells")


def main() -> None:
    """Print a row a thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout to measure beside this one")
    parser.add_argument("--rounds", type=int, default=3, help="processes a thing and checkout; the median is told")
    parser.add_argument("--repeats", type=int, default=5, help="calls a process; the best is taken")
    parser.add_argument("--things", nargs="+", default=THINGS, choices=THINGS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.repeats)))
        return
    states = ({"before": asked.before} if asked.before else {}) | {"here": Path(__file__).parent.parent}
    for what in asked.things:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in states}
        for _ in range(1 if what == "ten million cells" else asked.rounds):
            for name, checkout in states.items():
                environment = os.environ | {"PYTHONPATH": str(checkout)}
                command = [sys.executable, __file__, "--one", what, "--repeats", str(asked.repeats)]
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
                found[name].append(json.loads(done.stdout))
        told = []
        for name, results in found.items():
            more = f", {results[0]['gigabytes']:.2f} GB" if "gigabytes" in results[0] else ""
            told.append(f"{name} {statistics.median(result['seconds'] for result in results):.3f} s{more}")
        scores = {result["ap50"] for results in found.values() for result in results}
        print(f"{what:18} {'; '.join(told)}{'' if len(scores) == 1 else '; THE SCORES DIFFER'}", flush=True)


if __name__ == "__main__":
    main()
