"""Runs every given run until each has ended, whoever executes it: submission, following, retries, cancellation."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import math
import secrets
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from segbench.engine.data import DatasetSpec
from segbench.engine.grid import Run, run_to_dict
from segbench.engine.grid.cards import get_card
from segbench.engine.results.attempts import MOST_AT_ONCE, AttemptFolder, progress_line
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.intake import Intake
from segbench.engine.results.mirror import fetch_record, push_or_mark
from segbench.engine.results.record import Record, StageRow
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter
from segbench.engine.run import environments
from segbench.engine.run.attempt import run_attempt
from segbench.engine.run.provenance import git_commit
from segbench.engine.run.request import AttemptRequest
from segbench.engine.run.rows import attempt_row
from segbench.engine.run.stages import stage_rows
from segbench.engine.scheduler.events import Finished, Note, Observer, Opened, Outcome, Progressed, Started, Summary
from segbench.engine.scheduler.executor import Attempt, Ended, Executor
from segbench.engine.scheduler.inline import InlineExecutor
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.ray_executor import on_ray
from segbench.engine.scheduler.retries import again
from segbench.errors import SegbenchError
from segbench.methods.stages import TRAIN

Expect = Callable[[Run, str], float]
"""How many seconds a run is expected to take on a kind of device (``cpu``, or as Ray names its GPUs)."""

_TICK_S = 0.25
_STATE_EVERY_S = 2.0
_FOLLOWED = 32
"""Running attempts whose progress is read a tick: files on a shared mount are slow to open."""
_CANCEL_PATIENCE_S = 30.0
_BRIEF_S = 2.0


def execute(
    runs: Sequence[Run],
    datasets: Mapping[str, DatasetSpec],
    options: LaunchOptions,
    writer: StoreWriter,
    observe: Observer,
    attempt: Attempt = run_attempt,
    expect: Expect | None = None,
    listed: Sequence[Run] | None = None,
) -> Summary:
    """Run every given run until each has ended; the caller holds the driver's lock.

    A KeyboardInterrupt, or ``segbench grid cancel``, cancels what is left:
    subprocesses are ended, what had finished stays.

    Parameters
    ----------
    runs
        What is run.
    datasets
        By name.
    options
        How, and by which executor.
    writer
        Of the store; its results folder is the one that all is left in.
    observe
        Is told what happens.
    attempt
        What is done for each run.
    expect
        Ray is given the longest expected first; None for the order as given, which the inline executor keeps to.
    listed
        What ``grid status`` and ``grid retry`` take for the launch's runs; None for those that are run.

    Raises
    ------
    SegbenchError
        Ray cannot be reached or started, no node can ever hold one of the runs, or results cannot be written.
    """
    out = writer.out.absolute()
    out.launch.take_request_to_end()  # of an earlier launch
    with _opened(options, attempt, runs, expect is not None) as executor:
        fitted = _fit_all(runs, executor, observe)
        if executor.local:
            for name in sorted({get_card(run.method).environment for run in runs}):
                environments.ensure(name, gpu=executor.use_gpu, progress=lambda line: observe(Note(line)))
        driver = _Driver(datasets, out, options, writer, observe, executor)
        for run in fitted:
            driver.add(run, 0.0 if expect is None else expect(run, executor.device))
        try:
            out.launch.write_grid(map(run_to_dict, runs if listed is None else listed), {"options": options.saved()})
            observe(Opened(len(runs), executor.dashboard))
            try:
                with _stopped_by_sigterm():
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


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: what a batch system sends cancels, and Ray's own handler would print where it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _opened(options: LaunchOptions, attempt: Attempt, runs: Sequence[Run], lengths_known: bool) -> Iterator[Executor]:
    if options.executor == "inline":
        yield InlineExecutor(options, attempt)
        return
    gpu_memory = any(run.resources.gpu_memory_gb for run in runs)
    with on_ray(options, attempt, gpu_memory, _BRIEF_S if lengths_known else -math.inf) as executor:
        yield executor


def _fit_all(runs: Sequence[Run], executor: Executor, observe: Observer) -> list[Run]:
    """Return the runs with the resources that they get."""
    fitted = [executor.fit(run) for run in runs]
    for note in dict.fromkeys(note for given in fitted for note in given.notes):
        observe(Note(note))
    return [dataclasses.replace(run, resources=given.resources) for run, given in zip(runs, fitted, strict=True)]


def _stages(attempt: AttemptFolder) -> list[StageRow]:
    """Return the stages of an attempt that died, as far as what it left can be read."""
    try:
        return stage_rows(attempt)
    except (OSError, ValueError):
        return []


@dataclass
class _Task:
    """A run that has not ended."""

    run: Run
    seconds: float
    """Expected."""
    ended: Counter[Status] = field(default_factory=Counter)
    """Its attempts of this launch."""


@dataclass
class _Flight:
    """An attempt that the executor has."""

    task: _Task
    request: AttemptRequest
    started: bool = False
    read: int = 0
    """Bytes of its progress that were seen."""


@dataclass
class _Driver:
    """The bookkeeping of a launch, whoever runs its attempts."""

    datasets: Mapping[str, DatasetSpec]
    out: ResultsFolder
    options: LaunchOptions
    writer: StoreWriter
    observe: Observer
    executor: Executor
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """The last of every run that has had one."""
    cancelled: bool = False
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _later: list[tuple[float, int, _Task]] = field(default_factory=list)
    """Runs to be tried again, by when."""
    _flights: dict[str, _Flight] = field(default_factory=dict)
    _ended: Counter[Status] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._commit = git_commit()
        self._records = Intake(self.out, self.writer)
        self._order = itertools.count()
        self._turn: deque[_Flight] = deque()
        self._last_tick = self._last_state = time.monotonic()

    def add(self, run: Run, seconds: float) -> None:
        """Let a run wait."""
        self._tasks[run.id] = _Task(run, seconds)
        self.executor.add(run, seconds)

    def work(self) -> None:
        """Do everything that waits; raises KeyboardInterrupt where someone asked to cancel."""
        self.tell_state()
        while self._tasks:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                task = heapq.heappop(self._later)[2]
                self.executor.add(task.run, task.seconds)
            for run_id in self.executor.ready():
                self._submit(self._tasks[run_id])
            self._collect(_TICK_S)
            self._take_in()
            self._tick()
        self._take_in(last=True)

    def cancel(self) -> None:
        """End what runs and drop what waits."""
        self.cancelled = True
        self.observe(Note(f"cancelling {len(self._flights)} attempts; a second Ctrl-C waits for none of them"))
        self._later.clear()
        self.executor.cancel()
        deadline = time.monotonic() + _CANCEL_PATIENCE_S
        while self._flights and time.monotonic() < deadline:
            self._collect(_TICK_S)
        self._take_in(last=True)

    def tell_state(self, ended: bool = False) -> None:
        """Write where the launch stands for other processes and machines, and tell the executor."""
        running = {run_id: flight.request.attempt for run_id, flight in self._flights.items()}
        waiting = len(self._tasks) - len(running)
        counts = {status.value: n for status, n in self._ended.items() if n}
        state = {
            "ended": ended,
            "counts": counts,
            "waiting": waiting,
            "running": running,
            "gpus_in_use": self.executor.gpus_in_use,
            "gpus": self.executor.gpus,
            "dashboard": self.executor.dashboard,
        }
        self.out.launch.write_state(state)
        self.executor.tell(counts, waiting, len(running))

    def close(self) -> None:
        """End what belongs to this launch alone."""
        self._records.close()

    def _take_in(self, last: bool = False) -> None:
        for note in self._records.finish() if last else self._records.notes():
            self.observe(Note(note))

    def _submit(self, task: _Task) -> None:
        run, out = task.run, self.out
        request = AttemptRequest(
            run=run, attempt=out.next_attempt(run.id).number, dataset=self.datasets[run.task.dataset], out=out,
            use_gpu=self.executor.use_gpu, submitted_at=time.time(), git_commit=self._commit,
            timeout_s=self.options.timeout_s, checkpoint_every_s=self.options.checkpoint_every_s,
            claim=secrets.token_hex(16),
        )  # fmt: skip
        # claimed here, so that the next attempt's number is free even if this one dies before it begins
        request.folder.make_claimed(str(request.claim))
        self._flights[run.id] = flight = _Flight(task, request)
        self._turn.append(flight)
        self.executor.submit(request)

    def _collect(self, timeout_s: float) -> None:
        """Wait until an attempt ends, and take all that have."""
        if not self._flights:
            time.sleep(min(timeout_s, max(0.0, self._later[0][0] - time.monotonic())) if self._later else timeout_s)
            return
        for ended in self.executor.wait(timeout_s, self._tick):
            self._finish(ended)

    def _finish(self, ended: Ended) -> None:
        flight = self._flights.pop(ended.run_id)
        task, request = flight.task, flight.request
        try:
            fetch_record(request.folder)
            record = request.folder.read_record()
        except (OSError, ValueError, SegbenchError):
            status, crash = ended.why()
            if not request.folder.path.is_dir():
                crash = f"the attempt's folder was removed while it ran ({crash})"
            row = attempt_row(request, status, crash, datetime.now(UTC), {})
            record = Record(attempt=row, phases={}, stages=_stages(request.folder))
            request.folder.make().drop_record()
            request.folder.write_record(record, request.claim)
            push_or_mark(request.folder)
        row = record.attempt
        if row.status is Status.LOST:
            self.executor.suspect()  # its node may be gone
        outcome = Outcome.of(record)
        self._records.add(record)
        self.outcomes[row.run_id] = outcome
        task.ended[row.status] += 1
        trained = row.trained_in is not None or any(
            one.stage == TRAIN and one.status is Status.DONE for one in record.stages
        )
        next_try = (
            None if self.cancelled else again(task.run, row.status, task.ended, self.options.retries, trained=trained)
        )
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
            if self.out.launch.take_request_to_end():
                raise KeyboardInterrupt
        self.executor.refresh()
        if now - self._last_state >= _STATE_EVERY_S:
            self._last_state = now
            self.tell_state()

    def _follow(self) -> None:
        """Read the progress of some of the running attempts, in turns."""
        read = 0
        for _ in range(len(self._turn)):
            flight = self._turn.popleft()
            if self._flights.get(flight.request.run.id) is not flight:
                continue  # it has ended
            self._turn.append(flight)
            if read == _FOLLOWED:
                break
            self._read_progress(flight)
            read += 1

    def _read_progress(self, flight: _Flight) -> None:
        request = flight.request
        if not flight.started:
            if not request.folder.has_job():
                return
            flight.started = True
            self.observe(Started(request.run, request.attempt))
        found = request.folder.progress_since(flight.read)
        whole = found.rpartition(b"\n")[0]
        if not whole and len(found) >= MOST_AT_ONCE:
            flight.read += len(found)  # a line without an end is none of ours
        if whole:
            flight.read += len(whole) + 1
            line = progress_line(whole.rpartition(b"\n")[2])
            if line is not None:
                self.observe(Progressed(request.run, line))
