"""An autoscaler starts the nodes that a launch waits for, of the cluster file's types, and takes them away again."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def load_benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_cluster", ROOT / "benchmarks" / "fake_cluster.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("plugin", "ray_variables")
def test_nodes_of_the_asked_label_come_for_a_launch_and_go_after_it(tmp_path: Path) -> None:
    fake = load_benchmark()
    lines = list(fake.transcript(tmp_path, runs=2, idle_s=5))
    came = [line.split("a node comes: ")[1] for line in lines if "a node comes" in line]
    assert set(came) <= set(fake.node_types())
    kept, spot = came[0], came[-1]
    assert not kept.endswith("-spot")
    assert spot.endswith("-spot")
    assert lines[-2:] == ["         1 runs on 0.5 GPUs: done", "         1 runs on 4 GPUs: done"]
