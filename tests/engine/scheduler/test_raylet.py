"""A launch whose local Ray dies under it starts another one, tries again what ran, and ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from segbench.engine.data import DatasetSpec, ensure_prepared
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store

TINY = DatasetSpec("orphaned", "synthetic", None, {"layout": "livecell", "seed": 6, "scale": 0.01})
LAUNCH = [sys.executable, "-c", "import sys; sys.argv[0] = 'segbench'; from segbench.cli.app import main; main()"]


def below(driver: int, name: str) -> list[psutil.Process]:
    """Return the driver's living descendants whose name or command line says this."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() == name or any(word.endswith(name) for word in process.cmdline()):
                    found.append(process)
    return found


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("plugin", "ray_variables")
def test_a_killed_raylet_is_told_and_its_runs_are_tried_again(tmp_path: Path) -> None:
    register(TINY)
    ensure_prepared(TINY)
    out, grid = tmp_path / "out", tmp_path / "grid.yaml"
    block = {"methods": ["threshold"], "tasks": ["orphaned-wholecell"], "tissues": ["BV2"], "seeds": [0, 1]}
    grid.write_text(json.dumps({"blocks": [block], "settings": {"threshold": {"seconds": 4}}}))
    said = tmp_path / "said.txt"
    with said.open("w") as log:
        command = [*LAUNCH, "grid", "launch", "--grid", str(grid), "--cpu", "--num-cpus", "2", "--out", str(out)]
        driver = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 240
        while not below(driver.pid, "job.json"):
            assert driver.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.2)
        (raylet,) = below(driver.pid, "raylet")
        its_workers = raylet.children(recursive=True)
        raylet.kill()
        code = driver.wait(timeout=300)
    finally:
        if driver.poll() is None:
            for process in psutil.Process(driver.pid).children(recursive=True):
                process.kill()
            driver.kill()
            driver.wait()
    assert code == 0, said.read_text()
    assert psutil.wait_procs(its_workers, timeout=30)[1] == []
    assert "the local Ray died, and was started again" in said.read_text()
    rows = query(ResultsFolder(out), "select run_id, count(*) from attempts where status = 'done' group by all").rows()
    assert [n for _, n in rows] == [1, 1]
    assert check_store(ResultsFolder(out)).faults == ()
