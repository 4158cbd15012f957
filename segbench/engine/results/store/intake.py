"""Takes a launch's records into the store as they come, without ever holding the launch up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from segbench.engine.results.record import Record
from segbench.engine.results.store.recovery import take_in
from segbench.engine.results.store.writer import StoreBusyError, StoreWriter

_MOST = 256
_EVERY_S = 0.5
_PATIENCE_S = 0.3
_LAST_PATIENCE_S = 30.0
_BACK_OFF_S = 2.0
_SAY_AFTER_S = 3.0


@dataclass
class Intake:
    """Batches the records of a launch; while another process holds the store they wait on disk, where they lie anyway.

    At most 256 records are kept in memory; of more it is only remembered that there are some, and when the store is
    free they are read from their folders again.
    """

    out: Path
    writer: StoreWriter
    tell: Callable[[str], None]
    """Is told in one line when the store is held, when what waited is in, and what still waits at the end."""
    _waiting: list[Record] = field(default_factory=list)
    _left_on_disk: int = 0
    _next: float = 0.0
    _held_since: float | None = None
    _said: bool = False

    @property
    def waiting(self) -> int:
        """Return how many records are not in the store yet."""
        return len(self._waiting) + self._left_on_disk

    def add(self, record: Record) -> None:
        """Note a record that has just been written to its folder; ``flush`` takes it in."""
        if len(self._waiting) < _MOST:
            self._waiting.append(record)
        else:
            self._left_on_disk += 1

    def flush(self, last: bool = False) -> None:
        """Take in what waits, at most twice a second; ``last`` does it now, and waits up to 30 s for the store.

        Raises
        ------
        SegbenchError
            The store cannot be written (a full disk, say); the records lie on disk.
        """
        now = time.monotonic()
        if not self.waiting or (now < self._next and not last):
            return
        try:
            self.writer.add(self._waiting, _LAST_PATIENCE_S if last else _PATIENCE_S)
            self._waiting.clear()
            if self._left_on_disk:
                take_in(self.out, self.writer)
                self._left_on_disk = 0
        except StoreBusyError as error:
            self._held(error.held_by, last)
        else:
            if self._said:
                self.tell("the store is free again: the records that waited are in it")
            self._held_since, self._said = None, False
            self._next = time.monotonic() + _EVERY_S

    def _held(self, by: str, last: bool) -> None:
        now = time.monotonic()
        self._next = now + (_EVERY_S if self._held_since is None else _BACK_OFF_S)
        self._held_since = now if self._held_since is None else self._held_since
        held = f"another process{by} holds {self.writer.path}"
        if last:
            self.tell(f"{held}: {self.waiting} records wait on disk for the next launch")
        elif not self._said and now - self._held_since >= _SAY_AFTER_S:
            self._said = True
            self.tell(f"{held}: the launch goes on, records wait on disk until that DuckDB client is closed")
