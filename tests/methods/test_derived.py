"""What is derived of windows is computed once, kept beside them, and never half there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbench.engine.run import environments
from segbench.errors import SegbenchError
from segbench.methods import Arrays, ImageStack, derived
from segbench.methods.derived import Kind, derive

KIND = Kind("double", {"by": 2}, (8, 8))
PARTS = Path(__file__).parent / "load_parts.py"


@pytest.fixture
def arrays(tmp_path: Path) -> Arrays:
    """Return four windows of which three are chosen, in an order of their own; window n's labels are all n + 1."""
    labels = np.ones((4, 8, 8), np.int32) * np.arange(1, 5, dtype=np.int32)[:, None, None]
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 8, 8), np.float32))
    np.save(tmp_path / "y.npy", labels)
    return Arrays(str(tmp_path / "x.npy"), (0,), (3, 0, 2), str(tmp_path / "y.npy"))


def double(arrays: Arrays, windows: list[int], kind: Kind = KIND) -> tuple[list[float], list[int]]:
    """Return the first value of each window, and which windows were computed for it."""
    stack, computed = ImageStack(arrays), []

    def compute(n: int) -> Any:
        computed.append(n)
        return stack.labels(n) * 2.0

    found = derive(stack, windows, kind, compute, Path(arrays.images).parent / "spare")
    return [float(found[n][0, 0]) for n in windows], computed


def test_a_window_is_computed_once_for_all_runs(arrays: Arrays) -> None:
    assert double(arrays, [1, 2]) == ([2.0, 6.0], [1, 2])
    assert double(arrays, [0, 1, 2]) == ([8.0, 2.0, 6.0], [0])
    # another run's selection of the same windows
    other = Arrays(arrays.images, (0,), (0, 1), arrays.labels)
    assert double(other, [0, 1]) == ([2.0, 4.0], [1])


def test_other_settings_and_other_arrays_are_computed_anew(arrays: Arrays) -> None:
    double(arrays, [0])
    assert double(arrays, [0], Kind("double", {"by": 3}, (8, 8)))[1] == [0]
    assert arrays.labels is not None
    labels = np.load(arrays.labels)
    os.utime(arrays.labels, ns=(1, 1))
    np.save(arrays.labels, labels + 1)
    assert double(arrays, [0]) == ([10.0], [0])


def test_a_copy_is_given_so_that_nothing_kept_is_changed(arrays: Arrays) -> None:
    stack = ImageStack(arrays)
    found = derive(stack, [0], KIND, lambda n: stack.labels(n) * 2.0, Path())
    found[0][:] = 0
    assert found[0][0, 0] == 8


CHILD = """
    import sys, time
    from pathlib import Path
    from segbench.methods import Arrays, ImageStack, derived
    from segbench.methods.derived import Kind, derive

    derived._TOGETHER = 1
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    stack = ImageStack(Arrays(str(folder / "x.npy"), (0,), (3, 0, 2), str(folder / "y.npy")))

    def compute(n):
        print(n, flush=True)
        if kind == "killed" and n == 1:
            time.sleep(60)
        return stack.labels(n) * 2.0

    found = derive(stack, [0, 1, 2], Kind("double", {"by": 2}, (8, 8)), compute, folder / "spare")
    print([float(found[n][0, 0]) for n in range(3)])
"""


def child(folder: Path, kind: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(CHILD)
    return subprocess.Popen([sys.executable, "-c", code, folder, kind], stdout=subprocess.PIPE, text=True)


def test_a_run_that_is_killed_leaves_what_it_had_finished_and_those_that_wait_do_the_rest(arrays: Arrays) -> None:
    folder = Path(arrays.images).parent
    killed = child(folder, "killed")
    assert killed.stdout is not None
    assert [killed.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]  # it holds the lock, in window 1
    others = [child(folder, "whole") for _ in range(2)]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    told = sorted(other.communicate(timeout=60)[0].splitlines() for other in others)
    values = "[8.0, 2.0, 6.0]"
    assert told == [["1", "2", values], [values]]


def test_where_nothing_can_be_written_beside_the_arrays_it_is_computed_for_the_run_alone(
    arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(derived, "_place", refuse)
    assert double(arrays, [0, 2]) == ([8.0, 6.0], [0, 2])
    assert double(arrays, [0]) == ([8.0], [0])
    assert list((Path(arrays.images).parent / "spare").iterdir()) == []


def test_a_full_disk_is_told_with_what_is_needed(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SegbenchError, match=r"no space left in .*derived.* for double of 2 windows: free"):
        double(arrays, [0, 1])


def run_part(environment: str, name: str, folder: Path) -> dict[str, Any]:
    built = environments.ensure(environment, gpu=False)
    variables = {**environments.subprocess_env(built), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [built.python, PARTS, name, folder], env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.heavy
def test_stardist_is_fed_what_it_was_when_all_windows_were_in_memory(tmp_path: Path) -> None:
    assert run_part("tensorflow", "stardist", tmp_path) == {"batches": 12, "same": True}


@pytest.mark.heavy
def test_deepcells_methods_are_fed_what_they_were_when_all_windows_were_in_memory(tmp_path: Path) -> None:
    found = run_part("tensorflow", "deepcell", tmp_path)
    assert {name: one["same"] for name, one in found.items()} == dict.fromkeys(
        ("mesmer", "retinamask", "featurenet-fgbg", "featurenet-pixelwise"), True
    )
    # upstream leaves out what shows too few cells
    assert (found["retinamask"]["pieces"], found["retinamask"]["of"]) == (4, 7)


@pytest.mark.heavy
def test_what_workers_of_mmdetection_and_detectron2_send_is_small_and_what_one_process_gives(tmp_path: Path) -> None:
    found = run_part("torch", "torch", tmp_path)
    assert found.pop("no_cell") == [[0, 4], [0, 48, 48]]
    assert found == dict.fromkeys(("masks", "padded", "boxes", "sent", "mmdet_workers", "detectron2_workers"), True)
