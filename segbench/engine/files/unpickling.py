"""Reads a pickle of arrays, text and numbers without running what it says: nothing in it is ever called."""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_CODE = re.compile(r"[<>|=]?([biufcSUO?]\d*|bool)")
_MOST_MEMO = 2**24
"""Entries of a pickle's memo: the unpickler makes room for the highest number at once."""


class _Dtype:
    """What a pickle says of a numeric type: its code, and the order of its bytes."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"it has an array of type {str(code)[:40]!r}")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("the type of an array is broken")
        self._order = order

    def numpy(self) -> np.dtype[Any]:
        dtype = np.dtype(self._code)
        return dtype if self._order == "|" else dtype.newbyteorder(self._order)  # type: ignore[arg-type]


class _Array:
    """What a pickle says of an array: its shape, type and content, believed only when asked for."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array is broken")
        self._state = state

    def numpy(self) -> npt.NDArray[Any]:
        if not self._state:
            raise pickle.UnpicklingError("an array has no content")
        _, shape, dtype, fortran, content = self._state
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("an array has no shape")
        return _array(shape, dtype, "F" if fortran else "C", content)


class _NdArray:
    """Stands for the class of arrays where a pickle names it."""


def read_pickle(file: IO[bytes]) -> Any:
    """Return what a pickle holds; its arrays become real by ``as_array``, one at a time.

    Parameters
    ----------
    file
        Open at the pickle's first byte, seekable.

    Raises
    ------
    pickle.UnpicklingError
        It asks for anything else than arrays of text and numbers, or is broken. Nothing has been run.
    """
    start = file.tell()
    try:
        for operation, argument, _ in pickletools.genops(file):
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > _MOST_MEMO:
                raise pickle.UnpicklingError("it numbers its parts too high")
        file.seek(start)
        return _CarefulUnpickler(file).load()
    except pickle.UnpicklingError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a broken pickle raises of all kinds: EOFError, KeyError, UnicodeDecodeError, ...
        raise pickle.UnpicklingError(f"it is broken: {type(error).__name__} {error}"[:200]) from None


def as_array(value: Any) -> npt.NDArray[Any]:
    """Return an array of ``read_pickle``'s result, and raise pickle.UnpicklingError where it is none."""
    if not isinstance(value, _Array):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__.lstrip('_')} where an array is meant")
    try:
        return value.numpy()
    except (TypeError, ValueError, OverflowError) as error:
        raise pickle.UnpicklingError(f"an array is broken: {error}") from None


def _array(shape: tuple[int, ...], dtype: Any, order: Any, content: Any) -> npt.NDArray[Any]:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array has no type")
    kind, n = dtype.numpy(), math.prod(shape)
    if kind.hasobject:
        if not isinstance(content, list) or len(content) != n:
            raise pickle.UnpicklingError("an array is cut off")
        flat = np.empty(n, object)
        for place, one in enumerate(content):
            flat[place] = as_array(one) if isinstance(one, _Array) else one
        return flat.reshape(shape, order=order)
    if not isinstance(content, bytes | bytearray) or len(content) != n * kind.itemsize:
        raise pickle.UnpicklingError("an array is cut off")
    return np.frombuffer(content, kind).reshape(shape, order=order)


def _reconstruct(kind: Any, shape: Any, _: Any) -> _Array:
    if kind is not _NdArray or shape != (0,):
        raise pickle.UnpicklingError("an array is broken")
    return _Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    found = _Array()
    found.__setstate__((1, shape, dtype, order == "F", content))
    return found


def _scalar(dtype: Any, content: Any) -> Any:
    return _array((), dtype, "C", content)[()]


_NAMES: dict[tuple[str, str], Any] = {("numpy", "ndarray"): _NdArray, ("numpy", "dtype"): _Dtype}
for _home in ("numpy.core", "numpy._core"):
    _NAMES[f"{_home}.multiarray", "_reconstruct"] = _reconstruct
    _NAMES[f"{_home}.multiarray", "scalar"] = _scalar
    _NAMES[f"{_home}.numeric", "_frombuffer"] = _from_buffer


class _CarefulUnpickler(pickle.Unpickler):
    """Gives a pickle harmless stand-ins for the four names that arrays need, and refuses every other."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, only arrays of text and numbers are read")
