"""How large an array a file may become: what the machine has room for, and not what a header claims."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from segbench.errors import SegbenchError

_SHARE = 0.8
"""Of the memory that is free."""


def check_room(path: Path, shape: Sequence[int], itemsize: int) -> None:
    """Raise SegbenchError where an array of this shape would not fit into the memory that is free.

    Parameters
    ----------
    path
        Of the file, for the error.
    shape, itemsize
        What its header claims: pixels along each axis, and bytes a pixel.
    """
    size = math.prod(int(n) for n in shape) * itemsize
    if size < 64 * 2**20:
        return
    import psutil

    free = psutil.virtual_memory().available
    if size > free * _SHARE:
        raise SegbenchError(
            f"{path} has {' x '.join(map(str, shape))} pixels, {size / 1e9:.3g} GB in memory, and {free / 1e9:.3g} GB "
            "are free: cut it into smaller images, or use a machine with more memory"
        )


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether columns come first, and the type that a ``.npy`` file tells at its beginning.

    Raises
    ------
    ValueError
        It is no such file, or its header is broken; one line.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"it is of version {version} of the format, which only names of columns need")
        return readers[version](file)
    except OSError:
        raise
    except Exception as error:  # the header is Python's text: SyntaxError, TokenError and others beside ValueError
        lines = str(error).splitlines()
        raise ValueError(lines[0] if lines else type(error).__name__) from None


def check_npy(path: Path) -> None:
    """Raise SegbenchError where a ``.npy`` file is cut off: numpy would tell of a mapping, not of the file."""
    with path.open("rb") as file:
        try:
            shape, _, dtype = read_npy_header(file)
        except ValueError as error:
            raise SegbenchError(f"{path} cannot be read: {error}") from None
        if dtype.hasobject:
            raise SegbenchError(
                f"{path} cannot be read: it holds Python objects (a pickle), not numbers: they are never loaded"
            )
        wanted = file.tell() + math.prod(shape) * dtype.itemsize
        if os.fstat(file.fileno()).st_size < wanted:
            there = path.stat().st_size
            raise SegbenchError(
                f"{path} cannot be read: it is cut off, {wanted:,} bytes are announced, {there:,} are there"
            )
