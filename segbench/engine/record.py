"""The record of one attempt: what is written beside its artifacts and then taken into the store."""

from __future__ import annotations

import enum
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

RECORD_SCHEMA = 1
RECORD_NAME = "record.json"


class Status(enum.StrEnum):
    """How an attempt ended."""

    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out-of-memory"
    DIVERGED = "diverged"
    CANCELLED = "cancelled"
    LOST = "lost"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttemptRow(_Model):
    """One row of the table ``attempts``; its fields are explained in the store's first migration."""

    run_id: str
    attempt: int = Field(ge=1)
    status: Status
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


class ImageTable(_Model):
    """Rows of the table ``images`` of one test task, by column: far smaller than a row an object."""

    test_task: str
    columns: dict[str, list[int] | list[float] | list[str]]
    """Every column of the table but the run, attempt and test task; all of one length."""


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


class Record(_Model):
    """Everything that one attempt leaves behind, as one JSON file."""

    record_schema: int = RECORD_SCHEMA
    attempt: AttemptRow
    phases: dict[str, float]
    evaluations: list[EvaluationRow] = Field(default_factory=list)
    images: list[ImageTable] = Field(default_factory=list)
    history: list[HistoryRow] = Field(default_factory=list)
    tissues: list[TissueRow] = Field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """Write ``record.json`` into the attempt's folder: whole, on the disk, and only then under its name."""
        path = folder / RECORD_NAME
        part = folder / f"{RECORD_NAME}.part"
        with part.open("w") as file:
            file.write(self.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return path

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record; raises ValueError where the file is not one."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{path} is not a record: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
