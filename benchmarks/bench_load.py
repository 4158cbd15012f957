"""How much memory and time each method needs until it can take its first training step on as many windows as asked for.

    python benchmarks/bench_load.py                          # all methods, the study's 23,220 windows
    python benchmarks/bench_load.py --windows 2000 mesmer    # fewer, one method

Windows of 256x256 with two channels and about 90 cells are drawn into a folder (18 GB for 23,220 of them, up to 31 GB
with what a method derives, removed at the end), and each method's `load` runs in its own environment on one core.
Memory is the process's own: its anonymous pages, sampled; pages of the mapped arrays belong to the system's cache. What
a method derives of the windows is computed in its first load; `again` is the next one's time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

STUDY = 23_220
GOAL_GB, GOAL_S = 12.0, 600.0
"""The goals: own memory, and seconds of one core for 10,000 windows."""


def draw(folder: Path, windows: int, size: int = 256) -> None:
    """Write windows of which 512 are different; the others have another brightness."""
    import numpy as np

    from segbench.engine.run.check import draw_discs

    rng = np.random.default_rng(0)
    tile = min(64, size)
    images, labels = draw_discs(48, tile, 2, n_discs=6)
    across, distinct = size // tile, min(512, windows)
    x = np.lib.format.open_memmap(folder / "images-train.npy", "w+", np.float32, (windows, 2, size, size))
    y = np.lib.format.open_memmap(folder / "labels-train.npy", "w+", np.int32, (windows, size, size))
    made = []
    for _ in range(distinct):
        image, label, cells = np.zeros((2, size, size), np.float32), np.zeros((size, size), np.int32), 0
        for place, which in enumerate(rng.integers(len(images), size=across**2)):
            rows, columns = (slice(tile * at, tile * at + tile) for at in divmod(place, across))
            image[:, rows, columns] = images[which]
            label[rows, columns] = np.where(labels[which] > 0, labels[which] + cells, 0)
            cells = int(label.max())
        made.append((image, label))
    for n in range(windows):
        image, label = made[n % distinct]
        x[n], y[n] = image * np.float32(rng.uniform(0.6, 1)), label
    x.flush()
    y.flush()


def write_job(method: str, folder: Path, to: Path) -> None:
    """Write a job of the card's settings and budget that trains on the windows."""
    import dataclasses

    from segbench.engine.grid.cards import get_card, method_object
    from segbench.methods import Arrays, Devices, Job, Task

    arrays = Arrays(str(folder / "images-train.npy"), (0, 1), None, str(folder / "labels-train.npy"))
    val = dataclasses.replace(arrays, rows=tuple(range(64)))
    job = Job(
        run_id="load", method=method_object(method), task=Task("t", "d", ("nuclear", "membrane"), "nuclear"),
        budget=get_card(method).budget, seed=0, output=str(to), train=arrays, val=val,
        settings=get_card(method).defaults, devices=Devices(num_cpus=1),
    )  # fmt: skip
    to.mkdir(parents=True, exist_ok=True)
    job.write(to / "job.json")


def load(path: Path) -> None:
    """Load in this process and print what it took as JSON; runs in the method's environment."""
    import importlib

    from segbench.methods.base import ImageStack
    from segbench.methods.job import Job

    job = Job.read(path)
    module, _, name = job.method.partition(":")
    method = getattr(importlib.import_module(module), name)()
    method.import_library(job)
    peak, stop = [own_bytes()], threading.Event()
    before = peak[0]

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], own_bytes())

    threading.Thread(target=watch, daemon=True).start()
    started, cpu = time.monotonic(), time.process_time()
    stacks = [None if arrays is None else ImageStack(arrays) for arrays in (job.train, job.val)]
    method.load(job, *stacks)
    end = own_bytes()
    told = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - started, "imported": before}
    stop.set()
    print(json.dumps({**told, "peak": max(peak[0], end), "end": end}))


def own_bytes() -> int:
    """Return the anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def measure(method: str, folder: Path, work: Path) -> dict[str, Any]:
    """Return what a method's load took in a process of its own."""
    from segbench.engine.grid.cards import get_card
    from segbench.engine.run import environments

    environment = environments.ensure(get_card(method).environment, gpu=False)
    variables = {**environments.subprocess_env(environment), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    write_job(method, folder, work)
    done = subprocess.run(
        [environment.python, __file__, "--job", work / "job.json"], env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all that can be run by default")
    parser.add_argument("--windows", type=int, default=STUDY)
    parser.add_argument("--folder", type=Path, help="for the windows; the system's temporary folder by default")
    parser.add_argument("--again", action="store_true", help="load once more, with what was derived there")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        load(asked.job)
        return
    os.nice(10)
    from segbench.engine.run.installed import installed_methods

    methods = asked.methods or [one.name for one in installed_methods() if one.state == "ready"]
    with tempfile.TemporaryDirectory(prefix="segbench-load-", dir=asked.folder) as text:
        folder = Path(text)
        started = time.monotonic()
        draw(folder, asked.windows)
        sys.stderr.write(f"{asked.windows:,} windows drawn in {time.monotonic() - started:.0f} s\n")
        print("| method | windows | load, CPU s | s for 10,000 | again, CPU s | own memory, peak GB | at the end |")
        print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for method in methods:
            rows = [measure(method, folder, folder / "run") for _ in range(1 + asked.again)]
            shutil.rmtree(folder / "derived", ignore_errors=True)
            first, last = rows[0], rows[-1]
            if "error" in first:
                print(f"| {method} | {asked.windows:,} | failed: {first['error']} | | | | |", flush=True)
                continue
            per = first["cpu_s"] / asked.windows * 10_000
            again = f"{last['cpu_s']:.0f}" if asked.again else "-"
            held = max(row["peak"] for row in rows) / 1e9
            late = " (over)" if per > GOAL_S else ""
            much = " (over)" if held > GOAL_GB else ""
            told = (
                method,
                f"{asked.windows:,}",
                f"{first['cpu_s']:.0f}",
                f"{per:.0f}{late}",
                again,
                f"{held:.1f}{much}",
            )
            print(f"| {' | '.join(told)} | {first['end'] / 1e9:.1f} |", flush=True)


if __name__ == "__main__":
    main()
