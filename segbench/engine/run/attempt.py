"""What a worker does for one attempt, in order: data, environment, the method's process, scores, record."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segbench.engine.data import PreparedDataset, ensure_prepared
from segbench.engine.data.recipe import Recipe
from segbench.engine.data.subsets import pictures_of
from segbench.engine.grid.cards import get_card
from segbench.engine.grid.controls import is_control
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.hashes import hash_files
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.run import environments
from segbench.engine.run.controls import predict_control
from segbench.engine.run.job import make_job
from segbench.engine.run.request import AttemptRequest, EndedError
from segbench.engine.run.robustness import score_degraded
from segbench.engine.run.rows import again_row, attempt_row, history_rows
from segbench.engine.run.scoring import Scored, score
from segbench.engine.run.stages import TakenUp, result_of, run_stages, stage_rows, take_up
from segbench.errors import SegbenchError
from segbench.methods.stages import EVALUATE, stage
from segbench.small_files import write_whole
from segbench.wrong_values import first_wrong


def run_attempt(request: AttemptRequest) -> None:
    """Run one attempt to its end and leave its record, whatever happens short of this process's own death.

    A cancelled task (KeyboardInterrupt, as Ray raises it) ends the subprocess, is recorded and raised again.
    """
    started = datetime.now(UTC)
    phases = {"wait": max(0.0, time.time() - request.submitted_at)}
    folder = request.folder.make()
    facts: dict[str, Any] = {}
    scored = Scored()
    status, error = Status.DONE, None
    cancelled: BaseException | None = None
    try:
        scored = _attempt(request, phases, facts)
    except KeyboardInterrupt as stop:
        status, error, cancelled = Status.CANCELLED, "cancelled while it ran", stop
    except _FAILURES as failure:
        status, error = _failed(failure, folder)
        if status is Status.CANCELLED:
            cancelled = KeyboardInterrupt()

    try:
        result = result_of(folder, with_training=request.of is None)
        timings = {name: float(seconds) for name, seconds in result.get("timings", {}).items() if seconds is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
        result, timings = {}, {}
        status, error = Status.FAILED, f"the method's process left a result that cannot be read: {wrong!r}"
    phases |= timings

    def record_of(status: Status, error: str | None, result: dict[str, Any], scored: Scored) -> Record:
        row = attempt_row(request, status, error, started, result, **facts)
        return Record(
            attempt=row if request.of is None else again_row(row, request),
            phases=phases,
            evaluations=scored.evaluations,
            images=scored.images,
            resamples=scored.resamples,
            history=[] if status is not Status.DONE else list(history_rows(result.get("history", []))),
            tissues=scored.tissues,
            stages=stage_rows(folder),
            files=hash_files(folder) if status is Status.DONE else {},
            whole=scored.whole,
            gaps=scored.gaps,
            cell_strata=scored.cell_strata,
            calibration=scored.calibration,
            degraded=scored.degraded,
            degraded_resamples=scored.degraded_resamples,
        )

    try:
        record = record_of(status, error, result, scored)
    except (ValidationError, TypeError, AttributeError) as wrong:
        # what a method tells of itself goes into the store's columns, or nowhere
        status, error = Status.FAILED, f"the method's process told what no record can hold: {_words(wrong)}"
        record = record_of(status, error, {}, Scored())
    if status is Status.DONE and _is_given_up(folder):
        # the driver took this attempt for lost (a node that was cut off) and tries the run again: it has one result
        return
    folder.make().write_record(record, request.claim)
    if status in (Status.DONE, Status.DIVERGED):
        folder.drop_checkpoints()
    if cancelled is not None:
        raise cancelled


def _attempt(request: AttemptRequest, phases: dict[str, float], facts: dict[str, Any]) -> Scored:
    run, card = request.run, get_card(request.run.method)
    with _timed(phases, "data"):
        data = ensure_prepared(request.dataset)
        if run.fingerprint is not None and data.fingerprint != run.fingerprint:
            raise EndedError(
                Status.FAILED,
                f"dataset {run.task.dataset} has fingerprint {data.fingerprint} on {socket.gethostname()}, the grid "
                f"was planned with {run.fingerprint}: the data differ between the nodes",
            )
    if request.begins == EVALUATE:
        with _timed(phases, "evaluate"):
            return evaluate_stage(request, data)
    if is_control(run.method):
        with _timed(phases, "predict"):
            predict_control(request, data)
        with _timed(phases, "evaluate"):
            return evaluate_stage(request, data)
    with _timed(phases, "environment"):
        environment = environments.ensure(card.environment, gpu=request.use_gpu and run.resources.num_gpus > 0)
        facts["lock_hash"] = environment.lock_hash
    taken = take_up(request) if request.of is None else None
    facts["trained_in"] = None if taken is None else taken.trained_in
    job = make_job(request, data, _model(request, taken))
    facts["n_val_images"] = None if job.val is None or job.val.rows is None else len(job.val.rows)
    if job.train is not None and job.train.rows is not None:
        facts["n_train_pictures"] = pictures_of(data, job.train.rows)
    job.write(request.folder.job.job)
    write_whole(request.folder.recipe, json.dumps(Recipe.of(data).to_dict(), indent=1))
    if taken is None or not taken.predicted:
        run_stages(request, job, environment, facts)
    with _timed(phases, "evaluate"):
        scored = evaluate_stage(request, data)
    if not run.robustness:
        return scored
    with _timed(phases, "robustness"):
        rows, resamples = score_degraded(request, data, job, environment, facts)
    return replace(scored, degraded=rows, degraded_resamples=resamples)


def _words(wrong: Exception) -> str:
    return str(first_wrong(wrong)) if isinstance(wrong, ValidationError) else f"{type(wrong).__name__}: {wrong}"


def _model(request: AttemptRequest, taken: TakenUp | None) -> Path | None:
    """Return the folder of the finished model with which an attempt predicts; None where it trains, or needs none."""
    if request.of is None:
        return None if taken is None else request.folder.job.model
    return request.of.job.model if get_card(request.run.method).trained else None


def evaluate_stage(request: AttemptRequest, data: PreparedDataset) -> Scored:
    """Score the predictions of an attempt, or those of the one that it scores again; raises EndedError."""
    folder, how = request.folder, dict[str, Any]()
    with stage(folder.path, EVALUATE, folder.job.log, how):
        try:
            return score(request, data, request.of if request.of and request.begins == EVALUATE else folder)
        except KeyboardInterrupt:
            how |= {"status": Status.CANCELLED.value, "error": "cancelled while it ran"}
            raise
        except _FAILURES as failure:
            status, error = _failed(failure, folder)
            how |= {"status": status.value, "error": error}
            raise EndedError(status, error) from None


_FAILURES = (EndedError, SegbenchError, MemoryError, OSError, ValueError, RuntimeError, SystemError)


def _failed(failure: Exception, folder: AttemptFolder) -> tuple[Status, str]:
    """Return how an attempt has ended, and why; what is no one's message goes into the log with its traceback."""
    if isinstance(failure, EndedError):
        return failure.status, str(failure)
    if isinstance(failure, SegbenchError):
        return Status.FAILED, str(failure)
    if isinstance(failure, SystemError) and _was_interrupted(failure):
        return Status.CANCELLED, "cancelled while it ran"
    if isinstance(failure, MemoryError):
        return Status.OUT_OF_MEMORY, "the engine ran out of memory while preparing or evaluating"
    folder.add_to_log("".join(traceback.format_exception(failure)))
    return Status.FAILED, f"{type(failure).__name__}: {failure}"


def _was_interrupted(failure: BaseException) -> bool:
    """Return whether an error is how compiled code takes an interrupt that comes while it runs."""
    earlier: BaseException | None = failure
    while earlier is not None:
        if isinstance(earlier, KeyboardInterrupt):
            return True
        earlier = earlier.__cause__ or earlier.__context__
    return False


def _is_given_up(folder: AttemptFolder) -> bool:
    """Return whether a driver has written this attempt off, or has begun a later one."""
    return folder.next.path.exists() or folder.record.exists()


@contextlib.contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        phases[name] = time.monotonic() - start
