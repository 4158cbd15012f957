"""Makes the job of an attempt: which windows the method is given, and what it may use."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from segbench.engine.data import PreparedDataset
from segbench.engine.data.tasks import counterpart
from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.results.statuses import Status
from segbench.engine.run.request import AttemptRequest, EndedError
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.methods.job import Arrays, Devices, Job, Task

TEST, CROSS = "test", "cross"
"""What is predicted: the test split, and the same of the other target's images."""


def make_job(request: AttemptRequest, data: PreparedDataset, model: Path | None = None) -> Job:
    """Return the job of an attempt.

    Parameters
    ----------
    request
        The attempt.
    data
        Its dataset.
    model
        The folder of a finished model, with which it predicts; None where it is to train one.

    Raises
    ------
    EndedError
        The data have no window to train on.
    """
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
        raise EndedError(
            Status.FAILED, f"dataset {run.task.dataset} has no training window of tissue {run.train_tissue!r}"
        )
    has_val = "val" in data.splits and run.train_tissue in (ALL_TISSUES, *data.tissues("val"))
    val = arrays("val", run.train_tissue) if has_val else None
    predicted = {TEST: arrays(TEST, ALL_TISSUES)}
    other = other_modality(run, data)
    if other is not None:
        others = tuple(data.channels.index(name) for name in other.channels)
        predicted[CROSS] = dataclasses.replace(predicted[TEST], channels=others)
    gpus = run.resources.num_gpus if request.use_gpu else 0.0
    together = card.trained and card.data_parallel == "torchrun" and gpus > 1
    return Job(
        run_id=run.id,
        method=method_object(run.method),
        task=run.task,
        budget=run.budget,
        seed=run.seed,
        output=str(request.folder.path),
        train=train if card.trained else None,
        val=val if val is not None and val.rows else None,
        # the truth of the test split stays with the engine: a method cannot look at it
        predict={name: dataclasses.replace(selected, labels=None) for name, selected in predicted.items()},
        settings=run.settings,
        devices=Devices(
            num_gpus=gpus, num_cpus=max(1, round(run.resources.num_cpus)), processes=int(gpus) if together else 1
        ),
        # of this batch size: a training does not go on with another
        checkpoints=str(request.folder.checkpoints(run.budget.batch_size)) if card.resumable else None,
        checkpoint_every_s=request.checkpoint_every_s,
        parent_pid=os.getpid(),
        model=None if model is None else str(model),
    )


def other_modality(run: Run, data: PreparedDataset) -> Task | None:
    """Return the other target's task, to whose images a single-channel model of all tissues is applied as well."""
    if run.train_tissue != ALL_TISSUES or len(run.task.channels) != 1:
        return None
    return counterpart(run.task, data.tasks)
