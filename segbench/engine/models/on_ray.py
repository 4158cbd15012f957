"""Applies a model on the nodes of a Ray cluster: an image a task, and of a large image some rows of windows a task."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.engine.grid.cards import get_card
from segbench.engine.models.applying import Applied, ApplyOptions, one_image
from segbench.engine.models.images import ImageFile
from segbench.engine.models.predictor import Predictor
from segbench.engine.models.trained import TrainedModel
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.ray_session import connected, set_ray_environment
from segbench.errors import SegbenchError
from segbench.methods.predictions import Instances

LOCAL = "local"
"""Stands for a Ray that is started on this machine, closed to others, and ends with the call."""
TRIES = 3
"""How often an image, or some rows of windows, are begun where the worker or its node dies."""
_LOOK_S = 15.0
_Told = Callable[[ImageFile, float], None]


@dataclass(frozen=True)
class Share:
    """What one worker gets of a node."""

    cpus: int
    gpus: float


class Worker:
    """Holds a model in the method's process on a node; made there by Ray."""

    def __init__(self, model: TrainedModel, share: Share) -> None:
        self._model, self._predictor = model, Predictor(model, use_gpu=share.gpus > 0, num_cpus=share.cpus)

    def image(self, image: ImageFile, to: Path, options: ApplyOptions) -> Applied:
        """Segment a whole image and write its results."""
        return one_image(self._model, self._predictor, image, to, options, lambda _: None)

    def windows(self, windows: npt.NDArray[np.float32]) -> list[Instances]:
        """Return the instances of some windows."""
        self._predictor.ask(windows)
        return self._predictor.answer()

    def close(self) -> None:
        """End the method's process."""
        self._predictor.close()


def share_of(model: TrainedModel, *, use_gpu: bool) -> Share:
    """Return what a worker of a model gets: the cores and the share of a GPU that its method's card names."""
    asked = get_card(model.method).resources
    return Share(max(1, int(asked.num_cpus)), min(1.0, asked.num_gpus) if use_gpu else 0.0)


def room_for(nodes: Sequence[dict[str, Any]], share: Share) -> int:
    """Return how many workers the living nodes hold together, all that they have.

    Examples
    --------
    >>> nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}]
    >>> room_for(nodes, Share(1, 0.5)), room_for(nodes, Share(3, 0.0)), room_for(nodes, Share(16, 0.0))
    (4, 2, 0)
    """
    total = 0
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            by_cpu = int(has.get("CPU", 0.0) // share.cpus)
            total += min(by_cpu, int(has.get("GPU", 0.0) / share.gpus + 1e-9)) if share.gpus else by_cpu
    return total


class Pool:
    """Workers on the nodes; a dead one is replaced. It predicts windows as a ``Predictor`` does, with all of them.

    Parameters
    ----------
    model, share
        What each worker holds.
    size
        How many they are.
    """

    def __init__(self, model: TrainedModel, share: Share, size: int) -> None:
        import ray

        actor: Any = ray.remote(max_restarts=0)(Worker)
        self._actor = actor.options(num_cpus=share.cpus, num_gpus=share.gpus)
        self._held = model, share
        self.workers: list[Any] = [self._new() for _ in range(size)]
        self._turn = 0
        self._open: deque[tuple[Any, int, Any]] = deque()

    @property
    def ahead(self) -> int:
        """Batches of windows that are asked for before the first is needed."""
        return 2 * len(self.workers)

    def ask(self, windows: npt.NDArray[np.float32]) -> None:
        """Ask the next worker for the instances of windows."""
        import ray

        stored, self._turn = ray.put(windows), (self._turn + 1) % len(self.workers)
        self._open.append((self.workers[self._turn].windows.remote(stored), self._turn, stored))

    def answer(self) -> list[Instances]:
        """Return the instances of the windows that were asked for first; raises as ``Predictor.answer`` does."""
        import ray

        reference, place, stored = self._open.popleft()
        for left in reversed(range(TRIES)):
            try:
                found: list[Instances] = result_of(reference)
                return found
            except ray.exceptions.RayError as error:
                if not left:
                    raise SegbenchError(f"its workers died {TRIES} times: {_why(error)}") from None
                # what else was asked of the dead one is asked again in its turn
                self.replace(place)
                reference = self.workers[place].windows.remote(stored)
        raise AssertionError

    def forget(self) -> None:
        """Drop what is still unanswered."""
        import ray

        for reference, _, _ in self._open:
            ray.cancel(reference, force=False)
        self._open.clear()

    def replace(self, place: int) -> None:
        """Put a new worker in the place of a dead one, unless one that lives is there already."""
        import ray

        probe = self.workers[place].__ray_ready__.remote()
        try:
            ray.get(probe, timeout=_LOOK_S)
        except ray.exceptions.GetTimeoutError:
            return
        except ray.exceptions.RayError:
            self.workers[place] = self._new()

    def _new(self) -> Any:
        return self._actor.remote(*self._held)

    def close(self) -> None:
        """End all workers."""
        import ray

        asked = [worker.close.remote() for worker in self.workers]
        ray.wait(asked, num_returns=len(asked), timeout=_LOOK_S)
        for worker in self.workers:
            ray.kill(worker)


def result_of(reference: Any) -> Any:
    """Return a task's result; raises SegbenchError where the task fails, and Ray's own where its worker dies."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SegbenchError):
            raise cause from None
        raise SegbenchError(f"{type(cause).__name__}: {cause}") from None


def each_on_ray(
    model: TrainedModel, images: Sequence[ImageFile], to: Path, options: ApplyOptions, address: str, told: _Told,
    note: Callable[[str], None],
) -> Iterator[Applied]:  # fmt: skip
    """Yield what becomes of each image, as it is done, on the nodes of a cluster; their results are then written.

    An image is a task, with a worker for itself. Those of 256 MiB and more, and all where they are fewer than workers
    that the nodes hold, are cut and put together here, one after the other, and all workers predict their windows.

    Parameters
    ----------
    model, images, to, options
        As ``applying.apply`` takes them; the folders are the same on all nodes.
    address
        Of the cluster, as Ray takes it, or ``local``.
    told
        Is told which share of an image is done.
    note
        Is told what the user should know.

    Raises
    ------
    SegbenchError
        The cluster cannot be reached, or no node has what a worker needs.
    """
    folder = None if model.folder is None else model.folder.absolute()
    model, to = dataclasses.replace(model, folder=folder), to.absolute()
    ray_of = LaunchOptions(address=None if address == LOCAL else address, cpu=not options.use_gpu)
    set_ray_environment(ray_of)
    import ray  # reads that

    with connected(ray_of):
        nodes = ray.nodes()
        gpus = sum(node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"])
        share = share_of(model, use_gpu=options.use_gpu and gpus > 0)
        room = room_for(nodes, share)
        if not room:
            wanted = f"{share.cpus} cores" + (f" and {share.gpus:g} GPU" if share.gpus else "")
            raise SegbenchError(f"no node of {address} has the {wanted} that {model.method} asks for")
        cut = [one for one in images if len(images) < room or one.size() >= spool.LARGE_BYTES]
        whole = [one for one in images if one not in cut]
        size = room if cut else min(room, len(whole))
        note(f"{size} workers on {sum(bool(node['Alive']) for node in nodes)} nodes of {address}")
        pool = Pool(model, share, size)
        try:
            _wait_for_room(pool, note)
            yield from _whole_images(pool, whole, to, options, told)
            for image in cut:
                yield one_image(model, pool, image, to, options, lambda own, i=image: told(i, own))  # type: ignore[misc]
        finally:
            pool.close()


def _wait_for_room(pool: Pool, note: Callable[[str], None]) -> None:
    """Wait until the first worker lives; tell where that takes long."""
    import ray

    ready = [worker.__ray_ready__.remote() for worker in pool.workers]
    living = ray.wait(ready, num_returns=1, timeout=_LOOK_S)[0]
    if not living:
        note("note: the cluster has no room yet, or builds the method's environment: waiting")
        living = ray.wait(ready, num_returns=1)[0]
    try:
        ray.get(living)
    except ray.exceptions.RayError as error:
        raise SegbenchError(f"no worker can be started: {_why(error)}") from None


def _whole_images(
    pool: Pool, images: Sequence[ImageFile], to: Path, options: ApplyOptions, told: _Told
) -> Iterator[Applied]:
    """Give each worker an image, and another once that is done."""
    import ray

    waiting = deque((image, 0) for image in images)
    free, running = deque(range(len(pool.workers))), dict[Any, tuple[ImageFile, int, int, float]]()
    while waiting or running:
        while waiting and free:
            (image, tries), place = waiting.popleft(), free.popleft()
            told(image, 0.0)
            began = time.monotonic()
            running[pool.workers[place].image.remote(image, to, options)] = image, place, tries + 1, began
        for reference in ray.wait(list(running), num_returns=1)[0]:
            image, place, tries, began = running.pop(reference)
            free.append(place)
            try:
                one: Applied = result_of(reference)
            except ray.exceptions.RayError as error:
                pool.replace(place)
                if tries < TRIES:
                    waiting.append((image, tries))
                    continue
                why = f"its workers died {TRIES} times: {_why(error)}"
                one = Applied(image.path, image.name, error=why, seconds=time.monotonic() - began)
            yield one


def _why(error: Exception) -> str:
    """Return the line of an error of Ray's that says most: of a worker that was never made the last."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if "creation task" in lines[0] else 0].strip()[:200]
