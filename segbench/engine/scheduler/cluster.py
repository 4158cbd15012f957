"""The cluster as a launch sees it: its nodes now, those that its autoscaler could start, and what is asked of that."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segbench.engine.grid import Run
from segbench.engine.order import Node, Shape
from segbench.engine.scheduler.gpus import smallest_gpu_gb
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.placement import Fitted, Fitter, hosts_of, planned_hosts
from segbench.errors import SegbenchError

_BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where ``ray up`` leaves its file on the head."""
_MOST_PILOTS = 64
_PROBE_S = 60.0


class Cluster:
    """Ray's nodes, made once Ray is connected.

    Parameters
    ----------
    options
        What the runs' nodes must have.
    gpu_memory
        Whether the memory of the GPUs must be known.
    """

    def __init__(self, options: LaunchOptions, gpu_memory: bool = False) -> None:
        import ray

        self._options = options
        self._needs_gpu_memory = gpu_memory and not options.cpu
        self._gpu_memory: dict[str, float] = {}
        config = _autoscaler_config(options)
        self._planned = [] if config is None else planned_hosts(config)
        self._pilots: dict[Any, Shape] = {}
        self._pilot = ray.remote(max_retries=0, max_calls=0)(_nothing)
        self.nodes: list[Node] = []
        self.refresh()
        hosts = [host.node for host in (*self._hosts, *self._planned)]
        self.use_gpu = not options.cpu and any(node.gpus for node in hosts)
        self._fitter = self._new_fitter()

    def refresh(self) -> bool:
        """Ask Ray for its nodes; return whether they have changed."""
        import ray

        told = ray.nodes()
        if self._needs_gpu_memory:
            self._probe(told)
        self._hosts = hosts_of(told, self._gpu_memory)
        nodes = [host.node for host in self._hosts]
        if nodes == self.nodes:
            return False
        self.nodes = nodes
        return True

    def fit(self, run: Run) -> Fitted:
        """Return what a run gets on the nodes as they are now; raises SegbenchError where none can ever hold it."""
        if self._fitter_nodes is not self.nodes:
            self._fitter = self._new_fitter()
        return self._fitter.fit(run)

    def ask_for(self, waiting: Mapping[Shape, int]) -> None:
        """Let an autoscaler know what waits, by tasks of the same shape that do nothing and end with this process."""
        import ray

        if not self._planned:
            return
        if self._pilots:
            for reference in ray.wait(list(self._pilots), num_returns=len(self._pilots), timeout=0)[0]:
                del self._pilots[reference]
        for reference in [r for r, shape in self._pilots.items() if not waiting.get(shape)]:
            ray.cancel(reference, force=False)
            del self._pilots[reference]
        # an autoscaler starts no node for what its file does not tell of it
        told = any(math.isfinite(host.node.memory_gb) for host in self._planned)
        for shape, n in waiting.items():
            missing = min(n, _MOST_PILOTS) - sum(asked == shape for asked in self._pilots.values())
            kind = {"accelerator_type": self._options.accelerator} if shape.gpus and self._options.accelerator else {}
            for _ in range(min(missing, _MOST_PILOTS - len(self._pilots))):
                reference = self._pilot.options(
                    num_cpus=shape.cpus,
                    num_gpus=shape.gpus,
                    memory=int(shape.memory_gb * 1e9) if told else None,
                    name="segbench waits",
                    label_selector=dict(self._options.labels),
                    **kind,
                ).remote()
                self._pilots[reference] = shape

    def stop(self) -> None:
        """Ask for nothing more."""
        import ray

        for reference in self._pilots:
            ray.cancel(reference, force=False)
        self._pilots.clear()

    def _new_fitter(self) -> Fitter:
        self._fitter_nodes = self.nodes
        return Fitter([*self._hosts, *self._planned], self.use_gpu, self._options.accelerator, self._options.labels)

    def _probe(self, told: list[dict[str, Any]]) -> None:
        """Measure the GPUs of nodes that were not seen before and have no label."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        probe = ray.remote(num_cpus=0, max_retries=0)(smallest_gpu_gb)
        asked = {
            probe.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(host.node.id, soft=False)
            ).remote(): host.node.id
            for host in hosts_of(told)
            if host.node.gpus and host.gpu_memory_gb is None and host.node.id not in self._gpu_memory
        }  # fmt: skip
        ready = ray.wait(list(asked), num_returns=len(asked), timeout=_PROBE_S)[0] if asked else []
        for reference in ready:
            with contextlib.suppress(ray.exceptions.RayError):
                self._gpu_memory[asked[reference]] = ray.get(reference)


def _nothing() -> None:
    """Show by waiting for a node that one is missing."""


def _autoscaler_config(options: LaunchOptions) -> dict[str, Any] | None:
    """Return what the cluster's autoscaler was started with, as far as this machine knows; Ray itself does not tell."""
    path = options.cluster_file
    if path is None:
        path = _BOOTSTRAP.expanduser()
        if options.address is None or not path.is_file():
            return None
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SegbenchError(f"cannot read the cluster file {path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SegbenchError(f"cannot read the cluster file {path}: it is no mapping")
    return content
