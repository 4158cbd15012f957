"""The baseline with no training: Otsu threshold, distance transform, h-maxima and watershed, by scikit-image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack, Method, Progress
from segbench.methods.card import Budget, Card, Resources
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Job, Task
from segbench.methods.predictions import LabelInstances
from segbench.methods.setting import Setting


class Watershed(Method):
    """Otsu threshold of the smoothed signal, split at the h-maxima of its distance transform."""

    card = Card(
        name="watershed",
        title="Watershed",
        family="baseline",
        environment="engine",
        category="classical",
        trained=False,
        attention=False,
        budget=Budget(batch_size=1, note="not trained; not part of the published study"),
        resources=Resources(num_gpus=0, num_cpus=1, memory_gb=1),
        libraries=("scikit-image", "scipy", "numpy"),
        settings={
            "sigma": Setting(1.0, "Gaussian smoothing before the threshold", unit="pixels", minimum=0),
            "distance_sigma": Setting(1.0, "Gaussian smoothing of the distance transform", unit="pixels", minimum=0),
            "h": Setting(0.75, "how much a seed stands out from the saddle to its neighbour", unit="pixels", minimum=0),
            "min_size": Setting(15, "smaller pieces are dropped, smaller holes filled", unit="pixels", minimum=1),
            "texture_sigma": Setting(
                3.0, "window of the local standard deviation, for phase contrast", unit="pixels", above=0
            ),
        },
        score_rule="mean of the smoothed signal over the instance less the image's Otsu threshold",
        paper="Otsu, IEEE Trans. SMC 9 (1979); Meyer, Signal Processing 38 (1994); Soille, Morphological Image "
        "Analysis (2003)",
        url="https://scikit-image.org",
        licence="BSD-3-Clause",
    )

    def import_library(self, job: Job) -> None:  # noqa: ARG002
        """Import scikit-image and scipy; nothing here is random."""
        import scipy.ndimage
        import skimage.filters
        import skimage.morphology
        import skimage.segmentation

        self._ndimage: Any = scipy.ndimage
        self._skimage: Any = skimage

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Do nothing: there is no model."""

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Do nothing: there is nothing to train."""

    def save(self, folder: Path) -> None:
        """Do nothing: there is no model."""

    def restore(self, job: Job, folder: Path) -> None:
        """Do nothing: there is no model."""

    def predict(self, job: Job, images: ImageStack) -> Iterator[LabelInstances]:
        """Yield each window's instances."""
        for n in range(len(images)):
            yield self._segment(self._signal(images[n], job.task, job.settings), job.settings)

    def _signal(self, image: npt.NDArray[np.float32], task: Task, settings: Any) -> npt.NDArray[np.float32]:
        """Reduce (C, H, W) to the (H, W) that is bright where the target is.

        Nuclei are bright in the channel of their name. Phase contrast is not bright but rough in cells, so that its
        local standard deviation is taken. Anything else is the mean of the channels.
        """
        own = task.target in task.channels
        signal = image[task.channels.index(task.target)] if own else image.mean(axis=0)
        if task.channels == ("phase",):
            blur = self._ndimage.gaussian_filter
            mean = blur(signal, settings["texture_sigma"])
            signal = np.sqrt(np.maximum(blur(signal**2, settings["texture_sigma"]) - mean**2, 0))
        smooth: npt.NDArray[np.float32] = self._ndimage.gaussian_filter(signal, settings["sigma"])
        return smooth

    def _segment(self, signal: npt.NDArray[np.float32], settings: Any) -> LabelInstances:
        morphology, ndimage = self._skimage.morphology, self._ndimage
        none = LabelInstances(np.zeros(signal.shape, np.int32), np.zeros(0))
        if signal.min() == signal.max():
            return none
        threshold = float(self._skimage.filters.threshold_otsu(signal))
        largest = settings["min_size"] - 1
        foreground = morphology.remove_small_objects(signal > threshold, max_size=largest)
        foreground = morphology.remove_small_holes(foreground, max_size=largest)
        distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(foreground), settings["distance_sigma"])
        seeds, _ = ndimage.label(morphology.h_maxima(distance, settings["h"]), structure=np.ones((3, 3)))
        labels = self._skimage.segmentation.watershed(-distance, seeds, mask=foreground)
        kept = np.bincount(labels.ravel()) > largest
        kept[0] = False
        numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
        labels = numbers[labels]
        k = int(kept.sum())
        if k == 0:
            return none
        scores = np.asarray(ndimage.mean(signal, labels, np.arange(1, k + 1)), dtype=np.float64) - threshold
        return LabelInstances(labels, scores)
