"""The first grid of a dataset: which methods, and budgets with which all of it ends here in the time that there is."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from segbench.engine.data import PreparedDataset
from segbench.engine.grid import Block, BudgetChange, GridSpec, ResourceChange, expand
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.order import CPU, GPU, History, Node, expected_seconds
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.scheduler.catalogue import Datasets, known_datasets
from segbench.engine.scheduler.forecast import Place, forecast
from segbench.engine.scheduler.gpus import visible_gpus
from segbench.engine.scheduler.history import read_history
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.placement import Host
from segbench.engine.scheduler.planning import Planned, describe
from segbench.engine.scheduler.request import EXAMPLE_METHODS
from segbench.errors import SegbenchError
from segbench.methods.card import Card

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "hours": 3600, "d": 86400, "day": 86400}
_SHARE_OF_MEMORY = 0.9
_MOST_STEPS = 100
"""Of an epoch of StarDist's, as its authors have it."""
_MOST_PASSES, _LEAST_STEPS = 500, 500
"""Over the training windows; Cellpose's published epochs. Steps that a training on a handful of windows needs."""
_EPOCHS = 30
"""So many are enough to see a loss fall and to choose the best."""
ON_A_PROCESSOR: Mapping[str, Mapping[str, Any]] = {
    # small patches and a small network diameter: a processor pays by the pixel (examples/dsb2018.yaml)
    "stardist": {"patch_size": 128, "learning_rate": 0.001, "reduce_lr_patience": 6, "val_windows": 32},
    "cellpose": {"crop": 112, "diam_mean": 17, "val_windows": 32},
}
"""Settings with which a training on a processor ends in a time that people wait for."""


@dataclass(frozen=True)
class Machine:
    """What a machine has for runs."""

    cpus: int
    gpus: int
    memory_gb: float

    @classmethod
    def here(cls, cpus: int | None = None, *, cpu: bool | None = None) -> Machine:
        """Return this machine, with so many of its cores, and without its GPUs where ``cpu`` says so."""
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        gpus = 0 if cpu else len(visible_gpus())
        if cpu is False and not gpus:
            raise SegbenchError("--gpu: this machine has no GPU that nvidia-smi shows")
        return cls(min(cpus or math.inf, len(os.sched_getaffinity(0))), gpus, memory)  # type: ignore[arg-type]

    def told(self) -> str:
        """Return it in a few words.

        Examples
        --------
        >>> Machine(2, 0, 16.0).told(), Machine(8, 1, 64.0).told()
        ('2 cores, no GPU', '8 cores, 1 GPU')
        """
        gpus = f"{self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else "no GPU"
        return f"{self.cpus} core{'s' * (self.cpus != 1)}, {gpus}"


@dataclass(frozen=True)
class FirstGrid:
    """A grid file, and what is expected of it."""

    text: str
    """The file's content, YAML."""
    seconds: float
    """From the launch to the last run's end, on that machine."""
    rows: tuple[Mapping[str, Any], ...]
    """Method, task, budget, hours of each run."""
    notes: tuple[str, ...] = ()


@dataclass
class _Draft:
    """What is decided so far."""

    prepared: PreparedDataset
    machine: Machine
    methods: tuple[str, ...]
    datasets: Datasets
    history: History
    budgets: dict[str, dict[str, int]] = field(default_factory=dict)
    resources: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return GPU if self.machine.gpus else CPU

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        if self.machine.gpus:
            return {}
        return {name: dict(ON_A_PROCESSOR[name]) for name in self.methods if name in ON_A_PROCESSOR}

    def spec(self, methods: Sequence[str], budgets: Mapping[str, Mapping[str, int]]) -> GridSpec:
        tasks = tuple(task.name for task in self.prepared.tasks)
        return GridSpec(
            blocks=(Block(methods=tuple(methods), tasks=tasks),),
            budgets={name: BudgetChange(**budget) for name, budget in budgets.items()},
            settings={name: values for name, values in self.settings.items() if name in methods},
            resources={name: ResourceChange(**values) for name, values in self.resources.items() if name in methods},
        )

    def planned(self, methods: Sequence[str], budgets: Mapping[str, Mapping[str, int]]) -> list[Planned]:
        runs = expand(self.spec(methods, budgets), self.datasets.catalogue)
        return [
            Planned(
                run, Status.TO_DO, expected_seconds(run, self.history, device=self.device), on_cpu=not self.machine.gpus
            )
            for run in runs
        ]

    def makespan_s(self, planned: Sequence[Planned]) -> float:
        node = Node("here", self.machine.gpus, self.machine.cpus, self.machine.memory_gb)
        place = Place(LaunchOptions(cpu=not self.machine.gpus), [Host(node, None, math.inf)], self.device)
        return (forecast(planned, place).makespan_h or 0.0) * 3600


def seconds_of(text: str) -> float:
    """Return a time that somebody has written; raises SegbenchError where it is none.

    Examples
    --------
    >>> seconds_of("1h"), seconds_of("90 min"), seconds_of("1.5d")
    (3600.0, 5400.0, 129600.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise SegbenchError(f"a time is a number with a unit, such as 30min, 1h or 2d; found {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def in_words(seconds: float) -> str:
    """Return a time as people say it.

    Examples
    --------
    >>> in_words(50), in_words(3500), in_words(4600), in_words(9000), in_words(200000)
    ('a minute', '58 minutes', '1.3 hours', '2.5 hours', '2.3 days')
    """
    for unit, size in (("days", 86400.0), ("hours", 3600.0)):
        if seconds >= 1.2 * size:
            return f"{seconds / size:.2g} {unit}"
    minutes = round(seconds / 60)
    return "a minute" if minutes <= 1 else f"{minutes} minutes"


def first_grid(
    prepared: PreparedDataset, seconds: float, machine: Machine, methods: Sequence[str] = (), out: Path | None = None
) -> FirstGrid:
    """Return a grid whose runs all end within a time, as far as that can be expected.

    Every method that is trained gets the same time, up to its published budget.

    Parameters
    ----------
    prepared
        The dataset, registered.
    seconds
        From the launch to the last run's end.
    machine
        Where it is launched.
    methods
        None for the baseline, StarDist and Cellpose.
    out
        A results folder whose finished runs tell how long others take.

    Raises
    ------
    SegbenchError
        A method is unknown or cannot be run.
    """
    names = tuple(dict.fromkeys(methods)) or EXAMPLE_METHODS
    for name in names:
        method_object(name)
    datasets = known_datasets()
    history = read_history(ResultsFolder(out or Path("no-results-yet")), datasets.sizes, datasets.test_windows)
    draft = _Draft(prepared, machine, names, datasets, history)
    notes = list(_fit_memory(draft))
    trained = [name for name in names if get_card(name).trained]
    # the longest time a run with which all fits: halved until nothing changes
    low, high = 0.0, seconds
    for _ in range(14):
        middle = (low + high) / 2
        budgets = {name: _budget(draft, name, middle) for name in trained}
        if draft.makespan_s(draft.planned(names, budgets)) <= seconds:
            low = middle
        else:
            high = middle
    draft.budgets = {name: _budget(draft, name, low) for name in trained}
    planned = draft.planned(names, draft.budgets)
    expected = draft.makespan_s(planned)
    if expected > seconds:
        notes.append(
            f"the smallest budgets take {in_words(expected)} here: leave out a method (--method), or give more --time"
        )
    rows = tuple(
        {
            "method": one.run.method,
            "task": one.run.task.name,
            "budget": describe(one.run.budget) if get_card(one.run.method).trained else "untrained",
            "minutes": one.expected.seconds / 60,
            "expected_from": one.expected.source,
        }
        for one in planned
    )
    return FirstGrid(_text(draft, expected), expected, rows, tuple(notes))


def _fit_memory(draft: _Draft) -> Sequence[str]:
    most = math.floor(draft.machine.memory_gb * _SHARE_OF_MEMORY * 10) / 10
    notes = []
    for name in draft.methods:
        asked = get_card(name).resources.memory_gb
        if asked > most:
            draft.resources[name] = {"memory_gb": most}
            notes.append(f"{name} asks for {asked:g} GB of memory and gets {most:g}: this machine has no more")
    return notes


def _budget(draft: _Draft, name: str, seconds: float) -> dict[str, int]:
    """Return the largest budget with which a run of a method takes no longer, up to the published one."""
    card = get_card(name)
    count, most = _counted(card, draft)
    least, two = (_longest(draft, name, _of(card, count, n, draft)) for n in (1, 2))
    per_one = max(two - least, 1e-9)
    units = max(1, min(most, 1 + math.floor((seconds - least) / per_one)))
    return _of(card, count, units, draft)


def _counted(card: Card, draft: _Draft) -> tuple[str, int]:
    """Return what a method's budget is counted in here, and how many of them are enough."""
    budget = card.budget
    if budget.iterations is not None:
        return "iterations", budget.iterations
    epochs = budget.epochs or 1
    if budget.steps_per_epoch is not None and not draft.machine.gpus:
        # the published steps are for a study's data: few images are seen no oftener than by epochs over the data
        passes = _MOST_PASSES * draft.prepared.n_windows("train") // budget.batch_size
        return "steps", min(epochs * budget.steps_per_epoch, max(passes, _LEAST_STEPS))
    return "epochs", epochs


def _of(card: Card, count: str, units: int, draft: _Draft) -> dict[str, int]:
    batch = card.budget.batch_size if draft.machine.gpus else min(card.budget.batch_size, 8)
    if count != "steps":
        return {count: units, "batch_size": batch}
    steps = max(1, min(_MOST_STEPS, round(units / _EPOCHS)))
    return {"epochs": max(1, units // steps), "steps_per_epoch": steps, "batch_size": batch}


def _longest(draft: _Draft, name: str, budget: Mapping[str, int]) -> float:
    return max(one.expected.seconds for one in draft.planned([name], {name: budget}))


def _text(draft: _Draft, expected: float) -> str:
    prepared = draft.prepared
    name = prepared.spec.name
    cpu = "" if draft.machine.gpus else " --cpu"
    windows = ", ".join(f"{prepared.n_windows(split):,} {split}" for split in prepared.splits)
    lines = [
        f"# The first grid of {name} ({windows} windows): about {in_words(expected)} on {draft.machine.told()}.",
        f"# segbench grid launch --grid {name}.yaml{cpu} --out {name}-results",
        f"methods: {_flow(list(draft.methods))}",
        f"tasks: {_flow([task.name for task in prepared.tasks])}",
    ]
    if len(prepared.tissues("train")) > 1:
        lines.append("# tissues: [all, each]    # a model of each training tissue, too: as many times longer")
    if draft.budgets:
        lines += ["# longer training mostly scores better; `segbench methods show NAME` tells the published budget"]
        lines += ["budgets:", *(f"  {method}: {_flow(budget)}" for method, budget in draft.budgets.items())]
    if draft.settings:
        lines += ["# small patches, for processors: without these lines the published settings hold"]
        lines += ["settings:", *(f"  {method}: {_flow(values)}" for method, values in draft.settings.items())]
    if draft.resources:
        lines += ["resources:", *(f"  {method}: {_flow(values)}" for method, values in draft.resources.items())]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)).strip()
