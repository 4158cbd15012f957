"""The rows that an attempt leaves in its record: from what was measured to what the store holds."""

from __future__ import annotations

import contextlib
import platform
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from segbench import __version__
from segbench.engine.data import PreparedDataset
from segbench.engine.grid.cards import get_card
from segbench.engine.metrics import Evaluation
from segbench.engine.metrics.diagnosis import Diagnosis
from segbench.engine.metrics.evaluation import Scores
from segbench.engine.results.record import (
    AttemptRow,
    CalibrationRow,
    EvaluationRow,
    GapRow,
    HistoryRow,
    ImageTable,
    StratumRow,
    TissueRow,
    WholeRow,
)
from segbench.engine.results.statuses import Status
from segbench.engine.run.request import AttemptRequest
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.methods.job import Task


def attempt_row(
    request: AttemptRequest, status: Status, error: str | None, started: datetime, result: dict[str, Any], **facts: Any
) -> AttemptRow:
    """Return an attempt's row from what is known of it; ``result`` is the subprocess's, empty where it left none."""
    run, card = request.run, get_card(request.run.method)
    done = status is Status.DONE
    return AttemptRow(
        run_id=run.id,
        attempt=request.attempt,
        status=status,
        error=None if error is None else " ".join(error.split())[:10_000],
        log_tail=None if done else request.folder.log_tail(),
        method=card.name,
        method_title=card.title,
        method_revision=card.revision,
        family=card.family,
        environment=card.environment,
        category=card.category,
        trained=card.trained,
        attention=card.attention,
        usability=card.usability.composite,
        task=run.task.name,
        dataset=run.task.dataset,
        dataset_kind=request.dataset.kind,
        dataset_fingerprint=run.fingerprint or "",
        channels=list(run.task.channels),
        n_channels=len(run.task.channels),
        target=run.task.target,
        train_tissue=run.train_tissue,
        seed=run.seed,
        settings=dict(run.settings),
        # a model that was taken up may have been trained with half the batch
        batch_size=result.get("batch_size") or run.budget.batch_size,
        epochs=result.get("epochs") if done else run.budget.epochs,
        iterations=result.get("iterations") if done else run.budget.iterations,
        steps_per_epoch=run.budget.steps_per_epoch,
        n_train_images=result.get("n_train_images"),
        n_train_cells=result.get("n_train_cells"),
        n_val_images=facts.get("n_val_images"),
        n_parameters=result.get("n_parameters"),
        versions=result.get("versions", {}),
        lock_hash=facts.get("lock_hash"),
        segbench_version=__version__,
        git_commit=request.git_commit,
        host=socket.gethostname(),
        cpu_name=_cpu_name(),
        num_cpus=run.resources.num_cpus,
        gpu_names=list(result.get("gpu_names") or []),
        num_gpus=run.resources.num_gpus if request.use_gpu else 0.0,
        peak_memory_bytes=result.get("peak_memory_bytes") or facts.get("sampled_peak_bytes"),
        peak_gpu_memory_bytes=result.get("peak_gpu_memory_bytes"),
        started_at=started,
        ended_at=datetime.now(UTC),
        folder=request.folder.relative,
        trained_in=facts.get("trained_in"),
        step_s=result.get("step_s"),
        train_images=run.train_images,
        n_train_pictures=facts.get("n_train_pictures"),
    )


_OF_TRAINING = (
    "batch_size", "epochs", "iterations", "steps_per_epoch", "n_train_images", "n_train_cells", "n_val_images",
    "n_parameters", "train_images", "n_train_pictures",
)  # fmt: skip
_OF_PREDICTION = ("method_revision", "settings", "versions", "lock_hash", "gpu_names", "num_gpus")


def again_row(row: AttemptRow, request: AttemptRequest) -> AttemptRow:
    """Return the row of an attempt that predicts or scores again: what another has left is told as that one told it."""
    if request.of is None:
        return row
    before = request.of.read_record().attempt
    kept = _OF_TRAINING if request.begins == "predict" else (*_OF_TRAINING, *_OF_PREDICTION)
    told = {name: getattr(before, name) for name in kept}
    return row.model_copy(
        update=told | {"stage": request.begins, "of_run": before.run_id, "of_attempt": before.attempt, "step_s": None}
    )


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
        yield EvaluationRow(operation=operation, radius=radius, **_scored(scores, task.name, tissue))


def whole_rows(evaluation: Evaluation, test_task: str) -> Iterator[WholeRow]:
    """Yield the pooled row and one row a test tissue of whole images."""
    for tissue, scores in ((ALL_TISSUES, evaluation.pooled), *evaluation.groups.items()):
        yield WholeRow(**_scored(scores, test_task, tissue))


def _scored(scores: Scores, test_task: str, tissue: str) -> dict[str, Any]:
    return {
        "test_task": test_task,
        "test_tissue": tissue,
        **{name: metric(value) for name, value in scores.metrics().items()},
        "n_images": scores.n_images,
        "n_truth": scores.n_truth,
        "n_predictions": scores.n_predictions,
    }


def gap_rows(diagnosis: Diagnosis, test_task: str) -> list[GapRow]:
    """Return the shares of each gap, pooled and of each test tissue."""
    return [GapRow(test_task=test_task, **_of_tissue(row)) for row in diagnosis.gap_rows]


def stratum_rows(diagnosis: Diagnosis, test_task: str) -> list[StratumRow]:
    """Return what became of the true cells, together and by size and density."""
    return [StratumRow(test_task=test_task, **_of_tissue(row)) for row in diagnosis.stratum_rows]


def calibration_rows(diagnosis: Diagnosis, test_task: str) -> list[CalibrationRow]:
    """Return how often predictions of a score are right."""
    return [CalibrationRow(test_task=test_task, **_of_tissue(row)) for row in diagnosis.calibration_rows]


def _of_tissue(row: dict[str, Any]) -> dict[str, Any]:
    subset = row["subset"]
    return {name: value for name, value in row.items() if name != "subset"} | {"test_tissue": subset}


def tissue_rows(data: PreparedDataset) -> list[TissueRow]:
    """Return what the data are made of, a row a split, target and tissue, and one over all tissues.

    Shapes are means over the cells that no window's border cuts: the part of a cell has another shape than the cell.
    """
    cells = data.cells().select("split", "tissue", "target", "area", "elongation", "convexity", "cut")
    shapes = (pl.col(c).filter(~pl.col("cut")).mean() for c in ("area", "elongation", "convexity"))
    means = [pl.len().alias("n_cells"), *shapes]
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


def history_rows(points: Sequence[dict[str, Any]]) -> Iterator[HistoryRow]:
    """Yield the rows of the losses that a method's process has told."""
    for point in points:
        yield HistoryRow(**{name: point.get(name) for name in HistoryRow.model_fields})


def _cpu_name() -> str | None:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open() as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None
