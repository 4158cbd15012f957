"""The plan of a grid: its runs, which of them are done, and how long each may take; prepares and runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card
from segbench.engine.order import CPU, Expectation, expected_seconds
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.engine.scheduler.catalogue import known_datasets
from segbench.engine.scheduler.fitting import fitted, memory_notes
from segbench.engine.scheduler.history import read_history
from segbench.engine.scheduler.request import GridRequest, runs_of
from segbench.methods.card import Budget


@dataclass(frozen=True)
class Planned:
    """A run of a grid with what is known of it.

    Examples
    --------
    >>> import segbench
    >>> first = segbench.plan(preset="paper", methods="stardist")[0]
    >>> first.run.method, first.run.train_tissue, first.run.resources.num_gpus
    ('stardist', 'all', 1)
    """

    run: Run
    status: Status
    """To do, or how its latest attempt ended."""
    expected: Expectation
    """How long it will hold its resources, and from where that is known."""
    on_cpu: bool = False
    """It is planned without GPUs."""
    notes: tuple[str, ...] = ()
    """What was measured of its method and did not fit what it asked for, in one line each."""

    @property
    def gpu_hours(self) -> float:
        """Expected."""
        return self.expected.seconds / 3600 * self.num_gpus

    @property
    def num_gpus(self) -> float:
        """GPUs that it would get: none on a processor, whatever it asks for elsewhere."""
        return 0.0 if self.on_cpu else self.run.resources.num_gpus

    def row(self) -> dict[str, Any]:
        """Return the plan's row, flat."""
        run = self.run
        return {
            "id": run.id,
            "method": run.method,
            "task": run.task.name,
            "train_tissue": run.train_tissue,
            "train_images": run.train_images or run.of_images,
            "seed": run.seed,
            "status": self.status.value,
            "budget": describe(run.budget) if get_card(run.method).trained else "untrained",
            "num_gpus": self.num_gpus,
            "num_cpus": run.resources.cores(self.num_gpus),
            "memory_gb": run.resources.memory_gb,
            "hours": self.expected.seconds / 3600,
            "gpu_hours": self.gpu_hours,
            "expected_from": self.expected.source,
            "final_id": run.final,
            "device": "gpu" if self.num_gpus else "cpu",
        }


def describe(budget: Budget) -> str:
    """Return a budget in a few characters.

    Examples
    --------
    >>> describe(Budget(batch_size=4, epochs=8, steps_per_epoch=32))
    '8 epochs x 32 steps, batch 4'
    """
    if budget.iterations is not None:
        return f"{budget.iterations} iterations, batch {budget.batch_size}"
    steps = f" x {budget.steps_per_epoch} steps" if budget.steps_per_epoch else ""
    return f"{budget.epochs} epochs{steps}, batch {budget.batch_size}"


def plan(request: GridRequest, out: ResultsFolder, device: str | None = None, *, fit: bool = False) -> list[Planned]:
    """Expand a request into runs and say which are done; prepares and runs nothing.

    Parameters
    ----------
    request
        What a user asked for.
    out
        The results folder, whose finished runs tell how long others will take.
    device
        What they would run on, as ``expected_seconds`` takes it.
    fit
        Raise what a run asks for to what its method was measured to hold, as `LaunchOptions.fit` does.

    Raises
    ------
    SegbenchError
        For unknown names, grid files that do not fit, and stores that cannot be read.
    """
    datasets = known_datasets()
    runs = runs_of(request, datasets)
    statuses = latest_statuses(out)
    history = read_history(out, datasets.sizes, datasets.test_windows)
    planned = []
    for asked in runs:
        run, notes = fitted(asked, history.profiles, device) if fit else (asked, ())
        notes = (*run.notes, *(notes or memory_notes(run, history.profiles, device)))
        expected = expected_seconds(run, history, device=device)
        planned.append(Planned(run, statuses.get(run.id, Status.TO_DO), expected, device == CPU, notes))
    return planned


def latest_statuses(out: ResultsFolder) -> dict[str, Status]:
    """Return how the latest attempt of each run of a results folder ended, by run; empty where there is no store."""
    if not out.has_store():
        return {}
    rows = query(out, "select run_id, status from runs_latest").rows()
    return {run_id: Status(status) for run_id, status in rows}
