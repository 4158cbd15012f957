"""Where and when: hands runs to Ray, follows them, and takes their records into the store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segbench.engine import environments
from segbench.engine.attempt import AttemptRequest, Outcome, attempt_row, run_attempt
from segbench.engine.cards import get_card
from segbench.engine.data import DatasetSpec
from segbench.engine.grid import Run
from segbench.engine.provenance import git_commit
from segbench.engine.record import RECORD_NAME, Record, Status
from segbench.engine.store import StoreWriter
from segbench.engine.store.recovery import attempt_number
from segbench.engine.store.writer import StoreBusyError
from segbench.errors import SegbenchError

DRIVER_LOCK = ".driver.lock"
GRID_FILE = "grid.json"
CANCEL_FILE = ".cancel"
_TICK_S = 0.25
_LOST_TRIES = 3
_CANCEL_PATIENCE_S = 30.0


@dataclass(frozen=True)
class LaunchOptions:
    """How a grid is run; none of it decides a result."""

    out: Path
    address: str | None = None
    """Of a running Ray cluster (``auto`` for the one of this machine); None starts a local one."""
    cpu: bool = False
    """Run without GPUs even where there are some."""
    num_cpus: int | None = None
    """Cores of the local Ray; None for all."""
    timeout_s: float | None = None
    """Of each method's subprocess."""


@dataclass(frozen=True)
class Opened:
    """Ray is there and so many runs are about to be handed to it."""

    total: int


@dataclass(frozen=True)
class Started:
    """A worker has begun an attempt."""

    run: Run
    attempt: int


@dataclass(frozen=True)
class Progressed:
    """A running method has told where it stands."""

    run: Run
    line: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """An attempt has ended."""

    run: Run
    outcome: Outcome
    retried: bool


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in one line."""

    text: str


Event = Opened | Started | Progressed | Finished | Note
Observer = Callable[[Event], None]


@dataclass(frozen=True)
class Summary:
    """How a launch ended."""

    outcomes: tuple[Outcome, ...]
    cancelled: bool

    def count(self, status: Status) -> int:
        """Return how many runs ended so."""
        return sum(outcome.status is status for outcome in self.outcomes)


@contextlib.contextmanager
def driver_lock(out: Path) -> Iterator[None]:
    """Hold a results folder as its only driver; raises SegbenchError where another one holds it."""
    lock = FileLock(out / DRIVER_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = read_grid_file(out)
        raise SegbenchError(
            f"another 'segbench grid launch' (process {holder.get('pid')} on {holder.get('host')}) is running in {out}: "
            "wait for it, end it with 'segbench grid cancel', or name another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_driven(out: Path) -> bool:
    """Return whether a driver holds the results folder now."""
    lock = FileLock(out / DRIVER_LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def read_grid_file(out: Path) -> dict[str, Any]:
    """Return what the last launch wrote of itself: its process, host, time and runs; empty where there was none."""
    try:
        content = json.loads((out / GRID_FILE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def execute(
    runs: Sequence[Run],
    datasets: Mapping[str, DatasetSpec],
    options: LaunchOptions,
    writer: StoreWriter,
    observe: Observer,
    attempt: Callable[[AttemptRequest], Outcome] = run_attempt,
) -> Summary:
    """Run every given run on Ray until each has ended; the caller holds the driver's lock.

    A KeyboardInterrupt, or ``segbench grid cancel``, cancels what is left: subprocesses are ended, what had finished stays.

    Raises
    ------
    SegbenchError
        Ray cannot be reached or started, or no node can ever hold one of the runs.
    """
    _set_ray_environment(options)
    import ray

    out = options.out.absolute()
    (out / CANCEL_FILE).unlink(missing_ok=True)
    with connected(options):
        use_gpu = not options.cpu and float(ray.cluster_resources().get("GPU", 0)) > 0
        runs = [_fit(run, use_gpu, ray.nodes(), observe) for run in runs]
        if options.address is None:
            for name in sorted({get_card(run.method).environment for run in runs}):
                environments.ensure(name, gpu=use_gpu, progress=lambda line: observe(Note(line)))
        _write_grid_file(out, runs, options)
        observe(Opened(len(runs)))
        driver = _Driver(runs, datasets, options, writer, observe, use_gpu, attempt)
        try:
            driver.work()
        except KeyboardInterrupt:
            driver.cancel()
        except OSError as error:
            raise SegbenchError(
                f"cannot write results to {out}: {error.strerror or error}. Mend that and launch again: what had finished "
                "is kept, the rest is run then"
            ) from None
        return Summary(tuple(driver.outcomes.values()), driver.cancelled)


@dataclass
class _Flight:
    """An attempt that Ray has."""

    request: AttemptRequest
    started: bool = False
    read: int = 0
    """Bytes of progress.jsonl seen."""


@dataclass
class _Driver:
    runs: Sequence[Run]
    datasets: Mapping[str, DatasetSpec]
    options: LaunchOptions
    writer: StoreWriter
    observe: Observer
    use_gpu: bool
    attempt: Callable[[AttemptRequest], Outcome] = run_attempt
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    cancelled: bool = False
    _flights: dict[Any, _Flight] = field(default_factory=dict)
    _unwritten: list[Record] = field(default_factory=list)
    _lost: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import ray

        # max_calls=0: the method's subprocess holds the GPU's memory, not the worker, so the worker can be kept
        self._task = ray.remote(max_retries=0, max_calls=0)(self.attempt)
        self._commit = git_commit()
        self._queue = deque(self.runs)
        self._most = max(16, 2 * int(ray.cluster_resources().get("CPU", 1)))

    def work(self) -> None:
        import ray

        cancel_file = self.options.out / CANCEL_FILE
        while self._queue or self._flights:
            while self._queue and len(self._flights) < self._most:
                self._submit(self._queue.popleft())
            ready, _ = ray.wait(list(self._flights), num_returns=len(self._flights), timeout=_TICK_S)
            for reference in ready:
                self._finish(reference)
            self._write()
            self._follow()
            if cancel_file.exists():
                cancel_file.unlink()
                raise KeyboardInterrupt
        self._write(last=True)

    def cancel(self) -> None:
        import ray

        self.cancelled = True
        self._queue.clear()
        self.observe(Note(f"cancelling {len(self._flights)} attempts; a second Ctrl-C leaves them to Ray"))
        for reference in self._flights:
            ray.cancel(reference, force=False)
        deadline = time.monotonic() + _CANCEL_PATIENCE_S
        while self._flights and time.monotonic() < deadline:
            ready, _ = ray.wait(list(self._flights), num_returns=len(self._flights), timeout=_TICK_S)
            for reference in ready:
                self._finish(reference)
        self._write(last=True)

    def _submit(self, run: Run) -> None:
        folder = self.options.out.absolute() / "runs" / run.id
        numbers = [attempt_number(path) for path in folder.glob("attempt-*")]
        request = AttemptRequest(
            run=run, attempt=max(numbers, default=0) + 1, dataset=self.datasets[run.task.dataset],
            out=self.options.out.absolute(), use_gpu=self.use_gpu, submitted_at=time.time(), git_commit=self._commit,
            timeout_s=self.options.timeout_s,
        )  # fmt: skip
        # claimed here, so that the next attempt's number is free even if this one dies before it begins
        request.folder.mkdir(parents=True, exist_ok=True)
        wanted = run.resources
        reference = self._task.options(
            num_cpus=wanted.num_cpus,
            num_gpus=wanted.num_gpus if self.use_gpu else 0,
            memory=int(wanted.memory_gb * 1e9),
            name=f"{run.method} {run.task.name} {run.train_tissue} {run.id}",
        ).remote(request)
        self._flights[reference] = _Flight(request)

    def _finish(self, reference: Any) -> None:
        import ray

        flight = self._flights.pop(reference)
        request = flight.request
        status, crash = Status.LOST, "the attempt left no record"
        try:
            ray.get(reference)
        except ray.exceptions.TaskCancelledError:
            status, crash = Status.CANCELLED, "cancelled before it began"
        except ray.exceptions.RayTaskError as error:
            status, crash = Status.FAILED, f"{type(error.cause).__name__}: {error.cause}"
        except ray.exceptions.RayError as error:
            crash = f"the worker died: {type(error).__name__}: {str(error).splitlines()[0]}"
        path = request.folder / RECORD_NAME
        try:
            record = Record.read(path)
        except (FileNotFoundError, ValueError):
            record = Record(attempt=attempt_row(request, status, crash, datetime.now(UTC), {}), phases={})
            record.write(request.folder)
        row = record.attempt
        ap50 = next((e.ap50 for e in record.evaluations if e.test_tissue == "all"), None)
        outcome = Outcome(row.run_id, row.attempt, row.status, row.error, ap50)
        retried = False
        if row.status is Status.LOST and not self.cancelled:
            self._lost[row.run_id] = self._lost.get(row.run_id, 0) + 1
            retried = self._lost[row.run_id] < _LOST_TRIES
        if retried:
            self._queue.appendleft(request.run)
        else:
            self.outcomes[row.run_id] = outcome
        self._unwritten.append(record)
        self.observe(Finished(request.run, outcome, retried))

    def _write(self, last: bool = False) -> None:
        if not self._unwritten:
            return
        try:
            self.writer.add(self._unwritten)
        except StoreBusyError as error:
            self.observe(Note(str(error)))
            if last:
                return
        else:
            self._unwritten.clear()

    def _follow(self) -> None:
        for flight in self._flights.values():
            path = flight.request.folder / "progress.jsonl"
            if not flight.started and (flight.request.folder / "job.json").exists():
                flight.started = True
                self.observe(Started(flight.request.run, flight.request.attempt))
            try:
                with path.open("rb") as file:
                    file.seek(flight.read)
                    text = file.read()
            except FileNotFoundError:
                continue
            whole = text.rpartition(b"\n")[0]
            if whole:
                flight.read += len(whole) + 1
                self.observe(Progressed(flight.request.run, json.loads(whole.rpartition(b"\n")[2])))


def _set_ray_environment(options: LaunchOptions) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray listens on every interface: whoever else is on the network must not be able to run code here. It reads this when
    # it is imported, so that a process that has imported it keeps what it has.
    if options.address is None and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextlib.contextmanager
def connected(options: LaunchOptions) -> Iterator[None]:
    """Be connected to the Ray that the options name, starting a local one where they name none."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    began = not ray.is_initialized()
    if began:
        try:
            if options.address:
                ray.init(address=options.address, **quiet)
            else:
                gpus = {"num_gpus": 0} if options.cpu else {}
                # nothing but small requests goes through Ray's object store
                ray.init(
                    address="local", num_cpus=options.num_cpus, include_dashboard=False,
                    object_store_memory=128 * 2**20, **gpus, **quiet,
                )  # fmt: skip
        except Exception as error:  # Ray raises Exception itself where a node does not start in time
            where = f"reach Ray at {options.address}" if options.address else "start a local Ray"
            raise SegbenchError(f"cannot {where}: {str(error).splitlines()[0] if str(error) else error!r}") from None
    try:
        yield
    finally:
        if began:
            ray.shutdown()


def _fit(run: Run, use_gpu: bool, nodes: Sequence[Mapping[str, Any]], observe: Observer) -> Run:
    """Return the run with no more cores than the largest node has; raises SegbenchError where no node can hold it."""
    totals = [node["Resources"] for node in nodes if node["Alive"]]
    wanted = run.resources
    gpus = wanted.num_gpus if use_gpu else 0.0
    holding = [t for t in totals if t.get("GPU", 0) >= gpus and t.get("memory", 0) >= wanted.memory_gb * 1e9]
    if not holding:
        best_gpu = max((t.get("GPU", 0) for t in totals), default=0)
        best_memory = max((t.get("memory", 0) for t in totals), default=0) / 1e9
        raise SegbenchError(
            f"{run.method} on {run.task.name} asks for {gpus:g} GPUs and {wanted.memory_gb:g} GB of memory on one node; "
            f"the largest here have {best_gpu:g} GPUs and {best_memory:.1f} GB: change it with --num-gpus or --memory-gb"
        )
    cores = max(t.get("CPU", 0) for t in holding)
    if cores >= wanted.num_cpus:
        return run
    if cores < 1:
        raise SegbenchError(f"{run.method} on {run.task.name} needs at least one CPU on its node; the node has none")
    observe(Note(f"{run.method} asks for {wanted.num_cpus:g} cores, the largest node has {cores:g}: it gets those"))
    return dataclasses.replace(run, resources=dataclasses.replace(wanted, num_cpus=float(cores)))


def _write_grid_file(out: Path, runs: Sequence[Run], options: LaunchOptions) -> None:
    content = {
        "pid": os.getpid(), "host": socket.gethostname(), "started_at": datetime.now(UTC).isoformat(),
        "address": options.address,
        "runs": [
            {"run_id": run.id, "method": run.method, "task": run.task.name, "train_tissue": run.train_tissue, "seed": run.seed}
            for run in runs
        ],
    }  # fmt: skip
    part = out / f"{GRID_FILE}.part"
    part.write_text(json.dumps(content, indent=1))
    part.replace(out / GRID_FILE)
