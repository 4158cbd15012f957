"""What one Ray task does: data, environment, the method's subprocess, evaluation, record."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from segbench import __version__
from segbench.engine.data import DatasetSpec, PreparedDataset, ensure_prepared
from segbench.engine.data.tasks import counterpart
from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.metrics import Evaluation, evaluate_prediction_set, paired_samples, sweep_prediction_set
from segbench.engine.metrics.postoperations import Operation
from segbench.engine.results.record import (
    RECORD_NAME,
    AttemptRow,
    EvaluationRow,
    HistoryRow,
    ImageTable,
    Record,
    ResampleTable,
    Status,
    TissueRow,
)
from segbench.engine.run import environments
from segbench.engine.run.examples import choose_examples, write_examples
from segbench.engine.run.memory import MemoryWatch
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError
from segbench.methods.job import Arrays, Devices, Job, Task
from segbench.methods.predictions import PredictionSet

_LOG_LINES, _LOG_CHARACTERS = 40, 8000
_TEST, _CROSS = "test", "cross"
_DILATIONS, _EROSIONS = range(21), range(11)
"""Radii in pixels, as the study sweeps them."""
_POLL_S = 0.1


@dataclass(frozen=True)
class AttemptRequest:
    """One try at a run, as the driver hands it to a worker."""

    run: Run
    attempt: int
    dataset: DatasetSpec
    out: Path
    """The results folder, absolute, the same on every node."""
    use_gpu: bool
    submitted_at: float
    """Seconds since the epoch."""
    git_commit: str | None = None
    timeout_s: float | None = None
    """Of the method's subprocess; None for none."""
    checkpoint_every_s: float = 600.0
    """Seconds of training between two checkpoints of a method that keeps them."""

    @property
    def relative_folder(self) -> str:
        """Where the attempt's artifacts lie, relative to the results folder."""
        return f"runs/{self.run.id}/attempt-{self.attempt:03d}"

    @property
    def folder(self) -> Path:
        """Where the attempt's artifacts lie."""
        return self.out / self.relative_folder


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, for the driver's display."""

    run_id: str
    attempt: int
    status: Status
    error: str | None
    ap50: float | None


class _EndedError(Exception):
    """The attempt ended without a result, for a reason that its record tells."""

    def __init__(self, status: Status, error: str) -> None:
        super().__init__(error)
        self.status = status


@dataclass(frozen=True)
class _Measured:
    """What the record says of a finished attempt's predictions and of the data."""

    evaluations: list[EvaluationRow] = field(default_factory=list)
    images: list[ImageTable] = field(default_factory=list)
    resamples: list[ResampleTable] = field(default_factory=list)
    tissues: list[TissueRow] = field(default_factory=list)


def run_attempt(request: AttemptRequest) -> Outcome:
    """Run one attempt to its end and leave its record, whatever happens short of this process's own death.

    A cancelled task (KeyboardInterrupt, as Ray raises it) ends the subprocess, is recorded and raised again.
    """
    started = datetime.now(UTC)
    phases = {"wait": max(0.0, time.time() - request.submitted_at)}
    request.folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    measured = _Measured()
    status, error = Status.DONE, None
    cancelled: BaseException | None = None
    try:
        measured = _attempt(request, phases, facts)
    except _EndedError as failure:
        status, error = failure.status, str(failure)
    except SegbenchError as failure:
        status, error = Status.FAILED, str(failure)
    except MemoryError:
        status, error = Status.OUT_OF_MEMORY, "the engine ran out of memory while preparing or evaluating"
    except (OSError, ValueError, RuntimeError) as failure:
        status, error = Status.FAILED, f"{type(failure).__name__}: {failure}"
        _log(request.folder, failure)
    except KeyboardInterrupt as stop:
        status, error, cancelled = Status.CANCELLED, "cancelled while it ran", stop

    result = _read_json(request.folder / "result.json")
    phases |= {name: float(seconds) for name, seconds in result.get("timings", {}).items() if seconds is not None}
    record = Record(
        attempt=attempt_row(request, status, error, started, result, **facts),
        phases=phases,
        evaluations=measured.evaluations,
        images=measured.images,
        resamples=measured.resamples,
        history=[] if status is not Status.DONE else list(_history(result.get("history", []))),
        tissues=measured.tissues,
    )
    if status is Status.DONE and _is_given_up(request):
        # the driver took this attempt for lost (a node that was cut off) and tries the run again: it has one result
        return Outcome(request.run.id, request.attempt, Status.LOST, "given up while it ran", None)
    record.write(request.folder)
    if status in (Status.DONE, Status.DIVERGED):
        for kept in request.folder.parent.glob("checkpoint-*"):
            shutil.rmtree(kept, ignore_errors=True)
    if cancelled is not None:
        raise cancelled
    pooled = next((row.ap50 for row in measured.evaluations if row.test_tissue == ALL_TISSUES), None)
    return Outcome(request.run.id, request.attempt, status, record.attempt.error, pooled)


def _is_given_up(request: AttemptRequest) -> bool:
    """Return whether a driver has written this attempt off, or has begun a later one."""
    later = request.out / f"runs/{request.run.id}/attempt-{request.attempt + 1:03d}"
    return later.exists() or (request.folder / RECORD_NAME).exists()


def attempt_row(
    request: AttemptRequest, status: Status, error: str | None, started: datetime, result: dict[str, Any], **facts: Any
) -> AttemptRow:
    """Return an attempt's row from what is known of it; ``result`` is the subprocess's, empty where it left none."""
    run, card = request.run, get_card(request.run.method)
    done = status is Status.DONE
    return AttemptRow(
        run_id=run.id, attempt=request.attempt, status=status,
        error=None if error is None else " ".join(error.split())[:10_000],
        log_tail=None if done else log_tail(request.folder),
        method=card.name, method_title=card.title, method_revision=card.revision, family=card.family,
        environment=card.environment, category=card.category, trained=card.trained, attention=card.attention,
        usability=card.usability.composite, task=run.task.name, dataset=run.task.dataset,
        dataset_kind=request.dataset.kind, dataset_fingerprint=run.fingerprint or "",
        channels=list(run.task.channels), n_channels=len(run.task.channels), target=run.task.target,
        train_tissue=run.train_tissue, seed=run.seed, settings=dict(run.settings),
        batch_size=run.budget.batch_size,
        epochs=result.get("epochs") if done else run.budget.epochs,
        iterations=result.get("iterations") if done else run.budget.iterations,
        steps_per_epoch=run.budget.steps_per_epoch,
        n_train_images=result.get("n_train_images"), n_train_cells=result.get("n_train_cells"),
        n_val_images=facts.get("n_val_images"), n_parameters=result.get("n_parameters"),
        versions=result.get("versions", {}), lock_hash=facts.get("lock_hash"), segbench_version=__version__,
        git_commit=request.git_commit, host=socket.gethostname(), cpu_name=_cpu_name(),
        num_cpus=run.resources.num_cpus, gpu_names=list(result.get("gpu_names") or []),
        num_gpus=run.resources.num_gpus if request.use_gpu else 0.0,
        peak_memory_bytes=result.get("peak_memory_bytes") or facts.get("sampled_peak_bytes"),
        peak_gpu_memory_bytes=result.get("peak_gpu_memory_bytes"),
        started_at=started, ended_at=datetime.now(UTC), folder=request.relative_folder,
    )  # fmt: skip


def log_tail(folder: Path) -> str | None:
    """Return the last lines of an attempt's log; None where there is no log or nothing in it."""
    try:
        with (folder / "log.txt").open(errors="replace") as file:
            lines = deque(file, maxlen=_LOG_LINES)
    except FileNotFoundError:
        return None
    return "".join(lines)[-_LOG_CHARACTERS:].strip() or None


def _attempt(request: AttemptRequest, phases: dict[str, float], facts: dict[str, Any]) -> _Measured:
    run, card = request.run, get_card(request.run.method)
    with _timed(phases, "data"):
        data = ensure_prepared(request.dataset)
        if run.fingerprint is not None and data.fingerprint != run.fingerprint:
            raise _EndedError(
                Status.FAILED,
                f"dataset {run.task.dataset} has fingerprint {data.fingerprint} on {socket.gethostname()}, the grid "
                f"was planned with {run.fingerprint}: the data differ between the nodes",
            )
    with _timed(phases, "environment"):
        environment = environments.ensure(card.environment, gpu=request.use_gpu and run.resources.num_gpus > 0)
        facts["lock_hash"] = environment.lock_hash
    job = _job(request, data)
    facts["n_val_images"] = None if job.val is None or job.val.rows is None else len(job.val.rows)
    job.write(request.folder / "job.json")
    _run_subprocess(request, job, environment, facts)
    with _timed(phases, "evaluate"):
        return _evaluate(request, data)


def _job(request: AttemptRequest, data: PreparedDataset) -> Job:
    run, card = request.run, get_card(request.run.method)
    channels = tuple(data.channels.index(name) for name in run.task.channels)

    def arrays(split: str, tissue: str) -> Arrays:
        return Arrays(
            images=str(data.images_path(split)),
            channels=channels,
            rows=data.rows(split, tissue),
            labels=str(data.labels_path(split, run.task.target)),
        )

    train = arrays("train", run.train_tissue)
    if not train.rows:
        raise _EndedError(
            Status.FAILED, f"dataset {run.task.dataset} has no training window of tissue {run.train_tissue!r}"
        )
    has_val = "val" in data.splits and run.train_tissue in (ALL_TISSUES, *data.tissues("val"))
    val = arrays("val", run.train_tissue) if has_val else None
    predicted = {_TEST: arrays(_TEST, ALL_TISSUES)}
    other = _other_modality(run, data)
    if other is not None:
        others = tuple(data.channels.index(name) for name in other.channels)
        predicted[_CROSS] = dataclasses.replace(predicted[_TEST], channels=others)
    gpus = run.resources.num_gpus if request.use_gpu else 0.0
    together = card.trained and card.data_parallel == "torchrun" and gpus > 1
    return Job(
        run_id=run.id,
        method=method_object(run.method),
        task=run.task,
        budget=run.budget,
        seed=run.seed,
        output=str(request.folder),
        train=train if card.trained else None,
        val=val if val is not None and val.rows else None,
        # the truth of the test split stays with the engine: a method cannot look at it
        predict={name: dataclasses.replace(selected, labels=None) for name, selected in predicted.items()},
        settings=run.settings,
        devices=Devices(
            num_gpus=gpus, num_cpus=max(1, round(run.resources.num_cpus)), processes=int(gpus) if together else 1
        ),
        # of this batch size: a training does not go on with another
        checkpoints=str(request.folder.parent / f"checkpoint-batch-{run.budget.batch_size}")
        if card.resumable
        else None,
        checkpoint_every_s=request.checkpoint_every_s,
        parent_pid=os.getpid(),
    )


def _run_subprocess(
    request: AttemptRequest, job: Job, environment: environments.Environment, facts: dict[str, Any]
) -> None:
    variables = environments.subprocess_env(environment, modules=_modules(request.run.method))
    if not request.use_gpu:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    command = job.command(request.folder / "job.json", environment.python)
    with (request.folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command, env=variables, cwd=request.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline = None if request.timeout_s is None else time.monotonic() + request.timeout_s
    watch = MemoryWatch(process.pid)
    try:
        # Ray cancels by an interrupt that only Python code notices: a blocking wait would sleep through it
        while (code := process.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise _EndedError(Status.TIMEOUT, f"stopped after its limit of {request.timeout_s:.0f} s")
            watch.look()
            time.sleep(_POLL_S)
    except BaseException:
        _end(process)
        raise
    finally:
        facts["sampled_peak_bytes"] = watch.peak_bytes or None
    result = _read_json(request.folder / "result.json")
    if code == 0 and result.get("status") == Status.DONE:
        return
    if result.get("error"):
        kind = result.get("error_kind", "failed")
        raise _EndedError(Status(kind) if kind in set(Status) else Status.FAILED, str(result["error"]))
    reserved = request.run.resources.memory_gb
    if watch.ran_out(reserved * 1e9, killed=code == -signal.SIGKILL):
        raise _EndedError(
            Status.OUT_OF_MEMORY,
            f"the kernel ended the method's process for want of memory: it held {watch.peak_bytes / 1e9:.2g} GB of the "
            f"{reserved:g} GB that it had reserved; reserve more with --memory-gb",
        )
    if code < 0:
        name = signal.Signals(-code).name
        raise _EndedError(Status.FAILED, f"the method's process was killed by {name}: someone or something ended it")
    raise _EndedError(
        Status.FAILED, f"the method's process ended with status {code} and left no result; its log may tell"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    # its own session: this ends the method's children (data loaders, torchrun) too
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _modules(method: str) -> Sequence[str]:
    return tuple(dict.fromkeys(("segbench", method_object(method).partition(":")[0].partition(".")[0])))


def _other_modality(run: Run, data: PreparedDataset) -> Task | None:
    """Return the other target's task, to whose images a single-channel model of all tissues is applied as well."""
    if run.train_tissue != ALL_TISSUES or len(run.task.channels) != 1:
        return None
    return counterpart(run.task, data.tasks)


def _evaluate(request: AttemptRequest, data: PreparedDataset) -> _Measured:
    run, index = request.run, data.index(_TEST)
    task, tissues = run.task, index["tissue"].to_list()
    truth = {target: np.load(data.labels_path(_TEST, target), mmap_mode="r") for target in data.targets}
    predictions = PredictionSet(request.folder / "predictions" / _TEST)
    own = evaluate_prediction_set(truth[task.target], predictions, groups=tissues)
    rows = list(evaluation_rows(own, task))
    images = [image_table(own, task, index["image"].to_list())]

    other = _other_modality(run, data)
    if other is not None:
        crossed = PredictionSet(request.folder / "predictions" / _CROSS)
        across = evaluate_prediction_set(truth[other.target], crossed, groups=tissues)
        rows += evaluation_rows(across, other)
        images.append(image_table(across, other, index["image"].to_list()))
    opposite = counterpart(task, data.tasks) if run.train_tissue == ALL_TISSUES else None
    if opposite is not None:
        operation: Operation = "dilate" if task.target == "nuclear" else "erode"
        radii = _DILATIONS if operation == "dilate" else _EROSIONS
        swept = sweep_prediction_set(truth[opposite.target], predictions, operation, radii, groups=tissues)
        for radius, evaluation in swept.items():
            rows += evaluation_rows(evaluation, opposite, operation, radius)

    shown = choose_examples(tissues, index[f"n_cells_{task.target}"].to_list())
    write_examples(
        request.folder, task, data.fingerprint, data.images_path(_TEST),
        [data.channels.index(name) for name in task.channels], data.labels_path(_TEST, task.target), predictions, shown,
        [tissues[row] for row in shown], [index["image"][row] for row in shown],
    )  # fmt: skip
    resamples = []
    if run.train_tissue == ALL_TISSUES:
        samples = paired_samples(own, index["image"].to_list(), key=data.fingerprint)
        columns = {name: [metric(float(value)) for value in values] for name, values in samples.items()}
        resamples.append(ResampleTable(test_task=task.name, columns=columns))
    return _Measured(rows, images, resamples, tissue_rows(data))


def image_table(evaluation: Evaluation, task: Task, names: Sequence[str]) -> ImageTable:
    """Return the counts of every test window; ``names`` are those of the images that the windows were cut from."""
    columns = evaluation.images.columns()
    columns["name"], columns["tissue"] = list(names), columns.pop("group")
    return ImageTable(test_task=task.name, columns={name: list(np.asarray(c).tolist()) for name, c in columns.items()})


def metric(value: float) -> float | None:
    """Return a metric as the store holds it: None for COCO's -1 (no truth)."""
    return None if value < 0 else float(value)


def evaluation_rows(
    evaluation: Evaluation, task: Task, operation: str = "none", radius: int = 0
) -> Iterator[EvaluationRow]:
    """Yield the pooled row and one row a test tissue; COCO's -1 (no truth) becomes None."""
    for tissue, scores in ((ALL_TISSUES, evaluation.pooled), *evaluation.groups.items()):
        yield EvaluationRow(
            test_task=task.name, test_tissue=tissue, operation=operation, radius=radius, map=metric(scores.map),
            ap50=metric(scores.ap50), ap75=metric(scores.ap75), ar=metric(scores.ar), ar50=metric(scores.ar50),
            ar75=metric(scores.ar75), n_images=scores.n_images, n_truth=scores.n_truth,
            n_predictions=scores.n_predictions,
        )  # fmt: skip


def tissue_rows(data: PreparedDataset) -> list[TissueRow]:
    """Return what the data are made of, a row a split, target and tissue, and one over all tissues."""
    cells = data.cells().select("split", "tissue", "target", "area", "elongation", "convexity")
    means = [pl.len().alias("n_cells"), *(pl.col(c).mean() for c in ("area", "elongation", "convexity"))]
    frames = [
        cells.group_by("split", "target", "tissue").agg(means),
        cells.group_by("split", "target").agg(means).with_columns(tissue=pl.lit(ALL_TISSUES)),
    ]
    measured = {(r["split"], r["target"], r["tissue"]): r for frame in frames for r in frame.iter_rows(named=True)}
    rows: list[TissueRow] = []
    for split in data.splits:
        counts = data.index(split)["tissue"].value_counts().rows()
        for target in data.targets:
            for tissue, n_images in [(ALL_TISSUES, data.index(split).height), *sorted(counts)]:
                found = measured.get((split, target, tissue), {})
                rows.append(
                    TissueRow(
                        dataset_fingerprint=data.fingerprint,
                        dataset=data.spec.name,
                        split=split,
                        target=target,
                        tissue=tissue,
                        n_images=n_images,
                        n_cells=found.get("n_cells", 0),
                        area=found.get("area"),
                        elongation=found.get("elongation"),
                        convexity=found.get("convexity"),
                        pixel_size_um=data.pixel_size_um,
                    )
                )
    return rows


def _history(points: Sequence[dict[str, Any]]) -> Iterator[HistoryRow]:
    for point in points:
        yield HistoryRow(**{name: point.get(name) for name in HistoryRow.model_fields})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _log(folder: Path, error: BaseException) -> None:
    import traceback

    with (folder / "log.txt").open("a") as log:
        log.write("".join(traceback.format_exception(error)))


def _cpu_name() -> str | None:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


@contextlib.contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        phases[name] = time.monotonic() - start
