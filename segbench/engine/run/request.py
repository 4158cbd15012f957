"""What the driver asks of a worker, and how an attempt says that it has ended without a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from segbench.engine.data import DatasetSpec
from segbench.engine.grid import Run
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status


@dataclass(frozen=True)
class AttemptRequest:
    """One try at a run, as the driver hands it to a worker."""

    run: Run
    attempt: int
    dataset: DatasetSpec
    out: ResultsFolder
    """The results folder by its absolute path, the same on every node."""
    use_gpu: bool
    submitted_at: float
    """Seconds since the epoch."""
    git_commit: str | None = None
    timeout_s: float | None = None
    """Of the method's subprocess; None for none."""
    checkpoint_every_s: float = 600.0
    """Seconds of training between two checkpoints of a method that keeps them."""
    begins: Literal["train", "predict", "evaluate"] = "train"
    """The first of its stages; of the others it takes what another attempt has left."""
    of: AttemptFolder | None = None
    """That attempt, of another run, where it begins later."""
    claim: str | None = field(default=None, repr=False)
    """What its record is to hold, and the method's process does not know."""

    @property
    def folder(self) -> AttemptFolder:
        """Where the attempt's artifacts lie."""
        return self.out.attempt(self.run.id, self.attempt)


class EndedError(Exception):
    """The attempt has ended without a result, for a reason that its record tells.

    Parameters
    ----------
    status
        How.
    error
        Why, in one line.
    """

    def __init__(self, status: Status, error: str) -> None:
        super().__init__(error)
        self.status = status
