"""Arrays that are too large to hold in memory, kept in a file without a name that goes with their last use."""

from __future__ import annotations

import contextlib
import math
import mmap
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError
from segbench.paths import cache_folder

LARGE_BYTES = 2**28
"""Arrays of this size and more are kept on the disk."""


def array_of(shape: Sequence[int], dtype: npt.DTypeLike, what: object) -> npt.NDArray[Any]:
    """Return an array of zeros, on the disk where it is large.

    The file lies in the cache's folder (a temporary folder may itself be memory) and has no name.

    Raises
    ------
    SegbenchError
        The disk has no room for it; ``what`` names what needs it.
    """
    size = math.prod(int(n) for n in shape) * np.dtype(dtype).itemsize
    if size < LARGE_BYTES:
        return np.zeros(shape, dtype)
    folder = cache_folder()
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    try:
        if size > free:
            raise SegbenchError(
                f"{what} needs {size / 1e9:.3g} GB on the disk of {folder}, {free / 1e9:.3g} GB are free: set "
                "SEGBENCH_CACHE to a folder with more room"
            )
        with tempfile.TemporaryFile(dir=folder) as file:
            return np.memmap(file, dtype, "w+", shape=tuple(int(n) for n in shape))
    finally:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def is_large(array: npt.NDArray[Any]) -> bool:
    """Return whether an array is as large as those that are kept on the disk."""
    return array.nbytes >= LARGE_BYTES


def let_go(array: npt.NDArray[Any]) -> None:
    """Give the memory that an array's file takes back to the system; what was written stays in the file."""
    base: Any = array
    while base is not None:
        mapped = getattr(base, "_mmap", None)
        if isinstance(mapped, mmap.mmap):
            mapped.madvise(mmap.MADV_DONTNEED)
            return
        base = getattr(base, "base", None)
