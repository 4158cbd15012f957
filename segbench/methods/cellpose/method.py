"""Cellpose: the classic flow-field network (CPnet), trained from scratch by the upstream library."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import DivergedError, ImageStack, Method, Progress
from segbench.methods.card import Budget, Card, Resources
from segbench.methods.cellpose.overlap import overlapped
from segbench.methods.cellpose.schedule import plan_epochs
from segbench.methods.cellpose.start import RANDOM, START, Arranged, Weights, diameter_of, weights_of
from segbench.methods.cellpose.windows import WindowImages, WindowTargets
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances
from segbench.methods.published import SCRIPTS
from segbench.methods.scales import SETTINGS as SCALES
from segbench.methods.setting import Setting
from segbench.methods.torch_devices import data_workers

_TOGETHER = 8  # windows that go through the network at once
_SIZE_WINDOWS = 32  # at most, from which the cells' diameter is told
_STYLE = 256  # numbers of the network's style
_TILES_EACH = 2  # tiles of each that do
_MasksAt = Callable[[float], list[npt.NDArray[Any]]]

FLOW_THRESHOLDS = (0.4, 0.8, 0.0)
"""What ``flow_threshold: auto`` chooses from, the published one first; 0 keeps every mask."""


class Cellpose(Method):
    """CPnet of cellpose 3.1.1.3 with the published settings."""

    saves_uncalibrated = True
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
        start=START,
        settings={
            "start": Setting(
                RANDOM,
                "weights before training: random, cyto3 or nuclei (released: see `segbench methods weights list`), or "
                "the path of weights of cellpose 2 or 3",
                neutral_default=True,
            ),
            **SCALES,
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
            "workers": Setting(
                "auto",
                "processes that prepare batches beside the training one: auto is none on a CPU, up to 4 on a GPU",
                unit="processes",
                type=int,
                words=("auto",),
                minimum=0,
                neutral_default=True,
            ),
            "keep_best": Setting(
                False, "keep the weights with the smallest validation loss and not the last ones", neutral_default=True
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
        with _kept_compiled():
            import cellpose.core
            import cellpose.dynamics
        import cellpose.metrics
        import cellpose.models
        import cellpose.transforms
        import cellpose.utils

        self._settings, self._cores = job.settings, job.devices.num_cpus
        self._torch: Any = torch
        self._cellpose: Any = cellpose
        self._flow_threshold = FLOW_THRESHOLDS[0]
        self._batched = self._device.type == "cuda"
        self._start: Weights | None = None

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Read the windows, compute the flows of the labels and build the network.

        Windows with fewer than ``min_train_masks`` cells are left out as upstream does, unless that takes more than
        half of them (large cells in small windows): then only those without any cell are.
        """
        if train is None:
            raise ValueError("Cellpose needs training windows with labels")
        if job.settings["start"] != RANDOM:
            self._start = self._weights(job, untrained=False)
            train = Arranged(train, self._start.planes)
            val = None if val is None else Arranged(val, self._start.planes)
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
        if val is None and job.settings["keep_best"]:
            raise ValueError("keep_best needs validation windows and there are none: set it to false")
        cells = [] if val is None else [n for n in range(len(val)) if val.labels(n).any()]
        shuffled = np.random.default_rng(job.seed).permutation(cells)
        most = max(job.settings["val_windows"], job.settings["calibration_windows"])
        self._val = None if val is None or not cells else self._pairs(val, np.sort(shuffled[:most]).tolist())
        few = job.settings["calibration_windows"]
        images, flows = self._val or tuple([part[n] for n in range(min(few, len(part)))] for part in self._windows)
        self._calibration = images[:few], [each[0].astype(np.int32) for each in flows[:few]]
        if self._start is None:
            self._model = self._network(nchan=train.n_channels, diam_mean=job.settings["diam_mean"])
        else:
            self._model = self._network(nchan=train.n_channels, pretrained_model=str(self._start.file))

    def begin(self, job: Job) -> None:
        """Take released weights, or those of a file, as they are.

        Released ones come with a regression of the cells' diameter, which then scales the windows of each prediction;
        a file's own tell the diameter that they were trained at.
        """
        self._start = self._weights(job, untrained=True)
        self._model = self._network(nchan=len(self._start.planes), pretrained_model=str(self._start.file))
        chosen = job.settings["flow_threshold"]
        self._flow_threshold = FLOW_THRESHOLDS[0] if chosen == "auto" else float(chosen)

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:  # noqa: ARG002
        """Train as upstream's ``train_seg`` does, its epochs cut as :func:`plan_epochs` says."""
        from segbench.methods.cellpose import _training

        settings, budget = job.settings, job.budget
        plan = plan_epochs(len(self._used), budget.batch_size, budget.epochs or 1)
        train = _training.Windows(
            *self._windows, plan.windows_per_epoch or len(self._used), self._diameters(self._windows)
        )
        val = None
        if self._val:
            images, flows = (part[: settings["val_windows"]] for part in self._val)
            val = _training.Windows(images, flows, min(len(images), plan.val_windows), self._diameters((images, flows)))
        how = _training.Training(plan, budget.epochs or 1, budget.batch_size, settings, data_workers(job, self._device))
        _training.fit(self._model.net, train, val, how, self._cellpose.transforms, progress)
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
        batches = [images[n : n + together] for n in range(0, len(truth), together)]
        masks_at = self._batched_masks(batches) if self._batched else self._single_masks(batches)
        scores = []
        for threshold in FLOW_THRESHOLDS:
            masks = masks_at(threshold)
            _, tp, fp, fn = self._cellpose.metrics.average_precision(truth, masks, threshold=[0.5])
            scores.append(tp.sum() / max(1, tp.sum() + fp.sum() + fn.sum()))
        within = [t for t, score in zip(FLOW_THRESHOLDS, scores, strict=True) if score >= max(scores) - 0.01]
        self._flow_threshold = within[0]

    def save(self, folder: Path) -> None:
        """Write upstream's weights, which hold both diameters, and what is needed to predict with them."""
        self._model.net.save_model(folder / "cellpose")
        about: dict[str, Any] = {"flow_threshold": self._flow_threshold, "n_channels": self._model.nchan}
        if self._start is not None:
            size = self._start.size
            about["planes"] = self._start.planes
            about["size"] = None if size is None else {key: value.tolist() for key, value in size.items()}
        (folder / "prediction.json").write_text(json.dumps(about))

    def restore(self, job: Job, folder: Path) -> None:
        """Load a folder that ``save`` wrote; an explicit ``flow_threshold`` of the job comes first."""
        about = json.loads((folder / "prediction.json").read_text())
        self._model = self._network(nchan=about["n_channels"], pretrained_model=str(folder / "cellpose"))
        if about.get("planes") is not None:
            size = about["size"] and {key: np.asarray(value, np.float64) for key, value in about["size"].items()}
            self._start = Weights(folder / "cellpose", tuple(about["planes"]), size)
        chosen = job.settings["flow_threshold"]
        self._flow_threshold = about["flow_threshold"] if chosen == "auto" else float(chosen)

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        """Yield the masks that the flows lead to, all windows scaled by the training cells' mean diameter."""
        together = self.at_once(_TOGETHER)
        if self._start is not None:
            images = Arranged(images, self._start.planes)
        if self._start is not None and self._start.size is not None:
            self._adopt_estimate(images, self._start.size)
        batches = (range(first, min(first + together, len(images))) for first in range(0, len(images), together))
        if self._batched:
            yield from overlapped(
                batches, lambda some: self._scaled([images[n] for n in some]),
                lambda scaled: self._found_masks(scaled, images.size),
                lambda masks, logits: score_masks(self._filled(masks), logits), self._cores - 1,
            )  # fmt: skip
            return
        for some in batches:
            for flows, logits in self._outputs([images[n] for n in some]):
                yield score_masks(self._masks(flows, logits, self._flow_threshold, job.settings), logits)

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
        if self._device.type == "cuda":  # as its kernels for convolutions want weights and windows
            model.net.to(memory_format=self._torch.channels_last)
        if self._settings["precision"] == "bfloat16":
            model.net.forward = self._in_half_precision(model.net.forward)
        return model

    def _weights(self, job: Job, *, untrained: bool) -> Weights:
        task = job.task
        return weights_of(job.settings["start"], task.channels, task.target, self._torch, untrained=untrained)

    def _adopt_estimate(self, images: ImageStack, size: Any) -> None:
        """Scale by the cells' diameter: the median over some windows of what upstream's ``SizeModel`` finds.

        As there, the style tells a first diameter, and the masks that are found at it the second.
        """
        chosen = np.unique(np.linspace(0, len(images) - 1, min(len(images), _SIZE_WINDOWS)).round().astype(int))
        some = [images[n] for n in chosen.tolist()]
        self._model.diam_labels = self._model.diam_mean
        styles = [self._cellpose.core.run_net(self._model.net, self._scaled([image]))[1] for image in some]
        told = [diameter_of(np.asarray(style).reshape(-1)[:_STYLE], size) for style in styles]
        self._model.diam_labels = float(np.median(told))
        masks = [self._masks(*self._outputs([image])[0], self._flow_threshold, self._settings) for image in some]
        seen = [self._cellpose.utils.diameters(mask)[0] for mask in masks if mask.any()]
        if seen:
            self._model.diam_labels = max(5.0, float(np.median(seen)))

    def _diameters(self, windows: tuple[Sequence[Any], Sequence[Any]]) -> npt.NDArray[np.float64]:
        """Return the median diameter of each window's cells, at least 5 pixels."""
        return np.maximum(5.0, [self._cellpose.utils.diameters(targets[0])[0] for targets in windows[1]])

    def _adopt_diameter(self) -> None:
        # training leaves the mean diameter of the training cells in the network only
        self._model.diam_labels = self._model.net.diam_labels.item()

    def _scaled(self, images: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Return windows (N, h, w, C) of windows (C, H, W), normalised and scaled to the network's diameter.

        Upstream's ``eval`` cannot scale an image of one channel (OpenCV drops the axis that it then wants), so that its
        steps are taken here: normalise, scale to the network's diameter, run, scale back.
        """
        transforms = self._cellpose.transforms
        height, width = images[0].shape[1:]
        scale = self._model.diam_mean / self._model.diam_labels
        scaled = []
        for image in images:
            normal = transforms.normalize_img(np.moveaxis(image, 0, -1), axis=-1)
            planes = np.moveaxis(normal, -1, 0)
            planes = transforms.resize_image(planes, int(height * scale), int(width * scale), no_channels=True)
            scaled.append(np.moveaxis(planes, 0, -1))
        return np.stack(scaled)

    def _outputs(
        self, images: Sequence[npt.NDArray[np.float32]]
    ) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Return the network's flows (2, H, W) and cell logits (H, W) for every window (C, H, W)."""
        out, _ = self._cellpose.core.run_net(self._model.net, self._scaled(images))
        if not np.isfinite(out).all():
            raise DivergedError("the trained network's output is not finite")
        out = self._cellpose.transforms.resize_image(out, *images[0].shape[1:])
        return [(np.moveaxis(each[..., :2], -1, 0), each[..., 2]) for each in out]

    def _single_masks(self, batches: Sequence[Sequence[npt.NDArray[np.float32]]]) -> _MasksAt:
        """Return what makes the masks of all windows at a flow threshold, a window after the other."""
        outputs = [output for images in batches for output in self._outputs(images)]
        return lambda threshold: [self._masks(*output, threshold, self._settings) for output in outputs]

    def _batched_masks(self, batches: Sequence[Sequence[npt.NDArray[np.float32]]]) -> _MasksAt:
        """Return what makes the masks of all windows at a flow threshold, found in batches and once for all."""
        found = [self._find(self._scaled(images), (images[0].shape[1], images[0].shape[2]))[0] for images in batches]
        return lambda threshold: [self._filled(n) for some in found for n in _on_processor(some.within(threshold))]

    def _found_masks(
        self, scaled: npt.NDArray[np.float32], size: tuple[int, int]
    ) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]]:
        found, logits = self._find(scaled, size)
        labels = _on_processor(found.within(self._flow_threshold))
        return list(zip(labels, logits.cpu().numpy(), strict=True))

    def _find(self, scaled: npt.NDArray[np.float32], size: tuple[int, int]) -> tuple[Any, Any]:
        """Return masks of scaled windows (N, h, w, C), with all flow errors, and logits (N, H, W), on the device."""
        from segbench.methods.cellpose import _masks, _network

        planes = self._torch.from_numpy(np.ascontiguousarray(np.moveaxis(scaled, -1, 1))).to(self._device)
        flows, logits = _network.outputs(
            self._model.net, planes, size, _TILES_EACH * self.used_at_once, self._cellpose.transforms
        )
        return _masks.find(flows, logits, self._steps(), self._settings["cellprob_threshold"]), logits

    def _filled(self, masks: npt.NDArray[np.int32]) -> npt.NDArray[np.uint16]:
        filled: npt.NDArray[np.uint16] = self._cellpose.utils.fill_holes_and_remove_small_masks(
            masks.astype(np.uint16), min_size=self._settings["min_size"]
        )
        return filled

    def _steps(self) -> int:
        """Return for how many steps pixels follow the flows."""
        return int(200 * self._model.diam_labels / self._model.diam_mean)

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
            niter=self._steps(),
            cellprob_threshold=settings["cellprob_threshold"],
            flow_threshold=flow_threshold,
            min_size=settings["min_size"],
            device=self._device,
        )
        return masks


@contextlib.contextmanager
def _kept_compiled() -> Iterator[None]:
    """Let Numba keep on disk what upstream has it compile when it is imported: four seconds, in every process."""
    import numba

    compiler = numba.njit
    numba.njit = lambda *given, **options: compiler(*given, **{"cache": True, **options})
    try:
        yield
    finally:
        numba.njit = compiler


def score_masks(masks: npt.NDArray[Any], logits: npt.NDArray[np.float32]) -> LabelInstances:
    """Return masks (H, W) numbered without gaps, with the mean cell probability of each.

    Examples
    --------
    >>> found = score_masks(np.array([[0, 5, 5, 2]], np.uint16), np.array([[1, 0, 0, 9]], np.float32))
    >>> found.labels.tolist(), found.scores.round(3).tolist()
    ([[0, 2, 2, 1]], [1.0, 0.5])
    """
    there = np.bincount(masks.ravel()) > 0
    there[0] = False
    labels = np.where(there, np.cumsum(there), 0).astype(np.int32)[masks]
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    pixels = np.bincount(labels.ravel())[1:]
    return LabelInstances(labels, np.bincount(labels.ravel(), probability.ravel())[1:] / pixels)


def _on_processor(labels: Any) -> npt.NDArray[np.int32]:
    return np.asarray(labels.int().cpu().numpy())
