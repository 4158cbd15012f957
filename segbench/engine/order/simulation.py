"""When a set of runs will have ended on a cluster, by the same rule that places the real ones."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segbench.engine.order.placer import Node, Placer, Shape
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Ask:
    """A run as far as its place and length are concerned."""

    key: str
    shape: Shape
    seconds: float
    """Expected."""


@dataclass(frozen=True)
class Simulated:
    """How a simulated grid went."""

    makespan_s: float
    starts: Mapping[str, float]
    """Seconds after the grid's start, by run."""
    nodes: Mapping[str, str]
    """The node of each run."""


def uniform_nodes(gpus: int, gpus_per_node: int) -> list[Node]:
    """Return nodes of one size with so many GPUs in all; the last may have fewer.

    Examples
    --------
    >>> [node.gpus for node in uniform_nodes(20, 8)]
    [8, 8, 4]
    """
    full, rest = divmod(gpus, gpus_per_node)
    return [Node(f"node-{n:04d}", size) for n, size in enumerate([gpus_per_node] * full + [rest] * (rest > 0))]


def lower_bound(asks: Sequence[Ask], nodes: Sequence[Node]) -> float:
    """Return the makespan in seconds that no order can undercut: total GPU time over GPUs, or the longest run.

    Examples
    --------
    >>> lower_bound([Ask("a", Shape(4), 10.0), Ask("b", Shape(1), 60.0)], uniform_nodes(4, 4))
    60.0
    """
    gpus = sum(node.gpus for node in nodes)
    work = sum(ask.seconds * ask.shape.gpus for ask in asks)
    return max(work / gpus if gpus else 0.0, max((ask.seconds for ask in asks), default=0.0))


def simulate(asks: Sequence[Ask], nodes: Sequence[Node], actual: Mapping[str, float] | None = None) -> Simulated:
    """Run a grid on paper; ``actual`` are the true lengths in seconds where they differ from the expected ones.

    Raises
    ------
    SegbenchError
        A run that no node can hold.
    """
    placer = Placer(nodes)
    seconds = {ask.key: ask.seconds for ask in asks} | dict(actual or {})
    for ask in asks:
        if not placer.can_hold(ask.shape):
            most = max((node.gpus for node in nodes), default=0)
            raise SegbenchError(
                f"a run asks for {ask.shape.gpus:g} GPUs, {ask.shape.cpus:g} cores and {ask.shape.memory_gb:g} GB "
                f"on one node; the largest node has {most} GPUs"
            )
        placer.add(ask.key, ask.shape, ask.seconds)
    now, running = 0.0, list[tuple[float, str]]()
    starts: dict[str, float] = {}
    where: dict[str, str] = {}
    while True:
        for placement in placer.next(now):
            starts[placement.key], where[placement.key] = now, placement.node
            heapq.heappush(running, (now + seconds[placement.key], placement.key))
        if not running:
            return Simulated(now, starts, where)
        now = running[0][0]
        while running and running[0][0] <= now:
            placer.ended(heapq.heappop(running)[1])
