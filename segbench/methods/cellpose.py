"""Cellpose: the classic flow-field network (CPnet), trained from scratch by the upstream library."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import DivergedError, ImageStack, Method, Progress
from segbench.methods.card import Budget, Card, Resources
from segbench.methods.cellpose_windows import WindowImages, WindowTargets
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances
from segbench.methods.published import SCRIPTS
from segbench.methods.setting import Setting

_TOGETHER = 8  # windows that go through the network at once

FLOW_THRESHOLDS = (0.4, 0.8, 0.0)
"""What ``flow_threshold: auto`` chooses from, the published one first; 0 keeps every mask."""


class Cellpose(Method):
    """CPnet of cellpose 3.1.1.3 with the published settings."""

    card = Card(
        name="cellpose",
        title="Cellpose",
        family="cellpose",
        environment="cellpose",
        category="cell-specific",
        trained=True,
        attention=False,
        budget=Budget(
            batch_size=8,
            epochs=500,
            note=f"paper: version 1.0.2 on 1 GPU, epochs and batch not stated; {SCRIPTS}: 500 epochs, batch 8 (library "
            "defaults of its 2.x line)",
        ),
        resources=Resources(num_gpus=1, num_cpus=1, memory_gb=6),
        libraries=("cellpose", "torch"),
        precisions=("float32", "bfloat16"),
        settings={
            "optimizer": Setting("sgd", "of the training", choices=("sgd", "adamw")),
            "learning_rate": Setting(0.2, "of the optimizer, after the warm-up", above=0),
            "momentum": Setting(0.9, "of SGD", minimum=0, below=1),
            "weight_decay": Setting(1e-5, "of the optimizer", minimum=0),
            "crop": Setting(224, "side of a training crop, a multiple of 8", unit="pixels", minimum=16),
            "diam_mean": Setting(
                30.0, "training windows are scaled so that their cells' mean diameter is this", unit="pixels", above=0
            ),
            "scale_range": Setting(
                0.5, "width of the range around 1 by which crops are scaled on top of that", minimum=0, maximum=2
            ),
            "min_train_masks": Setting(5, "windows with fewer cells are not trained on", unit="cells", minimum=0),
            "precision": Setting(
                "float32",
                "of the convolutions: bfloat16 is over twice as fast where the processor has it",
                choices=("float32", "bfloat16"),
            ),
            "val_windows": Setting(64, "most validation windows in one validation loss", unit="windows", minimum=1),
            "flow_threshold": Setting(
                "auto",
                "masks with a larger flow error are dropped: 0 keeps all, auto chooses on validation windows",
                type=float,
                words=("auto",),
                minimum=0,
                prediction=True,
                calibrated=("auto",),
            ),
            "calibration_windows": Setting(
                32, "most validation windows used to choose the flow threshold", unit="windows", minimum=1
            ),
            "cellprob_threshold": Setting(
                0.0, "pixels whose cell probability is higher belong to a cell", unit="logit", prediction=True
            ),
            "min_size": Setting(
                15, "smaller masks are dropped: -1 keeps all", unit="pixels", minimum=-1, prediction=True
            ),
        },
        score_rule="mean over the instance's pixels of the cell probability (sigmoid of the network's third output)",
        revision=2,
        paper="Stringer et al., Nature Methods 18 (2021), doi:10.1038/s41592-020-01018-x",
        url="https://github.com/MouseLand/cellpose",
        licence="BSD-3-Clause",
    )

    def import_library(self, job: Job) -> None:
        """Import torch and cellpose; set threads, memory and seeds."""
        os.environ["CELLPOSE_LOCAL_MODELS_PATH"] = str(Path(job.output) / "work")  # not the home folder
        import torch

        torch.set_num_threads(job.devices.num_cpus)
        self._device = torch.device("cuda:0" if job.devices.num_gpus > 0 and torch.cuda.is_available() else "cpu")
        if self._device.type == "cuda" and job.devices.num_gpus < 1:
            torch.cuda.set_per_process_memory_fraction(job.devices.num_gpus)
        torch.manual_seed(job.seed)
        import cellpose.core
        import cellpose.dynamics
        import cellpose.metrics
        import cellpose.models
        import cellpose.train
        import cellpose.transforms
        import cellpose.utils

        self._settings = job.settings
        self._torch: Any = torch
        self._cellpose: Any = cellpose
        self._flow_threshold = FLOW_THRESHOLDS[0]

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Read the windows, compute the flows of the labels and build the network.

        Windows with fewer than ``min_train_masks`` cells are left out as upstream does, unless that takes more than
        half of them (large cells in small windows): then only those without any cell are.
        """
        if train is None:
            raise ValueError("Cellpose needs training windows with labels")
        counts = np.array([np.unique(train.labels(n)).size - 1 for n in range(len(train))])
        enough = np.flatnonzero(counts >= job.settings["min_train_masks"])
        if 2 * enough.size < len(train):
            enough = np.flatnonzero(counts > 0)
        if enough.size == 0:
            raise ValueError("no training window has a cell")
        self._used: list[int] = enough.tolist()
        spare = Path(job.output) / "work"
        self._windows = (
            WindowImages(train, self._used, spare),
            WindowTargets(train, self._used, self._cellpose, self._device, spare),
        )
        cells = [] if val is None else [n for n in range(len(val)) if val.labels(n).any()]
        shuffled = np.random.default_rng(job.seed).permutation(cells)
        most = max(job.settings["val_windows"], job.settings["calibration_windows"])
        self._val = None if val is None or not cells else self._pairs(val, np.sort(shuffled[:most]).tolist())
        few = job.settings["calibration_windows"]
        images, flows = self._val or tuple([part[n] for n in range(min(few, len(part)))] for part in self._windows)
        self._calibration = images[:few], [each[0].astype(np.int32) for each in flows[:few]]
        self._model = self._network(nchan=train.n_channels, diam_mean=job.settings["diam_mean"])

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:  # noqa: ARG002
        """Train by upstream's ``train_seg``, its epochs cut as :func:`plan_epochs` says."""
        settings, budget = job.settings, job.budget
        images, targets = self._windows
        plan = plan_epochs(len(images), budget.batch_size, budget.epochs or 1)
        val = self._val and tuple(part[: settings["val_windows"]] for part in self._val)
        trainer = self._cellpose.train
        work = Path(job.output) / "work"
        work.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as replaced:
            loss = _watched(trainer._loss_fn_seg, plan, budget.epochs or 1, progress, self._torch)
            replaced.enter_context(_replaced(trainer, "_loss_fn_seg", loss))
            # both make lists of all windows, which these have done and do as they are read
            for owner, name in ((trainer, "_reshape_norm"), (trainer.dynamics, "labels_to_flows")):
                replaced.enter_context(_replaced(owner, name, _but_for_windows(getattr(owner, name))))
            trainer.train_seg(
                self._model.net,
                train_data=images,
                train_labels=targets,
                test_data=val and val[0],
                test_labels=val and val[1],
                batch_size=budget.batch_size,
                learning_rate=settings["learning_rate"],
                n_epochs=plan.epochs,
                weight_decay=settings["weight_decay"],
                momentum=settings["momentum"],
                SGD=settings["optimizer"] == "sgd",
                nimg_per_epoch=plan.windows_per_epoch,
                nimg_test_per_epoch=val and min(len(val[0]), plan.val_windows),
                scale_range=settings["scale_range"],
                bsize=settings["crop"],
                min_train_masks=0,  # filtered already
                save_path=work,
                save_every=plan.epochs + 1,
                model_name="cellpose",
            )
        self._adopt_diameter()

    def calibrate(self, job: Job, progress: Progress) -> None:  # noqa: ARG002
        """Choose the flow threshold on validation windows (on training windows where there are none).

        It is the strictest of FLOW_THRESHOLDS whose TP / (TP + FP + FN) at IoU 0.5 is within 0.01
        of the best: a network trained for long keeps the published 0.4, while after a short
        training that would drop nearly every mask.
        """
        chosen = job.settings["flow_threshold"]
        if chosen != "auto":
            self._flow_threshold = float(chosen)
            return
        images, truth = self._calibration
        together = self.at_once(_TOGETHER)
        outputs = [output for n in range(0, len(truth), together) for output in self._outputs(images[n : n + together])]
        scores = []
        for threshold in FLOW_THRESHOLDS:
            masks = [self._masks(*output, threshold, job.settings) for output in outputs]
            _, tp, fp, fn = self._cellpose.metrics.average_precision(truth, masks, threshold=[0.5])
            scores.append(tp.sum() / max(1, tp.sum() + fp.sum() + fn.sum()))
        within = [t for t, score in zip(FLOW_THRESHOLDS, scores, strict=True) if score >= max(scores) - 0.01]
        self._flow_threshold = within[0]

    def save(self, folder: Path) -> None:
        """Write upstream's weights, which hold both diameters, and what is needed to predict with them."""
        self._model.net.save_model(folder / "cellpose")
        about = {"flow_threshold": self._flow_threshold, "n_channels": self._model.nchan}
        (folder / "prediction.json").write_text(json.dumps(about))
        shutil.rmtree(folder.parent / "work", ignore_errors=True)

    def restore(self, job: Job, folder: Path) -> None:
        """Load a folder that ``save`` wrote; an explicit ``flow_threshold`` of the job comes first."""
        about = json.loads((folder / "prediction.json").read_text())
        self._model = self._network(nchan=about["n_channels"], pretrained_model=str(folder / "cellpose"))
        chosen = job.settings["flow_threshold"]
        self._flow_threshold = about["flow_threshold"] if chosen == "auto" else float(chosen)

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        """Yield the masks that the flows lead to, all windows scaled by the training cells' mean diameter."""
        together = self.at_once(_TOGETHER)
        for first in range(0, len(images), together):
            for flows, logits in self._outputs(images[first : first + together]):
                masks = self._masks(flows, logits, self._flow_threshold, job.settings)
                present = np.unique(masks)
                present = present[present > 0]
                labels = np.where(masks > 0, np.searchsorted(present, masks) + 1, 0).astype(np.int32)
                probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
                pixels = np.bincount(labels.ravel())[1:]
                yield LabelInstances(labels, np.bincount(labels.ravel(), probability.ravel())[1:] / pixels)

    def n_parameters(self) -> int:
        """Return the number of weights of the network (its two diameters are not weights)."""
        return sum(p.numel() for p in self._model.net.parameters() if p.requires_grad)

    def used_windows(self) -> Sequence[int] | None:
        """Return the windows with enough cells."""
        return self._used

    def gpu_names(self) -> list[str]:
        """Return the name of the GPU, if one was used."""
        return [self._torch.cuda.get_device_name(self._device)] if self._device.type == "cuda" else []

    def peak_gpu_memory_bytes(self) -> int | None:
        """Return the most memory that torch's allocator held."""
        return self._torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else None

    def _pairs(
        self, stack: ImageStack, windows: Sequence[int]
    ) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
        """Return images (C, H, W) and flows (4, H, W): labels, cell or not, flow along y, flow along x."""
        flows = self._cellpose.dynamics.labels_to_flows([stack.labels(n) for n in windows], device=self._device)
        return [stack[n] for n in windows], flows

    def _network(self, **options: Any) -> Any:
        model = self._cellpose.models.CellposeModel(device=self._device, mkldnn=False, **options)
        if self._settings["precision"] == "bfloat16":
            model.net.forward = self._in_half_precision(model.net.forward)
        return model

    def _adopt_diameter(self) -> None:
        # train_seg leaves the mean diameter of the training cells in the network only
        self._model.diam_labels = self._model.net.diam_labels.item()

    def _outputs(
        self, images: Sequence[npt.NDArray[np.float32]]
    ) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Return the network's flows (2, H, W) and cell logits (H, W) for every window (C, H, W).

        Upstream's ``eval`` cannot scale an image of one channel (OpenCV drops the axis that it then wants), so that its
        steps are taken here: normalise, scale to the network's diameter, run, scale back.
        """
        transforms, core = self._cellpose.transforms, self._cellpose.core
        height, width = images[0].shape[1:]
        scale = self._model.diam_mean / self._model.diam_labels
        scaled = []
        for image in images:
            normal = transforms.normalize_img(np.moveaxis(image, 0, -1), axis=-1)
            planes = np.moveaxis(normal, -1, 0)
            planes = transforms.resize_image(planes, int(height * scale), int(width * scale), no_channels=True)
            scaled.append(np.moveaxis(planes, 0, -1))
        out, _ = core.run_net(self._model.net, np.stack(scaled))
        if not np.isfinite(out).all():
            raise DivergedError("the trained network's output is not finite")
        out = transforms.resize_image(out, height, width)
        return [(np.moveaxis(each[..., :2], -1, 0), each[..., 2]) for each in out]

    def _in_half_precision(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def half(images: Any) -> Any:
            # one context a call: it keeps the weights' casts until it ends, so that
            # a longer one would train on old weights
            with self._torch.autocast(self._device.type, dtype=self._torch.bfloat16):
                output, style, downsampled = forward(images)
            return output.float(), style.float(), downsampled  # NumPy, to which upstream hands them, has no such type

        return half

    def _masks(
        self, flows: npt.NDArray[np.float32], logits: npt.NDArray[np.float32], flow_threshold: float, settings: Any
    ) -> npt.NDArray[np.int32]:
        masks: npt.NDArray[np.int32] = self._cellpose.dynamics.resize_and_compute_masks(
            flows,
            logits,
            niter=int(200 * self._model.diam_labels / self._model.diam_mean),
            cellprob_threshold=settings["cellprob_threshold"],
            flow_threshold=flow_threshold,
            min_size=settings["min_size"],
            device=self._device,
        )
        return masks


@dataclass(frozen=True)
class EpochPlan:
    """How ``train_seg`` is told to spend a budget."""

    epochs: int
    """Its ``n_epochs``, which shape the learning rate's schedule."""
    windows_per_epoch: int | None
    """Its ``nimg_per_epoch``; None for every window once."""
    steps_per_epoch: int
    val_windows: int
    """Its ``nimg_test_per_epoch``: every tenth epoch has a validation loss."""


def plan_epochs(windows: int, batch_size: int, epochs: int) -> EpochPlan:
    """Return how to spend ``epochs`` passes over ``windows`` so that upstream's schedule keeps its shape.

    Upstream warms up over 10 epochs (the first at rate 0) and lets the rate fall over the last 50 of more than 100 or
    the last 100 of more than 300. A budget of more than 100 epochs is trained as it is. A shorter one would end before
    the rate has fallen, or even before it has risen: the same number of windows is then cut into 200 to 399 short
    epochs of whole batches, or one epoch a step where there are fewer than 200 steps.

    Examples
    --------
    >>> plan_epochs(windows=1000, batch_size=8, epochs=500)
    EpochPlan(epochs=500, windows_per_epoch=None, steps_per_epoch=125, val_windows=1000)
    >>> plan_epochs(windows=1000, batch_size=8, epochs=4)
    EpochPlan(epochs=250, windows_per_epoch=16, steps_per_epoch=2, val_windows=8)
    """
    if epochs > 100:
        return EpochPlan(epochs, None, -(-windows // batch_size), windows)
    steps = epochs * -(-windows // batch_size)
    per_epoch = max(1, steps // 200)
    seen = per_epoch * batch_size
    # upstream takes "as many as there are windows" to mean "each once": both read the same where they are equal
    return EpochPlan(max(1, steps // per_epoch), seen, per_epoch, max(batch_size, seen // 4))


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _but_for_windows(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of upstream's that leaves windows which are read as they are used as they are."""

    def unless(windows: Any, *rest: Any, **options: Any) -> Any:
        lazy = isinstance(windows, WindowImages | WindowTargets)
        return windows if lazy else function(windows, *rest, **options)

    return unless


def _watched(
    loss_function: Callable[..., Any], plan: EpochPlan, epochs: int, progress: Progress, torch: Any
) -> Callable[..., Any]:
    """Return upstream's loss function, telling the losses as they come; ``train_seg`` does so at the end."""
    steps = plan.epochs * plan.steps_per_epoch
    done = 0
    losses: list[float] = []
    val_losses: list[float] = []

    def watched(labels: Any, output: Any, device: Any) -> Any:
        nonlocal done
        loss = loss_function(labels, output, device)
        if not torch.is_grad_enabled():
            val_losses.append(float(loss.detach()))
            return loss
        done += 1
        losses.append(float(loss.detach()))
        if done % plan.steps_per_epoch == 0 or not np.isfinite(losses[-1]):
            progress.train(
                epoch=max(1, -(-done * epochs // steps)),
                epochs=epochs,
                step=done,
                steps=steps,
                loss=float(np.mean(losses)),
                val_loss=float(np.mean(val_losses)) if val_losses else None,
            )
            losses.clear()
            val_losses.clear()
        return loss

    return watched
