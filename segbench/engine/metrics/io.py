"""Reads what people have: folders and stacks of label maps, and tables of groups and scores."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.batches import LabelMaps
from segbench.errors import SegbenchError

MAP_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
"""What a folder's label maps end in."""


class LabelMapFiles(Sequence[npt.NDArray[Any]]):
    """The label maps of many files, read one at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return LabelMapFiles(self.paths[n])
        return read_label_map(self.paths[n])

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (read_label_map(path) for path in self.paths)


@dataclass(frozen=True)
class LabelMapSource:
    """Label maps with their names."""

    path: Path
    """The folder or file."""
    names: tuple[str, ...]
    """One a map: the file's stem in a folder, the position (0, 1, ...) in a stack."""
    maps: LabelMaps
    """The maps, read when asked for."""

    def ordered_as(self, names: Sequence[str]) -> LabelMapSource:
        """Return the maps in the order of names; other names raise SegbenchError."""
        missing = [name for name in names if name not in set(self.names)]
        spare = [name for name in self.names if name not in set(names)]
        if missing:
            raise SegbenchError(
                f"{self.path} lacks {_some(missing)}; files are paired by their names without the suffix"
            )
        if spare:
            raise SegbenchError(f"{self.path} has {_some(spare)} beyond the truth; files are paired by their names")
        if self.names == tuple(names) or not isinstance(self.maps, LabelMapFiles):
            return self
        by_name = dict(zip(self.names, self.maps.paths, strict=True))
        return LabelMapSource(self.path, tuple(names), LabelMapFiles([by_name[name] for name in names]))


def open_label_maps(path: Path) -> LabelMapSource:
    """Open a folder of label maps, a stack (N, H, W) or one map (H, W): ``.npy`` (memory-mapped) or ``.tif``.

    Raises
    ------
    SegbenchError
        Where there is nothing to read, or it is none of these.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in MAP_SUFFIXES)
        if not files:
            raise SegbenchError(f"{path} has no label maps; they end in {', '.join(MAP_SUFFIXES)}")
        names = [file.stem for file in files]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SegbenchError(f"{path} has {twice!r} twice, with different suffixes; keep one")
        return LabelMapSource(path, tuple(names), LabelMapFiles(files))
    if not path.exists():
        raise SegbenchError(f"{path} does not exist; give a folder or a stack of label maps, or COCO JSON")
    if path.suffix.lower() not in MAP_SUFFIXES:
        raise SegbenchError(f"{path} is no label map; they end in {', '.join(MAP_SUFFIXES)}, COCO files in .json")
    stack = _read(path)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3:
        raise SegbenchError(f"{path} has shape {stack.shape}; label maps are (H, W), or (N, H, W) in a stack")
    return LabelMapSource(path, tuple(str(n) for n in range(len(stack))), stack)


def read_label_map(path: Path) -> npt.NDArray[Any]:
    """Return the label map (H, W) of one file; SegbenchError where it holds something else."""
    labels = _read(path)
    if labels.ndim != 2:
        raise SegbenchError(f"{path} has shape {labels.shape}; a label map is (H, W)")
    return labels


def _read(path: Path) -> npt.NDArray[Any]:
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        if suffix in (".tif", ".tiff"):
            import tifffile

            try:
                return np.asarray(tifffile.memmap(path, mode="r"))
            except ValueError:  # compressed or not contiguous: it cannot be mapped
                return np.asarray(tifffile.imread(path))
        from PIL import Image

        with Image.open(path) as image:
            return np.asarray(image)
    except (OSError, ValueError) as error:
        raise SegbenchError(f"cannot read {path}: {error}") from None


def read_groups(path: Path, names: Sequence[str]) -> list[str]:
    """Return the group of each named image, from a CSV with the columns ``image`` and ``group`` (or ``tissue``).

    An image may be given with folder and suffix. Images that the table lacks raise SegbenchError.
    """
    rows = _rows(path, "image", ("group", "tissue"))
    by_name = {Path(row["image"]).stem: row.get("group") or row.get("tissue") or "" for row in rows}
    missing = [name for name in names if not by_name.get(name)]
    if missing:
        raise SegbenchError(f"{path} gives no group for {_some(missing)}")
    return [by_name[name] for name in names]


def read_scores(path: Path, names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    """Return each named image's scores in ascending label order, from a CSV with columns ``image, label, score``."""
    by_name: dict[str, dict[int, float]] = {name: {} for name in names}
    for n, row in enumerate(_rows(path, "image", ("score",), ("label",)), start=2):
        name = Path(row["image"]).stem
        if name not in by_name:
            raise SegbenchError(f"{path}, line {n}: the image {name!r} is not among the label maps")
        try:
            label, score = int(row["label"]), float(row["score"])
        except ValueError:
            raise SegbenchError(
                f"{path}, line {n}: label {row['label']!r} and score {row['score']!r} must be numbers"
            ) from None
        if label in by_name[name]:
            raise SegbenchError(f"{path}, line {n}: image {name!r} has two scores for label {label}")
        by_name[name][label] = score
    return [np.array([by_name[name][label] for label in sorted(by_name[name])]) for name in names]


def _rows(path: Path, needed: str, one_of: Sequence[str], also: Sequence[str] = ()) -> list[dict[str, str]]:
    try:
        with Path(path).open(newline="") as file:
            reader = csv.DictReader(file)
            found = reader.fieldnames or []
            if needed not in found or not set(one_of) & set(found) or not set(also) <= set(found):
                wanted = ", ".join([needed, *also, " or ".join(one_of)])
                raise SegbenchError(f"{path} has the columns {', '.join(found) or 'none'}; it needs {wanted}")
            return [{key: value or "" for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise SegbenchError(f"cannot read {path}: {error}") from None


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
