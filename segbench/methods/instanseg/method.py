"""InstanSeg as a method: its card, and windows to upstream's network and back to instances."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods import torch_devices
from segbench.methods.base import ImageStack, Method, Progress
from segbench.methods.card import Budget, Card, Resources
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.instanseg.windows import STRIDE, Crops
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances
from segbench.methods.scales import SETTINGS as SCALES
from segbench.methods.setting import Setting

SEED_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""What ``seed_threshold: auto`` chooses from; upstream's own is 0.5 in training and 0.7 in a released model."""


class InstanSeg(Method):
    """InstanSeg with upstream's U-Net and losses, from random weights."""

    saves_uncalibrated = True
    card = Card(
        name="instanseg",
        title="InstanSeg",
        family="instanseg",
        environment="instanseg",
        category="cell-specific",
        trained=True,
        attention=False,
        budget=Budget(
            batch_size=3,
            epochs=500,
            steps_per_epoch=333,
            note="not in the study; upstream's defaults: 500 epochs of 1000 crops in batches of 3, after a hot start "
            "of 10 epochs, which are among the epochs here",
        ),
        resources=Resources(num_gpus=1, num_cpus=1, memory_gb=3),
        libraries=("instanseg-torch", "torch"),
        settings={
            **SCALES,
            "layers": Setting([32, 64, 128, 256], "channels of the U-Net's levels", minimum=4),
            "optimizer": Setting("adam", "of the training", choices=("adam", "adamw", "sgd")),
            "learning_rate": Setting(1e-3, "of the optimizer", above=0),
            "weight_decay": Setting(0.0, "of the optimizer", minimum=0),
            "clip_norm": Setting(20.0, "largest norm of all gradients", above=0),
            "crop": Setting(256, "side of a training crop, a multiple of 8", unit="pixels", minimum=16),
            "hot_start_epochs": Setting(
                10, "first epochs, half of all at most, that have upstream's simpler losses", unit="epochs", minimum=0
            ),
            "seed_loss": Setting(
                "l1_distance", "what a cell's seed is learnt by", choices=("l1_distance", "l2_distance", "binary_xloss")
            ),
            "n_sigma": Setting(2, "features that each pixel has beside its place", minimum=1),
            "mlp_width": Setting(5, "of the network that says which pixels belong to a seed", minimum=1),
            "window": Setting(
                128, "side of the part around a seed where its pixels are looked for", unit="pixels", minimum=16
            ),
            "keep_best": Setting(True, "keep the weights with the best F1 on validation windows, not the last ones"),
            "val_windows": Setting(
                64, "most validation windows for that, after each epoch", unit="windows", minimum=1
            ),
            "seed_threshold": Setting(
                "auto",
                "seeds have a higher value; auto chooses on validation windows",
                type=float,
                words=("auto",),
                minimum=0,
                maximum=1,
                prediction=True,
                calibrated=("auto",),
            ),
            "calibration_windows": Setting(
                32, "most validation windows used to choose it", unit="windows", minimum=1
            ),
            "mask_threshold": Setting(
                0.53, "pixels with a higher probability belong to the seed", minimum=0, maximum=1, prediction=True
            ),
            "peak_distance": Setting(4, "least distance of two seeds", unit="pixels", minimum=1, prediction=True),
            "overlap_threshold": Setting(
                0.5, "seeds whose cells overlap more are one cell", minimum=0, maximum=1, prediction=True
            ),
            "min_size": Setting(10, "smaller cells are dropped", unit="pixels", minimum=0, prediction=True),
            "max_seeds": Setting(
                2000, "an image with more seeds has no cells: a network that has not learnt", unit="seeds", minimum=1,
                prediction=True,
            ),
        },
        check_settings={"crop": 64, "calibration_windows": 2, "max_seeds": 200},
        score_rule="the seed map's largest value in the instance, where 1 is the middle of a cell",
        resumable=True,
        may_halve_batch=True,
        paper="Goldsborough et al., 2024, arXiv:2408.15954",
        url="https://github.com/instanseg/instanseg",
        licence="Apache-2.0",
    )  # fmt: skip

    def import_library(self, job: Job) -> None:
        """Import torch and InstanSeg; set threads, memory and seeds."""
        self._device = torch_devices.prepare_torch(job)
        import torch

        import segbench.methods.instanseg._training as training

        self._torch: Any = torch
        self._training: Any = training
        self._seed_threshold = 0.5

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Choose the windows that have cells, and build the network and its optimiser."""
        if train is None:
            raise ValueError("InstanSeg needs training windows with labels")
        self._used = [n for n in range(len(train)) if train.labels(n).any()]
        if not self._used:
            raise ValueError("no training window has a cell")
        if min(train.size) < 2 * STRIDE:
            raise ValueError(f"windows of {train.size} pixels are too small for InstanSeg: {2 * STRIDE} at least")
        if val is None and job.settings["keep_best"]:
            raise ValueError("keep_best needs validation windows and there are none: set it to false")
        budget = job.budget
        steps = budget.steps_per_epoch or -(-len(self._used) // budget.batch_size)
        crops = Crops(
            train, self._used, job.settings["crop"], self._normalised, budget.batch_size, steps, job.seed
        )  # fmt: skip
        self._build(job, train.n_channels)
        self._fit = self._training.Training(self._model, self._loss, crops, job.settings, job.seed)
        self._val = self._some(val or train, range(len(val)) if val is not None else self._used, job)

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Train by upstream's losses, first the simpler ones."""
        few = self._val[: job.settings["val_windows"]]
        validate = (lambda: self._f1(few, job, 0.5)) if job.settings["keep_best"] else None
        self._fit.run(job.budget.epochs or 1, progress, checkpoints, validate)
        del self._fit

    def calibrate(self, job: Job, progress: Progress) -> None:  # noqa: ARG002
        """Choose the seeds' threshold by upstream's F1 on validation windows, or training ones."""
        chosen = job.settings["seed_threshold"]
        if chosen != "auto":
            self._seed_threshold = float(chosen)
            return
        few = self._val[: job.settings["calibration_windows"]]
        scores = [self._f1(few, job, threshold) for threshold in SEED_THRESHOLDS]
        self._seed_threshold = SEED_THRESHOLDS[int(np.argmax(scores))]

    def save(self, folder: Path) -> None:
        """Write the weights as upstream's own files hold them, and what is needed to predict with them."""
        state = {key: value.cpu() for key, value in self._model.state_dict().items()}
        self._torch.save({"model_state_dict": state}, folder / "model_weights.pth")
        about = {"n_channels": self._n_channels, "seed_threshold": self._seed_threshold}
        (folder / "prediction.json").write_text(json.dumps(about))

    def restore(self, job: Job, folder: Path) -> None:
        """Load a folder that ``save`` wrote; an explicit ``seed_threshold`` of the job comes first."""
        about = json.loads((folder / "prediction.json").read_text())
        self._build(job, about["n_channels"])
        kept = self._torch.load(folder / "model_weights.pth", map_location="cpu", weights_only=True)
        self._model.load_state_dict(kept["model_state_dict"])
        chosen = job.settings["seed_threshold"]
        self._seed_threshold = about["seed_threshold"] if chosen == "auto" else float(chosen)

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        """Yield the cells that upstream's post-processing makes of each window."""
        for n in range(len(images)):
            found, seeds = self._find(images[n], job, self._seed_threshold)
            yield scored(found, seeds)

    def n_parameters(self) -> int:
        """Return how many numbers of the model are trained."""
        return sum(p.numel() for p in self._model.parameters() if p.requires_grad)

    def used_windows(self) -> Sequence[int] | None:
        """Return the windows with cells."""
        return self._used

    def gpu_names(self) -> list[str]:
        """Return the name of the GPU, if one was used."""
        return torch_devices.gpu_names(self._device)

    def peak_gpu_memory_bytes(self) -> int | None:
        """Return the most memory that torch held on a GPU."""
        return torch_devices.peak_gpu_memory_bytes(self._device)

    def _build(self, job: Job, channels: int) -> None:
        self._n_channels = channels
        self._model, self._loss = self._training.build(job.settings, channels, self._device)

    def _normalised(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        from instanseg.utils.utils import percentile_normalize

        # a channel at a time: upstream takes the shortest axis for that of the channels
        return np.concatenate([percentile_normalize(np.array(plane[np.newaxis])) for plane in image])

    def _some(self, stack: ImageStack, numbers: Sequence[int], job: Job) -> list[tuple[Any, npt.NDArray[np.int32]]]:
        most = max(job.settings["val_windows"], job.settings["calibration_windows"])
        shuffled = np.random.default_rng(job.seed).permutation(np.asarray(list(numbers)))[:most]
        return [(stack[int(n)], stack.labels(int(n))) for n in np.sort(shuffled)]

    def _f1(self, windows: Sequence[tuple[Any, npt.NDArray[np.int32]]], job: Job, threshold: float) -> float:
        found = [self._find(image, job, threshold)[0] for image, _ in windows]
        return float(self._training.f1([truth for _, truth in windows], found))

    def _find(
        self, image: npt.NDArray[np.float32], job: Job, threshold: float
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return a label map (H, W) and the seed map (H, W) of a window (C, H, W)."""
        torch, settings = self._torch, job.settings
        height, width = image.shape[1:]
        more = (0, -width % STRIDE, 0, -height % STRIDE)
        self._model.eval()
        with torch.no_grad():
            inputs = torch.from_numpy(self._normalised(image))[None].to(self._device)
            inputs = torch.nn.functional.pad(inputs, more, mode="reflect") if any(more) else inputs
            output = self._model(inputs)[0, :, :height, :width]
            labels = self._loss.postprocessing(
                output, mask_threshold=settings["mask_threshold"], peak_distance=settings["peak_distance"],
                seed_threshold=threshold, overlap_threshold=settings["overlap_threshold"],
                window_size=settings["window"], min_size=settings["min_size"], max_seeds=settings["max_seeds"],
            )  # fmt: skip
            seeds = output[-1] / 15 + 0.5  # as upstream reads it
        return labels[0].cpu().numpy().astype(np.int32), seeds.float().cpu().numpy()


def scored(labels: npt.NDArray[np.int32], seeds: npt.NDArray[np.float32]) -> LabelInstances:
    """Return a label map's cells, numbered without gaps, each with the largest value of the seed map in it.

    Examples
    --------
    >>> found = scored(np.array([[0, 3, 3, 7]], np.int32), np.array([[0.9, 0.2, 0.6, 1.4]], np.float32))
    >>> found.labels.tolist(), [round(score, 3) for score in found.scores.tolist()]
    ([[0, 1, 1, 2]], [0.6, 1.0])
    """
    present = np.unique(labels)
    numbers = np.searchsorted(present[present > 0], labels) + 1
    numbers[labels <= 0] = 0
    scores = np.zeros(int(numbers.max(initial=0)) + 1)
    np.maximum.at(scores, numbers.ravel(), seeds.ravel().astype(np.float64))
    return LabelInstances(numbers.astype(np.int32), np.clip(scores[1:], 0, 1))
