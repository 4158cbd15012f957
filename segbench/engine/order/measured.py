"""What was measured of a method on a device, and what follows from it: memory of a batch, seconds of a window. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segbench.engine.grid import Run

CPU = "cpu"
STANDARD_SIDE = 256
"""Pixels of a prepared window's side, where nothing else is known."""


@dataclass(frozen=True)
class Line:
    """Bytes = ``fixed`` + ``per_window`` x windows."""

    fixed: float
    per_window: float

    def bytes(self, windows: int) -> float:
        """Return the bytes of so many windows at once."""
        return self.fixed + self.per_window * windows

    def windows(self, available: float) -> int:
        """Return how many windows at once fit into so many bytes; 0 for none."""
        if self.fixed > available:
            return 0
        return int((available - self.fixed) / self.per_window) if self.per_window > 0 else 10**6


def fit_line(points: Iterable[tuple[int, float]]) -> Line:
    """Return the line of least squares through (windows, bytes), not falling; through one point a flat one.

    Examples
    --------
    >>> fit_line([(2, 5e9), (4, 7e9)])
    Line(fixed=3000000000.0, per_window=1000000000.0)
    >>> fit_line([(2, 5e9), (4, 4.9e9)])
    Line(fixed=5000000000.0, per_window=0.0)
    """
    known = list(points)
    x, y = [n for n, _ in known], [held for _, held in known]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((one - mean_x) ** 2 for one in x)
    slope = sum((n - mean_x) * (held - mean_y) for n, held in known) / spread if spread else 0.0
    return Line(mean_y - slope * mean_x, slope) if slope > 0 else Line(max(y), 0.0)


@dataclass(frozen=True)
class Point:
    """A stage of a method at one batch size."""

    method: str
    settings: Mapping[str, Any]
    stage: str
    batch: int
    device: str
    """The GPU's name, or ``cpu``."""
    device_bytes: int | None
    side: int
    windows_per_s: float | None
    bytes: int | None
    measurement: str


@dataclass(frozen=True)
class Profile:
    """A method on a device, by the newest measurement."""

    device: str
    device_bytes: int | None
    memory: Mapping[str, Line]
    """By stage."""
    windows_per_s: Mapping[str, float]
    """By stage, of windows of the standard side, at the largest batch that was measured."""

    def need(self, batch: int) -> float:
        """Return the most bytes of training with a batch and of prediction."""
        held = [self.memory["train"].bytes(batch)] if "train" in self.memory else []
        return max([*held, *([self.memory["predict"].fixed] if "predict" in self.memory else [])], default=0.0)

    def batch_for(self, available: float) -> int:
        """Return the largest training batch that fits into so many bytes; 0 for none."""
        return self.memory["train"].windows(available) if "train" in self.memory else 0


@dataclass(frozen=True)
class Profiles:
    """All that was measured; oldest first."""

    points: Sequence[Point] = ()

    def of(self, run: Run, device: str | None, *, same_settings: bool = False) -> Profile | None:
        """Return the newest profile of a run's method on a device.

        Parameters
        ----------
        run
            One of its method; equal settings come before others.
        device
            ``cpu``, ``gpu`` for any, or a part of a GPU's name; None for any GPU.
        same_settings
            True to take none of other settings.
        """
        known = [point for point in self.points if point.method == run.method and _is_on(point, device)]
        wanted = _plain(run.settings)
        own = [point for point in known if _plain(point.settings) == wanted]
        chosen = own or ([] if same_settings else known)
        if not chosen:
            return None
        newest = chosen[-1].measurement
        return _profile([point for point in chosen if point.measurement == newest])


def _is_on(point: Point, device: str | None) -> bool:
    if device == CPU or point.device == CPU:
        return device == point.device == CPU
    return device in (None, "gpu") or device.lower() in point.device.lower()


def _profile(points: Sequence[Point]) -> Profile:
    by_stage: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        by_stage[point.stage].append(point)
    memory, rates = {}, {}
    for stage, found in by_stage.items():
        held = [(point.batch, float(point.bytes)) for point in found if point.bytes]
        if held:
            memory[stage] = fit_line(held)
        timed = [point for point in found if point.windows_per_s]
        if timed:
            last = max(timed, key=lambda point: point.batch)
            rates[stage] = (last.windows_per_s or 0.0) * (last.side / STANDARD_SIDE) ** 2
    return Profile(points[0].device, points[0].device_bytes, memory, rates)


def _plain(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True, default=list)
