"""A run: one point of the grid with everything that decides its result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segbench.errors import SegbenchError
from segbench.methods.card import Budget, Resources
from segbench.methods.job import Task


@dataclass(frozen=True)
class Run:
    """One point of the grid with everything that decides its result, and what it asks of the machine."""

    id: str
    """12 hexadecimal digits: a hash of everything below that decides the result."""
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
    evaluation: str = "windows"
    """What is scored: ``windows``, or ``whole`` for whole images beside them."""
    train_images: int | None = None
    """How many of the training tissue's images are trained on; None for all of them."""
    of_images: int | None = None
    """How many there are, where that is known; does not enter the id."""
    robustness: tuple[str, ...] = ()
    """Kinds of degraded test images to which its model is applied as well; does not enter the id: no score of the run
    depends on it, and a finished run's model is applied to them without a training."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is to be told of it when it is planned; does not enter the id, nor the status."""

    @property
    def share(self) -> float:
        """Which part of the training tissue's images is trained on, as far as that is known."""
        return self.train_images / self.of_images if self.train_images and self.of_images else 1.0


def run_to_dict(run: Run) -> dict[str, Any]:
    """Return a run as JSON-able values; its first keys are those that a status shows."""
    values = {
        "run_id": run.id,
        "method": run.method,
        "task": run.task.name,
        "train_tissue": run.train_tissue,
        "seed": run.seed,
        "of": dataclasses.asdict(run.task),
        "budget": dataclasses.asdict(run.budget),
        "settings": dict(run.settings),
        "fingerprint": run.fingerprint,
        "resources": dataclasses.asdict(run.resources),
    }
    if run.evaluation != "windows":
        values["evaluation"] = run.evaluation
    if run.train_images is not None:
        values |= {"train_images": run.train_images, "of_images": run.of_images}
    if run.robustness:
        values["robustness"] = list(run.robustness)
    return values


def run_from_dict(raw: Mapping[str, Any]) -> Run:
    """Return the run that ``run_to_dict`` wrote.

    Raises
    ------
    SegbenchError
        An older segbench wrote it, and it does not hold all of the run.
    """
    try:
        task = {**raw["of"], "channels": tuple(raw["of"]["channels"])}
        return Run(
            id=raw["run_id"],
            method=raw["method"],
            task=Task(**task),
            train_tissue=raw["train_tissue"],
            seed=raw["seed"],
            budget=Budget(**raw["budget"]),
            settings=raw["settings"],
            fingerprint=raw["fingerprint"],
            resources=Resources(**raw["resources"]),
            final=raw["fingerprint"] is not None,
            evaluation=raw.get("evaluation", "windows"),
            train_images=raw.get("train_images"),
            of_images=raw.get("of_images"),
            robustness=tuple(raw.get("robustness", ())),
        )
    except (KeyError, TypeError):
        raise SegbenchError(
            "the last launch was of another version of segbench: run 'segbench grid launch' as you did before"
        ) from None
