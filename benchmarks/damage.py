"""Damages bytes and values at random, and tells how segbench took it: what both fuzzers share."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from segbench.errors import SegbenchError

PAGE = 4096
LIMIT_S = 60
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 2**70, -(2**31) - 1, 1e308, 7.5, -3, "", "x", "../../../x", "/etc/hostname"),
    *("a\u0000b", "\u001b[31m", [], [None], {}, {"a": {"b": []}}, "9" * 5000),
)
Failures = list[str]


def damaged(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return content with one thing wrong, and what that is."""
    data = bytearray(content)
    where = rng.randrange(max(1, len(data)))
    page = where // PAGE * PAGE
    kind = rng.choice(("bit", "bit", "zeros", "noise", "cut", "empty"))
    if kind == "bit" and data:
        data[where] ^= 1 << rng.randrange(8)
    elif kind == "zeros":
        data[page : page + PAGE] = bytes(len(data[page : page + PAGE]))
    elif kind == "noise":
        data[page : page + PAGE] = rng.randbytes(len(data[page : page + PAGE]))
    elif kind == "cut":
        del data[where:]
    else:
        data.clear()
    return f"{kind} at {where}", bytes(data)


def outcome(work: Callable[[], Any], what: str, failures: Failures) -> str:
    """Return ``well``, or ``refused`` where it was told in one line; all else is a failure."""

    def late(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"longer than {LIMIT_S} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        work()
    except SegbenchError as error:
        if "\n" in str(error).strip() or not str(error).strip():
            failures.append(f"{what}: not one line: {error!r}")
        return "refused"
    except BaseException as error:
        failures.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        return "broke"
    finally:
        signal.alarm(0)
    return "well"


def other_value(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return a JSON file with another value, or without one, somewhere in it."""
    found = json.loads(content)
    if rng.random() < 0.7:
        found.pop("digest", None)  # which would tell of every change, so that no other guard were tried
    places: list[tuple[Any, Any, str]] = []

    def walk(part: Any, path: str) -> None:
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, value in items:
            places.append((part, key, f"{path}.{key}"))
            walk(value, f"{path}.{key}")

    walk(found, "")
    part, key, path = rng.choice(places)
    if rng.random() < 0.1:
        del part[key]
        return f"without {path}", json.dumps(found).encode()
    value = rng.choice(ODD)
    part[key] = value
    return f"{path} = {str(value)[:30]!r}", json.dumps(found).encode()
