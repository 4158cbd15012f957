"""The record of one attempt: what is written beside its artifacts and then taken into the store."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from segbench.engine.results.statuses import ENDED, Status
from segbench.small_files import write_whole
from segbench.wrong_values import first_wrong

RECORD_SCHEMA = 4
"""Raised with every new field: who does not know it leaves the record alone, older ones are read. 1: no resamples;
2: no stages, no hashes of files; 3: no scores of whole images."""


def _ended(status: Status) -> Status:
    if not status.ended:
        raise ValueError(f"an attempt ends as one of {', '.join(ENDED)}")
    return status


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttemptRow(_Model):
    """One row of the table ``attempts``; its fields are explained in the store's first migration."""

    run_id: str
    attempt: int = Field(ge=1)
    status: Annotated[Status, AfterValidator(_ended)]
    error: str | None = None
    log_tail: str | None = None
    method: str
    method_title: str
    method_revision: int
    family: str
    environment: str
    category: str
    trained: bool
    attention: bool
    usability: float | None = None
    task: str
    dataset: str
    dataset_kind: str
    dataset_fingerprint: str
    channels: list[str]
    n_channels: int
    target: str
    train_tissue: str
    seed: int
    settings: dict[str, Any]
    batch_size: int
    epochs: int | None = None
    iterations: int | None = None
    steps_per_epoch: int | None = None
    n_train_images: int | None = None
    n_train_cells: int | None = None
    n_val_images: int | None = None
    n_parameters: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    lock_hash: str | None = None
    segbench_version: str
    git_commit: str | None = None
    host: str
    cpu_name: str | None = None
    num_cpus: float
    gpu_names: list[str] = Field(default_factory=list)
    num_gpus: float
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    started_at: datetime
    ended_at: datetime
    folder: str
    trained_in: int | None = None
    step_s: float | None = None
    stage: Literal["train", "predict", "evaluate"] = "train"
    of_run: str | None = None
    of_attempt: int | None = None


class EvaluationRow(_Model):
    """One row of the table ``evaluations``; a metric is None where the subset has no truth."""

    test_task: str
    test_tissue: str
    operation: str = "none"
    radius: int = 0
    map: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None
    ar50: float | None
    ar75: float | None
    n_images: int
    n_truth: int
    n_predictions: int


class WholeRow(_Model):
    """One row of the table ``whole_evaluations``; a metric is None where the subset has no truth."""

    test_task: str
    test_tissue: str
    map: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None
    ar50: float | None
    ar75: float | None
    n_images: int
    n_truth: int
    n_predictions: int


_IMAGE_COLUMNS = frozenset(
    (
        "image", "name", "tissue", "n_truth", "n_predictions", "pq_matches", "pq_iou", "aji_intersection", "aji_union",
        "seg", "splits", "merges",
        *(f"{name}_{threshold}" for name in ("tp", "iou") for threshold in range(50, 100, 5)),
    )
)  # fmt: skip


class ImageTable(_Model):
    """Rows of the table ``images`` of one test task, by column: far smaller than a row an object."""

    test_task: str
    columns: dict[str, list[int] | list[float] | list[str]]
    """Every column of the table but the run, attempt and test task; all of one length."""

    @model_validator(mode="after")
    def _holds_the_table(self) -> ImageTable:
        if set(self.columns) != _IMAGE_COLUMNS:
            odd = sorted(set(self.columns) ^ _IMAGE_COLUMNS)
            raise ValueError(f"the columns must be those of the table images; missing or unknown: {', '.join(odd)}")
        if len({len(column) for column in self.columns.values()}) > 1:
            raise ValueError("the columns must be of one length")
        return self


METRICS = ("map", "ap50", "ap75", "ar", "ar50", "ar75")
"""The metrics of an evaluation, as columns are named after them."""


class ResampleTable(_Model):
    """Rows of the table ``resamples`` of one test task, by column; row n is resample n."""

    test_task: str
    columns: dict[str, list[float | None]]
    """Every metric, all of one length."""

    @model_validator(mode="after")
    def _is_whole(self) -> ResampleTable:
        if set(self.columns) != set(METRICS) or len({len(column) for column in self.columns.values()}) != 1:
            raise ValueError(f"the columns must be {', '.join(METRICS)}, all of one length")
        return self


class HistoryRow(_Model):
    """One row of the table ``history``."""

    epoch: int | None = None
    step: int | None = None
    loss: float | None = None
    val_loss: float | None = None


class TissueRow(_Model):
    """One row of the table ``tissues``."""

    dataset_fingerprint: str
    dataset: str
    split: str
    target: str
    tissue: str
    n_images: int
    n_cells: int
    area: float | None
    elongation: float | None
    convexity: float | None
    pixel_size_um: float | None


class StageRow(_Model):
    """One row of the table ``stages``."""

    stage: Literal["train", "predict", "evaluate"]
    number: int = Field(ge=1)
    status: Annotated[Status, AfterValidator(_ended)]
    error: str | None = None
    started_at: datetime
    seconds: float | None = None
    at_once: int | None = None
    log: str


class RecordSchemaError(ValueError):
    """The record is whole, but of a schema that this segbench does not know."""


class Record(_Model):
    """Everything that one attempt leaves behind, as one JSON file."""

    record_schema: int = Field(default=RECORD_SCHEMA, ge=1, le=RECORD_SCHEMA)
    attempt: AttemptRow
    phases: dict[str, float]
    evaluations: list[EvaluationRow] = Field(default_factory=list)
    images: list[ImageTable] = Field(default_factory=list)
    resamples: list[ResampleTable] = Field(default_factory=list)
    history: list[HistoryRow] = Field(default_factory=list)
    tissues: list[TissueRow] = Field(default_factory=list)
    stages: list[StageRow] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every file of a finished attempt but this one, by its path in the attempt's folder."""
    whole: list[WholeRow] = Field(default_factory=list)

    def write(self, path: Path) -> Path:
        """Write the record, whole, on the disk and only then under its name; return the path."""
        write_whole(path, self.model_dump_json(indent=1), sync=True)
        return path

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record.

        Raises
        ------
        RecordSchemaError
            A newer segbench wrote it.
        ValueError
            The file is not a record: cut off, or not what a record is.
        FileNotFoundError
            There is none.
        """
        content = path.read_bytes()
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            schema = _schema_of(content)
            if schema is not None and schema > RECORD_SCHEMA:
                raise RecordSchemaError(
                    f"{path} was written by a newer segbench (record schema {schema}, this one knows {RECORD_SCHEMA}): "
                    "upgrade segbench"
                ) from None
            raise ValueError(f"{path} is not a record: {first_wrong(error)}") from None


def _schema_of(content: bytes) -> int | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    schema = found.get("record_schema") if isinstance(found, dict) else None
    return schema if isinstance(schema, int) else None
