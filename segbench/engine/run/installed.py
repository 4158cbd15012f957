"""Says of every installed method whether it can be run, and why not."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from segbench.engine.grid.cards import all_cards, broken_methods, distribution_of, get_card, method_names
from segbench.engine.run.environments import problem_of
from segbench.engine.run.lock_files import declared_by, environment_names, is_shipped
from segbench.errors import unknown_name
from segbench.methods.card import Card


@dataclass(frozen=True)
class Installed:
    """A method that a distribution declares."""

    name: str
    distribution: str
    state: Literal["ready", "planned", "broken"]
    """``planned`` where only its card is here."""
    card: Card | None
    """None where it cannot be loaded."""
    reason: str = ""
    """Why it is broken, in one line."""


def installed_methods() -> list[Installed]:
    """Return every method that a distribution declares, by name; one that is broken stops none of the others."""
    found = [Installed(one.name, one.distribution, "broken", None, one.reason) for one in broken_methods()]
    problem_with = functools.cache(_problem)
    for name, card in all_cards().items():
        owner = distribution_of(name)
        problem = problem_with(card.environment, owner) if card.implemented else None
        if problem is not None:
            found.append(Installed(name, owner, "broken", card, f"method {name!r} of distribution {owner}: {problem}"))
        else:
            found.append(Installed(name, owner, "ready" if card.implemented else "planned", card))
    return sorted(found, key=lambda one: one.name)


def _problem(environment: str, owner: str) -> str | None:
    if is_shipped(environment) and environment in declared_by(owner):
        return f"it brings an environment {environment!r}, which is the name of one of segbench's; give it another"
    return problem_of(environment)


def environments_of(names: Sequence[str] | None = None) -> list[str]:
    """Return the environments that are meant by names of environments or methods, each once.

    Parameters
    ----------
    names
        None for those of every method that can be run.

    Raises
    ------
    SegbenchError
        For a name that is neither (with the nearest names), and for a broken method.
    """
    if not names:
        cards = [one.card for one in installed_methods() if one.state == "ready"]
        return list(dict.fromkeys(card.environment for card in cards if card is not None))
    return list(dict.fromkeys(map(_environment, names)))


def _environment(name: str) -> str:
    if name in environment_names():
        return name
    if name in method_names():
        return get_card(name).environment
    # one of the user's own, which a method names and only the user's settings know
    if name in {card.environment for card in all_cards().values() if card.implemented}:
        return name
    raise unknown_name("environment or method", name, {*environment_names(), *method_names()})
