"""The one way in which this package compiles: numba, cached on disk, free of the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """Compile a function at its first call; later processes load it from numba's cache.

    numba renews a cached function when its own file changes, not when a file that it calls changes: a compiled function
    therefore calls compiled functions of its own module only. No fast-math: the
    results must equal pycocotools' last bit.
    """
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
