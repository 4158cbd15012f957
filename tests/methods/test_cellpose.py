"""Cellpose trains as upstream's own loop does, and finds the masks that upstream finds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from segbench.engine.run import environments

PARTS = Path(__file__).with_name("cellpose_parts.py")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run everything in one process of the method's environment, which takes long to start."""
    built = environments.ensure("cellpose", gpu=False)
    variables = {**environments.subprocess_env(built), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [built.python, PARTS, tmp_path_factory.mktemp("cellpose")], env=variables, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.heavy
@pytest.mark.parametrize(("case", "validations"), [("sgd", 3), ("adamw", 0)])
def test_weights_and_losses_are_those_of_upstreams_train_seg_to_the_last_bit(
    parts: dict[str, Any], case: str, validations: int
) -> None:
    assert parts["training"][case] == {
        "weights": True, "diameter": True, "losses": True, "val_losses": True, "steps": 12, "validations": validations,
    }  # fmt: skip


@pytest.mark.heavy
def test_flows_and_percentiles_are_kept_for_later_runs(parts: dict[str, Any]) -> None:
    assert parts["training"]["kept"] == ["cellpose-flows", "cellpose-range"]


@pytest.mark.heavy
def test_the_best_weights_can_be_kept(parts: dict[str, Any]) -> None:
    assert parts["kept_weights"]["best"] < parts["kept_weights"]["last"]


@pytest.mark.heavy
def test_masks_of_windows_together_are_those_of_upstreams_path_for_gpus(parts: dict[str, Any]) -> None:
    found = parts["masks"]
    assert all(found["same"])
    assert found["cells"][3] == 0  # a window without any
    assert sum(found["kept"]) < sum(found["cells"][:4])  # some have too large a flow error


@pytest.mark.heavy
def test_outputs_of_all_tiles_together_are_upstreams(parts: dict[str, Any]) -> None:
    found = parts["prediction"]
    assert found["off"] < 1e-5 * found["range"]
    assert found["yielded"] == 5
