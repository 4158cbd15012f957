"""What the methods on detectron2 share: data, training, saving and predicting; each method builds its own model."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from segbench.errors import SegbenchError
from segbench.methods import torch_devices
from segbench.methods.base import ImageStack, Method, Progress
from segbench.methods.card import PRECISIONS
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job
from segbench.methods.normalisations import NORMALISATION
from segbench.methods.planes import Normalisation, fit_normalisation
from segbench.methods.predictions import Kind, MaskInstances
from segbench.methods.setting import Setting

DETECTIONS = 3000
"""No method may return fewer instances of an image than this where it finds them."""

LIBRARIES = ("sal-detectron2", "timm", "torch", "torchvision")

SETTINGS: Mapping[str, Setting] = {
    "normalisation": NORMALISATION,
    "learning_rate": Setting(0.01, "of SGD, after the warm-up", above=0),
    "momentum": Setting(0.9, "of SGD", minimum=0, below=1),
    "weight_decay": Setting(1e-4, "of SGD", minimum=0),
    "gamma": Setting(0.1, "the rate is multiplied by this at each milestone", unit="factor", above=0, maximum=1),
    "warmup_iterations": Setting(
        1000, "linear from a thousandth of the rate, a tenth of the budget at most", unit="iterations", minimum=0
    ),
    "clip_gradients": Setting(
        10.0, "largest norm of one parameter's gradient: 0 for no limit, which is the study's", minimum=0
    ),
    "precision": Setting(
        "auto",
        "of the training: auto is float16 on a GPU and float32 (the study's) else, where half precision is slow",
        choices=("auto", *PRECISIONS),
    ),
    "train_scales": Setting(
        (1.71875, 1.875, 2.03125, 2.1875, 2.265625, 2.421875),
        "a training window is enlarged by one of these (the study: windows of 256 pixels to 440 to 620)",
        unit="factor",
        above=0,
    ),
    "test_scale": Setting(
        3.125,
        "a window is enlarged by this in prediction (the study: 256 pixels to 800)",
        unit="factor",
        above=0,
        prediction=True,
    ),
    "flip": Setting(0.5, "how often a training window is mirrored left to right", unit="share", minimum=0, maximum=1),
    "pretrained": Setting(
        "none", "backbone: none (the study's), imagenet, or the path of timm weights (.safetensors, .pth)"
    ),
    "workers": Setting(
        "auto",
        "processes that read windows beside each training one: auto is none on a CPU, up to 4 on a GPU",
        unit="processes",
        type=int,
        words=("auto",),
        minimum=0,
        neutral_default=True,
    ),
    "windows_together": Setting(4, "windows that are predicted at once", unit="windows", minimum=1, prediction=True),
}
"""The settings of every method of the family, as the study has them where no comment says otherwise."""

MILESTONES = Setting(
    (0.5, 0.75), "parts of the budget after which the rate falls", unit="share", above=0, maximum=1, may_be_empty=True
)
SCORE_THRESHOLD = Setting(0.05, "instances with a lower score are dropped", minimum=0, maximum=1, prediction=True)
NMS_THRESHOLD = Setting(
    0.5, "of two boxes that overlap more the weaker goes", unit="IoU", minimum=0, maximum=1, prediction=True
)
WIDTH = Setting(256, "channels of the pyramid and of the heads, a multiple of 32", unit="channels", minimum=32)
CONVOLUTIONS = Setting(4, "of the head", minimum=0)
BOXES = Setting(3_000, "most boxes of each level, before non-maximum suppression", unit="boxes", minimum=1)
"""Kinds of settings that both methods have, each with values of its own."""

CHECK_SETTINGS: Mapping[str, Any] = {"train_scales": (1.0,), "test_scale": 1.0, "score_threshold": 0.5}
"""A network of two steps finds thousands of weak boxes, which would each get a mask."""


class Detectron2Method(Method):
    """A detector of detectron2 with mask predictions, trained by detectron2's trainer on the job's own arrays."""

    prediction_kind: ClassVar[Kind] = "masks"

    @abstractmethod
    def build(self, settings: Mapping[str, Any], normalisation: Normalisation) -> Any:
        """Return the untrained model: detectron2's contract (list of dicts in; losses, or instances, out)."""

    def import_library(self, job: Job) -> None:
        """Import torch, timm and detectron2; set threads, seeds and the device; join the other processes."""
        self._device = torch_devices.prepare_torch(job)
        import timm  # noqa: F401
        import torch
        from detectron2.utils import comm

        if self._device.type == "cuda":
            # products of matrices, those in deformable convolutions among them, as PyTorch has all other convolutions
            torch.backends.cuda.matmul.allow_tf32 = True
        if job.devices.processes > 1:
            comm.create_local_process_group(job.devices.processes)
        self._torch: Any = torch

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:  # noqa: ARG002
        """Fit the normalisation and build the model; windows without a cell are not trained on, as upstream has it."""
        if train is None:
            raise ValueError(f"{self.card.title} needs training windows with labels")
        processes = job.devices.processes
        check_batch(job.budget.batch_size, processes, together=self._device.type == "cuda")
        self._used = [n for n in range(len(train)) if train.labels(n).any()]
        if not self._used:
            raise ValueError("no training window has a cell")
        self._stack = train
        self._normalisation = fit_normalisation(train, self._used, job.settings["normalisation"])
        self._model = self.build(job.settings, self._normalisation)
        if processes > 1 and self._device.type == "cuda":
            # as published: batch statistics over all devices; timm's function knows its own fused layers too
            from timm.layers import convert_sync_batchnorm

            self._model = convert_sync_batchnorm(self._model)
        self._place()

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Train for the budget's iterations by detectron2's trainer, from the newest checkpoint where there is one."""
        from segbench.methods.detectron2._training import fit

        fit(self._model, self._stack, self._used, job, self._device, progress, checkpoints)

    def save(self, folder: Path) -> None:
        """Write the weights, and the normalisation that belongs to them."""
        self._torch.save(self._model.state_dict(), folder / "model.pth")
        (folder / "normalisation.json").write_text(json.dumps(asdict(self._normalisation)))

    def restore(self, job: Job, folder: Path) -> None:
        """Load a folder that ``save`` wrote."""
        about = json.loads((folder / "normalisation.json").read_text())
        self._normalisation = Normalisation(tuple(about["mean"]), tuple(about["std"]))
        self._model = self.build({**job.settings, "pretrained": "none"}, self._normalisation)
        state = self._torch.load(folder / "model.pth", map_location="cpu", weights_only=True)
        self._model.load_state_dict(state)
        self._place()

    def predict(self, job: Job, images: ImageStack) -> Iterator[MaskInstances]:
        """Yield each window's masks, pasted at the window's own resolution, with their scores."""
        from segbench.methods.detectron2._inference import predict

        together = self.at_once(job.settings["windows_together"])
        return predict(self._model, images, job.settings["test_scale"], together, self._device)

    def _place(self) -> None:
        from segbench.methods.detectron2._backbones import channels_last

        self._model.to(self._device)
        if self._device.type == "cuda":
            channels_last(self._model)

    def n_parameters(self) -> int:
        """Return the number of weights of the model."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def used_windows(self) -> Sequence[int] | None:
        """Return the windows with cells; None for a model that was loaded."""
        return getattr(self, "_used", None)

    def gpu_names(self) -> list[str]:
        """Return the names of the GPUs that were used."""
        return torch_devices.gpu_names(self._device)

    def peak_gpu_memory_bytes(self) -> int | None:
        """Return the most memory that the first process held on its GPU."""
        return torch_devices.peak_gpu_memory_bytes(self._device)


def check_batch(batch_size: int, processes: int, *, together: bool) -> None:
    """Refuse batches that cannot be divided over the processes, or leave one image for a batch norm.

    Parameters
    ----------
    together
        True where the batch norm is taken over all processes.

    Examples
    --------
    >>> check_batch(4, 2, together=False)
    >>> check_batch(4, 4, together=False)
    Traceback (most recent call last):
    ...
    segbench.errors.SegbenchError: batch_size 4 over 4 processes leaves 1 image for a batch norm, which needs 2
    """
    if batch_size % processes:
        raise SegbenchError(f"batch_size {batch_size} is not a multiple of the {processes} processes that share it")
    images = batch_size if together else batch_size // processes
    if images < 2:
        raise SegbenchError(
            f"batch_size {batch_size} over {processes} processes leaves {images} image for a batch norm, which needs 2"
        )


def check_detections(settings: Mapping[str, Any], *names: str) -> None:
    """Refuse settings that would cap an image's detections below the 3000 that every method must allow."""
    for name in names:
        if settings[name] < DETECTIONS:
            raise SegbenchError(f"setting {name} is {settings[name]}; no method may be capped below {DETECTIONS}")
