"""What is left to do of a plan, and when it would have ended on a cluster."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from segbench.engine.order import CPU, GPU, Ask, simulate, uniform_nodes
from segbench.engine.results.statuses import Status
from segbench.engine.scheduler.gpus import visible_gpus
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.placement import Fitter, Host
from segbench.engine.scheduler.planning import Planned
from segbench.engine.scheduler.ray_session import connected_cluster
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Forecast:
    """What is left to do of a plan, and when it would have ended on a cluster.

    Examples
    --------
    >>> import segbench
    >>> forecast = segbench.plan(preset="paper", out="no-results-yet", gpus=450).forecast()
    >>> forecast.runs, forecast.gpus, forecast.nodes, forecast.makespan_h > 24
    (138, 450, 57, True)
    """

    runs: int
    """Left to do."""
    hours: float
    """Of one run after the other."""
    gpu_hours: float
    sources: Mapping[str, int]
    """How many expectations come from ``history``, what was ``measured``, the ``published`` hours, the ``default``."""
    one_by_one: bool = False
    """Nothing runs beside another."""
    gpus: int | None = None
    """Of the cluster; None where none was given."""
    nodes: int | None = None
    makespan_h: float | None = None
    """Hours from the launch to the last run's end."""

    def totals(self) -> dict[str, float | int | None]:
        """Return the forecast as columns that stand beside every run.

        Examples
        --------
        >>> Forecast(3, 5.0, 12.0, {"published": 3}).totals()
        {'runs_to_do': 3, 'total_hours': 5.0, 'total_gpu_hours': 12.0, 'makespan_hours': None}
        """
        return {
            "runs_to_do": self.runs,
            "total_hours": self.hours,
            "total_gpu_hours": self.gpu_hours,
            "makespan_hours": self.makespan_h,
        }

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
            "measured": "measured windows a second",
            "published": "published hours",
            "default": "the family's default rate",
        }
        known = ", ".join(f"{n:,} from {named[source]}" for source, n in self.sources.items() if n)
        return (told, f"expected times: {known}") if self.runs else (told,)


@dataclass(frozen=True)
class Place:
    """Where a plan's runs are expected to go."""

    options: LaunchOptions = field(default_factory=LaunchOptions)
    """What they may use there."""
    hosts: Sequence[Host] | None = None
    """None where they are not known: no end of the whole is expected then."""
    device: str | None = None
    """What they run on, as ``expected_seconds`` takes it."""
    assumed: bool = False
    """Nobody has said where: it is this machine, as it is."""

    def told(self) -> str:
        """Return in a line for which machine is planned.

        Examples
        --------
        >>> Place(device="cpu", assumed=True).told().partition(":")[0]
        'planned for the processor of this machine, which has no GPU'
        """
        if self.assumed and self.device == CPU:
            return (
                "planned for the processor of this machine, which has no GPU: "
                "--gpu plans for GPUs, --gpus N for a cluster with so many"
            )
        if self.hosts is not None and self.options.address is not None:
            return f"planned for the cluster at {self.options.address}"
        if self.hosts is not None and not self.options.cpu:
            return "planned for a cluster that is imagined (--gpus)"
        where = "the processor" if self.device == CPU else f"GPUs ({self.device})" if self.device else "GPUs"
        return f"planned for {where} of {'this machine' if self.assumed else 'a machine that has what runs ask for'}"

    @property
    def one_by_one(self) -> bool:
        """Whether what is told are the hours of one run after the other: nothing is known of what runs beside what."""
        return self.hosts is None and (self.options.cpu or self.options.executor == "inline")


def place_of(options: LaunchOptions, gpus: int | None = None, gpus_per_node: int = 8, *, on_gpus: bool = True) -> Place:
    """Return where runs would go with these options of a launch: a running cluster, or so many imagined GPUs.

    Parameters
    ----------
    options
        How they would be run.
    gpus, gpus_per_node
        Imagined.
    on_gpus
        Somebody has said that there are GPUs. Else, with no cluster, it is this machine: without GPUs where it has
        none.

    Raises
    ------
    SegbenchError
        Both a cluster and imagined GPUs are asked for, fewer than one, or the cluster cannot be reached.
    """
    for name, given in (("gpus", gpus), ("gpus_per_node", gpus_per_node)):
        if given is not None and given < 1:
            raise SegbenchError(f"{name} is {given}; expect the time on at least 1")
    if options.address is not None and gpus is not None:
        raise SegbenchError("give one of --address (that cluster) and --gpus (an imagined one), found both")
    assumed = not on_gpus and not options.cpu and options.address is None and gpus is None
    assumed = assumed and options.accelerator is None
    if assumed and not visible_gpus():
        return Place(options.changed(cpu=True), device=CPU, assumed=True)
    device = CPU if options.cpu else options.accelerator
    if options.executor == "inline":
        return Place(options, device=device)
    if options.address is not None:
        hosts, found = connected_cluster(options.address)
        # its memory is asked for by a launch alone: what is not known is taken to be enough
        hosts = [dataclasses.replace(host, gpu_memory_gb=host.gpu_memory_gb or math.inf) for host in hosts]
        return Place(options, hosts, device or found)
    if gpus is not None:
        imagined = [
            Host(node, options.accelerator, math.inf, options.labels) for node in uniform_nodes(gpus, gpus_per_node)
        ]
        return Place(options, imagined, device or GPU)
    return Place(options, device=device, assumed=assumed)


def forecast(planned: Sequence[Planned], place: Place | None = None) -> Forecast:
    """Return what the runs that are not done would take; where nodes are known they are placed as a launch places them.

    Raises
    ------
    SegbenchError
        No node can hold one of the runs.
    """
    place = place or Place()
    left = [one for one in planned if one.status != Status.DONE]
    sources = Counter(one.expected.source for one in left)
    known = Forecast(
        runs=len(left),
        hours=sum(one.expected.seconds for one in left) / 3600,
        gpu_hours=sum(one.gpu_hours for one in left),
        sources={source: sources[source] for source in ("history", "measured", "published", "default")},
        one_by_one=place.one_by_one,
    )
    if place.hosts is None:
        return known
    nodes = [host.node for host in place.hosts]
    gpus = 0 if place.options.cpu else sum(node.gpus for node in nodes)
    fitter = Fitter(place.hosts, gpus > 0, place.options.accelerator, place.options.labels)
    asks = [Ask(one.run.id, fitter.fit(one.run).shape, one.expected.seconds) for one in left]
    return dataclasses.replace(
        known,
        gpus=gpus,
        nodes=len(nodes),
        makespan_h=simulate(asks, nodes).makespan_s / 3600,
        gpu_hours=known.gpu_hours if gpus else 0.0,
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
