"""Reading .npz archives row by row, without holding an array whole and without running what a pickle says."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.limits import read_npy_header
from segbench.engine.files.unpickling import as_array, read_pickle
from segbench.errors import SegbenchError


class Archive:
    """An .npz file. Errors of the file become SegbenchError with its path.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise SegbenchError(f"{path} is not a whole .npz file: {error}") from None
        self.keys = [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]

    def require(self, *keys: str) -> None:
        """Raise SegbenchError, with the keys that there are, where one of these is missing."""
        for key in keys:
            if key not in self.keys:
                raise SegbenchError(f"{self._path} has no array {key!r}; it has {', '.join(self.keys) or 'none'}")

    def header(self, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype without reading it."""
        with self._open(key) as file:
            shape, _, dtype = self._read_header(file, key)
        return shape, dtype

    def rows(self, key: str) -> Iterator[npt.NDArray[Any]]:
        """Yield an array's rows (along its first axis), decompressing as they are asked for."""
        with self._open(key) as file:
            shape, fortran, dtype = self._read_header(file, key)
            if dtype.hasobject:
                raise SegbenchError(f"{self._path}: array {key!r} holds Python objects, not numbers")
            if fortran:
                raise SegbenchError(f"{self._path}: array {key!r} is in Fortran order and cannot be read row by row")
            size = int(np.prod(shape[1:])) * dtype.itemsize
            for _ in range(shape[0]):
                yield np.frombuffer(self._read(file, size, key), dtype).reshape(shape[1:])
            # reading past the end makes zipfile check the checksum
            self._read(file, 0, key)

    def small(self, key: str) -> npt.NDArray[Any]:
        """Return a whole array; an array of objects only where it is made of text, numbers and arrays of them."""
        with self._open(key) as file:
            shape, fortran, dtype = self._read_header(file, key)
            if not dtype.hasobject:
                size = int(np.prod(shape)) * dtype.itemsize
                flat = np.frombuffer(self._read(file, size, key), dtype)
                return flat.reshape(shape, order="F" if fortran else "C")
            try:
                return as_array(read_pickle(file))
            except pickle.UnpicklingError as error:
                raise SegbenchError(f"{self._path}: array {key!r} is refused: {error}") from None
            except (zipfile.BadZipFile, zlib.error, OSError) as error:
                raise self._broken(key, error) from None

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, key: str) -> IO[bytes]:
        self.require(key)
        try:
            return self._zip.open(f"{key}.npy")
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
            raise self._broken(key, error) from None

    def _read_header(self, file: IO[bytes], key: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            return read_npy_header(file)
        except (ValueError, OSError) as error:
            raise self._broken(key, error) from None

    def _read(self, file: IO[bytes], size: int, key: str) -> bytes:
        try:
            data = file.read(size) if size else file.read(1)
        except (EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise self._broken(key, error) from None
        if size and len(data) != size:
            raise self._broken(key, EOFError("it ends early"))
        return data

    def _broken(self, key: str, error: Exception) -> SegbenchError:
        return SegbenchError(f"{self._path}: array {key!r} cannot be read: {error or type(error).__name__}")
