"""What a launch needs of whatever runs its attempts, be it a cluster or this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from segbench.engine.grid import Run
from segbench.engine.results.statuses import Status
from segbench.engine.run.request import AttemptRequest
from segbench.engine.scheduler.placement import Fitted

Attempt = Callable[[AttemptRequest], None]
"""Runs one attempt to its end and leaves its record."""


@dataclass(frozen=True)
class Ended:
    """An attempt that has ended."""

    run_id: str
    why: Callable[[], tuple[Status, str]]
    """Tells how it ended as far as the executor knows: asked only where the attempt has left no record."""


class Executor(ABC):
    """Chooses which waiting run comes next, runs its attempt, and says when that has ended.

    It knows nothing of records, stores and retries: what has ended and is tried again is handed to it again.
    """

    use_gpu: bool
    """Whether runs that ask for GPUs get them."""
    device: str
    """What runs run on, as ``expected_seconds`` takes it."""
    dashboard: str | None = None
    """URL where it can be watched."""
    local: bool = True
    """Runs happen on this machine alone, so that their environments are built before the first of them."""

    @property
    @abstractmethod
    def gpus(self) -> int:
        """GPUs in all."""

    @property
    @abstractmethod
    def gpus_in_use(self) -> float:
        """GPUs that attempts hold, shares added up."""

    @abstractmethod
    def fit(self, run: Run) -> Fitted:
        """Return what a run gets; raises SegbenchError where it can never be held."""

    @abstractmethod
    def add(self, run: Run, seconds: float) -> None:
        """Let a run wait that is expected to take so long; it gets what ``fit`` says."""

    @abstractmethod
    def ready(self) -> list[str]:
        """Return the ids of waiting runs that are to be submitted now; they wait no longer."""

    @abstractmethod
    def submit(self, request: AttemptRequest) -> None:
        """Take the attempt of a run that was ready."""

    @abstractmethod
    def wait(self, timeout_s: float, meanwhile: Callable[[], None]) -> list[Ended]:
        """Wait until an attempt ends, and return all that have; none after so many seconds.

        Parameters
        ----------
        timeout_s
            An executor that does the work itself does not keep to it.
        meanwhile
            What such a one calls a few times a second; a KeyboardInterrupt from it ends the attempt.

        Raises
        ------
        KeyboardInterrupt
            The user wants no more of it.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End the attempts that run; ``wait`` gives each when it has."""

    def refresh(self) -> None:  # noqa: B027 - not every executor changes
        """Look from time to time whether nodes have come or gone; is called at every tick."""

    def suspect(self) -> None:  # noqa: B027 - as above
        """Let the next ``refresh`` look at once: an attempt was lost."""

    def tell(self, ended: Mapping[str, int], waiting: int, running: int) -> None:  # noqa: B027 - nor tells
        """Let the executor's own monitoring know where the launch stands."""
