"""Applies an attempt's model to degraded test images, and scores what it finds in them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data import PreparedDataset
from segbench.engine.data.degrading import Step, brought_back, degraded, seen_part, steps_of
from segbench.engine.grid.cards import get_card
from segbench.engine.metrics import Evaluation, evaluate_prediction_set, paired_samples
from segbench.engine.results.record import DegradedResamples, DegradedRow
from segbench.engine.run.environments import Environment
from segbench.engine.run.job import TEST
from segbench.engine.run.process import run_process
from segbench.engine.run.request import AttemptRequest, EndedError
from segbench.engine.run.rows import metric
from segbench.engine.run.stages import predicting
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Job
from segbench.methods.predictions import Instances, LabelInstances, MaskInstances, PredictionSet, PredictionWriter
from segbench.methods.predictions import run_lengths as runs_of

Labels = npt.NDArray[np.int32]
Change = Callable[[Labels], Labels]
Rows = tuple[list[DegradedRow], list[DegradedResamples]]
_MOST_BYTES = 2**31
"""Of the images that lie on the disk for one process: one starts for as many steps as these hold."""


def score_degraded(
    request: AttemptRequest, data: PreparedDataset, job: Job, environment: Environment, facts: dict[str, Any]
) -> Rows:
    """Return the scores of an attempt's model on the degraded test images of its run, and on them as they are.

    The model predicts alone, in processes of its own; images and predictions are removed once they are scored.

    Parameters
    ----------
    request
        The attempt: its predictions on the images as they are, and its model where it trained one, lie in its folder.
    data
        Its dataset.
    job
        Its job.
    environment
        Of the method.
    facts
        Are told what was seen, as ``run_process`` does.

    Raises
    ------
    EndedError
        As ``run_process``.
    """
    own, channels = request.folder.job, list(job.predict[TEST].channels)
    model = str(own.model) if job.model is None and get_card(request.run.method).trained else job.model
    images = np.load(data.images_path(TEST), mmap_mode="r")
    scorer = _Scorer(request, data, PredictionSet(own.predictions(TEST)))
    scorer.score_clean()
    steps = steps_of(request.run.robustness, len(channels))
    at_once = max(1, _MOST_BYTES // max(1, images[:, 0].size * len(channels) * 4))
    files = JobFolder(own.path / "degraded")
    try:
        for first in range(0, len(steps), at_once):
            shutil.rmtree(files.path, ignore_errors=True)
            files.path.mkdir(parents=True)
            predict = {}
            for step in steps[first : first + at_once]:
                path = _write(images, channels, step, files.path)
                predict[path.stem] = Arrays(str(path), tuple(range(len(channels))))
            again = job if model is None else predicting(job, Path(model))
            again = replace(again, predict=predict, output=str(files.path), checkpoints=None)
            again.write(files.job)
            _run(request, again, environment, facts, files)
            for step in steps[first : first + at_once]:
                scorer.score(step, PredictionSet(files.predictions(_name(step))))
        return scorer.rows, scorer.resamples
    finally:
        shutil.rmtree(files.path, ignore_errors=True)


def _run(request: AttemptRequest, job: Job, environment: Environment, facts: dict[str, Any], files: JobFolder) -> None:
    try:
        run_process(request, job, environment, facts, files.job, files)
    except EndedError as ended:
        told = files.log.read_text(errors="replace")[-10_000:] if files.log.exists() else ""
        request.folder.add_to_log(f"on degraded test images:\n{told}\n")
        raise EndedError(ended.status, f"on degraded test images: {ended}") from None


def _name(step: Step) -> str:
    return f"{step.kind}-{step.number}"


def _write(images: npt.NDArray[np.float32], channels: list[int], step: Step, folder: Path) -> Path:
    path, shape = folder / f"{_name(step)}.npy", (images.shape[0], len(channels), *images.shape[2:])
    worse = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for row, window in enumerate(images):
        worse[row] = degraded(window[channels], step, seed=row)
    worse.flush()
    return path


class _Scorer:
    """Collects the scores of steps, all against one truth."""

    def __init__(self, request: AttemptRequest, data: PreparedDataset, clean: PredictionSet) -> None:
        self.rows: list[DegradedRow] = []
        self.resamples: list[DegradedResamples] = []
        self._clean, self._task, self._key = clean, request.run.task, data.fingerprint
        self._truth: Labels = np.load(data.labels_path(TEST, self._task.target), mmap_mode="r")
        self._tissues, self._origins = data.index(TEST)["tissue"].to_list(), data.origins(TEST)
        self._work = request.folder.path / "degraded-scored"
        self._parts: set[tuple[slice, slice]] = set()

    def score_clean(self) -> None:
        """Score the predictions on the images as they are."""
        self._add("none", 0, 0.0, True, evaluate_prediction_set(self._truth, self._clean, groups=self._tissues))

    def score(self, step: Step, found: PredictionSet) -> None:
        """Score predictions in a step; where a part of the windows is seen, also those on the images as they are."""
        size = found.height, found.width
        part = seen_part(size, step)
        if part == seen_part(size, Step("blur", 1)):
            moved = partial(brought_back, step=step) if step.rescales else None
            self._score(step, found, moved, self._truth, clean=False)
            return
        cut = partial(_cut, part=part)
        for predictions, change, clean in ((self._clean, cut, True), (found, partial(brought_back, step=step), False)):
            self._score(step, predictions, change, map(cut, self._truth), clean=clean)

    def _score(
        self, step: Step, found: PredictionSet, change: Change | None, truth: Iterable[Labels], *, clean: bool
    ) -> None:
        with _changed(found, change, self._work) as changed:
            evaluation = evaluate_prediction_set(truth, changed, groups=self._tissues)
        self._add(step.kind, step.number, step.amount, clean, evaluation)

    def _add(self, kind: str, number: int, amount: float, clean: bool, evaluation: Evaluation) -> None:
        step = {"test_task": self._task.name, "kind": kind, "step": number, "clean": clean}
        for tissue, scores in ((ALL_TISSUES, evaluation.pooled), *evaluation.groups.items()):
            counts = {name: getattr(scores, name) for name in ("n_images", "n_truth", "n_predictions")}
            metrics = {name: metric(value) for name, value in scores.metrics().items()}
            self.rows.append(
                DegradedRow.model_validate({**step, "amount": amount, "test_tissue": tissue, **metrics, **counts})
            )
        drawn = paired_samples(evaluation, self._origins, key=self._key)
        columns = {name: [metric(float(value)) for value in values] for name, values in drawn.items()}
        self.resamples.append(DegradedResamples.model_validate({**step, "columns": columns}))


@contextlib.contextmanager
def _changed(found: PredictionSet, change: Change | None, work: Path) -> Iterator[PredictionSet]:
    """Give predictions of which every map was changed; the set itself where nothing is."""
    if change is None:
        yield found
        return
    shutil.rmtree(work, ignore_errors=True)
    size = found.height, found.width
    try:
        with PredictionWriter(work, found.kind, len(found), *size) as writer:
            for instances in found:
                writer.add(changed_instances(instances, size, change))
        yield PredictionSet(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def changed_instances(instances: Instances, size: tuple[int, int], change: Change) -> Instances:
    """Return instances with changed masks; those of which nothing is left are gone, with their scores."""
    if isinstance(instances, LabelInstances):
        labels = change(np.asarray(instances.labels))
        kept = np.unique(labels[labels > 0])
        numbers = np.zeros(len(instances.scores) + 1, np.int32)
        numbers[kept] = np.arange(1, kept.size + 1)
        return LabelInstances(numbers[labels], np.asarray(instances.scores)[kept - 1])
    masks = [change(_mask(counts, size)) > 0 for counts in instances.counts]
    left = [n for n, mask in enumerate(masks) if mask.any()]
    return MaskInstances([runs_of(masks[n]) for n in left], np.asarray(instances.scores)[left])


def _mask(counts: npt.NDArray[np.uint32], size: tuple[int, int]) -> Labels:
    return np.repeat(np.arange(counts.size, dtype=np.int32) % 2, counts).reshape(size, order="F")


def _cut(labels: Labels, part: tuple[slice, slice]) -> Labels:
    left = np.zeros_like(labels)
    left[part] = labels[part]
    return left
