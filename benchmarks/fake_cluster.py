"""Runs a launch on the node types of ``ray_cluster.yaml`` under Ray's fake provider: nodes come when asked for, and go.

Run: python benchmarks/fake_cluster.py [--runs 6] [--idle 15]

The provider is Ray's own for tests of its autoscaler: each node is a raylet on this machine with the type's resources,
so that its GPUs are numbers alone; labels, limits and rules are those of the file. Half of the runs ask for four GPUs
of on-demand nodes, the others for a share of one of spot nodes. It prints what the launch said and the seconds at which
nodes came and went, and ends with 1 where a run is not done or a node stays.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import socket
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
import yaml

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "plugin"
OBJECTS = 78 * 2**20
HEAD = "ray.head.default"
"""What the provider calls the head's type."""
HEAD_ID = "f" * 51 + "00000"
SEGBENCH = [sys.executable, "-c", "import sys; sys.argv[0] = 'segbench'; from segbench.cli.app import main; main()"]
VARIABLES = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    # as 'ray up' starts it: the first autoscaler starts nodes of any label, and pays for them
    "RAY_enable_autoscaler_v2": "1",
    "RAY_raylet_start_wait_time_s": "120",
    # a node of 48 cores would have as many workers before there is anything to do
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
}
STARTS_WITHIN_S = 180.0


def fake(content: dict[str, Any], address: str, idle_minutes: float) -> dict[str, Any]:
    """Return a cluster file with another provider: the same node types, limits and labels."""
    types = {
        HEAD if name == content["head_node_type"] else name: {**kind, "node_config": {}}
        for name, kind in content["available_node_types"].items()
    }
    for kind in types.values():
        # Ray's fake nodes cannot be told their memory; for its object store a raylet takes a third of it by default
        held = {name: amount for name, amount in kind["resources"].items() if name != "memory"}
        kind["resources"] = {**held, "object_store_memory": OBJECTS}
    types[HEAD]["max_workers"] = 0
    return {
        "cluster_name": content["cluster_name"],
        "max_workers": content["max_workers"],
        "upscaling_speed": content["upscaling_speed"],
        "idle_timeout_minutes": idle_minutes,
        "provider": {
            # its own name, fake_multinode, wants a file that Ray's wheels lack
            "type": "external", "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address, "launch_multiple": True, "head_node_id": HEAD_ID,
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
        "auth": {},
        "head_node_type": HEAD,
        "available_node_types": types,
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }  # fmt: skip


@dataclass
class FakeCluster:
    """A head without runs, and its autoscaler; ``seen`` counts the nodes that came, ``there`` are those of now."""

    folder: Path
    idle_minutes: float
    address: str = ""
    file: Path = Path()
    variables: dict[str, str] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    there: list[str] = field(default_factory=list)
    _head: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the head; raises RuntimeError where it does not come up."""
        port = _free_port()
        self.address, self.file = f"127.0.0.1:{port}", self.folder / "cluster.yaml"
        content = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
        self.file.write_text(yaml.safe_dump(fake(content, self.address, self.idle_minutes)))
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.variables = {**os.environ, **VARIABLES, "RAY_AUTH_TOKEN_PATH": str(token)}
        command = [
            Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={port}", "--num-cpus=0",
            "--num-gpus=0", "--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats",
            f"--object-store-memory={OBJECTS}", f"--autoscaling-config={self.file}",
        ]  # fmt: skip
        with (self.folder / "head.txt").open("wb") as log:
            own = {"RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
            self._head = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env={**self.variables, **own}
            )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while "Ray runtime started" not in (said := (self.folder / "head.txt").read_text(errors="replace")):
            if self._head.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Ray's head does not start: {said[-2000:]}")
            time.sleep(0.5)

    def nodes(self) -> list[str]:
        """Return the type of every living node but the head, from its raylet's variables."""
        found = []
        for process in self._below():
            with contextlib.suppress(psutil.Error):
                if process.name() == "raylet" and process.status() != psutil.STATUS_ZOMBIE:
                    kind = process.environ().get("RAY_NODE_TYPE_NAME")
                    found += [] if kind in (None, HEAD) else [kind]
        return sorted(found)

    def _below(self) -> list[psutil.Process]:
        if self._head is None:
            return []
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self._head.pid).children(recursive=True)
        return []

    def stop(self) -> None:
        """End the head and whatever it has started."""
        if self._head is None:
            return
        below = self._below()
        self._head.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._head.wait(10)
        _, left = psutil.wait_procs(below, timeout=10)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._head.kill()
        self._head.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def node_types() -> list[str]:
    """Return the worker types of the cluster file."""
    content = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())
    return [name for name in content["available_node_types"] if name != content["head_node_type"]]


def write_grid(folder: Path, runs: int, gpus: float) -> Path:
    """Prepare a small dataset and write a grid of runs that ask for that many GPUs."""
    from segbench.engine.data import DatasetSpec, ensure_prepared
    from segbench.engine.data.registry import register

    spec = DatasetSpec("clustered", "synthetic", None, {"layout": "livecell", "seed": 5, "scale": 0.01})
    register(spec)
    ensure_prepared(spec)
    block = {"methods": ["threshold"], "tasks": ["clustered-wholecell"], "tissues": ["BV2"], "seeds": list(range(runs))}
    wanted = {"num_gpus": gpus, "num_cpus": 4 if gpus >= 1 else 1, "memory_gb": 0.2}
    # seeds of both grids are the same: a margin of its own makes other runs of them
    about = {"settings": {"threshold": {"margin": 0.1 + gpus / 100}}, "resources": {"threshold": wanted}}
    path = folder / f"grid-{gpus:g}.yaml"
    path.write_text(json.dumps({"blocks": [block], **about}))
    return path


def watch(cluster: FakeCluster, process: subprocess.Popen[str] | None, began: float, until: float) -> Iterator[str]:
    """Yield a line whenever the nodes change, until a process ends (or, without one, until no node is left)."""
    while time.monotonic() < until:
        before, now = cluster.there, cluster.nodes()
        for name in (Counter(now) - Counter(before)).elements():
            cluster.seen[name] += 1
            yield f"{time.monotonic() - began:5.0f} s  a node comes: {name}"
        for name in (Counter(before) - Counter(now)).elements():
            yield f"{time.monotonic() - began:5.0f} s  a node goes: {name}"
        cluster.there = now
        if process.poll() is not None if process is not None else not now:
            return
        time.sleep(0.25)


def transcript(folder: Path, runs: int, idle_s: float) -> Iterator[str]:
    """Run it, and yield what happens; raises RuntimeError where anything is not as it should be."""
    out, began = folder / "results", time.monotonic()
    cluster = FakeCluster(folder, idle_s / 60)
    try:
        cluster.start()
        yield f"{time.monotonic() - began:5.0f} s  ray start --head --autoscaling-config=cluster.yaml"
        for gpus, more in (
            (4, ["--label", "segbench.io/market=on-demand"]),
            (0.5, ["--label", "segbench.io/market=spot"]),
        ):
            grid = write_grid(folder, runs // 2, gpus)
            arguments = ["--grid", str(grid), "--address", cluster.address, "--cluster-file", str(cluster.file), *more]
            shown = " ".join(arguments).replace(f"{folder}/", "").replace(cluster.address, "HEAD")
            yield f"{time.monotonic() - began:5.0f} s  segbench grid launch {shown}"
            with (folder / "launch.txt").open("w") as log:
                process = subprocess.Popen(
                    [*SEGBENCH, "grid", "launch", *arguments, "--out", str(out)],
                    stdout=log,
                    stderr=log,
                    text=True,
                    env=cluster.variables,
                )
                yield from watch(cluster, process, began, time.monotonic() + 300)
            said = (folder / "launch.txt").read_text()
            if process.poll() != 0:
                process.kill()
                raise RuntimeError(f"the launch ended with {process.wait()}: {said[-2000:]}")
            yield from (
                f"         {line}" for line in said.splitlines() if line.startswith(("done ", "lost ", "failed "))
            )
            yield f"{time.monotonic() - began:5.0f} s  the launch ends with 0"
        yield from watch(cluster, None, began, time.monotonic() + 60 + 2 * idle_s)
        if left := cluster.nodes():
            raise RuntimeError(f"still there: {', '.join(left)}")
        yield f"{time.monotonic() - began:5.0f} s  no node is left but the head"
    finally:
        cluster.stop()
    if not {"gpu-4", "gpu-8"} & set(cluster.seen) or not {"gpu-4-spot", "gpu-8-spot"} & set(cluster.seen):
        raise RuntimeError(f"other nodes came: {dict(cluster.seen)}")
    yield from counted(out, runs)


def counted(out: Path, runs: int) -> Iterator[str]:
    """Yield what the store holds; raises RuntimeError where a run is not done."""
    from segbench.engine.results.folder import ResultsFolder
    from segbench.engine.results.store import query

    asked = "select num_gpus, count(*) from attempts where status = 'done' group by all order by all"
    rows = query(ResultsFolder(out), asked).rows()
    for gpus, n in rows:
        yield f"         {n} runs on {gpus:g} GPUs: done"
    if sum(n for _, n in rows) != runs // 2 * 2:
        raise RuntimeError("not every run is done")


def main() -> int:
    """Print the transcript; returns 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--idle", type=float, default=15.0, help="seconds after which a node without a run goes")
    asked = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(PLUGIN), str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(":")
    sys.path.insert(0, str(PLUGIN))
    with tempfile.TemporaryDirectory(prefix="segbench-cluster-", ignore_cleanup_errors=True) as scratch:
        os.environ["SEGBENCH_CACHE"] = str(Path(scratch) / "cache")
        try:
            for line in transcript(Path(scratch), asked.runs, asked.idle):
                print(line, flush=True)
        except RuntimeError as error:
            print(f"WRONG: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
