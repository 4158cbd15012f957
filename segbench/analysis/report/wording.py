"""Turns figures into words for the report's sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count(1, "run"), count(1200, "run"), count(2, "class", "classes")
    ('1 run', '1,200 runs', '2 classes')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def listed(names: Sequence[str] | None, most: int = 6) -> str:
    """Return names as a list in words, cut after ``most``.

    Examples
    --------
    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], 2), listed(["a"])
    ('a, b and c', 'a, b and 1 more', 'a')
    """
    names = list(names or [])
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def duration(seconds: float | None) -> str:
    """Return a time span in its two largest units.

    Examples
    --------
    >>> duration(0.25), duration(75), duration(3700), duration(200_000), duration(None)
    ('0.25 s', '1 min 15 s', '1 h 1 min', '2 d 7 h', 'unknown')
    """
    if seconds is None or not math.isfinite(seconds):
        return "unknown"
    if seconds < 60:
        return f"{seconds:.3g} s"
    total = round(seconds)
    for size, unit, small_size, small_unit in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if total >= size:
            small = total % size // small_size
            return f"{total // size} {unit} {small} {small_unit}" if small else f"{total // size} {unit}"
    raise AssertionError(total)


def score(value: float | None) -> str:
    """Return a score with two digits after the point.

    Examples
    --------
    >>> score(0.7149), score(None)
    ('0.71', 'none')
    """
    return "none" if value is None or not math.isfinite(value) else f"{value:.2f}"
