"""Scores what an attempt has predicted, on its own task and on those that the study asks for besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from segbench.engine.data import PreparedDataset
from segbench.engine.data.tasks import counterpart
from segbench.engine.grid.controls import is_control
from segbench.engine.metrics import evaluate_prediction_set, paired_samples, sweep_prediction_set
from segbench.engine.metrics.batches import LabelMaps
from segbench.engine.metrics.diagnosis import diagnose_prediction_set
from segbench.engine.metrics.postoperations import Operation
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.record import (
    CalibrationRow,
    DegradedResamples,
    DegradedRow,
    EvaluationRow,
    GapRow,
    ImageTable,
    ResampleTable,
    StratumRow,
    TissueRow,
    WholeRow,
)
from segbench.engine.run.controls import scored_windows
from segbench.engine.run.examples import write_examples
from segbench.engine.run.job import CROSS, TEST, other_modality
from segbench.engine.run.request import AttemptRequest
from segbench.engine.run.rows import (
    calibration_rows,
    evaluation_rows,
    gap_rows,
    image_table,
    metric,
    stratum_rows,
    tissue_rows,
    whole_rows,
)
from segbench.engine.run.whole import evaluate_whole
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.methods.predictions import PredictionSet

_DILATIONS, _EROSIONS = range(21), range(11)
"""Radii in pixels, as the study sweeps them."""


@dataclass(frozen=True)
class Scored:
    """What the record says of a finished attempt's predictions and of the data."""

    evaluations: list[EvaluationRow] = field(default_factory=list)
    images: list[ImageTable] = field(default_factory=list)
    resamples: list[ResampleTable] = field(default_factory=list)
    tissues: list[TissueRow] = field(default_factory=list)
    whole: list[WholeRow] = field(default_factory=list)
    gaps: list[GapRow] = field(default_factory=list)
    cell_strata: list[StratumRow] = field(default_factory=list)
    calibration: list[CalibrationRow] = field(default_factory=list)
    degraded: list[DegradedRow] = field(default_factory=list)
    degraded_resamples: list[DegradedResamples] = field(default_factory=list)


def score(request: AttemptRequest, data: PreparedDataset, predicted: AttemptFolder) -> Scored:
    """Score the predictions of an attempt on all test tasks and post-operations of its run; keep some windows to show.

    They lie in ``predicted``; what is shown is written into the attempt of ``request``, which may be another.
    """
    run, index = request.run, data.index(TEST)
    task, tissues = run.task, index["tissue"].to_list()
    truth = {target: np.load(data.labels_path(TEST, target), mmap_mode="r") for target in data.targets}
    predictions = PredictionSet(predicted.job.predictions(TEST))
    only = scored_windows(run, data)
    own = evaluate_prediction_set(_of_windows(truth[task.target], only), predictions, groups=tissues)
    rows = list(evaluation_rows(own, task))
    images = [image_table(own, task, index["image"].to_list())]

    control = is_control(run.method)
    other = None if control else other_modality(run, data)
    if other is not None:
        crossed = PredictionSet(predicted.job.predictions(CROSS))
        across = evaluate_prediction_set(truth[other.target], crossed, groups=tissues)
        rows += evaluation_rows(across, other)
        images.append(image_table(across, other, index["image"].to_list()))
    opposite = counterpart(task, data.tasks) if run.train_tissue == ALL_TISSUES and not control else None
    if opposite is not None:
        operation: Operation = "dilate" if task.target == "nuclear" else "erode"
        radii = _DILATIONS if operation == "dilate" else _EROSIONS
        swept = sweep_prediction_set(truth[opposite.target], predictions, operation, radii, groups=tissues)
        for radius, evaluation in swept.items():
            rows += evaluation_rows(evaluation, opposite, operation, radius)

    write_examples(
        request.folder,
        task,
        data.fingerprint,
        data.images_path(TEST),
        [data.channels.index(name) for name in task.channels],
        data.labels_path(TEST, task.target),
        predictions,
        tissues,
        index[f"n_cells_{task.target}"].to_list(),
        index["image"].to_list(),
        own,
    )
    resamples = []
    if run.train_tissue == ALL_TISSUES:
        samples = paired_samples(own, data.origins(TEST), key=data.fingerprint)
        columns = {name: [metric(float(value)) for value in values] for name, values in samples.items()}
        resamples.append(ResampleTable(test_task=task.name, columns=columns))
    whole = evaluate_whole(data, task.target, predictions) if run.evaluation == "whole" and only is None else None
    diagnosis = diagnose_prediction_set(_of_windows(truth[task.target], only), predictions, groups=tissues)
    return Scored(
        rows,
        images,
        resamples,
        tissue_rows(data),
        [] if whole is None else list(whole_rows(whole, task.name)),
        gap_rows(diagnosis, task.name),
        stratum_rows(diagnosis, task.name),
        calibration_rows(diagnosis, task.name),
    )


def _of_windows(truth: npt.NDArray[np.int32], only: Sequence[int] | None) -> LabelMaps:
    """Return the truth without the cells of windows that are not scored, where not all are."""
    if only is None:
        return truth
    kept = set(only)
    return (labels if row in kept else np.zeros_like(labels) for row, labels in enumerate(truth))
