"""What a method implements, and the two things that it is given: images and a progress reporter."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np
import numpy.typing as npt

from segbench.methods.card import Card
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Arrays, Job
from segbench.methods.predictions import Instances, Kind
from segbench.methods.resampling import resampled, resampled_labels, scaled_size


class ImageStack(Sequence[npt.NDArray[np.float32]]):
    """Windows of a prepared split, read one at a time from the memory-mapped arrays.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from segbench import ImageStack
    >>> from segbench.methods import Arrays
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = [pathlib.Path(folder, name) for name in ("images.npy", "labels.npy")]
    ...     np.save(paths[0], np.zeros((5, 2, 32, 32), np.float32))
    ...     np.save(paths[1], np.ones((5, 32, 32), np.int32))
    ...     stack = ImageStack(Arrays(str(paths[0]), channels=(1,), rows=(0, 3, 4), labels=str(paths[1])))
    ...     len(stack), stack.n_channels, stack.size, stack[1].shape, int(stack.labels(1).max())
    (3, 1, (32, 32), (1, 32, 32), 1)
    """

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        """Where they come from."""
        self._images = np.load(arrays.images, mmap_mode="r")
        self._labels = None if arrays.labels is None else np.load(arrays.labels, mmap_mode="r")
        if self._images.ndim != 4:
            raise ValueError(f"{arrays.images}: images must be (N, C, H, W), found shape {self._images.shape}")
        if self._labels is not None and self._labels.shape != (self._images.shape[0], *self._images.shape[2:]):
            raise ValueError(f"{arrays.labels}: labels {self._labels.shape} do not fit images {self._images.shape}")
        self._channels = list(arrays.channels)
        rows = range(self._images.shape[0]) if arrays.rows is None else arrays.rows
        self._rows = np.asarray(rows, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._rows.size)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Which window of the arrays each is."""
        return self._rows

    @property
    def n_rows(self) -> int:
        """How many windows the arrays have, chosen or not."""
        return int(self._images.shape[0])

    def __getitem__(self, n):  # type: ignore[no-untyped-def]
        """Return window ``n`` as a writable (C, H, W) float32 copy with the selected channels."""
        if isinstance(n, slice):
            return [self[i] for i in range(*n.indices(len(self)))]
        window = np.array(self._images[self._rows[n]][self._channels], dtype=np.float32)
        return window if self.size == self.own_size else resampled(window, self.size)

    def labels(self, n: int) -> npt.NDArray[np.int32]:
        """Return the truth of window ``n`` as a writable (H, W) int32 copy; raises ValueError where there is none."""
        if self._labels is None:
            raise ValueError("these images come without labels")
        labels = np.array(self._labels[self._rows[n]], dtype=np.int32)
        return labels if self.size == self.own_size else resampled_labels(labels, self.size)

    @property
    def n_channels(self) -> int:
        """How many channels the method sees."""
        return len(self._channels)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every window."""
        return scaled_size(self.own_size, self.arrays.scale)

    @property
    def own_size(self) -> tuple[int, int]:
        """(H, W) of the arrays' windows, before they are resampled."""
        return int(self._images.shape[2]), int(self._images.shape[3])


class DivergedError(RuntimeError):
    """Training gave a loss that is not a finite number."""


class Progress:
    """Tells the engine where a run stands: one JSON line a call, to a file and to a stream.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from segbench import Progress
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     progress = Progress(pathlib.Path(folder, "progress.jsonl"))
    ...     progress.phase("train")
    ...     progress.train(epoch=1, epochs=20, loss=0.25)
    >>> progress.history
    [{'epoch': 1, 'step': None, 'loss': 0.25, 'val_loss': None}]
    """

    def __init__(self, path: Path, stream: TextIO | None = None) -> None:
        self._file = path.open("a", buffering=1)
        self._stream = stream
        self.history: list[dict[str, float | int | None]] = []
        self.paces: list[tuple[float, int]] = []
        """Seconds on a monotonic clock, and the training steps done until then."""

    def phase(self, name: str) -> None:
        """Say which phase begins: ``import``, ``load``, ``train``, ``save``, ``predict``."""
        self._write({"phase": name})

    def train(
        self, *, epoch: int | None = None, epochs: int | None = None, step: int | None = None, steps: int | None = None,
        loss: float | None = None, val_loss: float | None = None,
    ) -> None:  # fmt: skip
        """Say how far training is; kept as the run's loss history.

        Parameters
        ----------
        epoch, epochs
            Epochs of the budget begun so far, from 1, and how many there will be.
        step, steps
            Training steps done since the start of training, and how many there will be.
        loss, val_loss
            Mean since the last call; raises DivergedError where one is not finite.
        """
        point = {"epoch": epoch, "step": step, "loss": loss, "val_loss": val_loss}
        self.history.append(
            {
                key: None if value is None else float(value) if "loss" in key else int(value)
                for key, value in point.items()
            }
        )
        if step is not None:
            self.paces.append((time.monotonic(), int(step)))
        self._write({"phase": "train", **point, "epochs": epochs, "steps": steps})
        for name, value in (("training", loss), ("validation", val_loss)):
            if value is not None and not np.isfinite(value):
                raise DivergedError(
                    f"the {name} loss is {float(value)} after step {step or '?'} (epoch {epoch or '?'})"
                )

    def predict(self, done: int, total: int) -> None:
        """Say how many images are predicted."""
        self._write({"phase": "predict", "done": done, "total": total})

    def _write(self, line: dict[str, object]) -> None:
        def plain(value: object) -> object:
            if isinstance(value, np.generic):
                value = value.item()
            # JSON has no NaN: a loss that is not a number is told as text, and the engine calls the run diverged
            return str(value) if isinstance(value, float) and not np.isfinite(value) else value

        text = json.dumps({"time": time.time(), **{k: plain(v) for k, v in line.items() if v is not None}})
        self._file.write(text + "\n")
        if self._stream is not None:
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except OSError:  # whoever read it has gone; the file has it all
                self._stream = None


@dataclass(frozen=True)
class Network:
    """How the raw output of a network becomes instances by steps that bioimage.io itself knows."""

    output: str
    """In the folder of the weights, a .npy (1, H, W, 1): the label map that these steps make of the first window."""
    preprocessing: tuple[Mapping[str, Any], ...] = ()
    """bioimage.io's steps from a window to what the network takes, each with ``id`` and ``kwargs``."""
    postprocessing: tuple[Mapping[str, Any], ...] = ()
    """bioimage.io's steps from what the network gives to a label map."""


@dataclass(frozen=True)
class OtherWeights:
    """A model's weights in a format that other programs read."""

    file: str
    """Its name in the folder."""
    comment: str
    """What a reader of the package must know of it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further fields of the format's entry in bioimage.io's description, such as ``tensorflow_version``."""
    network: Network | None = None
    """Where the weights are those of a network alone; None where they come with all that makes a label map."""


class Method(ABC):
    """A segmentation method; one object lives for one run.

    The runner calls, in order and each timed: ``import_library``, ``load``, ``train``, ``calibrate``, ``save``,
    ``predict``. ``train`` alone is T: everything that is not training (reading data, building the model,
    compiling) belongs in ``load`` as far as the library lets it. For methods that are not trained it calls
    ``import_library``, ``load`` and ``predict``; for a trained method with a job without training data
    ``import_library``, ``restore`` and ``predict``. After out of memory ``calibrate`` and ``predict`` may be called
    again: see ``at_once``.

    Examples
    --------
    A method that is not trained, whole: every pixel above the image's mean belongs to the one cell.

    >>> from segbench import Budget, Card, LabelInstances, Method
    >>> class Mean(Method):
    ...     card = Card(
    ...         name="mean",
    ...         title="Mean",
    ...         family="mean",
    ...         environment="engine",
    ...         category="classical",
    ...         trained=False,
    ...         attention=False,
    ...         budget=Budget(batch_size=1),
    ...     )
    ...
    ...     def import_library(self, job): ...
    ...     def load(self, job, train, val): ...
    ...     def train(self, job, progress, checkpoints): ...
    ...     def save(self, folder): ...
    ...     def restore(self, job, folder): ...
    ...     def predict(self, job, images):
    ...         for image in images:
    ...             yield LabelInstances((image[0] > image[0].mean()).astype(np.int32), np.ones(1))
    >>> found = list(Mean().predict(None, [np.array([[[0.0, 0.2, 0.9]]], np.float32)]))
    >>> found[0].labels
    array([[0, 0, 1]], dtype=int32)
    """

    card: ClassVar[Card]
    prediction_kind: ClassVar[Kind] = "labels"
    saves_uncalibrated: ClassVar[bool] = False
    """True where ``save`` may be called before ``calibrate`` as well, and both after ``load`` and ``restore``: a
    training is then not lost when its calibration fails, and the next attempt calibrates alone."""
    most_at_once: int | None = None
    """Most windows that may go through the network together; None for as many as the method wants."""
    used_at_once: int = 1
    """How many went together last."""

    def at_once(self, wanted: int) -> int:
        """Return how many windows to put through the network together: as wanted, or fewer after it ran out of memory.

        A method that asks this in ``predict`` and ``calibrate`` needs no more to survive a GPU too small for its batch:
        the call that ran out of memory is made again, with half as many, from the first window without a prediction.
        """
        self.used_at_once = max(1, wanted if self.most_at_once is None else min(wanted, self.most_at_once))
        return self.used_at_once

    @abstractmethod
    def import_library(self, job: Job) -> None:
        """Import the upstream library, set its threads and devices (``job.devices``) and its seeds (``job.seed``)."""

    @abstractmethod
    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Read the training data as the library wants them, build the model; ``train`` is None for prediction only."""

    @abstractmethod
    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Train by the budget. Not called for methods that are not trained.

        Parameters
        ----------
        job
            With ``devices.processes`` above 1 this runs in each of them, under torchrun.
        progress
            Told of epochs, steps and losses.
        checkpoints
            For methods whose card says ``resumable``: ask ``latest()`` before the first step and ``due()`` after each.
        """

    def begin(self, job: Job) -> None:
        """Build the model from the released weights that the job's settings name, and train nothing (0 epochs).

        Called instead of ``load``, ``train`` and ``calibrate`` where the card's ``start`` allows it; ``save`` and
        ``predict`` follow.
        """
        raise NotImplementedError(f"{self.card.title} has no released model that is applied as it is: train it")

    def calibrate(self, job: Job, progress: Progress) -> None:  # noqa: B027 - most methods have nothing to choose
        """Choose prediction settings, such as thresholds, from the validation data given to ``load``; not part of T."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the trained model into an existing empty folder."""

    @abstractmethod
    def restore(self, job: Job, folder: Path) -> None:
        """Read what ``save`` wrote, in a new process, after ``import_library``."""

    @abstractmethod
    def predict(self, job: Job, images: ImageStack) -> Iterator[Instances]:
        """Yield each image's instances, in order."""

    def other_formats(self, job: Job, folder: Path) -> Mapping[str, OtherWeights]:  # noqa: ARG002
        """Write the model's weights into an empty folder in formats that other programs read, after a prediction.

        Returns
        -------
        mapping
            What was written, by bioimage.io's name of the format (``torchscript``, ``keras_hdf5``, ...). A package's
            outputs and their post-processing are one for all of them: with a ``network`` it names no other weights.
        """
        return {}

    def n_parameters(self) -> int | None:
        """How many parameters the model has; None where that means nothing."""
        return None

    def used_windows(self) -> Sequence[int] | None:
        """Which of the training windows were trained on; None for all."""
        return None

    def gpu_names(self) -> list[str]:
        """Names of the GPUs that the library used."""
        return []

    def peak_gpu_memory_bytes(self) -> int | None:
        """Most memory that the library held on a GPU; None without one."""
        return None
