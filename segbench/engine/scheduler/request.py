"""What a user asks to be run, and the runs that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from segbench.engine.grid import (
    Block,
    BudgetChange,
    Filters,
    GridSpec,
    ResourceChange,
    Run,
    expand,
    grid_of,
    preset,
    read_grid,
)
from segbench.engine.grid.cards import get_card
from segbench.engine.grid.presets import CONTROLS_PRESET, controls_of
from segbench.engine.grid.settings import check_changes
from segbench.engine.run import environments
from segbench.engine.scheduler.catalogue import Datasets, has_annotators
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.recipes import RECIPES
from segbench.wrong_values import first_wrong

_T = TypeVar("_T", str, int)
_Change = TypeVar("_Change", BudgetChange, ResourceChange)
EXAMPLE_METHODS = ("watershed", "stardist", "cellpose")
"""What a dataset is run with where nobody names methods: the baseline, and two that train on a processor."""


@dataclass(frozen=True)
class GridRequest:
    """What a user asks for; one of preset, grid file, grid and dataset at most, but for the preset ``controls``."""

    preset: str | None = None
    grid_file: Path | None = None
    grid: GridSpec | None = None
    """Where it is in no file."""
    dataset: str | None = None
    """Every task of this dataset; with no preset and no grid file."""
    filters: Filters = field(default_factory=Filters)
    budget: BudgetChange = field(default_factory=BudgetChange)
    resources: ResourceChange = field(default_factory=ResourceChange)
    start: str | None = None
    """Where every training starts; None for what the grid says."""
    recipe: str | None = None
    """``cells``, ``study`` or ``cards``; None for what the grid says."""

    @classmethod
    def of(
        cls,
        *,
        preset: str | None = None,
        grid: str | PathLike[str] | Mapping[str, Any] | None = None,
        dataset: str | None = None,
        methods: str | Sequence[str] | None = None,
        tasks: str | Sequence[str] | None = None,
        tissues: str | Sequence[str] | None = None,
        seeds: int | Sequence[int] | None = None,
        budget: Mapping[str, Any] | None = None,
        resources: Mapping[str, Any] | None = None,
        start: str | None = None,
        recipe: str | None = None,
    ) -> GridRequest:
        """Return the request of values that are not checked yet.

        Parameters
        ----------
        preset, dataset
            By name.
        grid
            The path of a grid file, or what would stand in it.
        methods, tasks, tissues, seeds
            One, or several; empty or None for all of the grid. A preset or dataset is run with the seeds that are
            given; a grid of one's own has its seeds, of which these are taken.
        budget, resources
            What differs from the methods' cards, by the fields of `BudgetChange` and `ResourceChange`.
        start
            Where every training starts, as `GridSpec.start`.
        recipe
            ``cells``, ``study`` or ``cards``, as `GridSpec.recipe`.

        Raises
        ------
        SegbenchError
            A value is not what it should be: the error names it.

        Examples
        --------
        >>> GridRequest.of(preset="demo", methods="watershed", seeds=3).filters
        Filters(methods=('watershed',), tasks=(), tissues=(), seeds=(3,))
        """
        if recipe is not None and recipe not in RECIPES:
            raise unknown_name("recipe", recipe, RECIPES)
        in_a_file = isinstance(grid, str | PathLike)
        return cls(
            preset=preset,
            grid_file=Path(grid) if isinstance(grid, str | PathLike) else None,
            grid=None if grid is None or in_a_file else grid_of(grid, "grid"),
            dataset=dataset,
            filters=Filters(
                methods=_several("methods", methods, str),
                tasks=_several("tasks", tasks, str),
                tissues=_several("tissues", tissues, str),
                seeds=_several("seeds", seeds, int),
            ),
            budget=_change(BudgetChange, budget or {}),
            resources=_change(ResourceChange, resources or {}),
            start=start,
            recipe=recipe,
        )


def _several(name: str, given: Any, kind: type[_T]) -> tuple[_T, ...]:
    values = () if given is None else (given,) if isinstance(given, kind) else given
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        raise SegbenchError(f"{name} is {given!r}; give one {kind.__name__}, or a list of them")
    found = tuple(values)
    for value in found:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise SegbenchError(f"{name} has {value!r}; give one {kind.__name__}, or a list of them")
    return found


def _change(model: type[_Change], given: Mapping[str, Any]) -> _Change:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise SegbenchError(str(first_wrong(error))) from None


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
    return expand(
        spec, datasets.catalogue, filters, request.budget, request.resources, versions, request.start, request.recipe
    )


def _grid_spec(request: GridRequest, datasets: Datasets) -> tuple[GridSpec, Filters]:
    given = [name for name in ("preset", "grid_file", "grid", "dataset") if getattr(request, name) is not None]
    if request.preset == CONTROLS_PRESET and set(given) <= {"preset", "dataset"}:
        return _controls(request.dataset, datasets), request.filters
    if len(given) > 1:
        raise SegbenchError(f"give one of preset, grid and dataset, found {' and '.join(given)}")
    if request.preset is not None:
        return preset(request.preset).with_seeds(request.filters.seeds), request.filters
    if request.grid_file is not None:
        return _checked(read_grid(request.grid_file), str(request.grid_file), datasets), request.filters
    if request.grid is not None:
        return _checked(request.grid, "grid", datasets), request.filters
    if request.dataset is None and not request.filters.tasks:
        return _demo(request.filters).with_seeds(request.filters.seeds), request.filters
    return _of_tasks(request, datasets), Filters()


def _of_tasks(request: GridRequest, datasets: Datasets) -> GridSpec:
    """Return the grid of what the filters name, on a dataset or on tasks of any."""
    filters, tasks = request.filters, request.filters.tasks
    if request.dataset is not None:
        if request.dataset not in datasets.catalogue.datasets:
            raise unknown_name("dataset", request.dataset, datasets.catalogue.datasets)
        held = tuple(task.name for task in datasets.catalogue.datasets[request.dataset].tasks)
        for task in tasks:
            if task not in held:
                raise unknown_name(f"task of {request.dataset}", task, held)
        tasks = tasks or held
    block = Block(
        methods=filters.methods or EXAMPLE_METHODS,
        tasks=tasks,
        tissues=filters.tissues or (ALL_TISSUES,),
        seeds=filters.seeds or (0,),
    )
    return GridSpec(blocks=(block,))


def _controls(dataset: str | None, datasets: Datasets) -> GridSpec:
    """Return the grid of the controls on one dataset, or on each that is registered here and can be read."""
    catalogue = datasets.catalogue
    here = [name for name in datasets.specs if name in catalogue.datasets]
    if dataset is not None and dataset not in here:
        raise unknown_name("dataset", dataset, here)
    names = here if dataset is None else [dataset]
    tasks = [task for name in names for task in catalogue.datasets[name].tasks]
    annotated = [name for name in names if has_annotators(datasets.specs[name])]
    return controls_of(tasks, annotated)


def _checked(spec: GridSpec, where: str, datasets: Datasets) -> GridSpec:
    try:
        check_changes(spec)
        for number, block in enumerate(spec.blocks):
            key = f"blocks.{number}." if len(spec.blocks) > 1 else ""
            _check_names(f"{key}methods", block.methods, get_card)
            _check_names(f"{key}tasks", block.tasks, datasets.catalogue.task)
    except SegbenchError as error:
        raise SegbenchError(f"{where}: {error}") from None
    return spec


def _check_names(key: str, names: Iterable[str], find: Callable[[str], object]) -> None:
    for name in names:
        try:
            find(name)
        except SegbenchError as error:
            raise SegbenchError(f"{key}: {error}") from None


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
