"""Reads packages as a gallery shows them: facts, size, checksum and some test windows; nothing is unpacked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.archives import file_sha256, read_member
from segbench.engine.models.facts import FACTS, ModelFacts
from segbench.engine.models.packages import EXAMPLES
from segbench.errors import SegbenchError

_LARGEST = 64 * 2**20


@dataclass(frozen=True)
class Windows:
    """Some test windows of a model, k of them."""

    images: npt.NDArray[np.uint8]
    """(k, C, H, W)."""
    truth: npt.NDArray[np.int32]
    """(k, H, W)."""
    prediction: npt.NDArray[np.int32]
    """(k, H, W)."""
    ap50: npt.NDArray[np.float64]
    """(k,), NaN where there is no truth."""
    tissues: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A package in a gallery."""

    path: Path
    facts: ModelFacts
    sha256: str
    size: int
    """Of the file, in bytes."""

    @classmethod
    def read(cls, path: Path) -> Entry:
        """Read a package; raises SegbenchError in one line where it is none."""
        facts = ModelFacts.read(read_member(path, FACTS), str(path))
        return cls(path, facts, file_sha256(path), path.stat().st_size)

    def windows(self) -> Windows | None:
        """Return its test windows; None where it holds none."""
        try:
            content = read_member(self.path, EXAMPLES, _LARGEST)
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                found = Windows(
                    np.asarray(stored["images"], np.uint8), np.asarray(stored["truth"], np.int32),
                    np.asarray(stored["prediction"], np.int32), np.asarray(stored["ap50"], np.float64),
                    tuple(str(tissue) for tissue in stored["tissues"]),
                )  # fmt: skip
        except (SegbenchError, OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return found if _fit(found) else None


def _fit(windows: Windows) -> bool:
    k = len(windows.tissues)
    sizes = {windows.images.shape[2:], windows.truth.shape[1:], windows.prediction.shape[1:]}
    arrays: Sequence[npt.NDArray[Any]] = (windows.images, windows.truth, windows.prediction, windows.ap50)
    return windows.images.ndim == 4 and len(sizes) == 1 and all(len(array) == k for array in arrays)


def read_entries(paths: Sequence[Path]) -> tuple[list[Entry], list[str]]:
    """Return the packages that can be read, by task and falling accuracy, and a line for each that cannot.

    Two packages of one name cannot be in one gallery: the second is told.
    """
    entries: dict[str, Entry] = {}
    problems = []
    for path in paths:
        try:
            entry = Entry.read(path)
        except SegbenchError as error:
            problems.append(str(error))
            continue
        first = entries.setdefault(entry.facts.name, entry)
        if first is not entry and first.sha256 != entry.sha256:
            problems.append(f"{path} is left out: {first.path} is another model of the name {entry.facts.name!r}")
    ranked = sorted(entries.values(), key=lambda entry: (entry.facts.task, -accuracy(entry), entry.facts.name))
    return ranked, problems


def accuracy(entry: Entry) -> float:
    """Return the pooled accuracy; -1 where there is none."""
    pooled = entry.facts.pooled
    return -1.0 if pooled is None or pooled.accuracy is None else pooled.accuracy
