"""Opens what holds label maps of many images: a folder of files, or one file with a stack."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.masks import (
    MaskFacts,
    Masks,
    as_labels,
    facts_of,
    numbered_pieces,
    read_mask,
    read_mask_with_facts,
    survey,
)
from segbench.engine.files.microscopy import SUFFIXES as MICROSCOPES
from segbench.engine.files.microscopy import is_picture, is_zarr
from segbench.engine.files.pictures import read_numbers
from segbench.errors import SegbenchError

MAP_SUFFIXES = (".png", ".tif", ".tiff", ".npy", *MICROSCOPES)
"""What a folder's label maps end in."""
_LOSSY_SUFFIXES = (".jpg", ".jpeg")
_ENDINGS = ("_cp_masks", "_masks", "_mask", "_labels", "_label", "_seg")
"""What tools append to an image's name for its label map (Cellpose, and by habit)."""


class LabelMapFiles(Sequence[npt.NDArray[Any]]):
    """The label maps of many files, read one at a time."""

    def __init__(self, paths: Sequence[Path], kind: Masks = Masks.LABELS) -> None:
        self.paths = tuple(paths)
        self.kind = kind
        self.shapes: dict[int, tuple[int, ...]] = {}
        """(H, W) of the maps that were read in order so far."""
        self.facts: dict[int, MaskFacts] = {}
        """What was found in them."""

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return LabelMapFiles(self.paths[n], self.kind)
        return read_mask(self.paths[n], self.kind)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        for n, path in enumerate(self.paths):
            labels, self.facts[n] = read_mask_with_facts(path, self.kind, str(path))
            self.shapes[n] = labels.shape
            yield labels

    def of(self, paths: Sequence[Path]) -> LabelMapFiles:
        """Return other files, read the same way."""
        return LabelMapFiles(paths, self.kind)


class _SizedAs(LabelMapFiles):
    """Files whose maps must have the sizes of others, which are read first."""

    def __init__(self, files: LabelMapFiles, others: LabelMapFiles) -> None:
        super().__init__(files.paths, files.kind)
        self.facts, self._others = files.facts, others

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        for n, labels in enumerate(super().__iter__()):
            wanted = self._others.shapes.get(n, labels.shape)
            if labels.shape != wanted:
                raise SegbenchError(
                    f"{self.paths[n]} is {labels.shape} (height, width), {self._others.paths[n]} is {wanted}"
                )
            yield labels


@dataclass(frozen=True)
class LabelMapSource:
    """Label maps with their names."""

    path: Path
    """The folder or file."""
    names: tuple[str, ...]
    """One a map: the file's name without suffix in a folder, the position (0, 1, ...) in a stack."""
    maps: npt.NDArray[Any] | Sequence[npt.NDArray[Any]]
    """The maps, (H, W) each, read when asked for."""
    notes: tuple[str, ...] = ()
    """What was left out, each in one line."""

    @property
    def where(self) -> tuple[str, ...]:
        """Return what an error calls each map: its file, or its place in the stack."""
        if isinstance(self.maps, LabelMapFiles):
            return tuple(str(path) for path in self.maps.paths)
        if len(self.names) == 1:
            return (str(self.path),)
        return tuple(f"{self.path}, map {name}" for name in self.names)

    def suspicions(self) -> tuple[str, ...]:
        """Return what the maps that were read so far are suspected of.

        Raises
        ------
        SegbenchError
            They cannot be meant as label maps: see ``masks.survey``.
        """
        if isinstance(self.maps, LabelMapFiles):
            return survey(list(self.maps.facts.values()))
        eight_bits = isinstance(self.maps, np.ndarray) and self.maps.dtype == np.uint8
        return survey(
            [
                facts_of(labels, name, eight_bits and labels.size > 0 and int(labels.max()) == 255)
                for labels, name in zip(self._checked(), self.where, strict=True)
            ]
        )

    def _checked(self) -> Iterable[npt.NDArray[np.int32]]:
        return (as_labels(np.asarray(labels), name) for labels, name in zip(self.maps, self.where, strict=True))

    def sized_as(self, truth: LabelMapSource) -> LabelMapSource:
        """Return the maps such that reading one of another size than the true one, read before it, names both files."""
        if not isinstance(self.maps, LabelMapFiles) or not isinstance(truth.maps, LabelMapFiles):
            return self
        return dataclasses.replace(self, maps=_SizedAs(self.maps, truth.maps))

    def ordered_as(self, names: Sequence[str]) -> LabelMapSource:
        """Return the maps in the order of names; other names raise SegbenchError.

        Where names differ by an ending that tools append (``_cp_masks``, ``_masks``, ``_mask``, ``_labels``), they are
        taken for the same.
        """
        own, wanted = self.names, tuple(names)
        if set(own) != set(wanted):
            short, short_wanted = tuple(map(without_ending, own)), tuple(map(without_ending, wanted))
            if len(set(short)) == len(short) and len(set(short_wanted)) == len(short_wanted):
                own, wanted = short, short_wanted
        missing = [name for name in wanted if name not in set(own)]
        spare = [name for name in own if name not in set(wanted)]
        if missing:
            raise SegbenchError(
                f"{self.path} lacks {_some(missing)}; files are paired by their names without the suffix"
            )
        if spare:
            raise SegbenchError(f"{self.path} has {_some(spare)} beyond the truth; files are paired by their names")
        if own == wanted or not isinstance(self.maps, LabelMapFiles):
            return self
        by_name = dict(zip(own, self.maps.paths, strict=True))
        return LabelMapSource(self.path, tuple(names), self.maps.of([by_name[name] for name in wanted]), self.notes)


def without_ending(name: str) -> str:
    """Return an image's name without what a tool has appended for its label map.

    Examples
    --------
    >>> without_ending("im0_cp_masks"), without_ending("field 2_label"), without_ending("masks")
    ('im0', 'field 2', 'masks')
    """
    for ending in _ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def open_label_maps(path: Path, kind: Masks = Masks.LABELS) -> LabelMapSource:
    """Open a folder of label maps, a stack (N, H, W) or one map (H, W): ``.npy`` (memory-mapped) or ``.tif``.

    Parameters
    ----------
    path
        Of the folder or file. Files that macOS leaves beside others (``._NAME``) are left out.
    kind
        What the numbers mean.

    Raises
    ------
    SegbenchError
        Where there is nothing to read, or it is none of these.
    """
    path = Path(path)
    if path.is_dir() and not is_zarr(path):
        return _open_folder(path, kind)
    if not path.exists():
        raise SegbenchError(f"{path} does not exist; give a folder or a stack of label maps, or COCO JSON")
    if path.suffix.lower() not in (*MAP_SUFFIXES, *_LOSSY_SUFFIXES) and not is_zarr(path):
        raise SegbenchError(f"{path} is no label map; they end in {', '.join(MAP_SUFFIXES)}, COCO files in .json")
    if kind is Masks.COLOUR:
        stack: npt.NDArray[Any] = read_mask(path, kind)[None]
    else:
        stack = read_numbers(path)
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3:
        raise SegbenchError(f"{path} has shape {stack.shape}; label maps are (H, W), or (N, H, W) in a stack")
    if stack.dtype.kind in "bf":
        stack = np.stack([as_labels(one, f"{path}, map {n}") for n, one in enumerate(stack)])
    if kind is Masks.BINARY:
        stack = np.stack([numbered_pieces(as_labels(one, f"{path}, map {n}")) for n, one in enumerate(stack)])
    return LabelMapSource(path, tuple(str(n) for n in range(len(stack))), stack)


def _open_folder(path: Path, kind: Masks) -> LabelMapSource:
    named = (file for file in path.iterdir() if file.suffix.lower() in (*MAP_SUFFIXES, *_LOSSY_SUFFIXES))
    files = sorted(file for file in named if is_picture(file) or not file.is_dir())
    leftovers = [file for file in files if file.name.startswith("._")]
    files = [file for file in files if not file.name.startswith("._")]
    if not files:
        raise SegbenchError(f"{path} has no label maps; they end in {', '.join(MAP_SUFFIXES)}")
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SegbenchError(f"{path} has {twice!r} twice, with different suffixes; keep one")
    notes = (f"{path}: {len(leftovers):,} files whose names begin with ._ are left out",) if leftovers else ()
    return LabelMapSource(path, tuple(names), LabelMapFiles(files, kind), notes)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
