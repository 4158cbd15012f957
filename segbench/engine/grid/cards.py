"""Finds the methods that are installed: their cards, and the class that each subprocess is told to run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from segbench.errors import SegbenchError, unknown_name
from segbench.methods.card import Card

GROUP = "segbench.methods"
"""The entry-point group in which a distribution declares ``NAME = "module:Class"``."""


def all_cards() -> dict[str, Card]:
    """Return every installed method's card by name, in alphabetical order.

    Only the methods' own modules are imported, which need numpy and no method's library.

    Raises
    ------
    SegbenchError
        Where a method's module cannot be imported, has no card or a card of
        another name: the line names the distribution.
    """
    return dict(_cards())


def get_card(name: str) -> Card:
    """Return the card of a method; raises SegbenchError with the nearest names where there is none."""
    cards = _cards()
    if name not in cards:
        raise unknown_name("method", name, cards)
    return cards[name]


def method_object(name: str) -> str:
    """Return ``module:Class`` of a method, as a job names it; SegbenchError for unknown and for planned methods."""
    card = get_card(name)
    if not card.implemented:
        raise SegbenchError(
            f"method {name!r} can be planned but not run yet: its code is not in this version of segbench; "
            f"these can be run: {', '.join(n for n, c in _cards().items() if c.implemented)}"
        )
    return _entries(entry_points(group=GROUP))[name].value


def distribution_of(name: str) -> str:
    """Return the name of the distribution that brings a method, such as ``segbench``."""
    get_card(name)
    return _owner(_entries(entry_points(group=GROUP))[name])


def forget() -> None:
    """Look for methods afresh at the next question (a distribution was installed meanwhile)."""
    _cards.cache_clear()


@lru_cache(maxsize=1)
def _cards() -> dict[str, Card]:
    return {name: _load(entry) for name, entry in sorted(_entries(entry_points(group=GROUP)).items())}


def _entries(found: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    entries: dict[str, EntryPoint] = {}
    for entry in found:
        other = entries.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise SegbenchError(
                f"two distributions bring a method {entry.name!r}: {_owner(other)} ({other.value}) and "
                f"{_owner(entry)} ({entry.value}); uninstall one"
            )
    return entries


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed distribution"


def _load(entry: EntryPoint) -> Card:
    try:
        found = entry.load()
    except Exception as error:  # whatever a third party's module raises at import is the third party's to mend
        raise SegbenchError(
            f"method {entry.name!r} of distribution {_owner(entry)} cannot be loaded from {entry.value}: "
            f"{type(error).__name__}: {error}"
        ) from error
    card = found if isinstance(found, Card) else getattr(found, "card", None)
    if not isinstance(card, Card):
        raise SegbenchError(
            f"method {entry.name!r} of distribution {_owner(entry)}: {entry.value} has no card "
            "(a segbench.methods.Method with a class variable 'card' is needed)"
        )
    if card.name != entry.name:
        raise SegbenchError(
            f"distribution {_owner(entry)} declares method {entry.name!r}, but the card of {entry.value} is named "
            f"{card.name!r}; give both the same name"
        )
    return card
