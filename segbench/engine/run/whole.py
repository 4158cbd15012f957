"""Scores whole test images: predictions and truth of their windows are put together before they are compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segbench.engine.data import PreparedDataset
from segbench.engine.data.stitching import stitched
from segbench.engine.data.whole import true_map, whole_images
from segbench.engine.metrics import Evaluation
from segbench.engine.metrics.labels import evaluate_labels
from segbench.engine.run.job import TEST
from segbench.methods.predictions import PredictionSet

_NO_LIMIT = 2**31 - 1
"""The study's 3,000 detections are of a window; a whole image may hold more cells."""


def evaluate_whole(data: PreparedDataset, target: str, predictions: PredictionSet) -> Evaluation:
    """Return the scores of a run's predictions on whole test images, pooled and by tissue.

    A cell counts once, wherever windows cut it. There is no limit of detections.

    Parameters
    ----------
    data
        The dataset.
    target
        Name of its label maps.
    predictions
        One entry a test window.

    Raises
    ------
    SegbenchError
        The windows do not overlap.
    """
    images = whole_images(data, TEST)
    windows = np.load(data.labels_path(TEST, target), mmap_mode="r")
    size = predictions.height, predictions.width
    scores: list[npt.NDArray[np.float64]] = []

    def found() -> Iterator[npt.NDArray[np.int32]]:
        for image in images:
            placed = zip(image.corners, (predictions[row] for row in image.rows), strict=True)
            whole = stitched(placed, size, image.shape)
            scores.append(whole.scores)
            yield whole.labels

    truth = (true_map(windows, image) for image in images)
    return evaluate_labels(truth, found(), scores, [image.tissue for image in images], _NO_LIMIT)
