"""Watches how much memory this process and its children hold for themselves, without pages of files."""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_EVERY_S = 0.1
_CHILDREN_EVERY_S = 1.0


class OwnMemory:
    """The most memory that was held since it was made, by looking ten times a second.

    The kernel keeps no such mark: its own high-water mark counts the pages of mapped files, which it takes back when
    it wants to, and so counts prepared windows that are read once.
    """

    def __init__(self) -> None:
        self._peak = self._children = 0
        self._next = 0.0
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="memory-watch", daemon=True).start()

    def peak_bytes(self) -> int:
        """Look once more and return the most that was seen, of this process and its children together."""
        with self._lock:
            now = time.monotonic()
            if now >= self._next:
                self._next = now + _CHILDREN_EVERY_S
                self._children = sum(map(_unshared_bytes, _descendants("self")))
            self._peak = max(self._peak, held_bytes("self") + self._children)
            return self._peak

    def _watch(self) -> None:
        while True:
            self.peak_bytes()
            time.sleep(_EVERY_S)


def held_bytes(pid: int | str) -> int:
    """Return the memory that a process holds for itself or shares with its children, without pages of files.

    Parameters
    ----------
    pid
        A process, or ``self``. Where the system does not tell (no Linux) it must be ``self``, and what is returned is
        the most that this process has held, with pages of files.
    """
    with contextlib.suppress(OSError):
        fields = _fields(Path(f"/proc/{pid}/status"))
        if "RssAnon" in fields:
            return fields["RssAnon"] + fields.get("RssShmem", 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit if pid == "self" else 0


def _unshared_bytes(pid: str) -> int:
    """Return what a child has written; what it was forked with is its parent's as long as neither changes it."""
    with contextlib.suppress(OSError):
        return _fields(Path(f"/proc/{pid}/smaps_rollup")).get("Private_Dirty", 0)
    return 0


def _descendants(pid: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            children: tuple[str, ...] = ()
            with contextlib.suppress(OSError):  # the thread has ended
                children = tuple((path / "children").read_text().split())
            for child in children:
                yield child
                yield from _descendants(child)


def _fields(path: Path) -> dict[str, int]:
    """Return the sizes that a file of ``/proc`` tells, in bytes."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value.split()[0]) * 1024
    return found
