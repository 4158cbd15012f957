"""What people want to know of a model before they use it: its scores, training, data and licences, as plain data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from segbench.engine.metrics import Evaluation, evaluate_prediction_set
from segbench.engine.metrics.bootstrap import resampled_metrics
from segbench.engine.results.record import EvaluationRow, Record
from segbench.errors import SegbenchError
from segbench.methods.card import Card
from segbench.methods.predictions import PredictionSet
from segbench.wrong_values import first_wrong

FACTS = "facts.json"
"""In a package: the facts."""
OF_ACCURACY = ("map", "ap50", "ap75", "ar50", "ar75")
"""Accuracy is the mean of these."""
RESAMPLES = 500
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What a package's name looks like: it becomes a file's name and a part of an address."""
LONGEST_NAME = 100
LONGEST_LINE = 2000


def _line(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("it must be one line of text")
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text) or len(text) > LONGEST_NAME:
        raise ValueError("it must be lower-case letters and digits, parts joined by hyphens")
    return text


Line = Annotated[str, Field(max_length=LONGEST_LINE), AfterValidator(_line)]
Name = Annotated[str, AfterValidator(_name)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TissueScore(_Facts):
    """How well a model did on the test images of one tissue, ``all`` for all together."""

    test_tissue: Line
    accuracy: Share | None
    accuracy_low: Share | None = None
    """Lower end of its 95 % interval over resamples of the images; None where the predictions were not at hand."""
    accuracy_high: Share | None = None
    map: Share | None
    ap50: Share | None
    ap75: Share | None
    ar: Share | None
    ar50: Share | None
    ar75: Share | None
    n_images: int = Field(ge=0)
    n_truth: int = Field(ge=0)


class TrainingFacts(_Facts):
    """How a model was trained, and on what."""

    images: int | None = None
    """Windows that it was trained on."""
    cells: int | None = None
    val_images: int | None = None
    epochs: int | None = None
    iterations: int | None = None
    batch_size: int
    seconds: float | None = None
    """T; None for a method that is not trained."""
    predict_image_s: float | None = None
    """Seconds of prediction for each window."""
    gpu_names: tuple[Line, ...] = ()
    num_gpus: float = 0
    cpu_name: Line | None = None
    num_cpus: float = 1
    peak_memory_bytes: int | None = None
    peak_gpu_memory_bytes: int | None = None


class DataFacts(_Facts):
    """The dataset that a model was trained on."""

    name: Line
    kind: Line
    fingerprint: Line
    licence: Line | None = None
    """As whoever made the package told it; None where nobody did."""


class ModelFacts(_Facts):
    """All that a model's page and the gallery's index tell."""

    facts_schema: Literal[1] = 1
    name: Name
    """Of the package: unique in a gallery."""
    title: Line
    run_id: Line
    method: Line
    method_title: Line
    method_revision: int
    category: Line
    trained: bool
    task: Line
    channels: tuple[Line, ...] = Field(min_length=1)
    target: Line
    train_tissue: Line
    seed: int
    made_at: Line
    """When the run ended, ISO 8601."""
    segbench_version: Line
    method_licence: Line = ""
    """Of the library that runs the model."""
    licence: Line | None = None
    """Of the model itself, an SPDX identifier; None where nobody told."""
    authors: tuple[Line, ...] = ()
    citation: Line = ""
    url: Line = ""
    n_parameters: int | None = None
    pixel_size_um: float | None = None
    diameter_px: float | None = None
    window: tuple[int, int]
    """Height and width of the windows that it sees, in pixels."""
    model_bytes: int = Field(ge=0)
    """Of the weights, unpacked."""
    training: TrainingFacts
    data: DataFacts
    scores: tuple[TissueScore, ...] = ()
    preparation: dict[str, Any] = Field(default_factory=dict)
    """How images become windows: the settings of the dataset's preparation."""
    likeness: tuple[tuple[float, ...], ...] = ()
    """What some of its training windows look like, a row a window: see ``likeness``."""

    @property
    def pooled(self) -> TissueScore | None:
        """The score on all test tissues together."""
        return next((score for score in self.scores if score.test_tissue == "all"), None)

    @classmethod
    def read(cls, content: bytes, where: str) -> ModelFacts:
        """Read the facts of a package; raises SegbenchError, naming ``where`` they were found."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise SegbenchError(f"{where}: {FACTS} does not tell of a model: {first_wrong(error)}") from None


def package_name(method: str, task: str, train_tissue: str, run_id: str) -> str:
    """Return what a run's package is called.

    Examples
    --------
    >>> package_name("swin-s", "tissuenet-nuclear-1ch", "Lymph Node", "0caf473b5ad4aede")
    'swin-s-tissuenet-nuclear-1ch-lymph-node-0caf473b'
    """
    words = f"{method}-{task}-{train_tissue}-{run_id[:8]}".lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:LONGEST_NAME].strip("-")


def accuracy_of(row: EvaluationRow) -> float | None:
    """Return the mean of an evaluation's five metrics; None where it had no truth."""
    values = [getattr(row, name) for name in OF_ACCURACY]
    return None if None in values else sum(values) / len(values)


def score_rows(record: Record, intervals: Mapping[str, tuple[float, float]]) -> tuple[TissueScore, ...]:
    """Return a run's scores on its own task, the pooled one first; ``intervals`` of accuracy are by test tissue."""
    rows = [row for row in record.evaluations if row.test_task == record.attempt.task and row.operation == "none"]
    found = []
    for row in sorted(rows, key=lambda row: (row.test_tissue != "all", row.test_tissue)):
        low, high = intervals.get(row.test_tissue, (None, None))
        metrics = {name: getattr(row, name) for name in (*OF_ACCURACY, "ar")}
        found.append(
            TissueScore(
                test_tissue=row.test_tissue,
                accuracy=accuracy_of(row),
                accuracy_low=low,
                accuracy_high=high,
                n_images=row.n_images,
                n_truth=row.n_truth,
                **metrics,
            )
        )
    return tuple(found)


def training_facts(record: Record, card: Card) -> TrainingFacts:
    """Return how a run was trained, of its record."""
    row = record.attempt
    tested = next((score.n_images for score in record.evaluations if score.test_tissue == "all"), 0)
    predict_s = record.phases.get("predict")
    return TrainingFacts(
        images=row.n_train_images,
        cells=row.n_train_cells,
        val_images=row.n_val_images,
        epochs=row.epochs,
        iterations=row.iterations,
        batch_size=row.batch_size,
        seconds=record.phases.get("train") if card.trained else None,
        predict_image_s=None if predict_s is None or not tested else predict_s / tested,
        gpu_names=tuple(row.gpu_names),
        num_gpus=row.num_gpus,
        cpu_name=row.cpu_name,
        num_cpus=row.num_cpus,
        peak_memory_bytes=row.peak_memory_bytes,
        peak_gpu_memory_bytes=row.peak_gpu_memory_bytes,
    )


def accuracy_intervals(
    labels: Path, predictions: Path, tissues: Sequence[str], origins: Sequence[str], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of accuracy by test tissue, ``all`` among them.

    Images are drawn with replacement, all windows of one together (Efron, 1979); nothing is matched again.

    Parameters
    ----------
    labels
        A .npy of the true label maps (N, H, W).
    predictions
        The folder of what was predicted for the same N windows.
    tissues, origins
        The tissue, and the image, of each of the N windows.
    seed
        Equal seeds draw equal resamples.
    """
    truth = np.load(labels, mmap_mode="r")
    evaluation = evaluate_prediction_set(truth, PredictionSet(predictions), groups=tissues)
    names = np.asarray(tissues, dtype=str)
    found = {}
    for tissue in ("all", *sorted(set(tissues))):
        members = np.arange(names.size) if tissue == "all" else np.flatnonzero(names == tissue)
        found[tissue] = _interval(evaluation, members, np.asarray(origins, dtype=str)[members], seed)
    return {tissue: interval for tissue, interval in found.items() if interval is not None}


def _interval(
    evaluation: Evaluation, members: npt.NDArray[np.int64], origins: npt.NDArray[Any], seed: int
) -> tuple[float, float] | None:
    units, unit = np.unique(origins, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(units.size, np.full(units.size, 1 / units.size), RESAMPLES)
    weights = np.zeros((RESAMPLES, len(evaluation.images)), np.int64)
    weights[:, members] = drawn[:, unit]
    samples = resampled_metrics(evaluation, weights)
    values = np.mean([samples[name] for name in OF_ACCURACY], axis=0)
    valid = values[(samples["map"] > -1) & (samples["ar50"] > -1)]
    if not valid.size:
        return None
    low, high = np.percentile(valid, [2.5, 97.5])
    return float(low), float(high)
