"""A local Ray that dies in the midst of a launch is started again, and nothing that had finished is lost."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import psutil
import pytest

from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store
from segbench.engine.scheduler import Event, Finished, GridRequest, LaunchOptions, launch


def raylets() -> list[psutil.Process]:
    """Return the raylets that this process has started."""
    return [child for child in psutil.Process().children(recursive=True) if child.name() == "raylet"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("ray_variables", "plugin")
def test_a_killed_raylet_costs_only_the_attempts_that_ran(tmp_path: Path) -> None:
    register(DatasetSpec("inline", "synthetic", None, {"layout": "livecell", "seed": 9, "scale": 0.01}))
    grid = {"methods": ["threshold"], "tasks": ["inline-wholecell"], "tissues": ["BV2"], "seeds": [0, 1, 2]}
    grid |= {"settings": {"threshold": {"seconds": 2}}, "resources": {"threshold": {"memory_gb": 0.2}}}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    first, killed = threading.Event(), list[int]()

    def observe(event: Event) -> None:
        if isinstance(event, Finished) and event.outcome.status == "done":
            first.set()

    def kill() -> None:
        first.wait(300)
        time.sleep(1)
        for raylet in raylets():
            killed.append(raylet.pid)
            raylet.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    out = ResultsFolder(tmp_path / "results")
    options = LaunchOptions(cpu=True, num_cpus=1)
    _, summary = launch(GridRequest(grid_file=tmp_path / "grid.yaml"), out, options, observe)
    killer.join()
    assert len(killed) == 1
    assert summary is not None
    assert [outcome.status for outcome in summary.outcomes] == ["done"] * 3
    assert query(out, "select count(*) from attempts where status = 'done'").item() == 3
    assert check_store(out).faults == ()
    assert not raylets()
