"""StarDist: star-convex polygons from a U-Net, trained from scratch by the upstream library."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack, Method, OtherWeights, Progress
from segbench.methods.card import Budget, Card, Resources
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances
from segbench.methods.published import SCRIPTS
from segbench.methods.scales import SETTINGS as SCALES
from segbench.methods.setting import Setting
from segbench.methods.stardist_batches import use_threads
from segbench.methods.stardist_bundle import fits, write_bundle
from segbench.methods.stardist_start import RANDOM, START, unpack
from segbench.methods.stardist_windows import FilledLabels, NormalisedImages
from segbench.methods.tensorflow_devices import WORKERS, data_threads, names_of, peak_bytes, prepare_tensorflow

_REPORT_S = 5.0
_HELD_OUT = 0.1


class StarDist(Method):
    """StarDist2D of stardist 0.9.2 on legacy Keras, with the published settings."""

    saves_uncalibrated = True
    card = Card(
        name="stardist",
        title="StarDist",
        family="stardist",
        environment="tensorflow",
        category="cell-specific",
        trained=True,
        attention=False,
        budget=Budget(
            batch_size=4,
            epochs=100,
            steps_per_epoch=100,
            note=f"paper: 100 epochs, batch not stated, 1 GPU; {SCRIPTS}: 500 epochs, batch 4 and 100 steps an epoch "
            "(library defaults; their --batch-size 16 is parsed but not used)",
        ),
        resources=Resources(num_gpus=1, num_cpus=1, memory_gb=4),
        libraries=("stardist", "csbdeep", "tensorflow", "tf-keras"),
        start=START,
        settings={
            "start": Setting(
                RANDOM,
                "weights before training: random, 2D_versatile_fluo, 2D_paper_dsb2018 (released: `methods weights "
                "list`) or the path of a model of StarDist, a folder or its .zip; the network is then that one's",
                neutral_default=True,
            ),
            **SCALES,
            "n_rays": Setting(32, "directions in which the distance to a cell's border is predicted", minimum=3),
            "grid": Setting(
                2, "the network predicts at every so many pixels along each axis", unit="pixels", choices=(1, 2, 4, 8)
            ),
            "learning_rate": Setting(3e-4, "of Adam, at the start", above=0),
            "reduce_lr_patience": Setting(
                40, "epochs without a better validation loss until the rate is halved", unit="epochs", minimum=0
            ),
            "patch_size": Setting(
                256,
                "side of a training patch: at most the window's, and down to a multiple of 16",
                unit="pixels",
                minimum=16,
            ),
            "foreground_only": Setting(
                0.9, "share of the patches that must show a cell", unit="share", minimum=0, maximum=1
            ),
            "percentiles": Setting(
                (0.0, 99.8),
                "of a window's channel, mapped to 0 and 1",
                unit="percent",
                minimum=0,
                maximum=100,
                length=2,
            ),
            "keep_best": Setting(
                True,
                "keep the weights of the epoch with the lowest validation loss, as upstream does, or the last ones",
                neutral_default=True,
            ),
            "val_windows": Setting(
                256, "most validation windows used for the validation loss", unit="windows", minimum=1
            ),
            "workers": WORKERS,
            "optimize_thresholds": Setting(
                True, "choose the two thresholds on the validation data", prediction=True, calibrated=(True,)
            ),
            "calibration_windows": Setting(32, "most validation windows used for that", unit="windows", minimum=0),
            "prob_thresh": Setting(
                0.5,
                "object probability of a kept instance, where thresholds are not optimized",
                minimum=0,
                maximum=1,
                prediction=True,
            ),
            "nms_thresh": Setting(
                0.4,
                "overlap above which the weaker instance goes, where thresholds are not optimized",
                unit="IoU",
                minimum=0,
                maximum=1,
                prediction=True,
            ),
        },
        score_rule="the object probability that StarDist gives the instance",
        paper="Schmidt et al., MICCAI 2018, arXiv:1806.03535",
        url="https://github.com/stardist/stardist",
        licence="BSD-3-Clause",
    )

    def import_library(self, job: Job) -> None:
        """Import TensorFlow with legacy Keras and StarDist; set threads, memory and seeds."""
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        import tensorflow as tf

        self._gpus = prepare_tensorflow(job)
        import csbdeep.utils
        import stardist
        import stardist.models

        self._tf: Any = tf
        self._stardist: Any = stardist
        self._csbdeep: Any = csbdeep

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Read and normalise the windows and build the model; without validation data a tenth is held out."""
        if train is None:
            raise ValueError("StarDist needs training windows with labels")
        settings = job.settings
        everyone = range(len(train))
        rng = np.random.default_rng(job.seed)
        if val is not None and len(val) > 0:
            chosen = np.sort(rng.permutation(len(val))[: settings["val_windows"]])
            self._used = None
            self._val = self._pairs(val, chosen, settings)
        else:
            shuffled = rng.permutation(len(train))
            held = shuffled[: max(1, min(settings["val_windows"], round(_HELD_OUT * len(train))))]
            self._val = self._pairs(train, held, settings)
            self._used = sorted(set(everyone) - set(held.tolist())) or list(everyone)
        used, spare = everyone if self._used is None else self._used, Path(job.output) / "work"
        self._train = (
            NormalisedImages(train, used, settings["percentiles"], self._csbdeep, spare),
            FilledLabels(train, used, self._stardist, spare),
        )
        use_threads(self._stardist.models.model2d, data_threads(job, self._gpus))
        epochs = job.budget.epochs or 1
        side = [min(settings["patch_size"], pixels) // 16 * 16 for pixels in train.size]
        if min(side) < 16:
            raise ValueError(f"StarDist needs windows of at least 16 x 16 pixels, found {train.size}")
        self._work = Path(job.output) / "work"
        shutil.rmtree(self._work, ignore_errors=True)
        network = {"n_rays": settings["n_rays"], "grid": (settings["grid"],) * 2, "n_channel_in": train.n_channels}
        first = None if settings["start"] == RANDOM else unpack(settings["start"], self._work, train.n_channels)
        config = self._stardist.models.Config2D(
            **(network if first is None else first.network),
            train_patch_size=tuple(side),
            train_batch_size=job.budget.batch_size,
            train_epochs=epochs,
            train_steps_per_epoch=self._steps_per_epoch(job),
            train_learning_rate=settings["learning_rate"],
            train_reduce_lr={"factor": 0.5, "patience": settings["reduce_lr_patience"], "min_delta": 0},
            train_foreground_only=settings["foreground_only"],
            train_tensorboard=False,
        )
        self._model = self._stardist.models.StarDist2D(config, name="stardist", basedir=str(self._work))
        self._model.thresholds = {"prob": settings["prob_thresh"], "nms": settings["nms_thresh"]}
        if first is not None:
            self._model.keras_model.load_weights(str(first.weights))
        self._model.prepare_for_training()

    def begin(self, job: Job) -> None:
        """Take a released model, or one of a folder or .zip, as it is, with the thresholds that came with it."""
        self._work = Path(job.output) / "work"
        shutil.rmtree(self._work, ignore_errors=True)
        first = unpack(job.settings["start"], self._work, len(job.task.channels))
        self._model = self._stardist.models.StarDist2D(None, name=first.folder.name, basedir=str(first.folder.parent))
        self._weights = first.weights
        self._set_thresholds(job)

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:  # noqa: ARG002
        """Train by upstream's ``train``, which keeps the last weights and those of the lowest validation loss."""
        self._model.callbacks.append(self._reporter(job, progress))
        fit = self._model.keras_model.fit
        # one line an epoch in the log instead of a progress bar
        self._model.keras_model.fit = lambda *args, **kwargs: fit(*args, **{**kwargs, "verbose": 2})
        rng = np.random.default_rng(job.seed)
        self._model.train(
            *self._train, validation_data=self._val, augmenter=lambda x, y: augment(x, y, rng), seed=job.seed % 2**32
        )
        kept = "weights_best.h5" if job.settings["keep_best"] else "weights_last.h5"
        if not job.settings["keep_best"]:  # it has loaded the best itself
            self._model.load_weights(kept)
        self._weights = self._work / "stardist" / kept

    def calibrate(self, job: Job, progress: Progress) -> None:  # noqa: ARG002
        """Choose the probability and overlap thresholds on validation windows, as upstream advises after training."""
        if not job.settings["optimize_thresholds"]:
            return
        with_cells = [(x, y) for x, y in zip(*self._val, strict=True) if y.any()]
        chosen = with_cells[: job.settings["calibration_windows"]]
        if chosen:
            self._model.optimize_thresholds(
                *zip(*chosen, strict=True), save_to_json=False, optimize_kwargs={"verbose": False}
            )

    def save(self, folder: Path) -> None:
        """Write upstream's model folder: ``config.json``, ``weights_best.h5``, ``thresholds.json``."""
        shutil.copy2(self._weights.with_name("config.json"), folder)
        # upstream reads this name whichever weights they are
        shutil.copy2(self._weights, folder / "weights_best.h5")
        thresholds = self._model.thresholds
        (folder / "thresholds.json").write_text(json.dumps({"prob": thresholds.prob, "nms": thresholds.nms}))

    def restore(self, job: Job, folder: Path) -> None:
        """Load a folder that ``save`` wrote; thresholds that are not optimized are the job's."""
        self._model = self._stardist.models.StarDist2D(None, name=folder.name, basedir=str(folder.parent))
        self._weights = folder / "weights_best.h5"
        self._set_thresholds(job)

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        """Yield the label map that StarDist draws, with the object probabilities; hidden objects are left out."""
        for n in range(len(images)):
            labels, details = self._model.predict_instances(
                self._image(images[n], job.settings), predict_kwargs={"verbose": 0}
            )
            present = np.unique(labels)
            present = present[present > 0]
            scores = np.asarray(details["prob"], dtype=np.float64)[present - 1]
            numbers = np.searchsorted(present, labels) + 1
            yield LabelInstances(np.where(labels > 0, numbers, 0).astype(np.int32), scores)

    def other_formats(self, job: Job, folder: Path) -> Mapping[str, OtherWeights]:
        """Write the network as a SavedModel, with bioimage.io's words for what StarDist does before and after it."""
        stack = ImageStack(next(iter(job.predict.values())))
        if not fits(self._model, stack.size):
            return {}
        window = stack[0]
        return {
            "tensorflow_saved_model_bundle": write_bundle(
                self._model, self._tf, self._stardist, window, tuple(job.settings["percentiles"]),
                self._image(window, job.settings), folder,
            )
        }  # fmt: skip

    def n_parameters(self) -> int:
        """Return the number of weights of the network."""
        return int(self._model.keras_model.count_params())

    def used_windows(self) -> Sequence[int] | None:
        """Return the windows that were not held out for validation."""
        return self._used

    def gpu_names(self) -> list[str]:
        """Return the names of the GPUs that TensorFlow sees."""
        return names_of(self._gpus)

    def peak_gpu_memory_bytes(self) -> int | None:
        """Return TensorFlow's own peak on the first GPU."""
        return peak_bytes(self._gpus)

    def _set_thresholds(self, job: Job) -> None:
        settings = job.settings
        if not settings["optimize_thresholds"]:
            self._model.thresholds = {"prob": settings["prob_thresh"], "nms": settings["nms_thresh"]}

    def _steps_per_epoch(self, job: Job) -> int:
        windows = len(self._train[0])
        return job.budget.steps_per_epoch or max(1, -(-windows // job.budget.batch_size))

    def _image(self, image: npt.NDArray[np.float32], settings: Any) -> npt.NDArray[np.float32]:
        """Normalise (C, H, W) channel by channel; (H, W) for one channel, else (H, W, C)."""
        low, high = settings["percentiles"]
        normalised: npt.NDArray[np.float32] = self._csbdeep.utils.normalize(
            np.moveaxis(image, 0, -1), low, high, axis=(0, 1)
        )
        return normalised[..., 0] if normalised.shape[-1] == 1 else normalised

    def _pairs(
        self, stack: ImageStack, windows: Sequence[int] | npt.NDArray[np.int64], settings: Any
    ) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.int32]]]:
        fill = self._stardist.fill_label_holes
        return [self._image(stack[n], settings) for n in windows], [fill(stack.labels(n)) for n in windows]

    def _reporter(self, job: Job, progress: Progress) -> Any:
        epochs, steps = job.budget.epochs or 1, self._steps_per_epoch(job)

        class Reporter(self._tf.keras.callbacks.Callback):  # type: ignore[misc, name-defined]
            """Tells the losses after every epoch, and within long ones."""

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
                self.epoch, self.told = epoch, time.monotonic()

            def on_train_batch_end(self, batch: int, logs: Any) -> None:
                late = time.monotonic() - self.told > _REPORT_S and batch + 1 < steps
                if late or not np.isfinite(logs["loss"]):
                    self.told = time.monotonic()
                    self.report(batch + 1, logs["loss"])

            def on_epoch_end(self, epoch: int, logs: Any) -> None:  # noqa: ARG002
                self.report(steps, logs["loss"], logs.get("val_loss"))

            def report(self, batch: int, loss: float, val_loss: float | None = None) -> None:
                progress.train(
                    epoch=self.epoch + 1, epochs=epochs, step=self.epoch * steps + batch, steps=epochs * steps,
                    loss=loss, val_loss=val_loss,
                )  # fmt: skip

        return Reporter()


def augment(
    image: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return a randomly turned, mirrored, brightened and noisy copy of a training patch, as the study's scripts do.

    The two axes change places with probability one half and each is mirrored with probability one half; intensities are
    multiplied by a factor from U(0.6, 2) and shifted by U(-0.2, 0.2); Gaussian noise has a standard deviation from
    0.02 U(0, 1). Written anew from that description (Stardist/stardist_nuclear_1C.py of the study's repository).

    Parameters
    ----------
    image
        (H, W) or (H, W, C).
    labels
        (H, W).
    rng
        Where the randomness comes from.
    """
    if rng.random() < 0.5 and labels.shape[0] == labels.shape[1]:
        image, labels = image.swapaxes(0, 1), labels.swapaxes(0, 1)
    for axis in (0, 1):
        if rng.random() < 0.5:
            image, labels = np.flip(image, axis), np.flip(labels, axis)
    image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
    image = image + 0.02 * rng.uniform() * rng.standard_normal(image.shape, dtype=np.float32)
    return image.astype(np.float32), labels
