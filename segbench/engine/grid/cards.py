"""Finds the methods that are installed: their cards, and the class that each subprocess is told to run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from segbench.engine.grid.controls import CONTROLS, is_control
from segbench.engine.study.usability import study_usability
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.card import CATEGORIES, CONTROL, Card

GROUP = "segbench.methods"
"""The entry-point group in which a distribution declares ``NAME = "module:Class"``."""
OWN = "segbench"
"""The distribution whose methods keep their names whatever else is installed."""


@dataclass(frozen=True)
class Broken:
    """A method that a distribution declares and that cannot be used."""

    name: str
    distribution: str
    reason: str
    """In one line."""


def method_names() -> list[str]:
    """Return the names of all methods that are declared, in alphabetical order; nothing is loaded."""
    return list(_entries())


def get_card(name: str) -> Card:
    """Return the card of a method, loading its module alone; what the study says of its methods' usability is added.

    Only the method's own module is imported, which needs numpy and no method's library.

    Raises
    ------
    SegbenchError
        There is no such method (with the nearest names), or it is broken: the line says why and names its distribution.
    """
    return CONTROLS[name] if is_control(name) else _load(_entry(name))


def all_cards() -> dict[str, Card]:
    """Return the card of every method that can be loaded, by name; :func:`broken_methods` are left out."""
    cards: dict[str, Card] = {}
    for name in method_names():
        with contextlib.suppress(SegbenchError):
            cards[name] = get_card(name)
    return cards


def broken_methods() -> list[Broken]:
    """Return the methods that are declared and cannot be used, with the reason, by name."""
    broken = []
    for name, entries in _entries().items():
        taken = _taken(name, entries)
        try:
            get_card(name)
        except SegbenchError as error:
            broken.append(Broken(name, " and ".join(dict.fromkeys(map(_owner, entries))), str(error)))
        else:
            broken.extend(Broken(name, _owner(entry), taken) for entry in entries if _owner(entry) != OWN and taken)
    return broken


def method_object(name: str) -> str:
    """Return ``module:Class`` of a method, as a job names it.

    Raises
    ------
    SegbenchError
        It is unknown, can only be planned, or is a control.
    """
    if is_control(name):
        raise SegbenchError(
            f"{name} is a control: the engine computes it from the truth of the test images, there is no model and "
            "nothing to apply"
        )
    entry = _entry(name)
    if not _load(entry).implemented:
        raise SegbenchError(
            f"method {name!r} can be planned but not run yet: its code is not in this version of {_owner(entry)}; "
            f"these can be run: {', '.join(n for n, card in all_cards().items() if card.implemented)}"
        )
    return entry.value


def method_of(target: str) -> str:
    """Return the name of the method whose class a job names as ``module:Class``; SegbenchError where there is none."""
    names = {entry.value: name for name, entries in _entries().items() for entry in entries}
    if target not in names:
        raise unknown_name("method class", target, names)
    return names[target]


def distribution_of(name: str) -> str:
    """Return the name of the distribution that brings a method, such as ``segbench``."""
    return _owner(_entry(name))


def forget() -> None:
    """Look for methods afresh at the next question (a distribution was installed meanwhile)."""
    _entries.cache_clear()
    _found.cache_clear()


def _entry(name: str) -> EntryPoint:
    entries = _entries()
    if name not in entries:
        raise unknown_name("method", name, [*entries, *CONTROLS])
    found = entries[name]
    own = [entry for entry in found if _owner(entry) == OWN]
    if len(found) > 1 and not own:
        raise SegbenchError(_taken(name, found))
    return (own or found)[0]


def _taken(name: str, entries: Sequence[EntryPoint]) -> str:
    """Return in words that a name has several owners; empty where it has one."""
    if len(entries) == 1:
        return ""
    told = " and ".join(f"{_owner(entry)} ({entry.value})" for entry in entries)
    kept = f"; the name stays with {OWN}" if any(_owner(entry) == OWN for entry in entries) else ""
    return f"two distributions bring a method {name!r}: {told}{kept}; uninstall one"


@cache
def _entries() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the declarations by name; more than one where distributions differ on what the name is."""
    entries: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        entries.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: tuple(entries[name].values()) for name in sorted(entries)}


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed distribution"


def _load(entry: EntryPoint) -> Card:
    found = _found(entry)
    if isinstance(found, str):
        raise SegbenchError(found)
    return found


@cache
def _found(entry: EntryPoint) -> Card | str:
    """Return a declaration's card, or why it has none."""
    whose = f"method {entry.name!r} of distribution {_owner(entry)}"
    try:
        # what a module prints when it is imported must not stand in a table that a program reads
        with contextlib.redirect_stdout(sys.stderr):
            found = entry.load()
    except SegbenchError as error:
        return f"{whose}: {error}"
    # whatever a third party's module raises at import, sys.exit() too, is the third party's to mend
    except (Exception, SystemExit) as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        return f"{whose} cannot be loaded from {entry.value}: {told}"
    card = found if isinstance(found, Card) else getattr(found, "card", None)
    if not isinstance(card, Card):
        return f"{whose}: {entry.value} has no card (a segbench.methods.Method with a class variable 'card' is needed)"
    if card.category == CONTROL:
        return f"{whose}: category {CONTROL!r} is of what the engine itself computes; allowed: {', '.join(CATEGORIES)}"
    if card.name != entry.name:
        return f"{whose}: the card of {entry.value} is named {card.name!r}; give both the same name"
    if not card.usability.is_known:
        card = replace(card, usability=study_usability().get(card.name, card.usability))
    return card
