"""Takes an attempt through its stages: what an earlier attempt has finished is taken up, what fails is tried alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segbench.engine.grid.cards import get_card
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.mirror import pull_attempt
from segbench.engine.results.record import StageRow
from segbench.engine.results.remote_files import told
from segbench.engine.results.statuses import Status
from segbench.engine.run.environments import Environment
from segbench.engine.run.process import run_process
from segbench.engine.run.request import AttemptRequest, EndedError
from segbench.errors import SegbenchError
from segbench.methods.job import Job
from segbench.methods.stages import PREDICT, RUNNING, close_open, is_done, next_try, tries
from segbench.small_files import read_json, write_whole

_OF_TRAINING = ("import", "load", "train", "calibrate", "save")


@dataclass(frozen=True)
class TakenUp:
    """What an attempt has of an earlier one."""

    trained_in: int
    """The attempt in which the model was trained."""
    predicted: bool
    """Its predictions are finished too."""


def take_up(request: AttemptRequest) -> TakenUp | None:
    """Bring the trained model of an earlier attempt at the run, and its predictions where they are finished, into this.

    They are linked where the file system can, else copied. An attempt that took its model up itself counts as well. A
    model that was trained and not calibrated is brought too, for the training to begin with.

    Returns
    -------
    TakenUp or None
        None where there is no finished model.
    """
    if not get_card(request.run.method).trained:
        return None
    uncalibrated: Path | None = None
    for earlier in reversed(request.out.attempts(request.run.id)):
        if earlier.number >= request.attempt:
            continue
        _fetch(earlier)
        if training_of(earlier) and read_json(earlier.job.model_marker).get("run_id") == request.run.id:
            return _take(earlier, request.folder)
        if uncalibrated is None and earlier.job.trained_marker.is_file():
            uncalibrated = earlier.job.trained
    if uncalibrated is not None:  # the method's process calibrates it where it is this job's
        _bring(uncalibrated, request.folder.job.trained)
    return None


def _take(earlier: AttemptFolder, own: AttemptFolder) -> TakenUp:
    before = read_json(earlier.taken)
    predicted = is_done(earlier.path, PREDICT) or bool(before.get("predicted"))
    _bring(earlier.job.model, own.job.model)
    if predicted:
        _bring(earlier.job.all_predictions, own.job.all_predictions)
    taken = TakenUp(int(before.get("trained_in") or earlier.number), predicted)
    own.taken.parent.mkdir(parents=True, exist_ok=True)
    write_whole(own.taken, json.dumps(asdict(taken)))
    return taken


def run_stages(request: AttemptRequest, job: Job, environment: Environment, facts: dict[str, Any]) -> None:
    """Train and predict, or predict alone where the job has a model; a prediction that fails is tried again alone.

    Parameters
    ----------
    request
        The attempt.
    job
        Its job, as it lies in its folder.
    environment
        Of the method.
    facts
        Are told what was seen, as ``run_process`` does.

    Raises
    ------
    EndedError
        As ``run_process``.
    """
    files, began = request.folder.job, time.monotonic()
    try:
        run_process(request, job, environment, facts)
        return
    except EndedError as ended:
        close_open(files.path, files.log, ended.status.value, str(ended))
        alone = ended.status in (Status.OUT_OF_MEMORY, Status.FAILED) and training_of(request.folder)
        if job.model is not None or not alone:
            raise
        out_of_memory = ended.status is Status.OUT_OF_MEMORY
    except BaseException:
        close_open(files.path, files.log, Status.CANCELLED.value, "cancelled while it ran")
        raise
    stage = next_try(files.path, PREDICT)
    stage.path.mkdir(parents=True, exist_ok=True)
    again = predicting(job, files.model, most_at_once=1 if out_of_memory else None)
    again.write(stage.own_job)
    spent = time.monotonic() - began
    rest = replace(request, timeout_s=None if request.timeout_s is None else max(1.0, request.timeout_s - spent))
    try:
        run_process(rest, again, environment, facts, stage.own_job)
    except EndedError as ended:
        close_open(files.path, files.log, ended.status.value, str(ended))
        raise
    except BaseException:
        close_open(files.path, files.log, Status.CANCELLED.value, "cancelled while it ran")
        raise


def predicting(job: Job, model: Path, most_at_once: int | None = None) -> Job:
    """Return a job that predicts with a trained model: in one process, whatever its training took."""
    devices = replace(job.devices, num_gpus=min(1.0, job.devices.num_gpus), processes=1)
    return replace(job, model=str(model), devices=devices, most_at_once=most_at_once)


def training_of(attempt: AttemptFolder) -> Mapping[str, Any]:
    """Return what the training of an attempt's finished model told; empty where it has none."""
    found = read_json(attempt.job.model_marker).get("training")
    return found if isinstance(found, dict) else {}


def result_of(attempt: AttemptFolder, with_training: bool = True) -> dict[str, Any]:
    """Return what is known of an attempt from its process's result and from its model, in whichever process each arose.

    Parameters
    ----------
    attempt
        Its folder.
    with_training
        False for what was predicted with another run's model.
    """
    result, training = attempt.read_result(), training_of(attempt) if with_training else {}
    if not training:
        return result
    timings = {name: training["timings"].get(name) for name in _OF_TRAINING}
    own = {name: s for name, s in result.get("timings", {}).items() if name not in _OF_TRAINING}
    most = {
        name: max((told.get(name) or 0 for told in (result, training)), default=0) or None
        for name in ("peak_memory_bytes", "peak_gpu_memory_bytes")
    }
    return {**result, **training, **most, "timings": {**timings, **own}}


def stage_rows(attempt: AttemptFolder) -> list[StageRow]:
    """Return the rows of the stages that an attempt has gone through itself; what nobody has ended is lost."""
    return [
        StageRow.model_validate(
            {
                "stage": mark.stage,
                "number": mark.number,
                "status": Status.LOST if mark.status == RUNNING else mark.status,
                "error": mark.error,
                "started_at": mark.started_at,
                "seconds": mark.seconds,
                "at_once": mark.at_once,
                "log": folder.log.relative_to(attempt.path).as_posix(),
            }
        )
        for folder, mark in tries(attempt.path)
    ]


def _fetch(attempt: AttemptFolder) -> None:
    """Bring an attempt of a mirror here, that another machine has run; without it the model is trained again."""
    if attempt.url is not None and attempt.has_record() and not attempt.has_job():
        with contextlib.suppress(SegbenchError, OSError), told(attempt.url):
            pull_attempt(attempt)


def _bring(source: Path, target: Path) -> None:
    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    # whole or not there: a model that is half here must not be taken for a finished one
    part = target.with_name(f"{target.name}.part")
    for left in (part, target):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(source, part, copy_function=link)
    part.rename(target)
