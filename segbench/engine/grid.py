"""What to run: presets, grid files and filters expanded into runs, each with an id that its result depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from segbench.engine.cards import all_cards, get_card
from segbench.engine.tasks import (
    ALL_TISSUES,
    LIVECELL_CHANNELS,
    LIVECELL_TARGETS,
    LIVECELL_TISSUES,
    TISSUENET_CHANNELS,
    TISSUENET_TARGETS,
    TISSUENET_TISSUES,
    Task,
    tasks_of,
)
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.card import Budget, Resources

STUDY_METHODS = (
    "cellpose", "mesmer", "stardist", "retinamask", "featurenet", "centermask2", "mask-rcnn", "resnest", "ms-rcnn",
    "mask2former", "cascade-mask-rcnn-seesaw", "swin-s", "swin-t", "solov2", "rf-next", "hrnet", "res2net",
    "segment-anything",
)  # fmt: skip
"""The eighteen methods of the published comparison."""

_STUDY_DATASETS = {
    "tissuenet": (tasks_of("tissuenet", TISSUENET_CHANNELS, TISSUENET_TARGETS), TISSUENET_TISSUES),
    "livecell": (tasks_of("livecell", LIVECELL_CHANNELS, LIVECELL_TARGETS), LIVECELL_TISSUES),
}


class _Setting(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BudgetChange(_Setting):
    """How a run's budget differs from its card's; what is None stays as it is."""

    scale: PositiveFloat | None = None
    """Epochs or iterations times this."""
    epochs: PositiveInt | None = None
    iterations: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    steps_per_epoch: PositiveInt | None = None

    def apply(self, budget: Budget) -> Budget:
        """Return the changed budget: an explicit figure wins over the scale, units that the method lacks go."""
        changed = budget if self.scale is None else budget.scaled(self.scale)
        if self.epochs is not None and budget.epochs is not None:
            changed = dataclasses.replace(changed, epochs=self.epochs)
        if self.iterations is not None and budget.iterations is not None:
            changed = dataclasses.replace(changed, iterations=self.iterations)
        if self.steps_per_epoch is not None and budget.epochs is not None:
            changed = dataclasses.replace(changed, steps_per_epoch=self.steps_per_epoch)
        if self.batch_size is not None:
            changed = dataclasses.replace(changed, batch_size=self.batch_size)
        return changed


class ResourceChange(_Setting):
    """How a run's resources differ from its card's; they do not enter its id."""

    num_gpus: float | None = Field(default=None, ge=0)
    num_cpus: PositiveFloat | None = None
    memory_gb: PositiveFloat | None = None
    gpu_memory_gb: PositiveFloat | None = None

    @field_validator("num_gpus")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"above 1 it must be a whole number, found {value}")
        return value

    def apply(self, resources: Resources) -> Resources:
        """Return the changed resources."""
        return dataclasses.replace(resources, **self.model_dump(exclude_none=True))


class Block(_Setting):
    """A product: every method on every task, trained on every tissue with every seed."""

    methods: tuple[str, ...] = Field(min_length=1)
    tasks: tuple[str, ...] = Field(min_length=1)
    tissues: tuple[str, ...] = (ALL_TISSUES,)
    """Training tissues; ``all`` is every tissue together, ``each`` every tissue of the task's dataset on its own."""
    seeds: tuple[int, ...] = (0,)
    budgets: dict[str, BudgetChange] = Field(default_factory=dict)
    """By method, for this block; applied after the grid's own."""

    @field_validator("tissues", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return tuple(str(v) for v in value) if isinstance(value, list | tuple) else value


class GridSpec(_Setting):
    """A grid as a user writes it: blocks, and what differs from the methods' cards."""

    blocks: tuple[Block, ...] = Field(min_length=1)
    budget: BudgetChange = BudgetChange()
    """For every method."""
    budgets: dict[str, BudgetChange] = Field(default_factory=dict)
    """By method; applied before ``budget``."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By method: settings that differ from the card's."""
    resources: dict[str, ResourceChange] = Field(default_factory=dict)
    """By method."""


@dataclass(frozen=True)
class Run:
    """One point of the grid with everything that decides its result, and what it asks of the machine."""

    id: str
    """12 hexadecimal digits: a hash of everything below but ``resources`` and ``final``."""
    method: str
    task: Task
    train_tissue: str
    seed: int
    budget: Budget
    settings: Mapping[str, Any]
    fingerprint: str | None
    """Of the prepared dataset; None while it is not prepared."""
    resources: Resources
    final: bool
    """False while the dataset is not prepared: the id then stands for the plan, and changes once the data are known."""


@dataclass(frozen=True)
class Filters:
    """Which runs of a grid are meant; an empty tuple means all."""

    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    tissues: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class DatasetFacts:
    """What expansion must know of a dataset."""

    tasks: tuple[Task, ...]
    tissues: tuple[str, ...]
    """Training tissues; empty where they are known only once the dataset is prepared."""
    fingerprint: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """The datasets that a grid can name."""

    datasets: Mapping[str, DatasetFacts] = field(default_factory=dict)

    def with_study(self) -> Catalogue:
        """Return this catalogue with the study's datasets, as they are known without having the data."""
        study = {name: DatasetFacts(tasks, tissues) for name, (tasks, tissues) in _STUDY_DATASETS.items()}
        return Catalogue({**study, **self.datasets})

    def task(self, name: str) -> Task:
        """Return a task by name; raises SegbenchError with the nearest names."""
        known = {task.name: task for facts in self.datasets.values() for task in facts.tasks}
        if name not in known:
            raise unknown_name("task", name, known)
        return known[name]


DEMO = GridSpec(
    blocks=(
        Block(
            methods=("watershed", "stardist", "cellpose"),
            tasks=("synthetic-nuclear-1ch", "synthetic-wholecell-2ch"),
        ),
    ),
    budgets={
        "stardist": BudgetChange(epochs=6, steps_per_epoch=80, batch_size=8),
        "cellpose": BudgetChange(epochs=8),
    },
    # small patches of small cells, for processors; the published settings are the cards'
    settings={
        "stardist": {"patch_size": 64, "learning_rate": 1e-3, "val_windows": 20, "calibration_windows": 4},
        "cellpose": {"crop": 64, "diam_mean": 12.0, "calibration_windows": 8},
    },
)
"""Three methods, two tasks, budgets that a two-core machine trains in minutes."""


def preset(name: str) -> GridSpec:
    """Return a preset: ``demo``, ``paper`` (the published 138 runs) or ``full`` (954).

    Examples
    --------
    >>> len(preset("paper").blocks)
    2
    """
    study_tasks = tuple(task.name for tasks, _ in _STUDY_DATASETS.values() for task in tasks)
    presets = {
        "demo": DEMO,
        "paper": GridSpec(
            blocks=(
                Block(methods=STUDY_METHODS, tasks=study_tasks),
                Block(methods=("swin-s",), tasks=study_tasks, tissues=("each",)),
            )
        ),
        "full": GridSpec(blocks=(Block(methods=STUDY_METHODS, tasks=study_tasks, tissues=(ALL_TISSUES, "each")),)),
    }
    if name not in presets:
        raise unknown_name("preset", name, presets)
    return presets[name]


def read_grid(path: Path) -> GridSpec:
    """Read a grid file (YAML); either ``blocks: [...]`` or one block's keys at the top.

    Raises
    ------
    SegbenchError
        The file is missing, is not YAML, or a field does not fit: the error names the field and what was found.
    """
    try:
        raw = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise SegbenchError(f"cannot read the grid file {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SegbenchError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise SegbenchError(f"{path}: a grid is a mapping with methods, tasks, ..., found {type(raw).__name__}")
    if "blocks" not in raw:
        keys = [key for key in Block.model_fields if key in raw]
        raw = {**{k: v for k, v in raw.items() if k not in keys}, "blocks": [{key: raw[key] for key in keys}]}
    try:
        return GridSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            allowed = [*GridSpec.model_fields, *Block.model_fields]
            raise SegbenchError(f"{path}: {unknown_name('field', where, allowed)}") from None
        raise SegbenchError(f"{path}: field {where}: {first['msg']}, found {str(first['input'])[:80]!r}") from None


def expand(
    spec: GridSpec,
    catalogue: Catalogue,
    filters: Filters = Filters(),
    budget: BudgetChange = BudgetChange(),  # noqa: B008 - frozen
    resources: ResourceChange = ResourceChange(),  # noqa: B008 - frozen
    lock_versions: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Run]:
    """Expand a grid into its runs, in the order of the grid, each once.

    Parameters
    ----------
    spec
        The grid.
    catalogue
        The datasets that its tasks may name.
    filters
        Which runs are meant; a name that the grid does not hold is an error.
    budget, resources
        Changes for every run, applied last (the command line's).
    lock_versions
        Environment name -> library -> pinned version; what decides a run's result enters its id.

    Raises
    ------
    SegbenchError
        An unknown method, task, tissue or setting (with the nearest names), or a filter that leaves nothing.
    """
    cards = all_cards()
    for name in {*spec.budgets, *spec.settings, *spec.resources, *(n for block in spec.blocks for n in block.budgets)}:
        get_card(name)
    runs: dict[str, Run] = {}
    for method, task, tissue, seed, of_block in _points(spec, catalogue, filters):
        card = cards[method]
        change = spec.settings.get(method, {})
        for key in change:
            if key not in card.settings:
                raise unknown_name(f"setting of {method}", key, card.settings)
        facts = catalogue.datasets[task.dataset]
        settings = {**card.settings, **change}
        final_budget = card.budget
        for budget_change in (spec.budgets.get(method), of_block, spec.budget, budget):
            if budget_change is not None:
                final_budget = budget_change.apply(final_budget)
        versions = (lock_versions or {}).get(card.environment, {})
        decisive = {
            "method": method,
            "revision": card.revision,
            "libraries": {name: versions.get(name) for name in card.libraries},
            "settings": settings,
            "budget": {k: v for k, v in dataclasses.asdict(final_budget).items() if k != "note"},
            "dataset": facts.fingerprint or task.dataset,
            "channels": task.channels,
            "target": task.target,
            "train_tissue": tissue,
            "seed": seed,
        }
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode()).hexdigest()[:12]
        wanted = resources.apply(spec.resources.get(method, ResourceChange()).apply(card.resources))
        runs.setdefault(
            digest,
            Run(
                id=digest, method=method, task=task, train_tissue=tissue, seed=seed, budget=final_budget,
                settings=settings, fingerprint=facts.fingerprint, resources=wanted, final=facts.fingerprint is not None,
            ),
        )  # fmt: skip
    return list(runs.values())


def _points(
    spec: GridSpec, catalogue: Catalogue, filters: Filters
) -> Iterable[tuple[str, Task, str, int, BudgetChange | None]]:
    points: dict[tuple[str, str, str, int], tuple[Task, BudgetChange | None]] = {}
    for block in spec.blocks:
        for method, name in itertools.product(block.methods, block.tasks):
            get_card(method)
            task = catalogue.task(name)
            for tissue, seed in itertools.product(_tissues(block, task, catalogue), block.seeds):
                points[method, name, tissue, seed] = task, block.budgets.get(method)
    for kind, position, wanted in (
        ("method", 0, filters.methods),
        ("task", 1, filters.tasks),
        ("training tissue", 2, filters.tissues),
        ("seed", 3, tuple(map(str, filters.seeds))),
    ):
        held = {str(point[position]) for point in points}
        for name in wanted:
            if name not in held:
                raise unknown_name(f"{kind} (in this grid)", name, held)
    chosen = [
        (method, task, tissue, seed, of_block)
        for (method, name, tissue, seed), (task, of_block) in points.items()
        if (not filters.methods or method in filters.methods)
        and (not filters.tasks or name in filters.tasks)
        and (not filters.tissues or tissue in filters.tissues)
        and (not filters.seeds or seed in filters.seeds)
    ]
    if not chosen:
        raise SegbenchError("the filters leave no run of this grid: each fits, but not together")
    return chosen


def _tissues(block: Block, task: Task, catalogue: Catalogue) -> Sequence[str]:
    known = catalogue.datasets[task.dataset].tissues
    chosen: list[str] = []
    for tissue in block.tissues:
        if tissue == "each":
            if not known:
                raise SegbenchError(
                    f"the tissues of {task.dataset} are not known yet: run 'segbench data prepare' for it first"
                )
            chosen.extend(known)
        elif tissue == ALL_TISSUES or not known or tissue in known:
            chosen.append(tissue)
        else:
            raise unknown_name(f"training tissue of {task.dataset}", tissue, [ALL_TISSUES, *known])
    return list(dict.fromkeys(chosen))
