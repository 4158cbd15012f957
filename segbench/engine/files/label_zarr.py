"""Writes a label map as an OME-Zarr image of labels, with smaller copies, some rows at a time.

Source: the OME-Zarr specification 0.5 (multiscales, image-label).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.errors import SegbenchError

_CHUNK = 1024
_SMALL = 1024
"""Pixels of the longer side of the last copy, at most."""


def write_label_zarr(path: Path, labels: npt.NDArray[Any], pixel_size_um: float | None = None) -> None:
    """Write a label map as OME-Zarr 0.5, uint16 or uint32, each copy half as large as the one before.

    Parameters
    ----------
    path
        Of the folder, which must not be there.
    labels
        (H, W), whole numbers from 0; may lie on the disk.
    pixel_size_um
        Side of a pixel in micrometres; None where it is not known.

    Raises
    ------
    SegbenchError
        The package zarr is not installed.
    """
    try:
        import zarr
    except ImportError:
        raise SegbenchError("OME-Zarr is written by zarr: install it with pip install 'segbench[formats]'") from None
    bands = range(0, labels.shape[0], _CHUNK)
    highest = max(int(labels[top : top + _CHUNK].max(initial=0)) for top in bands)
    dtype = np.uint32 if highest > 65535 else np.uint16
    group = zarr.create_group(store=str(path), zarr_format=3)
    level = 0
    shape = labels.shape
    source: Any = labels
    while True:
        array = group.create_array(
            str(level), shape=shape, chunks=(min(_CHUNK, shape[0]), min(_CHUNK, shape[1])), dtype=dtype,
            dimension_names=("y", "x"), fill_value=0,
        )  # fmt: skip
        for top in range(0, shape[0], _CHUNK):
            # of the copy before every other pixel: labels are never mixed
            rows = source[top : top + _CHUNK] if level == 0 else source[2 * top : 2 * (top + _CHUNK)][::2, ::2]
            array[top : top + _CHUNK] = np.asarray(rows, dtype)[:, : shape[1]]
            spool.let_go(labels)
        if max(shape) <= _SMALL:
            break
        source, level = array, level + 1
        shape = -(-shape[0] // 2), -(-shape[1] // 2)
    unit = {} if pixel_size_um is None else {"unit": "micrometer"}
    size = 1.0 if pixel_size_um is None else float(pixel_size_um)
    datasets: list[Any] = [
        {
            "path": str(n),
            "coordinateTransformations": [{"type": "scale", "scale": [size * 2**n] * 2}],
        }
        for n in range(level + 1)
    ]
    axes: list[Any] = [{"name": name, "type": "space", **unit} for name in "yx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"name": path.name.partition(".")[0], "axes": axes, "datasets": datasets}],
        "image-label": {"version": "0.5"},
    }
