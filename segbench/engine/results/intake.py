"""Takes a launch's records into the store as they come, in a thread, without ever holding the launch up."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store.opening import StoreBusyError
from segbench.engine.results.store.recovery import take_in
from segbench.engine.results.store.writer import StoreWriter

if TYPE_CHECKING:
    from segbench.engine.results.record import Record

_MOST = 256
_EVERY_S = 0.5
_PATIENCE_S = 0.3
_LAST_PATIENCE_S = 30.0
_BACK_OFF_S = 2.0
_SAY_AFTER_S = 3.0


class Intake:
    """The one way of a launch's records from their folders into the store: a batch at most twice a second.

    While another process holds the store the records wait on disk, where they lie anyway: at most 256 are kept in
    memory; of more it is only remembered that there are some, and when the store is free they are read from their
    folders again. The thread begins with the first record and alone touches the store, until ``finish``.

    Parameters
    ----------
    out
        The results folder.
    writer
        Of its store.
    """

    def __init__(self, out: ResultsFolder, writer: StoreWriter) -> None:
        self._out, self._writer = out, writer
        self._waiting: list[Record] = []
        self._left_on_disk = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self._notes: deque[str] = deque()
        self._held = ""
        self._held_since: float | None = None
        self._said = False

    @property
    def waiting(self) -> int:
        """How many records are not in the store yet."""
        return len(self._waiting) + self._left_on_disk

    def add(self, record: Record) -> None:
        """Note a record that has just been written to its folder."""
        with self._lock:
            if len(self._waiting) < _MOST:
                self._waiting.append(record)
            else:
                self._left_on_disk += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="segbench-store", daemon=True)
            self._thread.start()

    def notes(self) -> list[str]:
        """Return what there is to tell since the last time: the store is held, or free again.

        Raises
        ------
        SegbenchError
            The store cannot be written (a full disk, say); the records lie on disk.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return [self._notes.popleft() for _ in range(len(self._notes))]

    def finish(self) -> list[str]:
        """Take in all that waits, waiting up to 30 s for the store, and end; returns and raises as ``notes``."""
        self.close()
        notes = self.notes()
        self._take(_LAST_PATIENCE_S)
        if self._held_since is not None:
            self._notes.append(f"{self._held}: {self.waiting} records wait on disk for the next launch")
        return notes + self.notes()

    def close(self) -> None:
        """End the thread when it has done what it does; what waits stays on disk."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._stop.clear()

    def _work(self) -> None:
        wait = 0.0
        while not self._stop.wait(wait):
            try:
                self._take(_PATIENCE_S)
            except Exception as failure:  # the launch raises it when it asks for notes
                self._failure = failure
                return
            wait = _EVERY_S if self._held_since is None else _BACK_OFF_S

    def _take(self, patience_s: float) -> None:
        """Take in what waits; where the store is held for longer than ``patience_s`` it goes on waiting."""
        with self._lock:
            batch, left = list(self._waiting), self._left_on_disk
        if not batch and not left:
            return
        try:
            self._writer.add(batch, patience_s)
            with self._lock:
                del self._waiting[: len(batch)]
            if left:
                take_in(self._out, self._writer)
                with self._lock:
                    self._left_on_disk -= left
        except StoreBusyError as error:
            self._wait_for(error)
            return
        if self._said:
            self._notes.append("the store is free again: the records that waited are in it")
        self._held_since, self._said = None, False

    def _wait_for(self, error: StoreBusyError) -> None:
        now = time.monotonic()
        self._held = f"another process{error.held_by} holds {self._writer.path}"
        if self._held_since is None:
            self._held_since = now
        elif not self._said and now - self._held_since >= _SAY_AFTER_S:
            self._said = True
            self._notes.append(
                f"{self._held}: the launch goes on, records wait on disk until that DuckDB client is closed"
            )
