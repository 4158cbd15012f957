"""How long a shell waits for a completion: the real command by bash's protocol, for each kind of value.

python benchmarks/bench_completion.py [--out RESULTS] [--times 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

LINES = {
    "commands": "segbench ",
    "options": "segbench grid launch --",
    "presets": "segbench grid plan --preset ",
    "methods": "segbench grid plan --method ",
    "tasks": "segbench grid plan --task ",
    "tissues": "segbench grid plan --tissue ",
    "datasets": "segbench data show ",
    "run ids": "segbench runs show ",
    "models": "segbench models apply ",
    "analyses": "segbench analyze ",
    "figures": "segbench plot ",
    "kinds of annotations": "segbench data import ",
}
COMMAND = [sys.executable, "-c", "from segbench.cli.app import main; main()"]


def asked(line: str, out: str) -> tuple[float, float, int]:
    """Return seconds of processor time and on the clock, and how many completions were offered."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_SEGBENCH_COMPLETE": "complete_bash"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    told = subprocess.run(
        COMMAND, env={**os.environ, **words, "SEGBENCH_OUT": out}, capture_output=True, text=True, check=True
    )
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock, len(told.stdout.split())


def main() -> None:
    """Print the table: the first answer, which may have to make the list of commands, and the quickest of the next."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="segbench-results", help="The results folder.")
    parser.add_argument("--times", type=int, default=5, help="Answers after the first.")
    given = parser.parse_args()
    print("| completion of | offered | first, processor s | next, processor s | next, on the clock s |")
    print("| --- | --- | --- | --- | --- |")
    for what, line in LINES.items():
        first, _, offered = asked(line, given.out)
        times = [asked(line, given.out) for _ in range(given.times)]
        cpu, clock = min(one[0] for one in times), min(one[1] for one in times)
        print(f"| {what} | {offered} | {first:.2f} | {cpu:.3f} | {clock:.3f} |")


if __name__ == "__main__":
    main()
