"""What a user asks to be run, and the runs that it stands for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from segbench.engine.grid import (
    Block,
    BudgetChange,
    Filters,
    GridSpec,
    ResourceChange,
    Run,
    expand,
    preset,
    read_grid,
)
from segbench.engine.grid.cards import get_card
from segbench.engine.grid.settings import check_changes
from segbench.engine.run import environments
from segbench.engine.scheduler.catalogue import Datasets
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name

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


def runs_of(request: GridRequest, datasets: Datasets) -> list[Run]:
    """Return the runs of a request.

    Raises
    ------
    SegbenchError
        For unknown names and grid files that do not fit.
    """
    spec, filters = _grid_spec(request, datasets)
    cards = [get_card(name) for block in spec.blocks for name in block.methods]
    names = {card.environment for card in cards if card.implemented and card.name in (filters.methods or [card.name])}
    versions = {name: environments.lock_versions(name) for name in names}
    return expand(spec, datasets.catalogue, filters, request.budget, request.resources, versions)


def _grid_spec(request: GridRequest, datasets: Datasets) -> tuple[GridSpec, Filters]:
    given = [name for name in ("preset", "grid_file", "dataset") if getattr(request, name) is not None]
    if len(given) > 1:
        raise SegbenchError(f"give one of --preset, --grid and --dataset, found {len(given)}")
    if request.preset is not None:
        return preset(request.preset), request.filters
    if request.grid_file is not None:
        return _checked(request.grid_file), request.filters
    filters = request.filters
    if request.dataset is None and not filters.tasks:
        return _demo(filters), filters
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


def _checked(grid_file: Path) -> GridSpec:
    spec = read_grid(grid_file)
    try:
        check_changes(spec)
    except SegbenchError as error:
        raise SegbenchError(f"{grid_file}: {error}") from None
    return spec


def _demo(filters: Filters) -> GridSpec:
    spec = preset("demo")
    held = [name for block in spec.blocks for name in block.methods]
    for name in filters.methods:
        if get_card(name).name not in held:
            raise SegbenchError(
                f"say on which data {name} is to run: give --dataset, --task, --preset or --grid; "
                f"with none of them it is the demo, which has {', '.join(held)} alone"
            )
    return spec
