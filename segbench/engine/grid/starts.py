"""Where a training starts: what ``start`` makes of a method's settings, and which weights runs lack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segbench.engine.grid.cards import get_card
from segbench.engine.grid.run import Run
from segbench.errors import SegbenchError
from segbench.methods.card import Budget, Card
from segbench.methods.job import Task
from segbench.methods.start import GENERALIST, RANDOM
from segbench.methods.weights import RELEASED


def start_settings(card: Card, asked: str | None, target: str) -> dict[str, Any]:
    """Return the settings that ``start`` stands for; empty where the grid does not say, or nothing is trained.

    Raises
    ------
    SegbenchError
        The method cannot start so.

    Examples
    --------
    >>> start_settings(get_card("mask-rcnn"), "published-backbone", "nuclear")
    {'pretrained': 'imagenet'}
    >>> start_settings(get_card("watershed"), "generalist", "nuclear")
    {}
    """
    if asked is None or not card.trained:
        return {}
    if card.start is None:
        if asked == RANDOM:
            return {}
        raise SegbenchError(f"start: {card.name} cannot start from {asked}: it starts from random weights alone")
    try:
        return {card.start.setting: card.start.value(asked, target)}
    except SegbenchError as error:
        raise SegbenchError(f"start: {card.name} {error}") from None


def check_start(card: Card, settings: Mapping[str, Any], budget: Budget, task: Task) -> None:
    """Raise SegbenchError for a run of no epochs without weights, and for more channels than the weights take."""
    value = card.defaults.get("") if card.start is None else str(settings[card.start.setting])
    random = card.start is None or value in (card.start.random, card.start.backbone)
    if card.trained and budget.epochs == 0 and random:
        able = card.start is not None and bool(card.start.generalist)
        to_do = f"give start: {GENERALIST}, or a file of weights" if able else "it has no released model of cells"
        raise SegbenchError(f"{card.name} has 0 epochs and would start from random weights: {to_do}")
    if card.start is None or value is None:
        return
    most = card.start.most_channels.get(value)
    if most is not None and len(task.channels) > most:
        raise SegbenchError(
            f"{card.name}'s released model {value} takes {most} channel{'s' if most > 1 else ''} at most, "
            f"{task.name} has {len(task.channels)}: leave this task out, or start it from random weights"
        )


def missing_weights(runs: Iterable[Run]) -> list[str]:
    """Return a line for each file of weights that runs would start from and that is not here, or is another file.

    Examples
    --------
    >>> missing_weights([])
    []
    """
    lines: dict[str, None] = {}
    for method, value, epochs in dict.fromkeys(_starts(runs)):
        start = get_card(method).start
        assert start is not None
        for name in start.needs(value, epochs):
            try:
                RELEASED[name].verified()
            except SegbenchError as error:
                lines[str(error)] = None
        known = {start.random, start.backbone, *start.generalist.values(), *start.weights}
        if value not in known and not Path(value).expanduser().is_file():
            lines[f"{method} would start from {value}, which is no file"] = None
    return list(lines)


def _starts(runs: Iterable[Run]) -> Iterable[tuple[str, str, int | None]]:
    for run in runs:
        card = get_card(run.method)
        if card.start is not None and card.start.setting in run.settings:
            yield run.method, str(run.settings[card.start.setting]), run.budget.epochs
