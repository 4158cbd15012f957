"""Compiles loops over pixels where a method's environment has Numba."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of loops over arrays as Numba compiles it; other threads run while it does.

    What it compiled is kept in the folder of the function's module, or the user's, for the next process.
    """
    import numba

    fast: Callable[..., Any] = numba.njit(nogil=True, cache=True)(loop)
    return fast
