"""Keeps what a method derives from prepared windows beside them: computed once, for all runs, read as it is used."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError
from segbench.methods.base import ImageStack

FOLDER = "derived"
"""Beside the arrays that something is derived from."""
_TOGETHER = 128
"""Windows that are computed until what is done is said to be done."""
_LOG = logging.getLogger(__name__)
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTSUP, errno.ENOLCK)


@dataclass(frozen=True)
class Kind:
    """What is derived of each window."""

    name: str
    """A word for folders and messages: ``flows``."""
    facts: Mapping[str, Any]
    """All that decides the values beside the windows: settings, versions of libraries. Plain data."""
    shape: tuple[int, ...]
    """Of one window's values."""
    dtype: str = "float32"
    source: str = "labels"
    """What they are derived from: ``labels`` or ``images``."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one window's values."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Derived:
    """The derived values of windows, memory-mapped; indexing by a window's number gives a copy of its values."""

    def __init__(self, values: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        self._values, self._rows = values, rows

    def __getitem__(self, n: int) -> npt.NDArray[Any]:
        return np.array(self._values[self._rows[n]])


def derive(
    stack: ImageStack, windows: Sequence[int], kind: Kind, compute: Callable[[int], npt.NDArray[Any]], spare: Path
) -> Derived:
    """Return what is derived of windows, computing what no earlier run has computed.

    The values lie in ``derived/`` beside the arrays, one place for each window of the split, with a mark for each that
    is there: a run that is killed leaves what it had marked, runs that start together wait for each other, and a run on
    one tissue computes that tissue's windows alone. Arrays that were written anew (by size and time) have values anew.

    Parameters
    ----------
    stack, windows
        The windows, by their numbers in the stack.
    kind
        What is derived.
    compute
        Returns a window's values, of the kind's shape, given its number.
    spare
        A folder for the values where none can be written beside the arrays; they go when the process ends.

    Raises
    ------
    SegbenchError
        There is no space left for them.
    """
    rows = stack.rows[np.asarray(windows, np.int64)]
    with contextlib.ExitStack() as opened:
        try:
            place = _place(stack, kind)
            place.mkdir(parents=True, exist_ok=True)
            opened.enter_context(_locked(place / "lock"))
            files = tuple(opened.enter_context(_open(place / name)) for name in ("values.bin", "done.bin"))
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
            _LOG.warning("%s is computed for this run alone: %s", kind.name, error)
            place = spare
            spare.mkdir(parents=True, exist_ok=True)
            files = tuple(opened.enter_context(tempfile.TemporaryFile(dir=spare)) for _ in range(2))
        values, done = files
        marks = _marks(values, done, stack.n_rows, kind)
        left = [int(window) for window, row in zip(windows, rows, strict=True) if not marks[row]]
        if left:
            _LOG.warning("computing %s of %d windows, %d are there", kind.name, len(left), len(windows) - len(left))
        try:
            for first in range(0, len(left), _TOGETHER):
                _write(stack, left[first : first + _TOGETHER], kind, compute, values, done)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            needed = len(left) * kind.row_bytes / 1e9
            raise SegbenchError(
                f"no space left in {place} for {kind.name} of {len(left)} windows: free {needed:.2g} GB"
            ) from None
        mapped = np.memmap(values, dtype=kind.dtype, mode="r", shape=(stack.n_rows, *kind.shape))
    return Derived(mapped, stack.rows)


def _place(stack: ImageStack, kind: Kind) -> Path:
    source = Path(stack.arrays.images if kind.source == "images" else stack.arrays.labels or "")
    stat = source.stat()
    told = [source.name, stat.st_size, stat.st_mtime_ns, dict(kind.facts), kind.shape, kind.dtype]
    if stack.size != stack.own_size:
        told.append(stack.size)
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]
    return source.parent / FOLDER / f"{kind.name}-{digest}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that goes with its process."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning("waiting for the run that computes %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)


def _marks(values: IO[bytes], done: IO[bytes], n_rows: int, kind: Kind) -> npt.NDArray[np.uint8]:
    """Return which rows are there; files of another length are begun anew."""
    if os.fstat(values.fileno()).st_size != n_rows * kind.row_bytes or os.fstat(done.fileno()).st_size != n_rows:
        os.ftruncate(done.fileno(), 0)
        os.ftruncate(values.fileno(), n_rows * kind.row_bytes)  # without blocks on the disk until they are written
        os.ftruncate(done.fileno(), n_rows)
    return np.frombuffer(os.pread(done.fileno(), n_rows, 0), np.uint8)


def _write(
    stack: ImageStack, windows: Sequence[int], kind: Kind, compute: Callable[[int], npt.NDArray[Any]],
    values: IO[bytes], done: IO[bytes],
) -> None:  # fmt: skip
    # written, not through the map: a full disk is then an error and not the process's death
    for window in windows:
        found = np.ascontiguousarray(compute(window), dtype=kind.dtype)
        if found.shape != kind.shape:
            raise ValueError(f"{kind.name} of window {window} has shape {found.shape}, expected {kind.shape}")
        _put(values, found.tobytes(), int(stack.rows[window]) * kind.row_bytes)
    os.fsync(values.fileno())
    for window in windows:
        _put(done, b"\1", int(stack.rows[window]))


def _put(file: IO[bytes], content: bytes, at: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(file.fileno(), left, at)
        left, at = left[written:], at + written
