"""A grid's runs share a GPU: Ray places three at once, and each is held to its share."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from gpu_jobs import HERE, ON_CPU

from segbench.engine.grid.cards import get_card

Note = Callable[[str, object], None]
METHODS = ("mask-rcnn", "centermask2", "cellpose")
MISSING = [name for name in ("ray", "duckdb", "polars", "pyarrow") if importlib.util.find_spec(name) is None]
RAN = "select method, status, error, started_at, ended_at, num_gpus, gpu_names, peak_gpu_memory_bytes from attempts"


def segbench(cache: Path, *arguments: str) -> str:
    """Run the command line and return what it printed."""
    code = "import sys; sys.argv[0] = 'segbench'; from segbench.cli.app import main; main()"
    variables = {**os.environ, "SEGBENCH_CACHE": str(cache), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    variables["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), variables.get("PYTHONPATH", "")]).rstrip(":")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.skipif(bool(MISSING), reason=f"the engine's {', '.join(MISSING)} cannot be imported")
def test_three_runs_of_a_grid_share_a_gpu(tmp_path: Path, own_environments: Path, record_property: Note) -> None:
    # a grid file is YAML, which JSON is
    budgets = {name: {"batch_size": 2} for name in METHODS}
    for name in METHODS:
        budgets[name] |= {"epochs": 1} if get_card(name).budget.epochs else {"iterations": 4}
    grid = {
        "blocks": [{"methods": METHODS, "tasks": ["shared-wholecell"], "tissues": ["all"]}],
        "budgets": budgets,
        "settings": {name: dict(get_card(name).check_settings) for name in METHODS},
    }
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    prepare = ("data", "prepare", "synthetic", "--layout", "livecell", "--name", "shared", "--scale", "0.01")
    segbench(own_environments, *prepare)
    share = ("--cpu",) if ON_CPU else ("--num-gpus", "0.3", "--num-cpus", "2")
    launch = ("grid", "launch", "--grid", str(tmp_path / "grid.yaml"), *share, "--out", str(tmp_path / "out"))
    told = segbench(own_environments, *launch)
    rows = json.loads(segbench(own_environments, "sql", RAN, "--format", "json", "--out", str(tmp_path / "out")))
    assert [row["status"] for row in rows] == ["done"] * 3, f"{rows}\n{told}"
    if ON_CPU:
        return
    assert [row["num_gpus"] for row in rows] == [0.3] * 3
    assert all(row["gpu_names"] for row in rows)
    record_property("GPU memory held", ", ".join(f"{row['peak_gpu_memory_bytes'] / 1e9:.1f} GB" for row in rows))
    # each began before the first had ended
    assert max(row["started_at"] for row in rows) < min(row["ended_at"] for row in rows)
