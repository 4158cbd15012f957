"""Makes the planes of one picture of an array whose axes have letters, whatever the format that it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.picture import Take
from segbench.errors import SegbenchError

UNNAMED = "IQ"
"""tifffile's letters for an axis that the file gives no name: pages one after the other."""
_NAMES = {"Z": "depth", "T": "time", "P": "positions", "R": "tiles", "H": "lifetimes", "A": "angles"}


def without_other_axes(
    array: npt.NDArray[Any], axes: str, take: Take, path: Path, keep: str
) -> tuple[npt.NDArray[Any], str]:
    """Return the array without the axes that are neither pixels nor in ``keep``, by what the user chose."""
    take.check_absent(axes, path)
    for axis in [axis for axis in axes if axis not in "YX" + keep]:
        along = axes.index(axis)
        n = array.shape[along]
        if axis in take.planes:
            if take.planes[axis] >= n:
                raise SegbenchError(f"{path}: --plane {axis}={take.planes[axis]}, but {axis} goes from 0 to {n - 1}")
            array = array.take(take.planes[axis], axis=along)
        elif take.project is not None:
            array = array.max(axis=along) if take.project == "max" else _mean(array, along)
        else:
            raise SegbenchError(_refusal(path, axis, n, alone=not set(axes) & set("CS"), labels="T" in keep))
        axes = axes.replace(axis, "")
    return array, axes


def _refusal(path: Path, axis: str, n: int, *, alone: bool, labels: bool) -> str:
    found = f"{path} has an axis {axis}{f' ({_NAMES[axis]})' if axis in _NAMES else ''} of {n} planes: "
    if labels:
        return f"{found}a label map is one plane; save the one that is meant"
    channels = f", or, where they are channels, name all {n} with --channels" if alone else ""
    return f"{found}choose one with --plane {axis}=0, or join them with --project max{channels}"


def _mean(array: npt.NDArray[Any], along: int) -> npt.NDArray[Any]:
    mean: npt.NDArray[np.float64] = array.mean(axis=along, dtype=np.float64)
    return mean.astype(array.dtype) if array.dtype.kind == "f" else np.rint(mean).astype(array.dtype)


def channel_planes(
    array: npt.NDArray[Any], axes: str, names: tuple[str, ...] | None, take: Take, named: int | None, path: Path
) -> tuple[npt.NDArray[Any], tuple[str, ...] | None]:
    """Return (C, H, W), and the channels' names where the file gives them."""
    array, axes = _as_asked(array, axes, take, named)
    others = [axis for axis in axes if axis not in "YXSC" + UNNAMED]
    alone = len(others) == 1 and not set(axes) & set("SC" + UNNAMED) and take == Take()
    if alone and named is not None and array.shape[axes.index(others[0])] == named:
        axes = axes.replace(others[0], "C")  # the user says that the planes are channels
    array, axes = without_other_axes(array, axes, take, path, keep="SC" + UNNAMED)
    rest = [axis for axis in axes if axis not in "YX"]
    if len(rest) > 1:
        raise SegbenchError(
            f"{path} has the axes {axes} {array.shape}: it is not plain which of them are channels; save it with one "
            "channel axis"
        )
    if not rest:
        return np.moveaxis(array, axes.index("Y"), 0)[None], names if names and len(names) == 1 else None
    array = _shorter_first(np.moveaxis(array, axes.index(rest[0]), 0), rest[0])
    return array, names if names is not None and len(names) == array.shape[0] else None


def _as_asked(array: npt.NDArray[Any], axes: str, take: Take, named: int | None) -> tuple[npt.NDArray[Any], str]:
    """Return a stack whose one axis has no name with that of the axis that is asked for: depth, or what is said."""
    asked = [axis for axis in take.planes if axis not in axes] or (["Z"] if take.project and "Z" not in axes else [])
    if len(axes) != 3 or axes[0] not in UNNAMED or len(asked) != 1:
        return array, axes
    array = _shorter_first(array, axes[0])
    return array, axes if array.shape[0] == named else asked[0] + axes[1:]


def _shorter_first(array: npt.NDArray[Any], axis: str) -> npt.NDArray[Any]:
    """Return (N, H, W): where no axis has a name, planes are the shorter one of the first and the last."""
    return np.moveaxis(array, -1, 0) if axis == "Q" and array.shape[-1] < array.shape[0] else array
