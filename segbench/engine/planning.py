"""From what a user asked to what is run: the catalogue of datasets, the plan, and the launch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.engine import environments, published
from segbench.engine.cards import all_cards, get_card, method_object
from segbench.engine.data import DatasetSpec, dataset_tasks, dataset_tissues, ensure_prepared, open_prepared, registered
from segbench.engine.grid import (
    Block,
    BudgetChange,
    Catalogue,
    DatasetFacts,
    Filters,
    GridSpec,
    ResourceChange,
    Run,
    expand,
    preset,
    read_grid,
)
from segbench.engine.scheduler import LaunchOptions, Note, Observer, Summary, driver_lock, execute
from segbench.engine.store import StoreWriter, query, store_path
from segbench.engine.store.recovery import take_in
from segbench.engine.tasks import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.card import Budget

_EXAMPLE_METHODS = ("watershed", "stardist", "cellpose")


@dataclass(frozen=True)
class GridRequest:
    """What a user asked for on the command line."""

    preset: str | None = None
    grid_file: Path | None = None
    dataset: str | None = None
    """Every task of this dataset; with no preset and no grid file."""
    filters: Filters = field(default_factory=Filters)
    budget: BudgetChange = field(default_factory=BudgetChange)
    resources: ResourceChange = field(default_factory=ResourceChange)


@dataclass(frozen=True)
class Planned:
    """A run with what is known of it."""

    run: Run
    status: str
    """``to do``, or how its latest attempt ended."""
    published_gpu_hours: float | None
    """GPU hours of the published run, scaled to this budget; None where nothing was published."""

    def row(self) -> dict[str, Any]:
        """Return the plan's row, flat."""
        run = self.run
        return {
            "id": run.id,
            "method": run.method,
            "task": run.task.name,
            "train_tissue": run.train_tissue,
            "seed": run.seed,
            "status": self.status,
            "budget": describe(run.budget) if get_card(run.method).trained else "untrained",
            "num_gpus": run.resources.num_gpus,
            "num_cpus": run.resources.num_cpus,
            "memory_gb": run.resources.memory_gb,
            "gpu_hours": self.published_gpu_hours,
            "final_id": run.final,
        }


@dataclass(frozen=True)
class _Datasets:
    specs: Mapping[str, DatasetSpec] = field(default_factory=dict)
    catalogue: Catalogue = field(default_factory=Catalogue)


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


def plan(request: GridRequest, out: Path) -> list[Planned]:
    """Expand a request into runs and say which are done; prepares and runs nothing.

    Raises
    ------
    SegbenchError
        For unknown names, grid files that do not fit, and stores that cannot be read.
    """
    datasets = _datasets()
    runs = _expand(request, datasets)
    statuses = _statuses(out)
    return [Planned(run, statuses.get(run.id, "to do"), _published_gpu_hours(run)) for run in runs]


def launch(
    request: GridRequest,
    options: LaunchOptions,
    observe: Observer,
    prepare_progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Run], Summary | None]:
    """Run what is not done yet of a request.

    Returns
    -------
    list of Run, Summary or None
        Every run of the request, and how the launch ended; None where everything was done already.

    Raises
    ------
    SegbenchError
        For unknown names, datasets that cannot be prepared, environments that cannot be built, a results folder that
        another launch holds, and clusters that cannot hold a run. Nothing is run then.
    """
    runs = _expand(request, _datasets())
    for method in sorted({run.method for run in runs}):
        method_object(method)
    datasets = _datasets()
    for name in sorted({run.task.dataset for run in runs}):
        if name not in datasets.specs:
            raise SegbenchError(
                f"dataset {name!r} is not here: register it with 'segbench data prepare {name} PATH', "
                "or run 'segbench grid launch' with no option for the synthetic demo"
            )
        ensure_prepared(datasets.specs[name], progress=prepare_progress)
    datasets = _datasets()
    runs = _expand(request, datasets)

    writer = StoreWriter(options.out)
    with driver_lock(options.out):
        recovered = take_in(options.out, writer)
        if recovered:
            observe(Note(f"took in {recovered} records that an interrupted launch had left"))
        finished = writer.finished_runs()
        left = [run for run in runs if run.id not in finished]
        if not left:
            return runs, None
        left.sort(key=lambda run: _published_gpu_hours(run) or 0.0, reverse=True)
        return runs, execute(left, datasets.specs, options, writer, observe)


def _datasets() -> _Datasets:
    specs = {spec.name: spec for spec in registered()}
    facts: dict[str, DatasetFacts] = {}
    for name, spec in specs.items():
        fingerprint = None
        with contextlib.suppress(SegbenchError):
            fingerprint = open_prepared(name).fingerprint
        facts[name] = DatasetFacts(dataset_tasks(spec), dataset_tissues(spec), fingerprint)
    return _Datasets(specs, Catalogue(facts).with_study())


def _grid_spec(request: GridRequest, datasets: _Datasets) -> tuple[GridSpec, Filters]:
    given = [name for name in ("preset", "grid_file", "dataset") if getattr(request, name) is not None]
    if len(given) > 1:
        raise SegbenchError(f"give one of --preset, --grid and --dataset, found {len(given)}")
    if request.preset is not None:
        return preset(request.preset), request.filters
    if request.grid_file is not None:
        return read_grid(request.grid_file), request.filters
    filters = request.filters
    if request.dataset is None and not filters.tasks:
        return preset("demo"), filters
    tasks = filters.tasks
    if request.dataset is not None:
        if request.dataset not in datasets.catalogue.datasets:
            raise unknown_name("dataset", request.dataset, datasets.catalogue.datasets)
        held = tuple(task.name for task in datasets.catalogue.datasets[request.dataset].tasks)
        for task in tasks:
            if task not in held:
                raise unknown_name(f"task of {request.dataset}", task, held)
        tasks = tasks or held
    block = Block(
        methods=filters.methods or _EXAMPLE_METHODS,
        tasks=tasks,
        tissues=filters.tissues or (ALL_TISSUES,),
        seeds=filters.seeds or (0,),
    )
    return GridSpec(blocks=(block,)), Filters()


def _expand(request: GridRequest, datasets: _Datasets) -> list[Run]:
    spec, filters = _grid_spec(request, datasets)
    names = {card.environment for card in all_cards().values() if card.implemented}
    versions = {name: environments.lock_versions(name) for name in names}
    return expand(spec, datasets.catalogue, filters, request.budget, request.resources, versions)


def _statuses(out: Path) -> dict[str, str]:
    if not store_path(out).exists():
        return {}
    return dict(query(out, "select run_id, status from runs_latest").rows())


def _published_gpu_hours(run: Run) -> float | None:
    card = get_card(run.method)
    found = [s for s in published.scores() if (s.method, s.task) == (run.method, run.task.name)]
    of_tissue = [s for s in found if s.train_tissue == run.train_tissue] or found
    if not of_tissue or of_tissue[0].hours is None:
        return None
    length = run.budget.epochs or run.budget.iterations
    published_length = card.budget.epochs or card.budget.iterations
    share = length / published_length if length and published_length else 1.0
    return of_tissue[0].hours * share * run.resources.num_gpus
