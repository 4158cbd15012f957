"""The plan of a grid: its runs, which of them are done, and how long each may take; prepares and runs nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card
from segbench.engine.order import CPU, Expectation, expected_seconds
from segbench.engine.order.measured import Profiles
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.engine.scheduler.catalogue import known_datasets
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
    """What was measured of its method and does not fit what it asks for, in one line each."""

    @property
    def gpu_hours(self) -> float:
        """Expected."""
        return self.expected.seconds / 3600 * self.run.resources.num_gpus

    def row(self) -> dict[str, Any]:
        """Return the plan's row, flat."""
        run = self.run
        return {
            "id": run.id,
            "method": run.method,
            "task": run.task.name,
            "train_tissue": run.train_tissue,
            "seed": run.seed,
            "status": self.status.value,
            "budget": describe(run.budget) if get_card(run.method).trained else "untrained",
            "num_gpus": run.resources.num_gpus,
            "num_cpus": run.resources.cores(0 if self.on_cpu else run.resources.num_gpus),
            "memory_gb": run.resources.memory_gb,
            "hours": self.expected.seconds / 3600,
            "gpu_hours": self.gpu_hours,
            "expected_from": self.expected.source,
            "final_id": run.final,
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


def plan(request: GridRequest, out: ResultsFolder, device: str | None = None) -> list[Planned]:
    """Expand a request into runs and say which are done; prepares and runs nothing.

    Parameters
    ----------
    request
        What a user asked for.
    out
        The results folder, whose finished runs tell how long others will take.
    device
        What they would run on, as ``expected_seconds`` takes it.

    Raises
    ------
    SegbenchError
        For unknown names, grid files that do not fit, and stores that cannot be read.
    """
    datasets = known_datasets()
    runs = runs_of(request, datasets)
    statuses = latest_statuses(out)
    history = read_history(out, datasets.sizes)
    return [
        Planned(
            run, statuses.get(run.id, Status.TO_DO), expected_seconds(run, history, device=device), device == CPU,
            memory_notes(run, history.profiles, device),
        )
        for run in runs
    ]  # fmt: skip


def memory_notes(run: Run, profiles: Profiles, device: str | None) -> tuple[str, ...]:
    """Return what does not fit: a share of a GPU, or reserved memory, that is less than the method was seen to hold.

    Parameters
    ----------
    run
        The run.
    profiles
        What was measured; other settings than the run's say nothing.
    device
        As ``expected_seconds`` takes it.
    """
    on_cpu = device == CPU or run.resources.num_gpus == 0
    profile = profiles.of(run, CPU if on_cpu else device, same_settings=True)
    if profile is None:
        return ()
    batch, need = run.budget.batch_size, profile.need(run.budget.batch_size)
    measured = f"was measured to hold {need / 1e9:.2g} GB at batch {batch} on {profile.device}"
    if on_cpu:
        reserved = run.resources.memory_gb
        if need <= reserved * 1e9:
            return ()
        return (f"{run.method} {measured}, and reserves {reserved:g} GB: --memory-gb {math.ceil(need / 1e8) / 10:g}",)
    share = run.resources.num_gpus
    if profile.device_bytes is None or share > 1 or need <= share * profile.device_bytes:
        return ()
    fits = math.ceil(100 * need / profile.device_bytes) / 100
    ways = [f"--num-gpus {fits:g}"] if fits <= 1 else []
    smaller = min(batch, profile.batch_for(share * profile.device_bytes))
    if 0 < smaller < batch:
        ways.append(f"--batch-size {smaller}")
    available = f"{share:g} of its {profile.device_bytes / 1e9:.2g} GB"
    return (f"{run.method} {measured}, more than {available}: {' or '.join(ways) or 'no batch fits'}",)


def latest_statuses(out: ResultsFolder) -> dict[str, Status]:
    """Return how the latest attempt of each run of a results folder ended, by run; empty where there is no store."""
    if not out.has_store():
        return {}
    rows = query(out, "select run_id, status from runs_latest").rows()
    return {run_id: Status(status) for run_id, status in rows}
