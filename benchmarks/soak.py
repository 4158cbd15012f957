"""Runs a grid of the tests' quick method on a real Ray of several local nodes while something is killed over and over.

Run: python benchmarks/soak.py [--runs 954] [--nodes 3] [--every 60] [--minutes 60] [--seed 0]

Killed in turn are a method's process, a worker, the driver, and a raylet (another node takes its place); between them a
bit of a progress file is flipped. A driver that ended is launched again. It ends when every run is done, prints a line
a minute, and ends with 1 where a run is not done, a record was lost or doubled, or a method's process is left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "plugin"
KINDS = ("method", "worker", "progress", "driver", "raylet")
OBJECTS = 78 * 2**20
DRIVER = """
import pathlib, sys
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.scheduler import GridRequest, LaunchOptions, Retries, launch
options = LaunchOptions(address=sys.argv[3], cpu=True, retries=Retries(failed=20, lost=50, first_wait_s=0.2))
_, summary = launch(GridRequest(grid_file=pathlib.Path(sys.argv[1])), ResultsFolder.open(sys.argv[2]), options)
sys.exit(summary is not None and any(outcome.status != "done" for outcome in summary.outcomes))
"""


@dataclass
class Soak:
    """A launch, and what is done to it."""

    folder: Path
    cluster: Any
    random: random.Random
    driver: subprocess.Popen[bytes] | None = None
    done_to: Counter[str] = field(default_factory=Counter)
    launches: int = 0

    @property
    def out(self) -> Path:
        """The results folder."""
        return self.folder / "results"

    def launch(self) -> None:
        """Start a driver, if none runs."""
        if self.driver is None or self.driver.poll() is not None:
            self.launches += 1
            command = [
                sys.executable,
                "-c",
                DRIVER,
                str(self.folder / "grid.yaml"),
                str(self.out),
                self.cluster.address,
            ]
            with (self.folder / "driver.txt").open("ab") as log:
                self.driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def do(self, kind: str) -> bool:
        """Do one thing to it; return whether there was anything to do it to."""
        if kind == "driver":
            assert self.driver is not None
            self.driver.kill()
            self.driver.wait()
        elif kind == "raylet":
            node = self.random.choice(self.cluster.worker_nodes_list)
            self.cluster.replace(node)
        elif kind == "progress":
            files = [path for path in self.out.glob("runs/*/*/progress.jsonl") if not _recorded(path) and _size(path)]
            if not files:
                return False
            with contextlib.suppress(OSError):
                _flip(self.random.choice(files), self.random)
        else:
            found = [one for one in self.processes() if _is(one, kind, self.out)]
            if not found:
                return False
            with contextlib.suppress(psutil.Error):
                self.random.choice(found).kill()
        self.done_to[kind] += 1
        return True

    def processes(self) -> list[psutil.Process]:
        """Return every process below this one."""
        return psutil.Process().children(recursive=True)

    def ended(self) -> int:
        """Return how many runs have a record that says that they are done."""
        return sum(1 for path in self.out.glob("runs/*/*/record.json") if '"status":"done"' in _beginning(path))

    def line(self, minute: float) -> str:
        """Return how it stands: what grows where something leaks."""
        processes = self.processes()
        memory = files = 0
        for one in processes:
            with contextlib.suppress(psutil.Error):
                memory += one.memory_info().rss
                files += one.num_fds()
        lost = len(list(self.out.glob("runs/*/*/record.json.broken*")))
        return (
            f"| {minute:.1f} | {self.ended()} | {self.launches} | {sum(self.done_to.values())} | {len(processes)} | "
            f"{memory / 2**20:,.0f} | {files} | {lost} |"
        )


class Nodes:
    """Ray's cluster of local nodes; those that are killed are replaced."""

    def __init__(self, nodes: int, cores: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECTS}
        self._cluster, self._cores = Cluster(initialize_head=True, head_node_args=head), cores
        self.address = self._cluster.address
        self.worker_nodes_list = [self._add() for _ in range(nodes)]

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=self._cores, object_store_memory=OBJECTS)

    def replace(self, node: Any) -> None:
        """Kill a node's raylet, and bring another node."""
        self.worker_nodes_list.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        self.worker_nodes_list.append(self._add())

    def shutdown(self) -> None:
        """End every node."""
        self._cluster.shutdown()


def main() -> int:
    """Run it; returns 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=954)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="logical, of each node")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two kills")
    parser.add_argument("--minutes", type=float, default=60.0, help="of kills; afterwards it is left to end")
    parser.add_argument("--seconds", type=float, default=0.3, help="that a run trains")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":")
    sys.path.insert(0, str(PLUGIN))
    with tempfile.TemporaryDirectory(prefix="segbench-soak-") as scratch:
        os.environ["SEGBENCH_CACHE"] = str(Path(scratch) / "cache")
        write_grid(Path(scratch), asked.runs, asked.seconds)
        cluster = Nodes(asked.nodes, asked.cores)
        try:
            soak = Soak(Path(scratch), cluster, random.Random(asked.seed))
            for line in keep(soak, asked):
                print(line, flush=True)
            wrong = verdict(soak, asked.runs)
        finally:
            cluster.shutdown()
    print(f"done to it: {dict(soak.done_to)}; {soak.launches} launches")
    for text in wrong:
        print(f"WRONG: {text}")
    print(f"{asked.runs} runs, {len(wrong)} things wrong")
    return int(bool(wrong))


def write_grid(folder: Path, runs: int, seconds: float) -> None:
    """Prepare a small dataset, and write the grid file."""
    from segbench.engine.data import DatasetSpec, ensure_prepared
    from segbench.engine.data.registry import register

    spec = DatasetSpec("soaked", "synthetic", None, {"layout": "livecell", "seed": 5, "scale": 0.01})
    register(spec)
    ensure_prepared(spec)
    block = {"methods": ["threshold"], "tasks": ["soaked-wholecell"], "tissues": ["BV2"], "seeds": list(range(runs))}
    about = {"settings": {"threshold": {"seconds": seconds}}, "resources": {"threshold": {"memory_gb": 0.1}}}
    (folder / "grid.yaml").write_text(json.dumps({"blocks": [block], **about}))


def keep(soak: Soak, asked: argparse.Namespace) -> Iterator[str]:
    """Launch until all is done, and do something to it every so often; yield a line a minute."""
    yield "| minute | runs done | launches | done to it | processes | memory, MiB | open files | set aside |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    began = told = time.monotonic()
    kinds, next_one = itertools.cycle(KINDS), began + asked.every
    kind = next(kinds)
    while True:
        soak.launch()
        assert soak.driver is not None
        time.sleep(0.5)
        now = time.monotonic()
        if soak.driver.poll() == 0 and soak.ended() >= asked.runs:
            yield soak.line((now - began) / 60)
            return
        if now - began < asked.minutes * 60 and now >= next_one and soak.do(kind):
            kind, next_one = next(kinds), now + asked.every
        if now - told >= 60:
            told = now
            yield soak.line((now - began) / 60)


def verdict(soak: Soak, runs: int) -> list[str]:
    """Return what is wrong at the end."""
    from segbench.engine.results.folder import ResultsFolder
    from segbench.engine.results.store import query
    from segbench.engine.results.store.check import check_store

    out, wrong = ResultsFolder(soak.out), []
    done = query(out, "select run_id, count(*) as n from attempts where status = 'done' group by run_id")
    if done.height != runs or done["n"].max() != 1:
        wrong.append(f"{done.height} runs are done, of one as many as {done['n'].max()} times")
    wrong += [f"{fault.kind}: {fault.run_id}: {fault.detail}" for fault in check_store(out).faults[:5]]
    deadline = time.monotonic() + 20
    while (left := [one for one in soak.processes() if _is(one, "method", soak.out)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return wrong + [f"process {one.pid} of a method still runs" for one in left]


def _is(process: psutil.Process, kind: str, out: Path) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    if kind == "worker":
        return bool(line) and line[0].startswith("ray::threshold")
    return bool(line) and line[-1].startswith(str(out)) and line[-1].endswith("job.json")


def _recorded(progress: Path) -> bool:
    return (progress.parent / "record.json").exists()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _beginning(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(400).decode(errors="replace").replace(" ", "").replace("\n", "")


def _flip(path: Path, rng: random.Random) -> None:
    where = rng.randrange(max(1, _size(path)))
    with path.open("r+b") as file:
        file.seek(where)
        byte = file.read(1)
        file.seek(where)
        file.write(bytes([(byte or b"\0")[0] ^ (1 << rng.randrange(8))]))


if __name__ == "__main__":
    sys.exit(main())
