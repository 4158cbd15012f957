"""A run: one point of the grid with everything that decides its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segbench.methods.card import Budget, Resources
from segbench.methods.job import Task


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
