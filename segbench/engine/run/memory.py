"""Watches how much memory a process and its children hold, and whether the kernel ended one for want of it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from segbench.own_memory import held_bytes

_EVERY_S = 2.0
_NEAR = 0.95
_CGROUP = Path("/sys/fs/cgroup")
_VMSTAT = Path("/proc/vmstat")


class MemoryWatch:
    """Looks at a process from time to time.

    The kernel tells nobody whom it ended for want of memory, and why; it counts, for the machine and for the control
    group. A process that was killed while that count rose, or that held as much
    as it had reserved, has run out of memory.

    Parameters
    ----------
    pid
        The process.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._kills = self._before = kernel_kills()
        self._next = time.monotonic() + _EVERY_S / 2
        self.peak_bytes = 0
        """The most that was seen, of the process and its children together, without pages of mapped files: the kernel
        takes those back when it wants to."""

    def look(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_S
        # of the last two looks the earlier one: a kill in between must not be missed
        self._before, self._kills = self._kills, kernel_kills()
        held = 0
        with contextlib.suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    held += held_bytes(process.pid) or process.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, held)

    def ran_out(self, reserved_bytes: float, killed: bool) -> bool:
        """Return whether a process that has ended without a result was ended for want of memory.

        Parameters
        ----------
        reserved_bytes
            What it had reserved.
        killed
            By SIGKILL; a launcher (torchrun) that lost a child so ends by itself.
        """
        return kernel_kills() > self._before or (killed and self.peak_bytes >= _NEAR * reserved_bytes)


def kernel_kills() -> int:
    """Return how many processes the kernel has ended for want of memory; 0 where it does not tell.

    They are counted for this control group, or else for the machine.
    """
    for path in (_own_cgroup() / "memory.events", _VMSTAT):
        with contextlib.suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _own_cgroup() -> Path:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return _CGROUP / line.removeprefix("0::").strip().lstrip("/")
    return _CGROUP
