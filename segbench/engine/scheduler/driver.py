"""Runs every given run on Ray until each has ended: submission, following, retries, cancellation."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from segbench.engine.data import DatasetSpec
from segbench.engine.grid import Run, run_to_dict
from segbench.engine.grid.cards import get_card
from segbench.engine.order import Placer, Shape, device_of
from segbench.engine.results.launch_files import CANCEL_FILE, STATE_EVERY_S, write_driver_state, write_grid_file
from segbench.engine.results.mirror import fetch_record, push_or_mark, url_of
from segbench.engine.results.record import RECORD_NAME, Record, Status
from segbench.engine.results.store import StoreWriter
from segbench.engine.results.store.recovery import next_attempt
from segbench.engine.run import environments
from segbench.engine.run.attempt import AttemptRequest, Outcome, attempt_row, run_attempt
from segbench.engine.run.provenance import git_commit
from segbench.engine.scheduler.cluster import Cluster
from segbench.engine.scheduler.events import Finished, Note, Observer, Opened, Progressed, Started, Summary
from segbench.engine.scheduler.metrics import GridMetrics
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.placement import Fitted
from segbench.engine.scheduler.ray_session import Session, connected, set_ray_environment
from segbench.engine.scheduler.record_queue import RecordQueue
from segbench.engine.scheduler.retries import again
from segbench.errors import SegbenchError

Expect = Callable[[Run, str], float]
"""How many seconds a run is expected to take on a kind of device (``cpu``, or as Ray names its GPUs)."""

_TICK_S = 0.25
_FOLLOWED = 32
"""Running attempts whose progress is read a tick: files on a shared mount are slow to open."""
_NODES_EVERY_S = 5.0
_CANCEL_PATIENCE_S = 30.0
_BRIEF_S = 2.0


def execute(
    runs: Sequence[Run],
    datasets: Mapping[str, DatasetSpec],
    options: LaunchOptions,
    writer: StoreWriter,
    observe: Observer,
    attempt: Callable[[AttemptRequest], Outcome] = run_attempt,
    expect: Expect | None = None,
    listed: Sequence[Run] | None = None,
) -> Summary:
    """Run every given run on Ray until each has ended; the caller holds the driver's lock.

    A KeyboardInterrupt, or ``segbench grid cancel``, cancels what is left:
    subprocesses are ended, what had finished stays.

    Parameters
    ----------
    runs
        What is run.
    datasets
        By name.
    options
        How.
    writer
        Of the store; its results folder is the one that all is left in.
    observe
        Is told what happens.
    attempt
        What a Ray task does.
    expect
        The longest expected is run first; None for the order as given.
    listed
        What ``grid status`` and ``grid retry`` take for the launch's runs; None for those that are run.

    Raises
    ------
    SegbenchError
        Ray cannot be reached or started, no node can ever hold one of the runs, or results cannot be written.
    """
    set_ray_environment(options)
    import ray

    out = writer.out.absolute()
    (out / CANCEL_FILE).unlink(missing_ok=True)
    with connected(options) as session:
        cluster = Cluster(options, any(run.resources.gpu_memory_gb for run in runs))
        fitted = _fit_all(runs, cluster, observe)
        if options.address is None:
            for name in sorted({get_card(run.method).environment for run in runs}):
                environments.ensure(name, gpu=cluster.use_gpu, progress=lambda line: observe(Note(line)))
        device = device_of(ray.nodes()) if cluster.use_gpu else "cpu"
        driver = _Driver(
            datasets,
            out,
            options,
            writer,
            observe,
            cluster,
            session,
            attempt,
            -math.inf if expect is None else _BRIEF_S,
        )
        for run, given in zip(runs, fitted, strict=True):
            driver.add(
                dataclasses.replace(run, resources=given.resources),
                given,
                0.0 if expect is None else expect(run, device),
            )
        try:
            write_grid_file(out, map(run_to_dict, runs if listed is None else listed), {"options": options.saved()})
            observe(Opened(len(runs), session.dashboard))
            try:
                driver.work()
            except KeyboardInterrupt:
                driver.cancel()
            driver.tell_state(ended=True)
        except OSError as error:
            raise SegbenchError(
                f"cannot write results to {out}: {error.strerror or error}. Mend that and launch again: "
                "what had finished is kept, the rest is run then"
            ) from None
        finally:
            driver.close()
        return Summary(tuple(driver.outcomes.values()), driver.cancelled)


def _fit_all(runs: Sequence[Run], cluster: Cluster, observe: Observer) -> list[Fitted]:
    fitted = [cluster.fit(run) for run in runs]
    for note in dict.fromkeys(note for given in fitted for note in given.notes):
        observe(Note(note))
    return fitted


@dataclass
class _Task:
    """A run that has not ended."""

    run: Run
    shape: Shape
    seconds: float
    """Expected."""
    ended: Counter[Status] = field(default_factory=Counter)
    """Its attempts of this launch."""


@dataclass
class _Flight:
    """An attempt that Ray has."""

    task: _Task
    request: AttemptRequest
    started: bool = False
    read: int = 0
    """Bytes of progress.jsonl seen."""


@dataclass
class _Driver:
    datasets: Mapping[str, DatasetSpec]
    out: Path
    options: LaunchOptions
    writer: StoreWriter
    observe: Observer
    cluster: Cluster
    session: Session
    attempt: Callable[[AttemptRequest], Outcome] = run_attempt
    brief_s: float = -math.inf
    """Runs that are expected to last no longer are handed to Ray one ahead."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """The last of every run that has had one."""
    cancelled: bool = False
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _waiting: Counter[Shape] = field(default_factory=Counter)
    _later: list[tuple[float, int, _Task]] = field(default_factory=list)
    """Runs to be tried again, by when."""
    _flights: dict[Any, _Flight] = field(default_factory=dict)
    _ended: Counter[Status] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        import ray

        # max_calls=0: the method's subprocess holds the GPU's memory, not the worker, so the worker can be kept
        self._ray_task = ray.remote(max_retries=0, max_calls=0)(self.attempt)
        self._commit = git_commit()
        self._placer = Placer(self.cluster.nodes)
        self._records = RecordQueue(self.out, self.writer)
        self._metrics = GridMetrics()
        self._order = itertools.count()
        self._turn: deque[Any] = deque()
        self._last_tick = self._last_state = self._last_nodes = time.monotonic()

    def add(self, run: Run, given: Fitted, seconds: float) -> None:
        """Let a run wait."""
        task = _Task(run, given.shape, seconds)
        self._tasks[run.id] = task
        self._wait(task)

    def work(self) -> None:
        """Do everything that waits; raises KeyboardInterrupt where someone asked to cancel."""
        self.tell_state()
        while self._tasks:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._wait(heapq.heappop(self._later)[2])
            for placed in (*self._placer.next(now), *self._placer.behind(self.brief_s)):
                self._submit(self._tasks[placed.key], placed.node)
            self._collect(_TICK_S)
            self._take_in()
            self._tick()
        self._take_in(last=True)

    def cancel(self) -> None:
        """End what runs and drop what waits."""
        import ray

        self.cancelled = True
        self.observe(Note(f"cancelling {len(self._flights)} attempts; a second Ctrl-C leaves them to Ray"))
        self._later.clear()
        for reference in self._flights:
            ray.cancel(reference, force=False)
        deadline = time.monotonic() + _CANCEL_PATIENCE_S
        while self._flights and time.monotonic() < deadline:
            self._collect(_TICK_S)
        self._take_in(last=True)

    def tell_state(self, ended: bool = False) -> None:
        """Write where the launch stands for other processes and machines, and tell Ray's metrics."""
        running = {flight.task.run.id: flight.request.attempt for flight in self._flights.values()}
        in_use = self._placer.gpus_in_use
        gpus = sum(node.gpus for node in self.cluster.nodes)
        waiting = self._waiting.total() + len(self._later)
        counts = {status.value: n for status, n in self._ended.items() if n}
        state = {
            "ended": ended,
            "counts": counts,
            "waiting": waiting,
            "running": running,
            "gpus_in_use": in_use,
            "gpus": gpus,
            "dashboard": self.session.dashboard,
        }
        write_driver_state(self.out, state)
        self._metrics.tell(counts, waiting, len(running), in_use, gpus)

    def close(self) -> None:
        """End what belongs to this launch alone."""
        self._records.close()
        self.cluster.stop()

    def _take_in(self, last: bool = False) -> None:
        for note in self._records.flush(last):
            self.observe(Note(note))

    def _wait(self, task: _Task) -> None:
        self._placer.add(task.run.id, task.shape, task.seconds)
        self._waiting[task.shape] += 1

    def _submit(self, task: _Task, node: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._waiting[task.shape] -= 1
        run, out = task.run, self.out
        request = AttemptRequest(
            run=run, attempt=next_attempt(out / "runs" / run.id), dataset=self.datasets[run.task.dataset], out=out,
            use_gpu=self.cluster.use_gpu, submitted_at=time.time(), git_commit=self._commit,
            timeout_s=self.options.timeout_s, checkpoint_every_s=self.options.checkpoint_every_s,
        )  # fmt: skip
        # claimed here, so that the next attempt's number is free even if this one dies before it begins
        request.folder.parent.mkdir(parents=True, exist_ok=True)
        request.folder.mkdir(exist_ok=True)
        shape = task.shape
        reference = self._ray_task.options(
            num_cpus=shape.cpus, num_gpus=shape.gpus, memory=int(shape.memory_gb * 1e9),
            name=f"{run.method} {run.task.name} {run.train_tissue} {run.id}",
            # where any node will do, another may take it if this one has just died
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=shape.nodes is None),
        ).remote(request)  # fmt: skip
        self._flights[reference] = _Flight(task, request)
        self._turn.append(reference)

    def _collect(self, timeout_s: float) -> None:
        """Wait until an attempt ends, and take all that have."""
        import ray

        if not self._flights:
            time.sleep(min(timeout_s, max(0.0, self._later[0][0] - time.monotonic())) if self._later else timeout_s)
            return
        references = list(self._flights)
        ready, rest = ray.wait(references, num_returns=1, timeout=timeout_s)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for reference in ready:
            self._finish(reference)

    def _finish(self, reference: Any) -> None:
        flight = self._flights.pop(reference)
        task, request = flight.task, flight.request
        try:
            fetch_record(request.out, request.folder)
            record = Record.read(request.folder / RECORD_NAME)
        except (FileNotFoundError, ValueError, SegbenchError):
            status, crash = _ray_end(reference)
            record = Record(attempt=attempt_row(request, status, crash, datetime.now(UTC), {}), phases={})
            record.write(request.folder)
            push_or_mark(url_of(request.out), request.folder)
        row = record.attempt
        if row.status is Status.LOST:
            self._last_nodes = 0.0  # its node may be gone: look at once
        ap50 = next((e.ap50 for e in record.evaluations if e.test_tissue == "all"), None)
        outcome = Outcome(row.run_id, row.attempt, row.status, row.error, ap50)
        self._placer.ended(row.run_id)
        self._records.add(record)
        self.outcomes[row.run_id] = outcome
        task.ended[row.status] += 1
        next_try = None if self.cancelled else again(task.run, row.status, task.ended, self.options.retries)
        note = ""
        if next_try is None:
            del self._tasks[row.run_id]
            self._ended[row.status] += 1
        else:
            batch, halved = next_try.run.budget.batch_size, next_try.run.budget != task.run.budget
            note = next_try.note + (f" with half the batch ({batch})" if halved else "")
            task.run = next_try.run
            heapq.heappush(self._later, (time.monotonic() + next_try.wait_s, next(self._order), task))
        self.observe(Finished(request.run, outcome, next_try is not None, note))

    def _tick(self) -> None:
        """Do what need not be done after every attempt."""
        now = time.monotonic()
        if now - self._last_tick >= _TICK_S:
            self._last_tick = now
            self._follow()
            if (self.out / CANCEL_FILE).exists():
                (self.out / CANCEL_FILE).unlink()
                raise KeyboardInterrupt
        if now - self._last_nodes >= _NODES_EVERY_S:
            self._last_nodes = now
            self._take_nodes()
        if now - self._last_state >= STATE_EVERY_S:
            self._last_state = now
            self.tell_state()

    def _take_nodes(self) -> None:
        """Take over the cluster as it is now, and ask an autoscaler for what is missing."""
        if self.cluster.refresh():
            self._placer.set_nodes(self.cluster.nodes)
            for task in self._tasks.values():
                # where only some nodes will do, those may have changed
                if task.shape.nodes is not None:
                    shape = self.cluster.fit(task.run).shape
                    if shape != task.shape and self._placer.remove(task.run.id):
                        self._waiting[task.shape] -= 1
                        task.shape = shape
                        self._wait(task)
        self.cluster.ask_for(+self._waiting)

    def _follow(self) -> None:
        """Read the progress of some of the running attempts, in turns."""
        read = 0
        for _ in range(len(self._turn)):
            reference = self._turn.popleft()
            flight = self._flights.get(reference)
            if flight is None:
                continue  # it has ended
            self._turn.append(reference)
            if read == _FOLLOWED:
                break
            self._read_progress(flight)
            read += 1

    def _read_progress(self, flight: _Flight) -> None:
        folder = flight.request.folder
        if not flight.started:
            if not (folder / "job.json").exists():
                return
            flight.started = True
            self.observe(Started(flight.request.run, flight.request.attempt))
        try:
            with (folder / "progress.jsonl").open("rb") as file:
                file.seek(flight.read)
                text = file.read()
        except FileNotFoundError:
            return
        whole = text.rpartition(b"\n")[0]
        if whole:
            flight.read += len(whole) + 1
            with contextlib.suppress(json.JSONDecodeError):  # a node that died while it wrote
                self.observe(Progressed(flight.request.run, json.loads(whole.rpartition(b"\n")[2])))


def _ray_end(reference: Any) -> tuple[Status, str]:
    """Return how a task ended as far as Ray knows, for an attempt that left no record."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return Status.CANCELLED, "cancelled before it began"
    except ray.exceptions.RayTaskError as error:
        return Status.FAILED, f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.OutOfMemoryError:
        return (
            Status.OUT_OF_MEMORY,
            "its node ran out of memory, and Ray ended the attempt: reserve more with --memory-gb",
        )
    except ray.exceptions.RayError as error:
        return Status.LOST, f"the worker died: {type(error).__name__}: {str(error).splitlines()[0]}"
    return Status.LOST, "the attempt left no record"
