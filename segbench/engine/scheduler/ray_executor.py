"""Runs attempts as Ray tasks, each on the node that the placer has chosen."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from segbench.engine.grid import Run
from segbench.engine.order import CPU, Placer, Shape, device_of
from segbench.engine.results.statuses import Status
from segbench.engine.run.request import AttemptRequest
from segbench.engine.scheduler.cluster import Cluster
from segbench.engine.scheduler.executor import Attempt, Ended, Executor
from segbench.engine.scheduler.metrics import GridMetrics
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.placement import Fitted
from segbench.engine.scheduler.ray_session import Session, connected, set_ray_environment

_NODES_EVERY_S = 5.0


@contextlib.contextmanager
def on_ray(
    options: LaunchOptions, attempt: Attempt, gpu_memory: bool = False, ahead_s: float = -math.inf
) -> Iterator[Executor]:
    """Be connected to the Ray that the options name, as an executor.

    Parameters
    ----------
    options
        Which Ray, and what the runs' nodes must have.
    attempt
        What a task does.
    gpu_memory
        Whether the memory of the GPUs must be known.
    ahead_s
        Runs that are expected to last no longer are handed to Ray one ahead.

    Raises
    ------
    SegbenchError
        Ray cannot be reached or started.
    """
    set_ray_environment(options)
    with connected(options) as session:
        executor = RayExecutor(options, attempt, gpu_memory, ahead_s, session)
        try:
            yield executor
        finally:
            executor.close()


class RayExecutor(Executor):
    """Hands attempts to a connected Ray as soon as a node has room, so that Ray holds no queue of its own.

    Parameters
    ----------
    options, attempt, gpu_memory, ahead_s
        As ``on_ray`` takes them.
    session
        The connection.
    """

    def __init__(
        self, options: LaunchOptions, attempt: Attempt, gpu_memory: bool, ahead_s: float, session: Session
    ) -> None:
        self._options, self._attempt, self._gpu_memory, self._session = options, attempt, gpu_memory, session
        self.dashboard = session.dashboard
        self.local = options.address is None
        self._lost: list[str] = []
        self._take_over()
        self._ahead_s = ahead_s
        self._waiting: dict[str, tuple[Run, float]] = {}
        self._shapes: dict[str, Shape] = {}
        self._asked: Counter[Shape] = Counter()
        self._chosen: dict[str, str] = {}
        self._running: dict[Any, str] = {}
        self._looked = time.monotonic()

    def _take_over(self) -> None:
        """Make what belongs to the Ray that is connected now."""
        import ray

        self._cluster = Cluster(self._options, self._gpu_memory)
        self.use_gpu = self._cluster.use_gpu
        self.device = device_of(ray.nodes()) if self.use_gpu else CPU
        # max_calls=0: the method's subprocess holds the GPU's memory, not the worker, so the worker can be kept
        self._ray_task = ray.remote(max_retries=0, max_calls=0)(self._attempt)
        self._placer = Placer(self._cluster.nodes)
        self._metrics = GridMetrics()

    def _begin_again(self) -> None:
        """Go on with a new local Ray: what ran on the one that died is lost, what waits goes on waiting."""
        self._cluster.stop()
        self._lost += self._running.values()
        self._running.clear()
        self._session.start_again()
        self._take_over()
        self._asked.clear()
        self._shapes.clear()  # of nodes that are gone
        for run_id, (run, _) in self._waiting.items():
            self._shapes[run_id] = self.fit(run).shape
            self._wait(run_id)

    @property
    def gpus(self) -> int:
        """GPUs of the cluster."""
        return sum(node.gpus for node in self._cluster.nodes)

    @property
    def gpus_in_use(self) -> float:
        """GPUs that are taken, shares added up."""
        return self._placer.gpus_in_use

    def fit(self, run: Run) -> Fitted:
        """Return what a run gets on the nodes as they are now."""
        return self._cluster.fit(run)

    def add(self, run: Run, seconds: float) -> None:
        """Let a run wait; one that is tried again keeps its shape."""
        if run.id not in self._shapes:
            self._shapes[run.id] = self.fit(run).shape
        self._waiting[run.id] = run, seconds
        self._wait(run.id)

    def ready(self) -> list[str]:
        """Return what has room now, the longest first, and of brief runs one ahead."""
        placed = (*self._placer.next(time.monotonic()), *self._placer.behind(self._ahead_s))
        for one in placed:
            del self._waiting[one.key]
            self._asked[self._shapes[one.key]] -= 1
            self._chosen[one.key] = one.node
        return [one.key for one in placed]

    def submit(self, request: AttemptRequest) -> None:
        """Hand the attempt to Ray, for the node that was chosen."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        run = request.run
        shape, node = self._shapes[run.id], self._chosen.pop(run.id)
        reference = self._ray_task.options(
            num_cpus=shape.cpus,
            num_gpus=shape.gpus,
            memory=int(shape.memory_gb * 1e9),
            name=f"{run.method} {run.task.name} {run.train_tissue} {run.id}",
            # where any node will do, another may take it if this one has just died
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=shape.nodes is None),
        ).remote(request)
        self._running[reference] = run.id

    def wait(self, timeout_s: float, meanwhile: Callable[[], None]) -> list[Ended]:  # noqa: ARG002 - the nodes work
        """Wait until a task ends, and return all that have."""
        import ray

        if self._lost:
            lost, self._lost = self._lost, []
            return [
                Ended(run_id, lambda: (Status.LOST, "the local Ray died, and was started again")) for run_id in lost
            ]
        ready, rest = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        ended = []
        for reference in ready:
            run_id = self._running.pop(reference)
            self._placer.ended(run_id)
            ended.append(Ended(run_id, functools.partial(_ray_end, reference)))
        return ended

    def cancel(self) -> None:
        """Let Ray interrupt every task."""
        import ray

        for reference in self._running:
            ray.cancel(reference, force=False)

    def suspect(self) -> None:
        """Look at the nodes at the next tick."""
        self._looked = -math.inf

    def refresh(self) -> None:
        """Take over the cluster as it is now, and ask an autoscaler for what is missing."""
        now = time.monotonic()
        if now - self._looked < _NODES_EVERY_S:
            return
        self._looked = now
        if self._session.died():
            self._begin_again()
            return
        if self._cluster.refresh():
            self._placer.set_nodes(self._cluster.nodes)
            for run_id, (run, _) in self._waiting.items():
                # where only some nodes will do, those may have changed
                old = self._shapes[run_id]
                shape = old if old.nodes is None else self._cluster.fit(run).shape
                if shape != old and self._placer.remove(run_id):
                    self._asked[old] -= 1
                    self._shapes[run_id] = shape
                    self._wait(run_id)
        self._cluster.ask_for(+self._asked)

    def tell(self, ended: Mapping[str, int], waiting: int, running: int) -> None:
        """Set Ray's metrics."""
        self._metrics.tell(ended, waiting, running, self.gpus_in_use, self.gpus)

    def close(self) -> None:
        """Ask the cluster for nothing more."""
        self._cluster.stop()

    def _wait(self, run_id: str) -> None:
        shape = self._shapes[run_id]
        self._placer.add(run_id, shape, self._waiting[run_id][1])
        self._asked[shape] += 1


_NOT_IMPORTED = "failed to import on the worker"
"""In what Ray says of an attempt that did not begin: a library is not on that node, or two of the worker's threads
imported NumPy at the same time, which ends in a RecursionError now and then."""


def _ray_end(reference: Any) -> tuple[Status, str]:
    """Return how a task ended as far as Ray knows, for an attempt that left no record."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return Status.CANCELLED, "cancelled before it began"
    except ray.exceptions.RayTaskError as error:
        said = str(error.cause)
        if _NOT_IMPORTED in said:
            return Status.LOST, f"its worker could not import segbench: {said.strip().splitlines()[-1]}"
        return Status.FAILED, f"{type(error.cause).__name__}: {said}"
    except ray.exceptions.OutOfMemoryError:
        return (
            Status.OUT_OF_MEMORY,
            "its node ran out of memory, and Ray ended the attempt: reserve more with --memory-gb",
        )
    except ray.exceptions.RayError as error:
        return Status.LOST, f"the worker died: {type(error).__name__}: {str(error).splitlines()[0]}"
    return Status.LOST, "the attempt left no record"
