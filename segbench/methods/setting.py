"""A setting of a method: its default, what it means, and which values it may have."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segbench.errors import SegbenchError, unknown_name

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}
"""The types that a setting's value, or the items of its list, may have, and their names in errors."""


@dataclass(frozen=True)
class Setting:
    """A setting's default with all that is needed to check another value, and to tell a reader what it is for.

    Examples
    --------
    >>> from segbench import Setting
    >>> rays = Setting(32, "directions in which a cell's border is predicted", minimum=3)
    >>> rays.allowed()
    'a whole number of at least 3'
    >>> rays.problem(2.5)
    'found 2.5; allowed: a whole number of at least 3'
    >>> Setting("auto", "the drop of weak masks", type=float, words=("auto",), minimum=0).problem("of")
    "found 'of'; allowed: auto, or a number of at least 0"
    """

    default: Any
    """What a job gets where the grid says nothing; a tuple or list makes the setting a list of items of ``type``."""
    doc: str
    """What it does, in one sentence without a full stop."""
    unit: str = ""
    """Of the value: ``pixels``, ``epochs``, ...; empty for a bare number, a text or a choice."""
    type: type | None = None
    """bool, int, float (whole numbers too), str or dict, of the value or of a list's items; None: the default's."""
    choices: tuple[Any, ...] = ()
    """All values that there are, where they are few."""
    words: tuple[Any, ...] = ()
    """Values beside those of ``type`` that mean something of their own, such as ``"auto"`` or None."""
    minimum: float | None = None
    """Smallest number."""
    maximum: float | None = None
    """Largest number."""
    above: float | None = None
    """Numbers must be greater than this."""
    below: float | None = None
    """Numbers must be less than this."""
    length: int | None = None
    """How many items a list has; None for any number."""
    may_be_empty: bool = False
    """True where a list may have no item."""
    neutral_default: bool = False
    """True for a setting that came after the method's first runs and whose default keeps what they did: it enters a
    run's id only where its value is not the default, so that those runs keep their ids."""
    prediction: bool = False
    """True for a setting that only prediction reads: ``segbench runs predict --set`` takes another value of it, for a
    model that was trained with this one."""
    calibrated: tuple[Any, ...] = ()
    """Values of such a setting for which something is chosen after training, and kept in the model: a model that was
    trained with another value cannot predict with them."""

    def __post_init__(self) -> None:
        """Raise SegbenchError where the declaration itself does not hold."""
        if not (isinstance(self.doc, str) and self.doc.strip() and "\n" not in self.doc):
            raise SegbenchError(f"field doc is {self.doc!r}; a setting says in one line what it does")
        if self.type is not None and self.type not in TYPES:
            raise SegbenchError(f"field type is {self.type!r}; allowed: {', '.join(t.__name__ for t in TYPES)}")
        if self.kind is None and not self.choices:
            raise SegbenchError(f"field default is {self.default!r}: give the type of the other values, as type=float")
        bounds = [self.minimum, self.maximum, self.above, self.below]
        if any(bound is not None for bound in bounds) and self.kind not in (int, float):
            raise SegbenchError(f"a range is given, but the values are no numbers: the default is {self.default!r}")
        problem = self.problem(self.default)
        if problem is not None:
            raise SegbenchError(f"field default: {problem}")

    @property
    def many(self) -> bool:
        """True where the value is a list."""
        return isinstance(self.default, tuple | list)

    @property
    def kind(self) -> Any:
        """The type of the value, or of a list's items; None where the default does not tell."""
        if self.type is not None:
            return self.type
        if self.many:
            found = {type(item) for item in self.default}
            return float if found == {int, float} else found.pop() if len(found) == 1 else None
        return type(self.default) if type(self.default) in TYPES else None

    def problem(self, value: Any) -> str | None:
        """Return what was found and what is allowed, in one line; None where the value is right."""
        if self._fits(value):
            return None
        hint = ""
        if isinstance(value, str) and self.kind in (int, float) and _reads_as_number(value):
            hint = f" (a text: write {float(value)!r}; YAML takes 1e-3, without a point, for a text)"
        return f"found {_short(value)}{hint}; allowed: {self.allowed()}"

    def allowed(self) -> str:
        """Return in words which values there are."""
        if self.choices:
            return " or ".join(_plain(choice) for choice in self.choices)
        what = TYPES[self.kind]
        low, high = self.minimum, self.maximum
        bounds = (("of at least", low), ("above", self.above), ("of at most", high), ("below", self.below))
        limits = [f"{words} {bound:g}" for words, bound in bounds if bound is not None]
        if low is not None and high is not None:
            limits = [f"from {low:g} to {high:g}"]
        told = " ".join([what, " and ".join(limits)]).strip()
        if self.many:
            told = f"a list of {self.length or ('any number' if self.may_be_empty else 'one or more')}, each {told}"
        return ", ".join(_plain(word) for word in self.words) + (", or " if self.words else "") + told

    def differs(self, value: Any) -> bool:
        """Return whether a value is another than the default; 1 and 1.0, a list and a tuple are the same."""
        return bool(json.loads(json.dumps(value)) != json.loads(json.dumps(self.default)))

    def _fits(self, value: Any) -> bool:
        if any(type(value) is type(one) and value == one for one in (*self.choices, *self.words)):
            return True
        if self.choices:
            return False
        if not self.many:
            return self._is_item(value)
        if not isinstance(value, tuple | list) or not (value or self.may_be_empty):
            return False
        return self.length in (None, len(value)) and all(self._is_item(item) for item in value)

    def _is_item(self, value: Any) -> bool:
        kind = self.kind
        if kind is bool or isinstance(value, bool):
            return kind is bool and isinstance(value, bool)
        if kind is dict:
            return isinstance(value, Mapping) and _is_json(value)
        if not isinstance(value, (int, float) if kind is float else kind):
            return False
        return kind is str or self._in_range(value)

    def _in_range(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def changed(settings: Mapping[str, Setting], **defaults: Any) -> dict[str, Setting]:
    """Return settings with other defaults, for a method that shares its family's settings but not all values.

    Examples
    --------
    >>> changed({"flips": Setting(True, "mirror half of the windows")}, flips=False)["flips"].default
    False
    """
    from dataclasses import replace

    return {**settings, **{name: replace(settings[name], default=value) for name, value in defaults.items()}}


def check_values(what: str, settings: Mapping[str, Setting], values: Mapping[str, Any]) -> None:
    """Raise SegbenchError for the first name that is no setting, or value that its setting does not allow.

    Parameters
    ----------
    what
        Where the values stand, such as ``settings.stardist``: the error begins with it.
    settings
        By name.
    values
        By setting.

    Examples
    --------
    >>> check_values("settings.m", {"depth": Setting(4, "of the network", minimum=1)}, {"depth": 0})
    Traceback (most recent call last):
    ...
    segbench.errors.SegbenchError: settings.m.depth: found 0; allowed: a whole number of at least 1 (of the network)
    """
    for name, value in values.items():
        if name not in settings:
            raise SegbenchError(f"{what}: {unknown_name('setting', str(name), settings)}")
        problem = settings[name].problem(value)
        if problem is not None:
            unit = f", in {settings[name].unit}" if settings[name].unit else ""
            raise SegbenchError(f"{what}.{name}: {problem} ({settings[name].doc}{unit})")


def _plain(value: Any) -> str:
    """Return a value as it is written in a grid file."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return str(list(value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _reads_as_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
