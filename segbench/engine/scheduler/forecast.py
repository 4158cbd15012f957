"""What is left to do of a plan, and when it would have ended on a cluster."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segbench.engine.grid import Run
from segbench.engine.order import CPU, GPU, Ask, Node, Placer, Shape, simulate, uniform_nodes
from segbench.engine.results.record import Status
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.planning import Planned
from segbench.engine.scheduler.ray_session import connected_cluster
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Forecast:
    """What is left to do of a plan, and when it would have ended on a cluster."""

    runs: int
    """Left to do."""
    hours: float
    """Of one run after the other."""
    gpu_hours: float
    sources: Mapping[str, int]
    """How many expectations come from the store's ``history``, the ``published`` hours and the ``default``."""
    one_by_one: bool = False
    """Nothing runs beside another."""
    gpus: int | None = None
    """Of the cluster; None where none was given."""
    nodes: int | None = None
    makespan_h: float | None = None
    """Hours from the launch to the last run's end."""

    def lines(self) -> tuple[str, ...]:
        """Return the forecast in words.

        Examples
        --------
        >>> Forecast(3, 5.0, 12.0, {"published": 2, "default": 1}, gpus=8, nodes=1, makespan_h=2.25).lines()[0]
        '3 runs to do: 12 GPU hours, 2.2 h on 8 GPUs (1 node)'
        """
        told = f"{self.runs:,} run{'s' * (self.runs != 1)} to do: "
        told += (
            f"{_figure(self.hours)} h one after the other"
            if self.one_by_one
            else f"{_figure(self.gpu_hours)} GPU hours"
        )
        if self.makespan_h is not None:
            where = f"{self.gpus:,} GPUs" if self.gpus else "no GPU"
            told += f", {_figure(self.makespan_h)} h on {where} ({self.nodes:,} node{'s' * (self.nodes != 1)})"
        named = {
            "history": "finished runs of this store",
            "published": "published hours",
            "default": "the family's default rate",
        }
        known = ", ".join(f"{n:,} from {named[source]}" for source, n in self.sources.items() if n)
        return (told, f"expected times: {known}") if self.runs else (told,)


@dataclass(frozen=True)
class Place:
    """Where a plan's runs are expected to go."""

    nodes: Sequence[Node] | None = None
    """None where they are not known: no end of the whole is expected then."""
    device: str | None = None
    """What they run on, as ``expected_seconds`` takes it."""
    one_by_one: bool = False
    """One run after the other."""


def place_of(options: LaunchOptions, gpus: int | None = None, gpus_per_node: int = 8) -> Place:
    """Return where runs would go with these options of a launch: a running cluster, or so many imagined GPUs.

    Raises
    ------
    SegbenchError
        Both a cluster and imagined GPUs are asked for, or the cluster cannot be reached.
    """
    if options.address is not None and gpus is not None:
        raise SegbenchError("give one of --address (that cluster) and --gpus (an imagined one), found both")
    device = CPU if options.cpu else options.accelerator
    if options.executor == "inline":
        return Place(device=device, one_by_one=True)
    if options.address is not None:
        nodes, found = connected_cluster(options.address)
        if options.cpu:
            nodes = [dataclasses.replace(node, gpus=0) for node in nodes]
        return Place(nodes, device or found)
    if gpus is not None:
        return Place(uniform_nodes(gpus, gpus_per_node), options.accelerator or GPU)
    return Place(device=device, one_by_one=options.cpu)


def forecast(planned: Sequence[Planned], place: Place = Place()) -> Forecast:
    """Return what the runs that are not done would take; on a cluster without GPUs they are placed by their cores.

    Raises
    ------
    SegbenchError
        No node can hold one of the runs.
    """
    left = [one for one in planned if one.status != Status.DONE]
    sources = Counter(one.expected.source for one in left)
    known = Forecast(
        runs=len(left),
        hours=sum(one.expected.seconds for one in left) / 3600,
        gpu_hours=sum(one.gpu_hours for one in left),
        sources={source: sources[source] for source in ("history", "published", "default")},
        one_by_one=place.one_by_one,
    )
    nodes = place.nodes
    if nodes is None:
        return known
    gpus = sum(node.gpus for node in nodes)
    cores = max((node.cpus for node in nodes), default=0.0)
    asks = []
    placer = Placer(nodes)
    for one in left:
        asked = shape(one.run, use_gpu=gpus > 0, cores=cores)
        if not placer.can_hold(asked):
            raise SegbenchError(
                f"{one.run.method} asks for {asked.gpus:g} GPUs and {asked.memory_gb:g} GB of memory on one node; "
                f"the nodes have {max((n.gpus for n in nodes), default=0)} GPUs at most: "
                "change --num-gpus, --memory-gb or the nodes"
            )
        asks.append(Ask(one.run.id, asked, one.expected.seconds))
    return dataclasses.replace(
        known, gpus=gpus, nodes=len(nodes), makespan_h=simulate(asks, nodes).makespan_s / 3600,
        gpu_hours=known.gpu_hours if gpus else 0.0,
    )  # fmt: skip


def shape(run: Run, use_gpu: bool, cores: float) -> Shape:
    """Return what a run asks of a node; it takes what cores the largest node has where it asks for more."""
    wanted = run.resources
    return Shape(wanted.num_gpus if use_gpu else 0.0, min(wanted.num_cpus, cores), wanted.memory_gb)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
