"""Makes the job of an attempt: which windows the method is given, and what it may use."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from segbench.engine.data import PreparedDataset
from segbench.engine.data.given import given_folder
from segbench.engine.data.subsets import training_rows
from segbench.engine.data.tasks import counterpart
from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.results.statuses import Status
from segbench.engine.run import environments
from segbench.engine.run.request import AttemptRequest, EndedError
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.methods.job import Arrays, Devices, Job, Task
from segbench.paths import cache_folder

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

    given = given_folder(data)

    def arrays(split: str, tissue: str) -> Arrays:
        # the truth of the test split stays with the engine: a method cannot look at it
        labels = None if split == TEST else str(given / data.labels_path(split, run.task.target).name)
        return Arrays(
            images=str(given / data.images_path(split).name),
            channels=channels,
            rows=data.rows(split, tissue),
            labels=labels,
        )

    drawn = training_rows(data, run.train_tissue, run.train_images, run.seed)
    train = dataclasses.replace(arrays("train", run.train_tissue), rows=drawn)
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
        predict=predicted,
        hidden=hidden_folders(request, data, given),
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


def hidden_folders(request: AttemptRequest, data: PreparedDataset, given: Path) -> tuple[str, ...]:
    """Return the folders that the method's process has no business in: the prepared datasets, and the originals.

    What holds anything that the process needs, as originals with a results folder in their midst, is left in sight.
    """
    source = None if data.spec.source is None else Path(data.spec.source)
    named = [Path(value) for value in request.run.settings.values() if isinstance(value, str) and value]
    interpreter = environments.override(get_card(request.run.method).environment)
    needed = [
        *(request.out.path, cache_folder() / "environments", cache_folder() / "shims", Path.home(), Path.cwd()),
        *(Path(entry) for entry in sys.path if entry),
        *(path for path in (interpreter, *named) if path is not None),
        *given.iterdir(),
    ]
    held = [path.resolve() for path in needed if path.exists()]
    folders = [folder.resolve() for folder in (data.folder.parent, source) if folder is not None and folder.is_dir()]
    return tuple(str(folder) for folder in folders if not any(path.is_relative_to(folder) for path in held))


def other_modality(run: Run, data: PreparedDataset) -> Task | None:
    """Return the other target's task, to whose images a single-channel model of all tissues is applied as well."""
    if run.train_tissue != ALL_TISSUES or len(run.task.channels) != 1:
        return None
    return counterpart(run.task, data.tasks)
