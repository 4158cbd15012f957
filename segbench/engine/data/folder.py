"""A user's own images: a folder with an index.csv."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.files import is_colour, to_grey
from segbench.engine.data.prepared import in_order
from segbench.engine.data.source import Load, RawImage, Source
from segbench.engine.data.spec import SPLITS, DatasetSpec
from segbench.engine.files.masks import MaskFacts, Masks, read_mask_with_facts
from segbench.engine.files.microscopy import digest_of, every_file, is_picture
from segbench.engine.files.picture import Picture, Take
from segbench.engine.files.pictures import read_numbers, read_picture
from segbench.engine.files.spool import is_large
from segbench.engine.files.tables import read_table
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name

INDEX = "index.csv"
TARGETS = ("nuclear", "wholecell", "cell")
NO_TISSUE = "unknown"
"""The tissue of images whose tissue is not told."""
_CHANNEL = "channel:"
_OPTIONS = ("target", "channels", "pixel_size_um", "masks", "project", "planes", "allow_identical")


@dataclass(frozen=True)
class _Row:
    image: str
    mask: str
    split: str
    tissue: str
    more: tuple[str, ...]


class FolderSource(Source):
    """Images, masks and ``index.csv`` with the columns image, mask, split, and optionally tissue and ``channel:NAME``.

    Parameters
    ----------
    folder
        Paths in the index are relative to it.
    options
        ``target``: what the masks label, ``nuclear``, ``wholecell`` or ``cell`` (default). ``channels``: names of the
        channels; by default those that the first image's file gives, else ``image`` for one and ``ch0``, ``ch1``, ...
        for several. ``pixel_size_um`` describes only. ``masks``: ``labels`` (default), ``binary`` or ``colour``.
        ``project`` (``max``, ``mean``) and ``planes`` (``["Z=3"]``): what becomes of depth and time.
        ``allow_identical``: True where the same picture may stand in two splits.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        for key in options:
            if key not in _OPTIONS:
                raise unknown_name("option of a folder dataset", key, _OPTIONS)
        target = str(options.get("target", "cell"))
        if target not in TARGETS:
            raise unknown_name("target", target, TARGETS)
        masks = str(options.get("masks", Masks.LABELS))
        if masks not in set(Masks):
            raise unknown_name("kind of masks", masks, list(Masks))
        self._masks = Masks(masks)
        self._take = Take.of(options.get("project"), options.get("planes"))
        self.one_split_each = not options.get("allow_identical", False)
        self._folder = folder
        self._rows, more = _read_index(folder)
        present = {row.split for row in self._rows}
        for split in ("train", "test"):
            if split not in present:
                raise SegbenchError(f"{folder / INDEX} has no row of split {split!r}; training and testing need both")
        channels = options.get("channels")
        self._named = len(channels) - len(more) if channels else None
        self.channels = tuple(channels) if channels else _default_channels(folder, self._rows[0], more, self._take)
        if len(set(self.channels)) != len(self.channels) or not all(self.channels):
            raise SegbenchError(f"channels need different names, found {', '.join(map(repr, self.channels))}")
        self.targets = (target,)

    def counts(self) -> Mapping[str, int]:
        """How many images each split has."""
        found = [row.split for row in self._rows]
        return {split: found.count(split) for split in SPLITS if split in found}

    def images(self, split: str) -> Iterator[Load]:
        """Yield a loader for each image, in the index's order."""
        for row in self._rows:
            if row.split == split:
                yield partial(self._load, row)

    def files(self) -> list[Path]:
        """The index, images, masks and the files of further channels."""
        named = (self._folder / name for row in self._rows for name in (row.image, row.mask, *row.more))
        return [self._folder / INDEX, *every_file(named)]

    def content(self, digest: Callable[[Path], str]) -> Any:
        """Return the index's rows with each file's digest, and how they are read where that is not the usual way."""
        rows = [
            [
                row.image,
                row.split,
                row.tissue,
                *(digest_of(self._folder / name, digest) for name in (row.image, row.mask, *row.more)),
            ]
            for row in self._rows
        ]
        if self._masks is Masks.LABELS and self._take == Take():
            return rows
        return {"rows": rows, "masks": self._masks, "project": self._take.project, "planes": dict(self._take.planes)}

    def training_tissues(self) -> tuple[str, ...]:
        """Return the tissues of the training rows."""
        return in_order({row.tissue for row in self._rows if row.split == "train"})

    def _load(self, row: _Row) -> RawImage:
        path = self._folder / row.image
        own = len(self.channels) - len(row.more)
        picture = read_picture(path, self._take, self._named, large=True)
        pictures = [picture, *(read_picture(self._folder / name, self._take, 1) for name in row.more)]
        pixels = _fit(picture.pixels, own, path)
        for name, further in zip(row.more, pictures[1:], strict=True):
            plane = _fit(further.pixels, 1, self._folder / name)
            if plane.shape[1:] != pixels.shape[1:]:
                raise SegbenchError(f"{name} is {plane.shape[1:]} (height, width), {row.image} is {pixels.shape[1:]}")
            pixels = np.concatenate([pixels, plane])
        labels, facts = self._labels(row.mask, is_large(pixels))
        if labels.shape != pixels.shape[1:]:
            raise SegbenchError(
                f"{row.image} is {pixels.shape[1:]} (height, width), but its mask {row.mask} is {labels.shape}"
            )
        if any(_equal(plane, labels) for plane in picture.pixels) and labels.any():
            raise SegbenchError(f"{row.mask} is the image {row.image} itself: list the mask of its cells")
        return RawImage(
            image=row.image,
            tissue=row.tissue,
            pixels=pixels,
            labels={self.targets[0]: labels},
            left_out=_left_out(pictures, pixels.shape[0]),
            masks=facts,
            pixel_size_um=picture.pixel_size_um,
        )

    def _labels(self, mask: str, large: bool) -> tuple[npt.NDArray[Any], tuple[MaskFacts, ...]]:
        """Return an image's label map and what one pass over it tells; nothing of a large one, which is on the disk."""
        path = self._folder / mask
        if not large:
            labels, facts = read_mask_with_facts(path, self._masks, mask)
            return labels, (facts,)
        if self._masks is not Masks.LABELS:
            raise SegbenchError(f"{path} is of an image too large for --masks {self._masks}: number its cells")
        numbers = read_numbers(path, large=True)
        if numbers.ndim != 2 or numbers.dtype.kind not in "iu":
            raise SegbenchError(
                f"{path}: a label map is one plane of whole numbers, found {numbers.dtype} {numbers.shape}"
            )
        return numbers, ()


def _equal(plane: npt.NDArray[Any], labels: npt.NDArray[Any]) -> bool:
    """Return whether two planes of one size are the same, looking at the next rows only where those before are."""
    return all(np.array_equal(plane[top : top + 512], labels[top : top + 512]) for top in range(0, len(plane), 512))


def _left_out(pictures: list[Picture], n_channels: int) -> dict[str, int]:
    """Return what was left out of the files of one image, each kind once."""
    notes = {note for picture in pictures for note in picture.notes}
    if n_channels == 1 and pictures[0].pixels.shape[0] == 3 and is_colour(pictures[0].pixels):
        notes.add("colours made grey")
    return dict.fromkeys(sorted(notes), 1)


def training_tissues(spec: DatasetSpec) -> tuple[str, ...]:
    """Return the training tissues that a folder's index names."""
    return FolderSource(Path(str(spec.source)), spec.options).training_tissues()


def channel_names(folder: Path, take: Take | None = None) -> tuple[str, ...]:
    """Return the names that a folder's channels have by default, from its index and first image."""
    rows, more = _read_index(folder)
    return _default_channels(folder, rows[0], more, Take() if take is None else take)


def _read_index(folder: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """Return the rows of index.csv and the names of its ``channel:NAME`` columns."""
    path = folder / INDEX
    if not folder.is_dir():
        raise SegbenchError(f"{folder} is not a folder")
    if not path.is_file():
        raise _no_index(folder)
    columns, table = read_table(path)
    for column in ("image", "mask", "split"):
        if column not in columns:
            raise SegbenchError(f"{path} lacks column {column!r}; it has {', '.join(columns)}")
    more = tuple(column for column in columns if column.startswith(_CHANNEL))
    rows: list[_Row] = []
    seen: set[str] = set()
    for number, values in table:
        row = _read_row(values, more, f"{path}, line {number}")
        if row.image in (row.mask, *row.more):
            raise SegbenchError(f"{path}, line {number}: {row.image!r} is listed as its own mask or channel")
        place = os.path.normpath(row.image)
        if place in seen:
            raise SegbenchError(f"{path}, line {number}: image {row.image!r} is listed twice")
        seen.add(place)
        rows.append(row)
    if not rows:
        raise SegbenchError(f"{path} lists no image")
    named = (name for row in rows for name in (row.image, row.mask, *row.more))
    lost = next((name for name in named if not is_picture(folder / name)), None)
    if lost is not None:
        raise SegbenchError(f"{path} lists {lost}, which does not exist")
    return rows, tuple(column.removeprefix(_CHANNEL) for column in more)


def _no_index(folder: Path) -> SegbenchError:
    from segbench.engine.data.importing.recognition import recognised_kind

    kind = recognised_kind(folder)
    looks = "Annotations of other tools become one" if kind is None else f"This folder looks like kind {kind}"
    return SegbenchError(
        f"{folder / INDEX} does not exist; a folder dataset needs it, with columns image, mask, split, tissue. "
        f"{looks}: segbench data import {kind or 'KIND'} {folder} --to NEW_FOLDER"
    )


def _read_row(values: dict[str, str], more: tuple[str, ...], where: str) -> _Row:
    for column in ("image", "mask", "split", *more):
        if not values[column]:
            raise SegbenchError(f"{where}: column {column!r} is empty")
        if column != "split" and Path(values[column]).is_absolute():
            raise SegbenchError(f"{where}: paths are relative to the folder, found {values[column]}")
        if column != "split" and Path(os.path.normpath(values[column])).parts[0] == os.pardir:
            raise SegbenchError(
                f"{where}: {values[column]} leaves the folder; put {INDEX} into a folder that holds all its files"
            )
    if values["split"] not in SPLITS:
        raise SegbenchError(f"{where}: {unknown_name('split', values['split'], SPLITS)}")
    tissue = values.get("tissue") or NO_TISSUE
    if tissue == ALL_TISSUES:
        raise SegbenchError(f"{where}: no tissue can be named {ALL_TISSUES!r}, which stands for every tissue")
    return _Row(values["image"], values["mask"], values["split"], tissue, tuple(values[column] for column in more))


def _default_channels(folder: Path, row: _Row, more: tuple[str, ...], take: Take) -> tuple[str, ...]:
    return default_channels(read_picture(folder / row.image, take)) + more


def default_channels(picture: Picture) -> tuple[str, ...]:
    """Return the names that channels get where nobody names them: the file's own, image, or ch0, ch1, ..."""
    pixels = picture.pixels
    n = 1 if pixels.shape[0] == 3 and not is_colour(pixels) else pixels.shape[0]
    if picture.channels is not None and len(picture.channels) == n:
        return picture.channels
    return ("image",) if n == 1 else tuple(f"ch{i}" for i in range(n))


def first_image(folder: Path) -> Path:
    """Return the first image of a folder dataset's index."""
    rows, _ = _read_index(folder)
    return folder / rows[0].image


def _fit(pixels: npt.NDArray[Any], n: int, path: Path) -> npt.NDArray[Any]:
    """Return an image's planes, as many as the dataset has channels; colour becomes grey for one channel."""
    if n == 1 and pixels.shape[0] == 3:
        return to_grey(pixels)
    if pixels.shape[0] != n:
        raise SegbenchError(f"{path} has {pixels.shape[0]} channels, this dataset has {n}")
    return pixels
