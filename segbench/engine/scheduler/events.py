"""What a launch tells whoever watches it, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segbench.engine.grid import Run
from segbench.engine.results.statuses import Status
from segbench.engine.study.tissues import ALL_TISSUES

if TYPE_CHECKING:
    from segbench.engine.results.record import Record


@dataclass(frozen=True)
class Opened:
    """Ray is there and so many runs are about to be handed to it."""

    total: int
    dashboard: str | None = None
    """URL of Ray's dashboard; None where there is none."""


@dataclass(frozen=True)
class Started:
    """A worker has begun an attempt."""

    run: Run
    attempt: int


@dataclass(frozen=True)
class Progressed:
    """A running method has told where it stands."""

    run: Run
    line: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, as far as it is shown; the rest is in its record."""

    run_id: str
    attempt: int
    status: Status
    error: str | None
    ap50: float | None
    """Pooled, of the run's own task; None where it has no result."""

    @classmethod
    def of(cls, record: Record) -> Outcome:
        """Return what is shown of a record."""
        row = record.attempt
        ap50 = next((scored.ap50 for scored in record.evaluations if scored.test_tissue == ALL_TISSUES), None)
        return cls(row.run_id, row.attempt, row.status, row.error, ap50)


@dataclass(frozen=True)
class Finished:
    """An attempt has ended."""

    run: Run
    outcome: Outcome
    retried: bool
    note: str = ""
    """How it is tried again: when, and with what; empty where it is not."""


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in one line."""

    text: str


Event = Opened | Started | Progressed | Finished | Note
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Observe nothing."""


@dataclass(frozen=True)
class Summary:
    """How a launch ended."""

    outcomes: tuple[Outcome, ...]
    cancelled: bool

    def count(self, status: Status) -> int:
        """Return how many runs ended so."""
        return sum(outcome.status is status for outcome in self.outcomes)
