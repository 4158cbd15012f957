"""Scores label maps simply, to choose post-processing settings by; a run's figures come from the evaluator."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def f1_at_half(pairs: Iterable[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]) -> float:
    """Return the pooled F1 of (truth, prediction) label maps: a cell is found by an instance with IoU above 0.5.

    Above one half a match is unique, so none has to be searched for. Scores of instances play no part.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2]])
    >>> f1_at_half([(truth, np.array([[1, 1, 0, 0, 2]]))])
    0.5
    """
    found = cells = instances = 0
    for truth, predicted in pairs:
        overlaps = np.zeros((int(truth.max()) + 1, int(predicted.max()) + 1), dtype=np.int64)
        np.add.at(overlaps, (truth.ravel(), predicted.ravel()), 1)
        sizes, areas = overlaps.sum(1)[1:, np.newaxis], overlaps.sum(0)[np.newaxis, 1:]
        common = overlaps[1:, 1:]
        found += int(np.count_nonzero(2 * common > sizes + areas - common))
        cells += int(np.count_nonzero(sizes))
        instances += int(np.count_nonzero(areas))
    return 2 * found / (cells + instances) if cells + instances else 1.0
