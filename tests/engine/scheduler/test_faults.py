"""Of a hundred runs everything is killed, the disk fills up, records are cut off: all are done in the end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import ray._private.ray_constants as constants
from ray.cluster_utils import Cluster

from segbench.engine.data import DatasetSpec, ensure_prepared
from segbench.engine.data.registry import register
from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store, repair_store
from segbench.engine.results.store.opening import wal_path
from segbench.engine.scheduler import GridRequest, plan

RUNS, TRUNCATED, SEED = 100, 4, 7
KILLS = {"driver": 5, "writer": 3, "worker": 6, "subprocess": 6}
FILLED_AT = RUNS // 2
OBJECTS = 78 * 2**20
TINY = DatasetSpec("faulty", "synthetic", None, {"layout": "livecell", "seed": 5, "scale": 0.01})
LOG = logging.getLogger(__name__)

DRIVER = textwrap.dedent(
    """
    import pathlib, sys
    from segbench.engine.results.folder import ResultsFolder
    from segbench.engine.scheduler import GridRequest, LaunchOptions, Retries, launch
    options = LaunchOptions(address=sys.argv[3], cpu=True,
                            retries=Retries(failed=5, lost=20, first_wait_s=0.2))
    launch(GridRequest(grid_file=pathlib.Path(sys.argv[1])), ResultsFolder.open(sys.argv[2]), options)
    """
)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Start a head that runs nothing and a node with four logical cores."""
    plugin = str(Path(__file__).parents[2] / "plugin")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([plugin, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECTS}
    )
    cluster.add_node(num_cpus=4, object_store_memory=OBJECTS)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system for the results."""
    out = tmp_path / "small"
    out.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500m", "tmpfs", str(out)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield out
    subprocess.run(["umount", "--lazy", str(out)], check=True)


@dataclass
class Havoc:
    """Kills, fills and truncates at seeded moments, told by how many attempts have ended."""

    out: Path
    raylet: psutil.Process
    random: random.Random
    driver: subprocess.Popen[bytes] | None = None
    killed: Counter[str] = field(default_factory=Counter)
    cut_off: set[Path] = field(default_factory=set)
    filled: bool = False
    over: bool = False

    def wreak(self) -> None:
        """Do all of it, one after the other."""
        kinds = [kind for kind, n in KILLS.items() for _ in range(n)]
        self.random.shuffle(kinds)
        moments = sorted(self.random.sample(range(1, RUNS - 20), len(kinds)))
        for moment, kind in zip(moments, kinds, strict=True):
            while self.ended() < moment:
                time.sleep(0.2)
                if self.over:
                    return
            if moment >= FILLED_AT and not self.filled:
                self.fill()
            time.sleep(self.random.uniform(0.0, 0.5))
            while not self.over and not self.kill(kind):
                time.sleep(0.1)
            self.killed[kind] += 1

    def ended(self) -> int:
        """Return how many attempts have a record."""
        return sum(1 for _ in self.out.glob(f"runs/*/*/{RECORD_NAME}"))

    def fill(self) -> None:
        """Leave no byte of the disk for three seconds."""
        ballast = self.out / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 2**20)
        time.sleep(3.0)
        ballast.unlink()
        self.filled = True

    def kill(self, kind: str) -> bool:
        """Kill one process of a kind; return whether there was one."""
        if kind in ("driver", "writer"):
            driver = self.driver
            if driver is None or driver.poll() is not None or not ResultsFolder(self.out).launch.is_held():
                return False
            if kind == "writer" and not self.in_transaction():
                return False
            driver.kill()
            return True
        workers = [process for process in self.raylet.children(recursive=True) if self.is_one(process, kind)]
        if not workers:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            self.random.choice(workers).kill()
            return True
        return False

    def is_one(self, process: psutil.Process, kind: str) -> bool:
        """Return whether a process of the cluster is a worker that runs an attempt, or a method's subprocess."""
        try:
            line = process.cmdline()
        except psutil.Error:
            return False
        if kind == "worker":
            return bool(line) and line[0].startswith("ray::threshold")
        return bool(line) and line[-1].startswith(str(self.out)) and line[-1].endswith("job.json")

    def in_transaction(self) -> bool:
        """Wait up to two seconds for the writer to be in the middle of a transaction."""
        deadline = time.monotonic() + 2.0
        log = wal_path(ResultsFolder(self.out).store)
        while time.monotonic() < deadline:
            if log.exists():
                return True
            time.sleep(0.0005)
        return False

    def truncate(self) -> None:
        """Cut a record off, in the store or not."""
        records = sorted(set(self.out.glob(f"runs/*/*/{RECORD_NAME}")) - self.cut_off)
        path = self.random.choice(records)
        os.truncate(path, self.random.randrange(path.stat().st_size))
        self.cut_off.add(path)


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("plugin")
def test_a_hundred_runs_survive_twenty_kills_a_full_disk_and_cut_off_records(
    tmp_path: Path, cluster: Cluster, small_disk: Path
) -> None:
    out = small_disk
    register(TINY)
    ensure_prepared(TINY)
    grid = tmp_path / "grid.yaml"
    block = {"methods": ["threshold"], "tasks": ["faulty-wholecell"], "tissues": ["BV2"], "seeds": list(range(RUNS))}
    about = {"settings": {"threshold": {"margin": 0.5}}, "resources": {"threshold": {"num_cpus": 1, "memory_gb": 0.2}}}
    grid.write_text(json.dumps({"blocks": [block], **about}))
    expected = {planned.run.id for planned in plan(GridRequest(grid_file=grid), ResultsFolder(tmp_path / "nothing"))}
    assert len(expected) == RUNS

    (node,) = cluster.worker_nodes
    raylet = psutil.Process(node.all_processes[constants.PROCESS_TYPE_RAYLET][0].process.pid)
    havoc = Havoc(out, raylet, random.Random(SEED))
    wreaker = threading.Thread(target=havoc.wreak)
    wreaker.start()
    truncated = launches = 0
    try:
        for _ in range(50):
            launches += 1
            havoc.driver = launch(grid, out, cluster.address, tmp_path)
            code = havoc.driver.wait()
            if truncated < TRUNCATED and havoc.ended() > 20:
                havoc.truncate()
                truncated += 1
            sizes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
            LOG.info(
                "launch %d ended with %d: %d records, %.0f MB, killed %s",
                launches,
                code,
                havoc.ended(),
                sizes / 1e6,
                dict(havoc.killed),
            )
            if code == 0 and not wreaker.is_alive() and truncated == TRUNCATED:
                checked = check_store(ResultsFolder(out))
                if not checked.faults:
                    if {run for (run,) in done(out)} == expected:
                        break
                    continue
                with ResultsFolder(out).launch.hold():
                    repair_store(ResultsFolder(out))
    finally:
        havoc.over = True
        wreaker.join()
        if havoc.driver is not None and havoc.driver.poll() is None:
            havoc.driver.kill()
    LOG.info("%d launches, killed %s, %d attempts", launches, dict(havoc.killed), havoc.ended())

    assert havoc.killed == KILLS
    assert havoc.filled
    assert truncated == TRUNCATED
    rows = done(out)
    assert len(rows) == RUNS  # none lost, none doubled
    assert {run for (run,) in rows} == expected
    assert check_store(ResultsFolder(out)).faults == ()
    assert len(list(out.glob(f"runs/*/*/{RECORD_NAME}.broken"))) == TRUNCATED
    kept = [Record.read(path) for path in out.glob(f"runs/*/*/{RECORD_NAME}")]
    assert query(ResultsFolder(out), "select count(*) from attempts").item() + check_store(
        ResultsFolder(out)
    ).superseded == len(kept)
    deadline = time.monotonic() + 30
    while any(havoc.is_one(process, "subprocess") for process in raylet.children(recursive=True)):
        assert time.monotonic() < deadline, "a method's process still runs"
        time.sleep(0.5)


def launch(grid: Path, out: Path, address: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a driver; what it says goes into a file."""
    with (folder / "driver.txt").open("ab") as log:
        command = [sys.executable, "-c", DRIVER, str(grid), str(out), address]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ))


def done(out: Path) -> list[tuple[str]]:
    """Return the run of every finished attempt."""
    return query(ResultsFolder(out), "select run_id from attempts where status = 'done'").rows()
