"""How long it takes to import what a method needs, alone and where six runs start at once.

    python benchmarks/bench_import.py                       # one method of each environment that is built here
    python benchmarks/bench_import.py mask-rcnn --at-once 6

A process each, as a run starts them: from the interpreter's start until `import_library` is done. `uncompiled` is an
environment without byte code, where no process may write any; `collected` is with Python's garbage collector at work
and, for Cellpose, with Numba compiling anew, as it was before. Seconds of processor time are those of one process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from typing import Any

METHODS = ("cellpose", "mask-rcnn", "resnest", "stardist", "mesmer", "segment-anything")
"""One for each library."""


def child(method: str, folder: str, before: bool) -> None:
    """Import in this process and print when it was done, and the processor's time."""
    from segbench.methods.job import Devices, Job, Task
    from segbench.methods.runner import _uncollected

    module, _, name = method.partition(":")
    kind = getattr(importlib.import_module(module), name)
    job = Job("import", method, Task("t", "d", ("nuclear",), "nuclear"), kind.card.budget, 0, folder,
              settings=kind.card.defaults, devices=Devices())  # fmt: skip
    loaded = sys.modules[kind.__module__]
    if before and hasattr(loaded, "_kept_compiled"):
        loaded._kept_compiled = nullcontext
    with nullcontext() if before else _uncollected():
        kind().import_library(job)
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"done": time.time(), "cpu_s": used.ru_utime + used.ru_stime, "modules": len(sys.modules)}
    sys.__stdout__.write(json.dumps(told) + "\n")  # type: ignore[union-attr]


def measure(method: str, together: int, before: bool, compiled: bool) -> dict[str, float]:
    """Return seconds until the last of some processes has imported, and what the first one told."""
    from segbench.engine.grid.cards import get_card, method_object
    from segbench.engine.run import environments

    environment = environments.ensure(get_card(method).environment, gpu=False)
    variables = {**environments.subprocess_env(environment), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory(prefix="segbench-import-") as folder:
        if not compiled:
            variables |= {"PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [environment.python, __file__, "--child", method_object(method), folder, *["--before"] * before]
        began = time.time()
        started = [
            subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for _ in range(together)
        ]
        said = [process.communicate()[0].strip().splitlines() for process in started]
    told: list[dict[str, Any]] = [json.loads(lines[-1]) for lines in said]
    return {**told[0], "wall_s": max(one["done"] for one in told) - began}


def main() -> None:
    """Print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"by default {', '.join(METHODS)}")
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--before", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(*asked.child, asked.before)
        return
    many = asked.at_once
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"| method | modules | alone, s | CPU s | {many} at once, s | collected, CPU s | uncompiled, CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for method in asked.methods or METHODS:
        measure(method, 1, False, True)  # reads the files into the system's cache
        alone, six = measure(method, 1, False, True), measure(method, many, False, True)
        collected, uncompiled = measure(method, 1, True, True), measure(method, 1, True, False)
        told = [f"{alone['modules']:,}", f"{alone['wall_s']:.1f}", f"{alone['cpu_s']:.1f}", f"{six['wall_s']:.1f}"]
        told += [f"{collected['cpu_s']:.1f}", f"{uncompiled['cpu_s']:.1f}"]
        print(f"| {method} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
