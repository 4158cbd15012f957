"""What Ray tells of its nodes, in the words of the order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from segbench.engine.order.expectation import GPU
from segbench.engine.order.measured import CPU
from segbench.engine.order.placer import Node

_KIND = "accelerator_type:"


def nodes_of(ray_nodes: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Return the living nodes among those that ``ray.nodes()`` gives, with what each has in all.

    Examples
    --------
    >>> nodes_of([{"Alive": True, "NodeID": "f0", "Resources": {"CPU": 16.0, "GPU": 4.0, "memory": 64e9}}])
    [Node(id='f0', gpus=4, cpus=16.0, memory_gb=64.0)]
    """
    return [
        Node(
            id=node["NodeID"],
            gpus=int(node["Resources"].get("GPU", 0)),
            cpus=node["Resources"].get("CPU", 0.0),
            memory_gb=node["Resources"].get("memory", 0.0) / 1e9,
        )
        for node in ray_nodes
        if node["Alive"]
    ]


def device_of(ray_nodes: Iterable[Mapping[str, Any]]) -> str:
    """Return the GPUs' kind as Ray names it; ``gpu`` where it names none or several, ``cpu`` where there is no GPU.

    Examples
    --------
    >>> device_of([{"Alive": True, "Resources": {"CPU": 1.0, "GPU": 4.0, "accelerator_type:A100": 1.0}}])
    'A100'
    """
    resources = [node["Resources"] for node in ray_nodes if node["Alive"]]
    if not any(held.get("GPU", 0) for held in resources):
        return CPU
    kinds = {name.removeprefix(_KIND) for held in resources for name in held if name.startswith(_KIND)}
    return kinds.pop() if len(kinds) == 1 else GPU
