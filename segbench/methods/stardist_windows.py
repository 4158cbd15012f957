"""The windows that StarDist trains on, read as they are used, with their labels' holes filled once for all runs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack
from segbench.methods.derived import Kind, derive


class NormalisedImages:
    """The images as csbdeep's ``normalize`` leaves them: (H, W) for one channel, else (H, W, C).

    No ``Sequence``, list or array: upstream reads every image of those before the first step.
    """

    def __init__(
        self, stack: ImageStack, windows: Sequence[int], percentiles: Sequence[float], csbdeep: Any, spare: Path
    ) -> None:
        self._stack, self._windows, self._csbdeep = stack, windows, csbdeep

        def ranges(n: int) -> npt.NDArray[np.float32]:
            # of the very view that upstream takes them of
            image = np.moveaxis(stack[n], 0, -1)
            return np.stack([np.percentile(image, q, axis=(0, 1)) for q in percentiles]).astype(np.float32)

        facts = {
            "channels": list(stack.arrays.channels),
            "percentiles": [float(q) for q in percentiles],
            "numpy": np.__version__,
        }
        kind = Kind("stardist-range", facts, (2, stack.n_channels), source="images")
        self._ranges = derive(stack, windows, kind, ranges, spare)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, n: int) -> npt.NDArray[np.float32]:
        window = self._windows[n]
        low, high = self._ranges[window]
        image: npt.NDArray[np.float32] = self._csbdeep.utils.normalize_mi_ma(
            np.moveaxis(self._stack[window], 0, -1), low[np.newaxis, np.newaxis], high[np.newaxis, np.newaxis]
        )
        return image[..., 0] if image.shape[-1] == 1 else image


class FilledLabels:
    """The labels (H, W) with their holes filled."""

    def __init__(self, stack: ImageStack, windows: Sequence[int], stardist: Any, spare: Path) -> None:
        self._windows = windows
        kind = Kind("stardist-filled", {"stardist": importlib.metadata.version("stardist")}, stack.size, "int32")
        self._filled = derive(stack, windows, kind, lambda n: stardist.fill_label_holes(stack.labels(n)), spare)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, n: int) -> npt.NDArray[np.int32]:
        return self._filled[self._windows[n]]
