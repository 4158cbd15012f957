"""What lies in the folder of one job, by name: its process writes it, and the engine reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class JobFolder:
    """The output folder of a job.

    Examples
    --------
    >>> JobFolder(Path("here")).predictions("test").as_posix()
    'here/predictions/test'
    """

    path: Path

    @property
    def job(self) -> Path:
        """The job itself, where the engine writes it."""
        return self.path / "job.json"

    @property
    def log(self) -> Path:
        """All that the process and its libraries write."""
        return self.path / "log.txt"

    @property
    def progress(self) -> Path:
        """Where the method stands, a line of JSON each time."""
        return self.path / "progress.jsonl"

    @property
    def result(self) -> Path:
        """How it ended, written last."""
        return self.path / "result.json"

    @property
    def record(self) -> Path:
        """The engine's record of a finished attempt: where it lies, nothing is written any more."""
        return self.path / "record.json"

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.path / "model"

    @property
    def model_marker(self) -> Path:
        """Written last into the model's folder: one without it holds no finished model."""
        return self.model / "model.json"

    @property
    def trained(self) -> Path:
        """The model as it was before it was calibrated; it goes when that has been done."""
        return self.path / "trained"

    @property
    def trained_marker(self) -> Path:
        """Written last into that folder."""
        return self.trained / "trained.json"

    @property
    def work(self) -> Path:
        """Where a method may keep files while it trains; it goes when the model is saved."""
        return self.path / "work"

    @property
    def formats(self) -> Path:
        """What was written of the weights in the formats of other programs, by the format's name."""
        return self.path / "formats.json"

    @property
    def all_predictions(self) -> Path:
        """The folder of all predictions."""
        return self.path / "predictions"

    def predictions(self, name: str) -> Path:
        """Return the folder of one of the job's predictions."""
        return self.all_predictions / name
