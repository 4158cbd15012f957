"""Which attempts are followed by another, after how long, and with what changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card
from segbench.engine.results.statuses import Status
from segbench.engine.scheduler.options import Retries

_OUT_OF_MEMORY_AFTER_TRAINING = 2


@dataclass(frozen=True)
class Again:
    """The next try at a run."""

    run: Run
    """With half the batch where that is why it is tried again."""
    wait_s: float

    @property
    def note(self) -> str:
        """Return it in a few words."""
        return f"trying again in {self.wait_s:.0f} s" if self.wait_s else "trying again"


def again(
    run: Run, status: Status, ended: Mapping[Status, int], retries: Retries, *, trained: bool = False
) -> Again | None:
    """Return the next try at a run whose attempt has ended so; None where there is none.

    Parameters
    ----------
    run
        As it was tried.
    status
        How that ended.
    ended
        How many attempts of the run have ended in each way in this launch, this one counted.
    retries
        The limits.
    trained
        The attempt leaves a finished model, which the next one takes up: it does not train again.
    """
    times = ended[status]
    wait = min(retries.longest_wait_s, retries.first_wait_s * 2.0 ** (times - 1))
    allowed = {Status.LOST: retries.lost, Status.FAILED: retries.failed}.get(status, 0)
    if times <= allowed:
        return Again(run, wait)
    if status is Status.OUT_OF_MEMORY and trained:
        # the batch of the training has nothing to do with it; the one before may have been the training's
        return Again(run, wait) if times <= _OUT_OF_MEMORY_AFTER_TRAINING else None
    if status is Status.OUT_OF_MEMORY and times == 1 and run.budget.batch_size > 1:
        card = get_card(run.method)
        if card.trained and card.may_halve_batch:
            budget = dataclasses.replace(run.budget, batch_size=run.budget.batch_size // 2)
            return Again(dataclasses.replace(run, budget=budget), wait)
    return None
