"""Cellpose's weights before training: drawn, released ones or a file, and which planes of a window they take."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError
from segbench.methods.base import ImageStack
from segbench.methods.start import Start
from segbench.methods.weights import RELEASED

RANDOM = "random"
_RELEASED = {"cyto3": "cellpose-cyto3", "nuclei": "cellpose-nuclei"}
START = Start(
    "start",
    random=RANDOM,
    generalist={"nuclear": "nuclei", "": "cyto3"},
    weights={model: (name,) for model, name in _RELEASED.items()},
    untrained={model: (f"{name}-size",) for model, name in _RELEASED.items()},
    most_channels=dict.fromkeys(_RELEASED, 2),
)
"""What a grid's ``start`` means for Cellpose: ``nuclei`` for the target ``nuclear``, else ``cyto3``."""
_FIRST = "downsample.down.res_down_0.proj.1.weight"
_NUCLEAR = ("nuc", "dapi", "hoechst")
_SIZE_KEYS = ("A", "smean", "ymean", "diam_mean")

Planes = tuple[int | None, ...]
"""Which channel of a window each plane of the network is; None for zeros."""


@dataclass(frozen=True)
class Weights:
    """Weights to start from."""

    file: Path
    planes: Planes
    size: Mapping[str, npt.NDArray[np.float64]] | None
    """Upstream's regression of a window's mean diameter on the network's style; None where the weights tell it."""


class Arranged(ImageStack):
    """Windows with their channels in the order in which released weights take them."""

    def __init__(self, stack: ImageStack, planes: Planes) -> None:
        super().__init__(stack.arrays)
        self._planes = planes
        # what is derived of the windows is kept by these
        self.arrays = replace(stack.arrays, channels=tuple(self._origin(plane) for plane in planes))

    def __getitem__(self, n):  # type: ignore[no-untyped-def]
        """Return window ``n`` as (planes, H, W) float32."""
        found = super().__getitem__(n)  # type: ignore[no-untyped-call]
        return found if isinstance(n, slice) else arranged(found, self._planes)

    @property
    def n_channels(self) -> int:
        """How many planes the network takes."""
        return len(self._planes)

    def _origin(self, plane: int | None) -> int:
        return -1 if plane is None else self._channels[plane]


def arranged(image: npt.NDArray[np.float32], planes: Planes) -> npt.NDArray[np.float32]:
    """Return the planes of a window (C, H, W).

    Examples
    --------
    >>> arranged(np.array([[[1.0]], [[2.0]]], np.float32), (1, None)).ravel().tolist()
    [2.0, 0.0]
    """
    return np.stack([np.zeros_like(image[0]) if plane is None else image[plane] for plane in planes])


def weights_of(start: str, channels: Sequence[str], target: str, torch: Any, *, untrained: bool) -> Weights:
    """Return the weights that a setting ``start`` names.

    Parameters
    ----------
    start
        ``cyto3``, ``nuclei`` or a path.
    channels, target
        Of the task, by name.
    torch
        The library.
    untrained
        True where they are applied as they are: released ones then need their model of the cells' size as well.

    Raises
    ------
    SegbenchError
        They are not there, are no weights of this network, or take fewer channels than there are.
    """
    if start in _RELEASED:
        name = _RELEASED[start]
        size = read_size(RELEASED[f"{name}-size"].verified()) if untrained else None
        return Weights(RELEASED[name].verified(), released_planes(channels, target), size)
    file = Path(start).expanduser()
    if not file.is_file():
        raise SegbenchError(f"setting start is {start!r}, which is no file; it is random, cyto3, nuclei or a file")
    wanted = planes_of(file, torch)
    if wanted < len(channels):
        raise SegbenchError(f"{file} takes {wanted} channels, the task has {len(channels)}")
    return Weights(file, tuple(n if n < len(channels) else None for n in range(wanted)), None)


def planes_of(file: Path, torch: Any) -> int:
    """Return how many planes the network of a file of weights takes; SegbenchError where it is no such file."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        return int(state[_FIRST].shape[1])
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SegbenchError(f"{file} does not load as plain weights: {reason}") from None
    except (KeyError, AttributeError, TypeError, IndexError):
        raise SegbenchError(f"{file} holds no weights of the network of cellpose 2 and 3: it has no {_FIRST}") from None


def released_planes(channels: Sequence[str], target: str) -> Planes:
    """Return what the released models see of a task: the channel to segment, then the nuclei or zeros.

    Examples
    --------
    >>> released_planes(("nuclear",), "nuclear"), released_planes(("nuclear", "membrane"), "wholecell")
    ((0, None), (1, 0))
    >>> released_planes(("nuclear", "membrane"), "nuclear")
    (0, None)
    """
    if len(channels) > 2:
        raise SegbenchError(f"Cellpose's released models take 2 channels at most, the task has {len(channels)}")
    if len(channels) == 1:
        return (0, None)
    named = [n for n, name in enumerate(channels) if any(part in name.lower() for part in _NUCLEAR)]
    nuclei = named[0] if named else 1
    return (nuclei, None) if target == "nuclear" else (1 - nuclei, nuclei)


class _OnlyArrays(pickle.Unpickler):
    """Reads a pickle that may hold NumPy's arrays and numbers, and names nothing else."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "scalar"})

    def find_class(self, module: str, name: str) -> Any:
        """Return one of NumPy's few."""
        if module.split(".")[0] != "numpy" or name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def read_size(file: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Read a released model of the cells' size: a pickled dictionary of arrays in a ``.npy``.

    Raises
    ------
    SegbenchError
        It is no such file, or names anything but arrays.
    """
    try:
        with file.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            reader = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
            reader(stream)
            found = _OnlyArrays(stream).load()
        found = found.item() if isinstance(found, np.ndarray) else found
        return {key: np.asarray(found[key], np.float64) for key in _SIZE_KEYS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise SegbenchError(f"{file} is no model of the cells' size: {error}") from None


def diameter_of(style: npt.NDArray[np.float32], size: Mapping[str, npt.NDArray[np.float64]]) -> float:
    """Return the mean diameter in pixels, at least 5, that a window's style (256,) tells.

    As ``cellpose.models.SizeModel._size_estimation`` of cellpose 3.1.1.3 computes it.
    """
    log = size["A"] @ (style - size["smean"]).T + np.log(size["diam_mean"]) + size["ymean"]
    return max(5.0, float(np.exp(log).ravel()[0]))
