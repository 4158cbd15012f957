"""The record of one attempt: what is written beside its artifacts and then taken into the store."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from segbench.engine.results.statuses import ENDED, Status
from segbench.small_files import write_whole
from segbench.wrong_values import first_wrong

RECORD_SCHEMA = 7
"""Raised with every new field: who does not know it leaves the record alone, older ones are read. 1: no resamples;
2: no stages, no hashes of files; 3: no scores of whole images; 4: no diagnosis, no digest of itself, no claim; 5: no
part of the training images; 6: no degraded test images."""


RUN_ID = r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}"
"""What the id of a run looks like: it names a folder, so it can lead nowhere else."""
_LARGEST = 2**31 - 1
_LONGEST = 2**63 - 1
RunId = Annotated[str, Field(pattern=f"^{RUN_ID}$")]
Whole = Annotated[int, Field(ge=-_LARGEST - 1, le=_LARGEST)]
"""What a column of whole numbers holds."""
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
Number = Annotated[int, Field(ge=1, le=_LARGEST)]
Bytes = Annotated[int, Field(ge=0, le=_LONGEST)]
Score = Annotated[float, Field(ge=0, le=1)]


def _ended(status: Status) -> Status:
    if not status.ended:
        raise ValueError(f"an attempt ends as one of {', '.join(ENDED)}")
    return status


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AttemptRow(_Model):
    """One row of the table ``attempts``; its fields are explained in the store's first migration."""

    run_id: RunId
    attempt: Number
    status: Annotated[Status, AfterValidator(_ended)]
    error: str | None = None
    log_tail: str | None = None
    method: str
    method_title: str
    method_revision: Whole
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
    n_channels: Whole
    target: str
    train_tissue: str
    seed: Whole
    settings: dict[str, Any]
    batch_size: Count
    epochs: Count | None = None
    iterations: Count | None = None
    steps_per_epoch: Count | None = None
    n_train_images: Count | None = None
    n_train_cells: Count | None = None
    n_val_images: Count | None = None
    n_parameters: Bytes | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    lock_hash: str | None = None
    segbench_version: str
    git_commit: str | None = None
    host: str
    cpu_name: str | None = None
    num_cpus: float
    gpu_names: list[str] = Field(default_factory=list)
    num_gpus: float
    peak_memory_bytes: Bytes | None = None
    peak_gpu_memory_bytes: Bytes | None = None
    started_at: datetime
    ended_at: datetime
    folder: str
    trained_in: Count | None = None
    step_s: float | None = None
    stage: Literal["train", "predict", "evaluate"] = "train"
    of_run: RunId | None = None
    of_attempt: Count | None = None
    train_images: Count | None = None
    n_train_pictures: Count | None = None

    @model_validator(mode="after")
    def _lies_where_it_says(self) -> AttemptRow:
        if self.folder != f"runs/{self.run_id}/attempt-{self.attempt:03d}":
            raise ValueError("folder must be that of the run and the attempt, in runs/")
        return self


class _Scores(_Model):
    test_task: str
    test_tissue: str
    map: Score | None
    ap50: Score | None
    ap75: Score | None
    ar: Score | None
    ar50: Score | None
    ar75: Score | None
    n_images: Count
    n_truth: Count
    n_predictions: Count


class EvaluationRow(_Scores):
    """One row of the table ``evaluations``; a metric is None where the subset has no truth."""

    operation: str = Field(default="none", pattern="^(none|dilate|erode)$")
    radius: Whole = 0


class WholeRow(_Scores):
    """One row of the table ``whole_evaluations``; a metric is None where the subset has no truth."""


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
    columns: dict[str, list[Score | None]]
    """Every metric, all of one length."""

    @model_validator(mode="after")
    def _is_whole(self) -> ResampleTable:
        if set(self.columns) != set(METRICS) or len({len(column) for column in self.columns.values()}) != 1:
            raise ValueError(f"the columns must be {', '.join(METRICS)}, all of one length")
        return self


class GapRow(_Model):
    """One row of the table ``gaps``; all is None where the subset has no truth."""

    test_task: str
    test_tissue: str
    metric: Literal["map", "ap50", "ap75"]
    score: Score | None
    gap: Score | None
    missed: float | None
    split: float | None
    merged: float | None
    spurious: float | None
    loose: float | None


class StratumRow(_Model):
    """One row of the table ``cell_strata``."""

    test_task: str
    test_tissue: str
    parted_by: Literal["all", "size", "density"]
    stratum: Count
    low: float | None = None
    high: float | None = None
    n_truth: Count
    found: Count
    missed: Count
    split: Count
    merged: Count
    loose: Count
    spurious: Count | None
    mean_iou: Score | None
    boundary_iou: Score | None
    boundary_px: float | None
    boundary_95_px: float | None
    area_ratio: float | None


class CalibrationRow(_Model):
    """One row of the table ``calibration``."""

    test_task: str
    test_tissue: str
    bin: Count
    low: float
    high: float
    n: Number
    mean_score: float
    correct: Score


class DegradedRow(_Scores):
    """One row of the table ``degraded_evaluations``; a metric is None where the subset has no truth."""

    kind: str
    step: Whole
    amount: float
    clean: bool


class DegradedResamples(ResampleTable):
    """Rows of the table ``degraded_resamples`` of one kind and step, by column; row n is resample n."""

    kind: str
    step: Whole
    clean: bool


class HistoryRow(_Model):
    """One row of the table ``history``."""

    epoch: Whole | None = None
    step: Whole | None = None
    loss: float | None = None
    val_loss: float | None = None


class TissueRow(_Model):
    """One row of the table ``tissues``."""

    dataset_fingerprint: str
    dataset: str
    split: str
    target: str
    tissue: str
    n_images: Count
    n_cells: Count
    area: float | None
    elongation: float | None
    convexity: float | None
    pixel_size_um: float | None


class StageRow(_Model):
    """One row of the table ``stages``."""

    stage: Literal["train", "predict", "evaluate"]
    number: Number
    status: Annotated[Status, AfterValidator(_ended)]
    error: str | None = None
    started_at: datetime
    seconds: float | None = None
    at_once: Count | None = None
    log: str


class RecordSchemaError(ValueError):
    """The record is whole, but of a schema that this segbench does not know."""


class MisplacedRecordError(ValueError):
    """The record is whole, but lies in another attempt's folder."""


class ChangedRecordError(ValueError):
    """The record is whole, but not what was written: a value of it was changed since."""


class ForgedRecordError(ValueError):
    """The record does not hold what the driver told the attempt's worker alone: something else has written it."""


_END = "\n}"
_DIGEST = re.compile(rb',\n "digest": "([0-9a-f]{64})"\n\}\s*\Z')


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
    gaps: list[GapRow] = Field(default_factory=list)
    cell_strata: list[StratumRow] = Field(default_factory=list)
    calibration: list[CalibrationRow] = Field(default_factory=list)
    degraded: list[DegradedRow] = Field(default_factory=list)
    degraded_resamples: list[DegradedResamples] = Field(default_factory=list)
    claim: str | None = Field(default=None, max_length=100)
    """What the driver told the attempt's worker, and nobody else: a record without it is not the engine's."""
    digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file without this line: what was changed since is no record any more."""

    def write(self, path: Path) -> Path:
        """Write the record, whole, on the disk and only then under its name; return the path."""
        text = self.model_dump_json(indent=1, exclude={"digest"})
        digest = hashlib.sha256(text.encode()).hexdigest()
        write_whole(path, f'{text.removesuffix(_END)},\n "digest": "{digest}"{_END}', sync=True)
        return path

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record.

        Raises
        ------
        RecordSchemaError
            A newer segbench wrote it.
        ChangedRecordError
            It was changed after it was written.
        ValueError
            The file is not a record: cut off, or not what a record is.
        FileNotFoundError
            There is none.
        """
        content = path.read_bytes()
        try:
            found = cls.model_validate_json(content)
        except ValidationError as error:
            schema = _schema_of(content)
            if schema is not None and schema > RECORD_SCHEMA:
                raise RecordSchemaError(
                    f"{path} was written by a newer segbench (record schema {schema}, this one knows {RECORD_SCHEMA}): "
                    "upgrade segbench"
                ) from None
            raise ValueError(f"{path} is not a record: {first_wrong(error)}") from None
        if found.digest is not None and not _is_as_written(content):
            raise ChangedRecordError(f"{path} was changed after it was written: its SHA-256 is another")
        return found.model_copy(update={"digest": None})


def _is_as_written(content: bytes) -> bool:
    told = _DIGEST.search(content)
    return told is not None and hashlib.sha256(content[: told.start()] + _END.encode()).hexdigest() == told[1].decode()


def _schema_of(content: bytes) -> int | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    schema = found.get("record_schema") if isinstance(found, dict) else None
    return schema if isinstance(schema, int) else None
