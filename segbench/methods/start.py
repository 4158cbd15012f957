"""From which weights a training starts: what the words of a grid's ``start`` mean for one method, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from segbench.errors import SegbenchError

RANDOM, BACKBONE, GENERALIST = "random", "published-backbone", "generalist"
WORDS = (RANDOM, BACKBONE, GENERALIST)
"""What ``start`` may say of every method that can; all else is the path of a file of weights."""


@dataclass(frozen=True)
class Start:
    """Which setting of a method takes its first weights, and what it must be for each word.

    Examples
    --------
    >>> start = Start("start", random="random", generalist={"nuclear": "nuclei", "": "cyto3"})
    >>> start.value("generalist", target="nuclear"), start.value("generalist", target="wholecell")
    ('nuclei', 'cyto3')
    >>> start.value("mine.pth", target="nuclear"), start.words()
    ('mine.pth', ('random', 'generalist'))
    """

    setting: str
    """The setting's name."""
    random: str
    """Its value for weights that are drawn."""
    backbone: str | None = None
    """Its value for a backbone that was trained on photographs; None where there is none."""
    generalist: Mapping[str, str] = field(default_factory=dict)
    """Its value for the method's released model of cells, by the target that the model segments; ``""`` is for every
    other target. Empty where none is released."""
    weights: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the released weights (``segbench.methods.weights``) that a value needs."""
    untrained: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Those that it needs besides where it is applied without a training (0 epochs)."""
    most_channels: Mapping[str, int] = field(default_factory=dict)
    """How many channels of a task a value's model can take; what is not named takes any number."""

    def words(self) -> tuple[str, ...]:
        """Return which words mean something here."""
        here = {RANDOM: True, BACKBONE: self.backbone is not None, GENERALIST: bool(self.generalist)}
        return tuple(word for word, means in here.items() if means)

    def value(self, asked: str, target: str) -> str:
        """Return the setting's value for what a grid asks; raises SegbenchError for a word that means nothing here."""
        if asked == RANDOM:
            return self.random
        if asked == BACKBONE and self.backbone is not None:
            return self.backbone
        if asked == GENERALIST and self.generalist:
            return self.generalist.get(target, self.generalist.get("", next(iter(self.generalist.values()))))
        if asked in WORDS:
            raise SegbenchError(f"cannot start from {asked}; allowed: {', '.join(self.words())}, or a file of weights")
        return asked

    def needs(self, value: str, epochs: int | None) -> tuple[str, ...]:
        """Return the names of the released weights that a run needs whose setting has this value."""
        return self.weights.get(value, ()) + (self.untrained.get(value, ()) if epochs == 0 else ())
