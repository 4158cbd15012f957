"""From what a user asked to what is run: the catalogue of datasets, the plan, and the launch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.engine.data import DatasetSpec, dataset_tasks, dataset_tissues, ensure_prepared, registered
from segbench.engine.data.cache import find_prepared
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
from segbench.engine.grid.cards import all_cards, get_card, method_object
from segbench.engine.order import (
    Ask,
    Expectation,
    Node,
    Placer,
    Shape,
    device_of,
    expected_seconds,
    nodes_of,
    read_history,
    simulate,
)
from segbench.engine.results.mirror import launching, pushing
from segbench.engine.results.record import Status
from segbench.engine.results.store import StoreWriter, query, store_path
from segbench.engine.results.store.recovery import take_in
from segbench.engine.run import environments
from segbench.engine.scheduler import (
    LaunchOptions,
    Note,
    Observer,
    Summary,
    connected,
    driver_lock,
    read_grid_file,
    run_from_dict,
)
from segbench.engine.study.tissues import ALL_TISSUES
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
    expected: Expectation
    """How long it will hold its resources, and from where that is known."""

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
            "status": self.status,
            "budget": describe(run.budget) if get_card(run.method).trained else "untrained",
            "num_gpus": run.resources.num_gpus,
            "num_cpus": run.resources.num_cpus,
            "memory_gb": run.resources.memory_gb,
            "hours": self.expected.seconds / 3600,
            "gpu_hours": self.gpu_hours,
            "expected_from": self.expected.source,
            "final_id": run.final,
        }


@dataclass(frozen=True)
class Forecast:
    """What is left to do of a plan, and when it would have ended on a cluster."""

    runs: int
    """Left to do."""
    hours: float
    """Of one run after the other."""
    gpu_hours: float
    sources: Mapping[str, int]
    """How many expectations come from the store's ``history``, the ``published`` hours and the ``default``."""
    gpus: int | None = None
    """Of the cluster; None where none was given."""
    nodes: int | None = None
    makespan_h: float | None = None
    """Hours from the launch to the last run's end."""

    def lines(self) -> tuple[str, ...]:
        """Return the forecast in words.

        Examples
        --------
        >>> Forecast(3, 5.0, 12.0, {"published": 2, "default": 1}, gpus=8, nodes=1, makespan_h=2.25).lines()[0]
        '3 runs to do: 12 GPU hours, 2.2 h on 8 GPUs (1 node)'
        """
        told = f"{self.runs:,} run{'s' * (self.runs != 1)} to do: {_figure(self.gpu_hours)} GPU hours"
        if self.makespan_h is not None:
            where = f"{self.gpus:,} GPUs" if self.gpus else "no GPU"
            told += f", {_figure(self.makespan_h)} h on {where} ({self.nodes:,} node{'s' * (self.nodes != 1)})"
        named = {
            "history": "finished runs of this store",
            "published": "published hours",
            "default": "the family's default rate",
        }
        known = ", ".join(f"{n:,} from {named[source]}" for source, n in self.sources.items() if n)
        return (told, f"expected times: {known}") if self.runs else (told,)


@dataclass(frozen=True)
class _Datasets:
    specs: Mapping[str, DatasetSpec] = field(default_factory=dict)
    catalogue: Catalogue = field(default_factory=Catalogue)
    sizes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Training windows by (fingerprint, training tissue)."""


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


def plan(request: GridRequest, out: Path, device: str | None = None) -> list[Planned]:
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
    datasets = _datasets()
    runs = _expand(request, datasets)
    statuses = _statuses(out)
    history = read_history(out, datasets.sizes)
    return [Planned(run, statuses.get(run.id, "to do"), expected_seconds(run, history, device=device)) for run in runs]


def forecast(planned: Sequence[Planned], nodes: Sequence[Node] | None = None) -> Forecast:
    """Return what the runs that are not done would take; on a cluster without GPUs they are placed by their cores.

    Raises
    ------
    SegbenchError
        No node can hold one of the runs.
    """
    left = [one for one in planned if one.status != Status.DONE]
    sources = Counter(one.expected.source for one in left)
    known = Forecast(
        runs=len(left),
        hours=sum(one.expected.seconds for one in left) / 3600,
        gpu_hours=sum(one.gpu_hours for one in left),
        sources={source: sources[source] for source in ("history", "published", "default")},
    )
    if nodes is None:
        return known
    gpus = sum(node.gpus for node in nodes)
    cores = max((node.cpus for node in nodes), default=0.0)
    asks = []
    placer = Placer(nodes)
    for one in left:
        asked = shape(one.run, use_gpu=gpus > 0, cores=cores)
        if not placer.can_hold(asked):
            raise SegbenchError(
                f"{one.run.method} asks for {asked.gpus:g} GPUs and {asked.memory_gb:g} GB of memory on one node; "
                f"the nodes have {max((n.gpus for n in nodes), default=0)} GPUs at most: "
                "change --num-gpus, --memory-gb or the nodes"
            )
        asks.append(Ask(one.run.id, asked, one.expected.seconds))
    return dataclasses.replace(
        known, gpus=gpus, nodes=len(nodes), makespan_h=simulate(asks, nodes).makespan_s / 3600,
        gpu_hours=known.gpu_hours if gpus else 0.0,
    )  # fmt: skip


def shape(run: Run, use_gpu: bool, cores: float) -> Shape:
    """Return what a run asks of a node; it takes what cores the largest node has where it asks for more."""
    wanted = run.resources
    return Shape(wanted.num_gpus if use_gpu else 0.0, min(wanted.num_cpus, cores), wanted.memory_gb)


def connected_cluster(address: str) -> tuple[list[Node], str]:
    """Return the living nodes of a running Ray cluster and the kind of its GPUs, as ``device_of`` gives it.

    Raises
    ------
    SegbenchError
        Ray cannot be reached there.
    """
    import ray

    with connected(LaunchOptions(out=Path(), address=address)):
        found = ray.nodes()
    return nodes_of(found), device_of(found)


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

    return runs, _run_left(runs, datasets, options, observe)


def retry(
    statuses: Collection[Status], options: LaunchOptions, observe: Observer, resources: ResourceChange | None = None
) -> tuple[list[Run], Summary | None]:
    """Run those of the last launch's runs again that ended so; nothing of the grid is asked for again.

    Parameters
    ----------
    statuses
        How their last attempt ended.
    options
        How they are run.
    observe
        Is told what happens.
    resources
        What they ask for now where that differs.

    Returns
    -------
    list of Run, Summary or None
        The runs, and how the launch ended; None where there is none of these.

    Raises
    ------
    SegbenchError
        Nothing was launched there, and as ``launch`` does.
    """
    listed = [run_from_dict(raw) for raw in read_grid_file(options.out).get("runs", [])]
    if not listed:
        raise SegbenchError(f"nothing was launched in {options.out}: run 'segbench grid launch', or name another --out")
    datasets = _datasets()
    for run in listed:
        known = datasets.specs.get(run.task.dataset)
        if known is None:
            raise SegbenchError(
                f"dataset {run.task.dataset!r} is not here any more: run 'segbench data prepare' for it"
            )
    ended = _statuses(options.out)
    runs = [run for run in listed if ended.get(run.id) in statuses]
    if resources is not None:
        runs = [dataclasses.replace(run, resources=resources.apply(run.resources)) for run in runs]
    return runs, _run_left(runs, datasets, options, observe, listed)


def _run_left(
    runs: Sequence[Run],
    datasets: _Datasets,
    options: LaunchOptions,
    observe: Observer,
    listed: Sequence[Run] | None = None,
) -> Summary | None:
    """Run what is not done of these; ``listed`` are the runs that a status shows, where they are more."""
    writer = StoreWriter(options.out)
    with driver_lock(options.out), launching(options.out, lambda text: observe(Note(text))) as remote:
        if remote.url is not None:  # the store that was fetched may be of an older schema
            writer = StoreWriter(options.out)
        remote.keep(writer)
        recovered = take_in(options.out, writer)
        if recovered:
            observe(Note(f"took in {recovered} records that an interrupted launch had left"))
        finished = writer.finished_runs()
        left = [run for run in runs if run.id not in finished]
        if not left:
            return None
        history = read_history(options.out, datasets.sizes)

        def expect(run: Run, device: str) -> float:
            return expected_seconds(run, history, device=device).seconds

        # Here, not above: both load the evaluator's compiled code, which a plan does without
        from segbench.engine.run.attempt import run_attempt
        from segbench.engine.scheduler.driver import execute

        return execute(
            left, datasets.specs, options, writer, observe, expect=expect, listed=listed,
            attempt=pushing(remote.url, run_attempt),
        )  # fmt: skip


def _datasets() -> _Datasets:
    specs = {spec.name: spec for spec in registered()}
    facts: dict[str, DatasetFacts] = {}
    sizes: dict[tuple[str, str], int] = {}
    for name, spec in specs.items():
        fingerprint = None
        prepared = find_prepared(spec)
        if prepared is not None:
            fingerprint = prepared.fingerprint
            windows = prepared.index("train")["tissue"].value_counts().rows()
            sizes |= {(fingerprint, tissue): n for tissue, n in [*windows, (ALL_TISSUES, sum(n for _, n in windows))]}
        facts[name] = DatasetFacts(dataset_tasks(spec), dataset_tissues(spec), fingerprint)
    return _Datasets(specs, Catalogue(facts).with_study(), sizes)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


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
