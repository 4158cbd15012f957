"""The windows that Cellpose trains on, read as they are used: what upstream would hold of all of them at once."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack
from segbench.methods.derived import Kind, derive

_PERCENTILES = (1.0, 99.0)
_SAMPLED_FROM = 224**3
"""Upstream takes the percentiles of larger planes from a part of their pixels."""


class WindowImages(Sequence[npt.NDArray[np.float32]]):
    """The images (C, H, W) as upstream's ``normalize_img`` leaves them, whose percentiles are computed once."""

    def __init__(self, stack: ImageStack, windows: Sequence[int], spare: Path) -> None:
        self._stack, self._windows = stack, windows
        facts = {"channels": list(stack.arrays.channels), "percentiles": _PERCENTILES, "numpy": np.__version__}
        kind = Kind("cellpose-range", facts, (stack.n_channels, 2), "float64", source="images")
        self._ranges = derive(stack, windows, kind, lambda n: _ranges(stack[n]), spare)
        self._type = type(np.percentile(np.zeros(2, np.float32), _PERCENTILES[0]))

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, n: Any) -> Any:
        window = self._windows[n]
        image = self._stack[window]
        for plane, (low, span) in zip(image, self._ranges[window], strict=True):
            if np.isnan(span):  # a plane that does not vary stays as it is
                continue
            if span > 1e-3:
                plane -= self._type(low)
                plane /= self._type(span)
            else:
                plane[:] = 0
        return image


class WindowTargets(Sequence["Targets"]):
    """The targets of the windows; the flows are computed once for all runs."""

    def __init__(self, stack: ImageStack, windows: Sequence[int], cellpose: Any, device: Any, spare: Path) -> None:
        self._stack, self._windows = stack, windows

        def flows(n: int) -> npt.NDArray[np.float32]:
            found: npt.NDArray[np.float32] = cellpose.dynamics.labels_to_flows([stack.labels(n)], device=device)[0][2:]
            return found

        facts = {"cellpose": importlib.metadata.version("cellpose"), "device": device.type}
        self._renumber = cellpose.dynamics.fastremap.renumber
        self._flows = derive(stack, windows, Kind("cellpose-flows", facts, (2, *stack.size)), flows, spare)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, n: Any) -> Any:
        window = self._windows[n]
        return Targets(self._stack.labels(window), self._flows, window, self._renumber)


class Targets:
    """One window's (4, H, W) targets, of which the parts are made that are asked for.

    They are labels, cell or not, flow along y, flow along x, as upstream's ``labels_to_flows`` returns them.
    """

    ndim = 3

    def __init__(self, labels: npt.NDArray[np.int32], flows: Any, window: int, renumber: Any) -> None:
        self._labels, self._flows, self._window, self._renumber = labels, flows, window, renumber

    def __getitem__(self, part: Any) -> npt.NDArray[np.float32]:
        # twice, as upstream does: the numbers follow the order of the cells' first pixels
        labels = self._renumber(self._renumber(self._labels)[0])[0][np.newaxis]
        if part == 0:  # without reading the flows: upstream measures all cells before the first step
            return np.asarray(labels[0], np.float32)
        whole = np.concatenate((labels, labels > 0, self._flows[self._window]), axis=0).astype(np.float32)
        return np.asarray(whole[part])


def _ranges(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    found = np.full((len(image), 2), np.nan)
    if image[0].size > _SAMPLED_FROM:
        raise ValueError(f"Cellpose's windows have at most {_SAMPLED_FROM} pixels, found {image[0].size}")
    for plane, row in zip(image, found, strict=True):
        if np.ptp(plane) > 0:
            low, high = (np.percentile(plane, q) for q in _PERCENTILES)
            row[:] = low, high - low
    return found
