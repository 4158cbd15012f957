"""Which nodes may hold a run, what it gets there, and what is said where none may."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card
from segbench.engine.order import Node, Shape, nodes_of
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.card import Resources

ACCELERATOR_LABEL = "ray.io/accelerator-type"
GPU_MEMORY_LABEL = "segbench.io/gpu-memory-gb"
"""Label by which a node tells the memory of each of its GPUs in gigabytes, where nvidia-smi cannot."""
_ACCELERATOR = "accelerator_type:"
_UNITS = {
    "": 1.0,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}


@dataclass(frozen=True)
class Host:
    """A node of the cluster, or a kind of node that its autoscaler can start."""

    node: Node
    accelerator: str | None = None
    """Kind of its GPUs, as Ray names it."""
    gpu_memory_gb: float | None = None
    """Of each GPU; None where it is not known."""
    labels: Mapping[str, str] = field(default_factory=dict)
    planned: bool = False
    """A kind of node that the autoscaler can start, not one that runs."""


@dataclass(frozen=True)
class Fitted:
    """A run with what it gets."""

    resources: Resources
    shape: Shape
    notes: tuple[str, ...]
    """What differs from what was asked, in one line each."""


def hosts_of(ray_nodes: Iterable[Mapping[str, Any]], gpu_memory: Mapping[str, float] | None = None) -> list[Host]:
    """Return the living nodes among those that ``ray.nodes()`` gives.

    Parameters
    ----------
    ray_nodes
        As Ray gives them.
    gpu_memory
        Measured gigabytes of each GPU, by node id, for nodes without the label.

    Examples
    --------
    >>> node = {"Alive": True, "NodeID": "f0", "Resources": {"CPU": 8.0, "GPU": 4.0, "accelerator_type:A100": 1.0}}
    >>> hosts_of([node], {"f0": 40.0})[0].accelerator, hosts_of([node], {"f0": 40.0})[0].gpu_memory_gb
    ('A100', 40.0)
    """
    living = {node["NodeID"]: node for node in ray_nodes if node["Alive"]}
    hosts = []
    for node in nodes_of(living.values()):
        raw = living[node.id]
        labels = dict(raw.get("Labels") or {})
        known = labels.get(GPU_MEMORY_LABEL, (gpu_memory or {}).get(node.id))
        hosts.append(Host(node, _accelerator(raw["Resources"], labels), _number(known), labels))
    return hosts


def planned_hosts(config: Mapping[str, Any]) -> list[Host]:
    """Return the kinds of worker nodes that an autoscaler can start.

    Parameters
    ----------
    config
        What it was started with: the file of ``ray up`` (``available_node_types``),
        or KubeRay's manifest of a ``RayCluster``.

    Raises
    ------
    SegbenchError
        It is neither.

    Examples
    --------
    >>> kinds = {"gpu": {"resources": {"CPU": 48, "GPU": 4}, "labels": {"zone": "a"}, "max_workers": 2}}
    >>> planned_hosts({"available_node_types": kinds})[0].node
    Node(id='(gpu)', gpus=4, cpus=48.0, memory_gb=inf)
    """
    try:
        if config.get("kind") == "RayCluster":
            groups = {group["groupName"]: _kuberay_group(group) for group in config["spec"]["workerGroupSpecs"]}
        else:
            head = config.get("head_node_type")
            groups = {name: group for name, group in config["available_node_types"].items() if name != head}
        return [_planned(name, group) for name, group in groups.items() if group.get("max_workers") != 0]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SegbenchError(f"this is neither a file of 'ray up' nor a manifest of a RayCluster: {error!r}") from None


def _planned(name: str, group: Mapping[str, Any]) -> Host:
    held, labels = group["resources"], dict(group.get("labels") or {})
    memory = held.get("memory")
    node = Node(
        f"({name})", int(held.get("GPU", 0)), float(held.get("CPU", math.inf)), memory / 1e9 if memory else math.inf
    )
    return Host(node, _accelerator(held, labels), _number(labels.get(GPU_MEMORY_LABEL)), labels, planned=True)


def _kuberay_group(group: Mapping[str, Any]) -> dict[str, Any]:
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    resources = {"CPU": _quantity(limits["cpu"]), "GPU": _quantity(limits.get("nvidia.com/gpu", 0))}
    if "memory" in limits:
        resources["memory"] = _quantity(limits["memory"])
    return {"resources": resources, "labels": group.get("labels"), "max_workers": group.get("maxReplicas")}


def _quantity(text: object) -> float:
    """Return a Kubernetes quantity as a number, such as 1.5 of ``1500m`` and 2**30 of ``1Gi``."""
    number = str(text).rstrip("mkMGTKi")
    return float(number) * _UNITS[str(text)[len(number) :]]


class Fitter:
    """Says for each run where it may go and what it gets there.

    Parameters
    ----------
    hosts
        The cluster's nodes and, where it has an autoscaler, the kinds that it can start.
    use_gpu
        False where runs get no GPU.
    accelerator, labels
        What every run's node must have; the first concerns runs with a GPU alone.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        use_gpu: bool,
        accelerator: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._hosts = hosts
        self._use_gpu = use_gpu
        self._accelerator = accelerator
        self._labels = dict(labels or {})
        # there are few kinds of runs, and many runs
        self._fit = functools.cache(self._fit_kind)

    def fit(self, run: Run) -> Fitted:
        """Return what a run gets.

        Raises
        ------
        SegbenchError
            No node can ever hold it; the error names the nearest that would be held.
        """
        return self._fit(run.method, run.task.name, run.resources)

    def _fit_kind(self, method: str, task: str, asked: Resources) -> Fitted:
        card, notes = get_card(method), []
        gpus = asked.num_gpus if self._use_gpu else 0.0
        if gpus > 1 and not (card.trained and card.data_parallel):
            why = "trains on one GPU" if card.trained else "is not trained"
            notes.append(f"{method} {why}: it gets 1 GPU, not {gpus:g}")
            gpus = 1.0
        hosts = self._allowed(method, gpus, asked.gpu_memory_gb)
        fitting = [
            h.node for h in hosts if h.node.gpus >= gpus and h.node.memory_gb >= asked.memory_gb and h.node.cpus > 0
        ]
        if not fitting:
            raise SegbenchError(_refusal(method, task, gpus, asked.memory_gb, hosts))
        cpus, most = max(asked.num_cpus, _with_gpus(asked, gpus, fitting)), max(node.cpus for node in fitting)
        if cpus > most:
            if most < 1:
                raise SegbenchError(f"{method} on {task} needs at least one CPU on its node; the largest has {most:g}")
            notes.append(f"{method} asks for {cpus:g} cores, the largest node has {most:g}: it gets those")
            cpus = most
        anywhere = len(hosts) == len(self._hosts)
        nodes = None if anywhere else frozenset(host.node.id for host in hosts if not host.planned)
        given = dataclasses.replace(
            asked, num_gpus=gpus if self._use_gpu else asked.num_gpus, num_cpus=float(cpus), gpu_cpus=0.0
        )
        return Fitted(given, Shape(gpus, float(cpus), asked.memory_gb, nodes), tuple(notes))

    def _allowed(self, method: str, gpus: float, gpu_memory_gb: float | None) -> list[Host]:
        # of a kind of node that does not run yet, what is not known is taken to be right
        hosts = [
            host
            for host in self._hosts
            if self._labels.items() <= host.labels.items() or (host.planned and not host.labels)
        ]
        if not hosts:
            wanted = ", ".join(f"{key}={value}" for key, value in self._labels.items())
            known = sorted({f"{k}={v}" for h in self._hosts for k, v in h.labels.items() if k != "ray.io/node-id"})
            raise SegbenchError(f"no node has --label {wanted}; the nodes have: {', '.join(known) or 'no labels'}")
        if gpus == 0:
            return hosts
        if self._accelerator is not None:
            kinds = {host.accelerator for host in hosts if host.accelerator}
            named = [
                host
                for host in hosts
                if (host.accelerator or "").lower() == self._accelerator.lower()
                or (host.planned and host.node.gpus and host.accelerator is None)
            ]
            if not named:
                raise unknown_name("accelerator (on this cluster)", self._accelerator, kinds)
            hosts = named
        if gpu_memory_gb is not None:
            with_gpu = [host for host in hosts if host.node.gpus]
            hosts = [
                host
                for host in with_gpu
                if (host.gpu_memory_gb or (math.inf if host.planned else 0.0)) >= gpu_memory_gb
            ]
            if not hosts:
                known_gb = sorted({host.gpu_memory_gb for host in with_gpu if host.gpu_memory_gb})
                told = (
                    f"the largest here have {known_gb[-1]:g} GB" if known_gb else "that of the GPUs here is not known"
                )
                raise SegbenchError(
                    f"{method} needs GPUs with {gpu_memory_gb:g} GB of memory, {told}: "
                    f"change it with --gpu-memory-gb, or tell a node's with 'ray start --labels {GPU_MEMORY_LABEL}=GB'"
                )
        return hosts


def _with_gpus(asked: Resources, gpus: float, nodes: Sequence[Node]) -> float:
    """Return the cores that go with GPUs: no more than a node's share, or GPUs would be left without cores."""
    return min(asked.gpu_cpus, max((node.cpus / node.gpus for node in nodes if node.gpus), default=0.0)) * gpus


def _refusal(method: str, task: str, gpus: float, memory_gb: float, hosts: Sequence[Host]) -> str:
    asked = f"{method} on {task} asks for {gpus:g} GPUs and {memory_gb:g} GB of memory on one node"
    useful = [host.node for host in hosts if host.node.cpus > 0 and (host.node.gpus or not gpus)]
    if not useful:
        return (
            f"{asked}; no node here has {'a GPU' if gpus else 'a CPU'} that a run may use: run with --cpu, or add nodes"
        )

    def kept(node: Node) -> float:
        """Return which part of what was asked would be left."""
        return min(1.0, node.gpus / gpus if gpus else 1.0) * min(1.0, node.memory_gb / memory_gb)

    nearest = max(useful, key=kept)
    changes = []
    if nearest.gpus < gpus:
        changes.append(f"--num-gpus {nearest.gpus}")
    if nearest.memory_gb < memory_gb:
        changes.append(f"--memory-gb {math.floor(nearest.memory_gb * 10) / 10:g}")
    return f"{asked}, which no node has; the nearest that fits: {' '.join(changes)}"


def _accelerator(resources: Mapping[str, Any], labels: Mapping[str, str]) -> str | None:
    named = [name.removeprefix(_ACCELERATOR) for name in resources if name.startswith(_ACCELERATOR)]
    return labels.get(ACCELERATOR_LABEL) or (named[0] if named else None)


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
