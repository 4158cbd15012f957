"""Expands a grid into its runs, each with an id that its result depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from segbench.engine.grid.cards import get_card
from segbench.engine.grid.catalogue import Catalogue
from segbench.engine.grid.changes import BudgetChange, ResourceChange
from segbench.engine.grid.controls import is_control
from segbench.engine.grid.parts import drawn_part
from segbench.engine.grid.run import Run
from segbench.engine.grid.settings import check_changes, hashed
from segbench.engine.grid.spec import Block, GridSpec
from segbench.engine.grid.starts import check_start, start_settings
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.job import Task
from segbench.methods.recipes import changes


@dataclass(frozen=True)
class Filters:
    """Which runs of a grid are meant; an empty tuple means all."""

    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    tissues: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


def expand(
    spec: GridSpec,
    catalogue: Catalogue,
    filters: Filters = Filters(),
    budget: BudgetChange = BudgetChange(),  # noqa: B008 - frozen
    resources: ResourceChange = ResourceChange(),  # noqa: B008 - frozen
    lock_versions: Mapping[str, Mapping[str, str]] | None = None,
    start: str | None = None,
    recipe: str | None = None,
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
    start
        Where every training starts, in place of the grid's own (the command line's).
    recipe
        ``cells``, ``study`` or ``cards``, in place of the grid's own (the command line's).

    Raises
    ------
    SegbenchError
        An unknown method, task, tissue or setting (with the nearest names), a setting's or budget's value that is not
        allowed, or a filter that leaves nothing.
    """
    check_changes(spec)
    runs: dict[str, Run] = {}
    told: dict[str, list[str]] = {}
    for method, task, tissue, seed, of_block, wanted_images in _points(spec, catalogue, filters):
        card = get_card(method)
        facts = catalogue.datasets[task.dataset]
        started = start_settings(card, spec.start if start is None else start, task.target)
        of_recipe = changes(spec.recipe if recipe is None else recipe, method)
        settings = {**card.defaults, **of_recipe.settings, **started, **spec.settings.get(method, {})}
        part = drawn_part(card, facts.images.get(tissue), f"training tissue {tissue} of {task.dataset}", wanted_images)
        final_budget = replace(card.budget, batch_size=of_recipe.batch_size or card.budget.batch_size)
        for budget_change in (spec.budgets.get(method), of_block, spec.budget, budget):
            if budget_change is not None:
                final_budget = budget_change.apply(final_budget)
        if spec.train_images_keep == "steps":
            final_budget = part.budget(final_budget)
        check_start(card, settings, final_budget, task)
        versions = (lock_versions or {}).get(card.environment, {})
        decisive = {
            "method": method,
            "revision": card.revision,
            "libraries": {name: versions.get(name) for name in card.libraries},
            "settings": hashed(card, settings),
            "budget": {k: v for k, v in dataclasses.asdict(final_budget).items() if k != "note"},
            "dataset": facts.fingerprint or task.dataset,
            "channels": task.channels,
            "target": task.target,
            "train_tissue": tissue,
            "seed": seed,
        }
        if spec.evaluation != "windows":
            decisive["evaluation"] = spec.evaluation
        if part.images is not None:
            decisive["train_images"] = part.images
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=list).encode()).hexdigest()[:12]
        wanted = resources.apply(spec.resources.get(method, ResourceChange()).apply(card.resources))
        runs.setdefault(
            digest,
            Run(
                id=digest, method=method, task=task, train_tissue=tissue, seed=seed, budget=final_budget,
                settings=settings, fingerprint=facts.fingerprint, resources=wanted, final=facts.fingerprint is not None,
                evaluation=spec.evaluation, train_images=part.images, of_images=part.of_images,
                robustness=() if is_control(method) else spec.robustness,
            ),
        )  # fmt: skip
        told.setdefault(digest, []).extend(part.notes)
    return [replace(run, notes=tuple(dict.fromkeys(told[run.id]))) for run in runs.values()]


_Images = int | Literal["all"]


def _points(
    spec: GridSpec, catalogue: Catalogue, filters: Filters
) -> Iterable[tuple[str, Task, str, int, BudgetChange | None, _Images]]:
    points: dict[tuple[str, str, str, int, _Images], tuple[Task, BudgetChange | None]] = {}
    for block in spec.blocks:
        for method, name in itertools.product(block.methods, block.tasks):
            get_card(method)
            task = catalogue.task(name)
            tissues = _tissues(block, task, catalogue)
            for tissue, seed, images in itertools.product(tissues, block.seeds, block.train_images):
                points[method, name, tissue, seed, images] = task, block.budgets.get(method)
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
        (method, task, tissue, seed, of_block, images)
        for (method, name, tissue, seed, images), (task, of_block) in points.items()
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
