"""Hands a launch's records to the store in a thread, so that a store that is slow or held never holds the launch up."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter
from segbench.engine.results.store.intake import Intake

_EVERY_S = 0.2


class RecordQueue:
    """Keeps records until the thread takes them; it alone touches the store.

    Parameters
    ----------
    out
        The results folder.
    writer
        Of its store.
    """

    def __init__(self, out: Path, writer: StoreWriter) -> None:
        self._notes: deque[str] = deque()
        self._intake = Intake(out, writer, self._notes.append)
        self._fresh: list[Record] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="segbench-store")
        self._running: Future[None] | None = None
        self._next = 0.0

    def add(self, record: Record) -> None:
        """Note a record that has just been written to its folder."""
        self._fresh.append(record)

    def flush(self, last: bool = False) -> Iterator[str]:
        """Let the thread take in what waits, at most five times a second; ``last`` waits for all. Yields what to tell.

        Raises
        ------
        SegbenchError
            The store could not be written; the records lie on disk.
        """
        if self._running is not None and (last or self._running.done()):
            done, self._running = self._running, None
            done.result()
        if last:
            self._take(self._fresh, last=True)
            self._fresh = []
        elif self._running is None and (self._fresh or self._intake.waiting) and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            fresh, self._fresh = self._fresh, []
            self._running = self._thread.submit(self._take, fresh)
        while self._notes:
            yield self._notes.popleft()

    def close(self) -> None:
        """End the thread when it has done what it does."""
        self._thread.shutdown()

    def _take(self, records: list[Record], last: bool = False) -> None:
        for record in records:
            self._intake.add(record)
        self._intake.flush(last)
