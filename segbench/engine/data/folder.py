"""A user's own images: a folder with an index.csv."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.files import is_colour, read_image, read_labels, to_grey
from segbench.engine.data.prepared import in_order
from segbench.engine.data.source import Load, RawImage, Source
from segbench.engine.data.spec import SPLITS, DatasetSpec
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    import polars as pl

INDEX = "index.csv"
TARGETS = ("nuclear", "wholecell", "cell")
NO_TISSUE = "unknown"
"""The tissue of images whose tissue is not told."""
_CHANNEL = "channel:"
_OPTIONS = ("target", "channels", "pixel_size_um")


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
        channels; by default ``image`` for one and ``ch0``, ``ch1``, ... for several. ``pixel_size_um`` describes only.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        for key in options:
            if key not in _OPTIONS:
                raise unknown_name("option of a folder dataset", key, _OPTIONS)
        target = str(options.get("target", "cell"))
        if target not in TARGETS:
            raise unknown_name("target", target, TARGETS)
        self._folder = folder
        self._rows, more = _read_index(folder)
        present = {row.split for row in self._rows}
        for split in ("train", "test"):
            if split not in present:
                raise SegbenchError(f"{folder / INDEX} has no row of split {split!r}; training and testing need both")
        channels = options.get("channels")
        self.channels = tuple(channels) if channels else _default_channels(folder, self._rows[0], more)
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
        return [
            self._folder / INDEX,
            *(self._folder / name for row in self._rows for name in (row.image, row.mask, *row.more)),
        ]

    def content(self, digest: Callable[[Path], str]) -> Any:
        """Return the index's rows with each file's digest."""
        return [
            [row.image, row.split, row.tissue, *(digest(self._folder / n) for n in (row.image, row.mask, *row.more))]
            for row in self._rows
        ]

    def training_tissues(self) -> tuple[str, ...]:
        """Return the tissues of the training rows."""
        return in_order({row.tissue for row in self._rows if row.split == "train"})

    def _load(self, row: _Row) -> RawImage:
        path = self._folder / row.image
        own = len(self.channels) - len(row.more)
        pixels = _fit(read_image(path), own, path)
        for name in row.more:
            further = _fit(read_image(self._folder / name), 1, self._folder / name)
            if further.shape[1:] != pixels.shape[1:]:
                raise SegbenchError(f"{name} is {further.shape[1:]} (height, width), {row.image} is {pixels.shape[1:]}")
            pixels = np.concatenate([pixels, further])
        labels = read_labels(self._folder / row.mask)
        if labels.shape != pixels.shape[1:]:
            raise SegbenchError(
                f"{row.image} is {pixels.shape[1:]} (height, width), but its mask {row.mask} is {labels.shape}"
            )
        return RawImage(image=row.image, tissue=row.tissue, pixels=pixels, labels={self.targets[0]: labels})


def training_tissues(spec: DatasetSpec) -> tuple[str, ...]:
    """Return the training tissues that a folder's index names."""
    return FolderSource(Path(str(spec.source)), spec.options).training_tissues()


def channel_names(folder: Path) -> tuple[str, ...]:
    """Return the names that a folder's channels have by default, from its index and first image."""
    rows, more = _read_index(folder)
    return _default_channels(folder, rows[0], more)


def _read_index(folder: Path) -> tuple[list[_Row], tuple[str, ...]]:
    """Return the rows of index.csv and the names of its ``channel:NAME`` columns."""
    path = folder / INDEX
    if not folder.is_dir():
        raise SegbenchError(f"{folder} is not a folder")
    if not path.is_file():
        raise SegbenchError(
            f"{path} does not exist; a folder dataset needs it, with columns image, mask, split, tissue"
        )
    table = _read_table(path)
    more = tuple(column for column in table.columns if column.startswith(_CHANNEL))
    rows: list[_Row] = []
    seen: set[str] = set()
    for number, values in enumerate(table.iter_rows(named=True), start=2):
        row = _read_row({key: (value or "").strip() for key, value in values.items()}, more, f"{path}, line {number}")
        if row.image in seen:
            raise SegbenchError(f"{path}, line {number}: image {row.image!r} is listed twice")
        seen.add(row.image)
        rows.append(row)
    if not rows:
        raise SegbenchError(f"{path} lists no image")
    named = (name for row in rows for name in (row.image, row.mask, *row.more))
    lost = next((name for name in named if not (folder / name).is_file()), None)
    if lost is not None:
        raise SegbenchError(f"{path} lists {lost}, which does not exist")
    return rows, tuple(column.removeprefix(_CHANNEL) for column in more)


def _read_table(path: Path) -> pl.DataFrame:
    """Return a CSV file as text columns; one that lacks a column that every index has raises SegbenchError."""
    import polars as pl

    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise SegbenchError(f"{path} is not a CSV file: {str(error).splitlines()[0]}") from None
    for column in ("image", "mask", "split"):
        if column not in table.columns:
            raise SegbenchError(f"{path} lacks column {column!r}; it has {', '.join(table.columns)}")
    return table


def _read_row(values: dict[str, str], more: tuple[str, ...], where: str) -> _Row:
    for column in ("image", "mask", "split", *more):
        if not values[column]:
            raise SegbenchError(f"{where}: column {column!r} is empty")
        if column != "split" and Path(values[column]).is_absolute():
            raise SegbenchError(f"{where}: paths are relative to the folder, found {values[column]}")
    if values["split"] not in SPLITS:
        raise SegbenchError(f"{where}: {unknown_name('split', values['split'], SPLITS)}")
    tissue = values.get("tissue") or NO_TISSUE
    if tissue == ALL_TISSUES:
        raise SegbenchError(f"{where}: no tissue can be named {ALL_TISSUES!r}, which stands for every tissue")
    return _Row(values["image"], values["mask"], values["split"], tissue, tuple(values[column] for column in more))


def _default_channels(folder: Path, row: _Row, more: tuple[str, ...]) -> tuple[str, ...]:
    pixels = read_image(folder / row.image)
    n = 1 if pixels.shape[0] == 3 and not is_colour(pixels) else pixels.shape[0]
    return (("image",) if n == 1 else tuple(f"ch{i}" for i in range(n))) + more


def _fit(pixels: npt.NDArray[Any], n: int, path: Path) -> npt.NDArray[Any]:
    """Return an image's planes, as many as the dataset has channels; colour becomes grey for one channel."""
    if n == 1 and pixels.shape[0] == 3:
        return to_grey(pixels)
    if pixels.shape[0] != n:
        raise SegbenchError(f"{path} has {pixels.shape[0]} channels, this dataset has {n}")
    return pixels
