"""Finds percentiles of more numbers than memory should sort: by counting them digit by digit, band by band."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

_DIGIT = 16
"""Bits that are counted in one pass over the numbers."""


def percentiles_of_bands(
    bands: Callable[[], Iterable[npt.NDArray[Any]]], percents: tuple[float, float]
) -> tuple[float, float]:
    """Return two percentiles as ``numpy.percentile`` does on float64, in as many passes as a number has 16 bits.

    Memory holds one band and some counts.

    Parameters
    ----------
    bands
        Gives the numbers anew at each call, in pieces of one dtype: finite floats of 32 or 64 bits, or integers of 32
        or 64 bits.
    percents
        0 to 100.

    Examples
    --------
    >>> numbers = np.random.default_rng(0).normal(size=(64, 50)).astype(np.float32)
    >>> percentiles_of_bands(lambda: [numbers], (0.1, 99.9)) == tuple(np.percentile(numbers.astype(float), (0.1, 99.9)))
    True
    """
    n, dtype = 0, np.dtype(np.float64)
    for band in bands():
        n, dtype = n + band.size, band.dtype
    places = [percent / 100 * (n - 1) for percent in percents]
    ranks = sorted({rank for at in places for rank in (math.floor(at), math.ceil(at))})
    found = dict(zip(ranks, _values(bands, ranks, dtype), strict=True))

    def percentile(at: float) -> float:
        lower, upper, t = found[math.floor(at)], found[math.ceil(at)], at - math.floor(at)
        # numpy takes the nearer end, so that rounding errors do not pass it
        return lower + (upper - lower) * t if t < 0.5 else upper - (upper - lower) * (1 - t)

    return percentile(places[0]), percentile(places[1])


def _values(bands: Callable[[], Iterable[npt.NDArray[Any]]], ranks: list[int], dtype: np.dtype[Any]) -> Iterator[float]:
    """Yield the numbers that would stand at some places, were all sorted (radix selection)."""
    begun = [0] * len(ranks)
    left = list(ranks)
    bits = dtype.itemsize * 8
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        counts = {prefix: np.zeros(2**_DIGIT, np.int64) for prefix in set(begun)}
        for band in bands():
            keys = _keys(band.ravel())
            for prefix, count in counts.items():
                own = keys if shift == bits - _DIGIT else keys[keys >> keys.dtype.type(shift + _DIGIT) == prefix]
                digits = (own >> own.dtype.type(shift)).astype(np.uint16)
                count += np.bincount(digits, minlength=2**_DIGIT)
        for k, prefix in enumerate(begun):
            up_to = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(up_to, left[k], side="right"))
            left[k] -= int(up_to[digit - 1]) if digit else 0
            begun[k] = prefix << _DIGIT | digit
    for key in begun:
        yield float(_value(key, dtype))


def _keys(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return unsigned integers in the order of the numbers."""
    bits = numbers.dtype.itemsize * 8
    unsigned = np.dtype(f"u{numbers.dtype.itemsize}")
    top = unsigned.type(1 << bits - 1)
    raw = np.ascontiguousarray(numbers).view(unsigned)
    if numbers.dtype.kind == "u":
        return raw
    if numbers.dtype.kind == "i":
        return np.asarray(raw ^ top)
    return np.asarray(np.where(raw & top, ~raw, raw | top))


def _value(key: int, dtype: np.dtype[Any]) -> Any:
    bits = dtype.itemsize * 8
    top = 1 << bits - 1
    if dtype.kind == "i":
        key ^= top
    elif dtype.kind == "f":
        key = key ^ top if key & top else key ^ (1 << bits) - 1
    return np.array([key], np.dtype(f"u{dtype.itemsize}")).view(dtype)[0]
