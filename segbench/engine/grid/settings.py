"""Checks what a grid changes of its methods' settings and budgets against their cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbench.engine.grid.cards import get_card
from segbench.engine.grid.changes import BudgetChange
from segbench.engine.grid.spec import GridSpec
from segbench.errors import SegbenchError
from segbench.methods.card import Card
from segbench.methods.setting import check_values


def check_changes(spec: GridSpec) -> None:
    """Check everything that a grid says of methods by name.

    Raises
    ------
    SegbenchError
        An unknown method or setting (with the nearest names), a value that the setting does not allow, a budget in a
        unit that the method does not count: the line begins with the grid file's key.
    """
    for method, values in spec.settings.items():
        check_values(f"settings.{method}", get_card(method).settings, values)
    for key, budgets in [
        ("budgets", spec.budgets),
        *(
            (f"blocks.{number}.budgets" if len(spec.blocks) > 1 else "budgets", block.budgets)
            for number, block in enumerate(spec.blocks)
        ),
    ]:
        for method, change in budgets.items():
            _check_budget(f"{key}.{method}", get_card(method), change)
    for method in spec.resources:
        get_card(method)


def hashed(card: Card, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that enter a run's id: all but the neutral ones that have their default."""
    return {
        name: value
        for name, value in settings.items()
        if not (card.settings[name].neutral_default and not card.settings[name].differs(value))
    }


def _check_budget(where: str, card: Card, change: BudgetChange) -> None:
    for name, unit in (("epochs", "epochs"), ("iterations", "iterations"), ("steps_per_epoch", "epochs")):
        if getattr(change, name) is not None and card.budget.unit != unit:
            counts = f"counts {card.budget.unit}" if card.budget.unit else "is not trained"
            allowed = f"{card.budget.unit}, batch_size" if card.budget.unit else "batch_size"
            found = getattr(change, name)
            raise SegbenchError(f"{where}.{name}: found {found}, but {card.name} {counts}; allowed: {allowed}")
