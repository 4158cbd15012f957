"""What a process is said to have held: its own pages and its children's, not those of files."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from segbench.own_memory import OwnMemory, held_bytes

MB = 10**6

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells pages of files apart")


def test_windows_that_are_read_through_a_map_are_not_told_as_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "windows.npy", np.ones(8 * MB))
    memory = OwnMemory()
    before = memory.peak_bytes()
    assert np.load(tmp_path / "windows.npy", mmap_mode="r").sum() == 8 * MB
    assert memory.peak_bytes() - before < 30 * MB


def test_what_was_held_for_a_moment_counts_and_so_does_shared_memory() -> None:
    memory, before = OwnMemory(), held_bytes("self")
    shared = mmap.mmap(-1, 50 * MB)
    shared[:] = b"1" * (50 * MB)
    held = np.ones(5 * MB)
    assert memory.peak_bytes() - before > 85 * MB
    del held
    shared.close()
    assert memory.peak_bytes() - before > 85 * MB


def test_a_child_counts_with_what_it_has_written_itself() -> None:
    code = "held = bytearray(b'1') * 70_000_000; print(flush=True); input()"
    memory = OwnMemory()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        memory._next = 0.0
        assert memory.peak_bytes() - held_bytes("self") > 65 * MB
        child.communicate(b"\n")
