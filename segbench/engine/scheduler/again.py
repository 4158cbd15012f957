"""Finished runs once more, from the stage that is asked for: scored again, or predicted again with other settings."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from segbench.engine.data import DatasetSpec
from segbench.engine.data.degrading import check_kinds
from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirror import pull_attempt, push_or_mark
from segbench.engine.results.mirrored_launch import launching
from segbench.engine.results.record import AttemptRow, Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.results.store.recovery import take_in
from segbench.engine.run.attempt import run_attempt
from segbench.engine.run.provenance import git_commit
from segbench.engine.run.request import AttemptRequest
from segbench.engine.scheduler.catalogue import known_datasets
from segbench.engine.scheduler.gpus import visible_gpus
from segbench.engine.scheduler.repeat import find_run
from segbench.errors import SegbenchError
from segbench.methods.card import CONTROL, Card
from segbench.methods.job import Job
from segbench.methods.setting import check_values

Begins = Literal["predict", "evaluate"]


@dataclass(frozen=True)
class Redone:
    """A finished run of which a stage was done again, as a row of its own."""

    of_run: str
    run_id: str | None
    """Of the new row; None where it could not be begun."""
    stage: Begins
    method: str
    task: str
    status: str
    error: str | None
    first_ap50: float | None
    ap50: float | None
    """Pooled on its own task, without post-operation."""


def finished_runs(
    out: ResultsFolder, ids: Sequence[str] = (), every: bool = False, *, controls: bool = True
) -> list[str]:
    """Return the ids of the finished runs that are meant by beginnings of ids, or of all.

    Parameters
    ----------
    out
        The results folder.
    ids, every
        Beginnings of ids, or all of them.
    controls
        False where a control cannot be meant: it has no model, and sees no image.

    Raises
    ------
    SegbenchError
        Both are given or neither, no run or several begin so, or one is not finished.
    """
    if bool(ids) == every:
        raise SegbenchError("name runs by their ids, or all of them with --all")
    rows = query(out, "select run_id, category from runs_latest where status = 'done' order by started_at")
    done, able = rows["run_id"].to_list(), rows.filter(rows["category"] != CONTROL)["run_id"].to_list()
    wanted = (done if controls else able) if every else [find_run(out, prefix) for prefix in ids]
    for run_id in wanted:
        if run_id not in done:
            raise SegbenchError(f"run {run_id} has no result: only a finished run can be predicted or scored again")
        if not controls and run_id not in able:
            raise SegbenchError(f"run {run_id} is a control: it sees no image, so that nothing can degrade it")
    return list(dict.fromkeys(wanted))


def redo(
    out: ResultsFolder,
    run_ids: Sequence[str],
    begins: Begins,
    settings: Mapping[str, Any] | None = None,
    *,
    whole: bool = False,
    robustness: Sequence[str] = (),
    cpu: bool = False,
    timeout_s: float | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Redone]:
    """Predict or score finished runs again, one after the other in this process; each gets a new row.

    The new row has an id of its own and names the run in ``of_run``; nothing of the run's own is changed. Where one
    cannot be done the others are.

    Parameters
    ----------
    out
        The results folder; no launch may hold it.
    run_ids
        Of finished runs, whole.
    begins
        With prediction, or with scoring alone.
    settings
        Of prediction that differ; for prediction alone.
    whole
        Score whole images as well; what a run with whole images left is scored so in any case.
    robustness
        Kinds of degraded test images to predict as well.
    cpu
        Predict without GPUs even where there are some.
    timeout_s
        Of each method's process.
    note
        Is told what becomes of uploads.

    Raises
    ------
    SegbenchError
        A setting is unknown or has to do with training, before anything is done; a launch holds the folder.
    """
    changes, kinds = dict(settings or {}), check_kinds(robustness)
    sources = [_source(out, run_id) for run_id in run_ids]
    for _, row in sources:
        _check_settings(get_card(row.method), row.settings, changes)
    with out.launch.hold(), launching(out, note) as remote:
        writer = StoreWriter(out)
        remote.keep(writer)
        take_in(out, writer)
        for source, row in sources:
            try:
                request = _request(out, source, row, begins, changes, cpu, timeout_s)
                request = replace(request, run=replace(request.run, robustness=kinds))
                if whole or source.believed_record().whole:
                    request = replace(request, run=replace(request.run, evaluation="whole"))
            except SegbenchError as error:
                yield Redone(row.run_id, None, begins, row.method, row.task, Status.FAILED, str(error), None, None)
                continue
            run_attempt(request)
            failed = push_or_mark(request.folder)
            if failed:
                note(failed)
            record = request.folder.read_record()
            writer.add([record])
            yield _told(record, source.believed_record())


def _source(out: ResultsFolder, run_id: str) -> tuple[AttemptFolder, AttemptRow]:
    number = query(out, "select attempt from runs_latest where run_id = ?", [run_id]).item()
    attempt = out.attempt(run_id, int(number))
    if attempt.url is not None and not attempt.has_job():
        pull_attempt(attempt)
    if not attempt.has_record():
        raise SegbenchError(f"the record of run {run_id} is not in {out}: see 'segbench store check'")
    return attempt, attempt.believed_record().attempt


def _check_settings(card: Card, before: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    check_values(f"settings.{card.name}", card.settings, changes)
    allowed = [name for name, setting in card.settings.items() if setting.prediction or not card.trained]
    for name, value in changes.items():
        if name not in allowed:
            raise SegbenchError(
                f"setting {name} of {card.name} decides what is trained: launch a grid with it; "
                f"of prediction are {', '.join(allowed) or 'none'}"
            )
        calibrated = card.settings[name].calibrated
        if value in calibrated and before.get(name) not in calibrated:
            raise SegbenchError(
                f"setting {name} of {card.name} cannot become {value!r}: its model was trained with "
                f"{before.get(name)!r}, and nothing was chosen for it then"
            )


def _request(
    out: ResultsFolder, source: AttemptFolder, row: AttemptRow, begins: Begins, changes: Mapping[str, Any], cpu: bool,
    timeout_s: float | None,
) -> AttemptRequest:  # fmt: skip
    card = get_card(row.method)
    needed = source.job.model_marker if begins == "predict" and card.trained else source.job.all_predictions
    if not needed.exists() or not source.has_job():
        what = "model" if needed == source.job.model_marker else "predictions"
        raise SegbenchError(f"the {what} of run {row.run_id} are not in {source.path}: bring them, or run it again")
    job = Job.read(source.job.job)
    settings = {**card.defaults, **row.settings, **changes}
    decisive = json.dumps([row.run_id, row.attempt, begins, settings, time.time_ns()], sort_keys=True)
    use_gpu = begins == "predict" and not cpu and bool(visible_gpus())
    run = Run(
        id=hashlib.sha256(decisive.encode()).hexdigest()[:12],
        method=row.method,
        task=job.task,
        train_tissue=row.train_tissue,
        seed=row.seed,
        budget=replace(job.budget, batch_size=row.batch_size),
        settings=settings,
        fingerprint=row.dataset_fingerprint,
        resources=replace(card.resources, num_cpus=row.num_cpus, num_gpus=min(1.0, card.resources.num_gpus)),
        final=True,
    )
    return AttemptRequest(
        run=run,
        attempt=1,
        dataset=_dataset(row.dataset),
        out=out.absolute(),
        use_gpu=use_gpu,
        submitted_at=time.time(),
        git_commit=git_commit(),
        timeout_s=timeout_s,
        begins=begins,
        of=out.absolute().attempt(source.run_id, source.number),
    )


def _dataset(name: str) -> DatasetSpec:
    specs = known_datasets().specs
    if name not in specs:
        raise SegbenchError(f"dataset {name!r} is not here: register it with 'segbench data prepare {name} PATH'")
    return specs[name]


def _told(record: Record, first: Record) -> Redone:
    row = record.attempt
    return Redone(
        of_run=first.attempt.run_id,
        run_id=row.run_id,
        stage="evaluate" if row.stage == "evaluate" else "predict",
        method=row.method,
        task=row.task,
        status=row.status.value,
        error=row.error,
        first_ap50=_ap50(first),
        ap50=_ap50(record),
    )


def _ap50(record: Record) -> float | None:
    for one in record.evaluations:
        if (one.test_task, one.test_tissue, one.operation) == (record.attempt.task, "all", "none"):
            return one.ap50
    return None
