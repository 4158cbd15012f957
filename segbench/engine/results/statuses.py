"""The one vocabulary for where a run or an attempt stands: in the plan, in the live view and in the store."""

from __future__ import annotations

import enum


class Status(enum.StrEnum):
    """Where a run stands, or how an attempt ended; the store knows the latter only.

    Examples
    --------
    >>> Status.RUNNING.ended, Status.LOST.ended, Status.TO_DO.value
    (False, True, 'to do')
    """

    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    DIVERGED = "diverged"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its worker or node died."""
    TO_DO = "to do"
    """Of a plan: no attempt has been made."""
    QUEUED = "queued"
    """A launch will come to it."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Its launch is over, and it has no result."""

    @property
    def ended(self) -> bool:
        """Whether an attempt ends so; the others say that there is none, or that it goes on."""
        return self in ENDED


ENDED = (
    Status.DONE,
    Status.FAILED,
    Status.TIMEOUT,
    Status.OUT_OF_MEMORY,
    Status.DIVERGED,
    Status.CANCELLED,
    Status.LOST,
)
"""How an attempt can end."""
