"""Preparation: original images to normalised windows on disk, streamed and in parallel."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segbench.engine.data.clahe import equalize
from segbench.engine.data.diameters import diameters
from segbench.engine.data.large import prepare_large
from segbench.engine.data.morphology import Morphology, measure
from segbench.engine.data.prepared import META, in_order
from segbench.engine.data.resample import rescale
from segbench.engine.data.rescaling import Rescaling
from segbench.engine.data.source import Load, ProgressCallback, RawImage, Source, check_pixels
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.data.windowed import ImageWindows, RawFacts, percentiles
from segbench.engine.data.windows import check_labels, number, positions
from segbench.engine.files.masks import MaskFacts, survey
from segbench.engine.files.spool import is_large
from segbench.errors import SegbenchError

_SAME_SIZE = 0.01
"""Pixel sizes that differ by less, relatively, are the same."""
_T = TypeVar("_T")


def normalize(plane: npt.NDArray[Any], settings: PreparationSettings) -> npt.NDArray[np.float32]:
    """Return one channel of an original image in 0..1: percentiles, clipping, then CLAHE on the whole image.

    Parameters
    ----------
    plane
        (H, W), finite numbers. Where its two percentiles are equal (a constant channel, or all but a few pixels the
        same) there is nothing to scale by and the result is 0 everywhere.
    settings
        Percentiles and CLAHE's parameters.
    """
    low, high = percentiles(plane, settings.percentiles)
    if not high > low:
        return np.zeros(plane.shape, np.float32)
    values = plane.astype(np.float64)
    values -= low
    values /= high - low
    np.clip(values, 0.0, 1.0, out=values)
    if settings.clahe_kernel:
        values = equalize(values, settings.clahe_kernel, settings.clahe_clip)
    return values.astype(np.float32)


def prepare_image(
    raw: RawImage, settings: PreparationSettings, keep_empty: bool, factor: float | None = None
) -> ImageWindows:
    """Normalise one image and cut it into windows.

    Cells cut by a window's edge keep the part that lies in the window. Every window's labels are numbered 1..k anew.
    With a ``factor`` the image is rescaled first.
    """
    check_pixels(raw.pixels, raw.image)
    digest, n_cells = _digest(raw.pixels), 0
    if factor is not None:
        n_cells = sum(np.unique(labels[labels != 0]).size for labels in raw.labels.values())
        raw = rescale(raw, factor)
    size = raw.pixels.shape[1:]
    whole = {}
    for target, labels in raw.labels.items():
        if labels.shape != size:
            raise SegbenchError(
                f"{raw.image}: the image is {size} (height, width), its {target} labels are {labels.shape}"
            )
        whole[target] = check_labels(labels, f"{raw.image} ({target} labels)")
    normalized = [normalize(plane, settings) for plane in raw.pixels]
    highest = {target: int(labels.max()) for target, labels in whole.items()}

    side = settings.window
    sides = [positions(length, side, settings.step, settings.edge) for length in size]
    places = [(y, x) for y in sides[0] for x in sides[1]]
    pixels = np.zeros((len(places), len(normalized), side, side), np.float32)
    numbered = {target: np.zeros((len(places), side, side), np.int32) for target in whole}
    shapes: dict[str, list[Morphology]] = {target: [] for target in whole}
    corners: list[tuple[int, int]] = []
    for y, x in places:
        n = len(corners)
        cells = [number(labels, highest[t], y, x, numbered[t][n]) for t, labels in whole.items()]
        if not keep_empty and not any(cells):
            continue
        corners.append((y, x))
        for channel, plane in enumerate(normalized):
            piece = plane[y : y + side, x : x + side]
            pixels[n, channel, : piece.shape[0], : piece.shape[1]] = piece
        for target, maps in numbered.items():
            shapes[target].append(measure(maps[n]))
    return ImageWindows(
        image=raw.image,
        tissue=raw.tissue,
        pixels=pixels[: len(corners)],
        labels={target: maps[: len(corners)] for target, maps in numbered.items()},
        corners=corners,
        shapes=shapes,
        origin=raw.origin or raw.image,
        raw=RawFacts(
            image=raw.image,
            origin=raw.origin or raw.image,
            left_out=raw.left_out,
            masks=raw.masks,
            digest=digest,
            empty_windows=len(places) - len(corners),
            diameters={target: diameters(labels) for target, labels in whole.items()},
            pixel_size_um=raw.pixel_size_um,
            vanished=0 if factor is None else n_cells - sum(highest.values()),
        ),
    )


def _digest(pixels: npt.NDArray[Any]) -> bytes | None:
    flat = np.ascontiguousarray(pixels)
    if (flat == flat.flat[0]).all():
        return None
    return hashlib.blake2b(flat.view(np.uint8).reshape(-1).data, digest_size=16, key=repr(flat.shape).encode()).digest()


def prepare(
    source: Source,
    settings: PreparationSettings,
    folder: Path,
    fingerprint: str,
    progress: ProgressCallback | None,
    workers: int,
    pixel_size_um: float | None = None,
) -> None:
    """Prepare a dataset into an existing empty folder; ``pixel_size_um`` is what the user tells of the originals.

    Images are read, normalised and cut by threads (the work is in compiled code that lets other threads run), in order,
    with at most two images a worker in memory, and appended to the arrays as they come.

    Raises
    ------
    SegbenchError
        Where an image or a label map cannot be used, or no training window has a cell.
    """
    counts = source.counts()
    tissues = {}
    told = _Told(source, settings)
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        rescaling = _rescaling(source, settings, pool, progress, workers)
        for split, total in counts.items():
            keep_empty = split in settings.keep_empty

            def work(load: Load, keep_empty: bool = keep_empty) -> Iterable[ImageWindows]:
                raw = load()
                factor = None if rescaling is None else rescaling.factor_of(_size(raw, pixel_size_um), raw.image)
                if factor is None and is_large(raw.pixels):
                    return prepare_large(raw, settings, keep_empty)
                return [prepare_image(raw, settings, keep_empty, factor)]

            with _SplitWriter(folder, split, source, settings.window) as writer:
                images = _in_order(pool, work, source.images(split), 2 * workers)
                _write(images, total, writer, told, progress or (lambda *_: None))
            if writer.n_windows == 0:
                raise SegbenchError(f"no window of the {split} split has a cell")
            tissues[split] = list(in_order(set(writer.index["tissue"])))
    meta: dict[str, Any] = {
        "fingerprint": fingerprint,
        "channels": list(source.channels),
        "targets": list(source.targets),
        "tissues": tissues,
        "images": dict(counts),
        "notes": list(told.lines()),
        "diameters": told.diameters(),
    }
    if rescaling is not None:
        meta["rescaling"] = rescaling.to_dict()
    if told.pixel_size_um is not None:
        meta["pixel_size_um"] = told.pixel_size_um
    (folder / META).write_text(json.dumps(meta, indent=1))


def _write(
    images: Iterable[Iterable[ImageWindows]], total: int, writer: _SplitWriter, told: _Told, progress: ProgressCallback
) -> None:
    """Write the windows of a split's images as they come, and take in what is told of each."""
    progress(writer.split, 0, total)
    for done, parts in enumerate(images, start=1):
        for windows in parts:
            writer.add(windows)
            if windows.raw is not None:
                told.add(writer.split, windows.raw)
        progress(writer.split, done, total)


def _size(raw: RawImage, told: float | None) -> float | None:
    """Return an image's pixel size, of its file or as the user tells it; raises where the two differ."""
    own = raw.pixel_size_um
    if own is not None and told is not None and abs(own - told) > _SAME_SIZE * told:
        raise SegbenchError(
            f"{raw.image} says that its pixels are {own:g} um, --pixel-size says {told:g}: leave --pixel-size out, or "
            "mend the file"
        )
    return told if own is None else own


def _rescaling(
    source: Source,
    settings: PreparationSettings,
    pool: ThreadPoolExecutor,
    progress: ProgressCallback | None,
    workers: int,
) -> Rescaling | None:
    """Return how the originals are to be rescaled; to a diameter, the training cells are measured for it."""
    if settings.rescale_to_pixel_size is not None:
        return Rescaling(pixel_size_um=settings.rescale_to_pixel_size)
    if settings.rescale_to_diameter is None:
        return None
    target, total = source.targets[-1], source.counts()["train"]

    def measured(load: Load) -> npt.NDArray[np.float32]:
        raw = load()
        return diameters(check_labels(raw.labels[target], f"{raw.image} ({target} labels)"))

    found = []
    for done, some in enumerate(_in_order(pool, measured, source.images("train"), 2 * workers), start=1):
        found.append(some)
        if progress is not None:
            progress("diameters", done, total)
    every = np.concatenate(found)
    if not every.size:
        raise SegbenchError(f"there is no training cell ({target}) whose diameter could become the one asked for")
    rescaling = Rescaling(factor=settings.rescale_to_diameter / float(np.median(every)))
    rescaling.factor_of(None, f"cells with a median diameter of {np.median(every):.3g} pixels")
    return rescaling


class _Told:
    """Gathers what the user should know of the originals, and refuses what cannot be meant."""

    def __init__(self, source: Source, settings: PreparationSettings) -> None:
        self._source, self._settings = source, settings
        self._diameters: dict[str, list[npt.NDArray[np.float32]]] = {target: [] for target in source.targets}
        self._sizes: Counter[float | None] = Counter()
        self._vanished = 0
        self._left_out: Counter[str] = Counter()
        self._masks: list[MaskFacts] = []
        self._first: dict[bytes, tuple[str, str]] = {}
        self._n_images = 0
        self._empty: Counter[str] = Counter()
        self._images: dict[str, list[int]] = {}
        self._identical: list[str] = []

    def add(self, split: str, raw: RawFacts) -> None:
        """Take an image's facts in.

        Raises
        ------
        SegbenchError
            The same picture stands in another split, and the source does not allow that.
        """
        self._n_images += 1
        self._images.setdefault(split, []).append(sum(values.size for values in raw.diameters.values()))
        self._left_out.update(raw.left_out)
        self._masks += raw.masks
        self._vanished += raw.vanished
        self._take_sizes(split, raw)
        if raw.empty_windows:
            self._empty[split] += raw.empty_windows
        if raw.digest is None:
            return
        other, image = self._first.setdefault(raw.digest, (split, raw.image))
        if other != split:
            same = f"{raw.image} ({split}) is the same picture as {image} ({other})"
            if self._source.one_split_each:
                raise SegbenchError(
                    f"{same}: a model would be tested on what it was trained on. Take one out, or allow it with "
                    "--allow-identical"
                )
            self._identical.append(same)

    def _take_sizes(self, split: str, raw: RawFacts) -> None:
        if split == "train":
            for target, values in raw.diameters.items():
                self._diameters[target].append(values)
        size = raw.pixel_size_um
        near = next((s for s in self._sizes if s and size and abs(s - size) <= _SAME_SIZE * s), size)
        self._sizes[near] += 1
        known = [s for s in self._sizes if s]
        if self._settings.rescale_to_diameter is not None and len(known) > 1:
            raise SegbenchError(
                f"the files have pixels of {known[0]:g} um and of {known[1]:g} um ({raw.image}): one factor does not "
                "fit both, give --rescale-to-pixel-size"
            )

    @property
    def pixel_size_um(self) -> float | None:
        """What all files say of their pixels' size; None where they do not."""
        return next(iter(self._sizes)) if len(self._sizes) == 1 else None

    def diameters(self) -> dict[str, dict[str, float]]:
        """Return the median diameter and the number of the training cells of each target that has any."""
        joined = {target: np.concatenate(values) for target, values in self._diameters.items() if values}
        return {t: {"median": float(np.median(v)), "cells": int(v.size)} for t, v in joined.items() if v.size}

    def lines(self) -> Iterator[str]:
        """Yield what to tell, a line each; raises SegbenchError where the masks are none."""
        yield from survey(self._masks)
        yield from self._source.told(dict(self._left_out), self._n_images)
        yield from self._without_cells()
        for split, n in self._empty.items():
            yield f"{split}: {n:,} windows without a cell are left out"
        if self._vanished:
            yield f"{self._vanished:,} cells have no pixel left at the windows' scale"
        known = {size: n for size, n in self._sizes.items() if size}
        if len(known) > 1 and self._settings.rescale_to_pixel_size is None:
            told = ", ".join(f"{size:g} um in {n:,} images" for size, n in list(known.items())[:4])
            yield f"pixel sizes differ: {told}; --rescale-to-pixel-size makes them one"
        if self._identical:
            yield f"{len(self._identical):,} pictures stand in two splits: {self._identical[0]}"

    def _without_cells(self) -> Iterator[str]:
        for split, cells in self._images.items():
            n = cells.count(0)
            if n == len(cells):
                more = ": nothing can be scored on them, are these the right masks?" if split == "test" else ""
                yield f"{split}: none of the {n:,} images has a cell{more}"
            elif n:
                yield f"{split}: {n:,} of {len(cells):,} images have no cell"


def _in_order(pool: ThreadPoolExecutor, work: Callable[[Load], _T], loads: Iterable[Load], ahead: int) -> Iterator[_T]:
    """Yield the results in order, never more than ``ahead`` submitted and not yet taken."""
    loads = iter(loads)
    waiting: deque[Future[_T]] = deque(pool.submit(work, load) for load in islice(loads, ahead))
    try:
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, load) for load in islice(loads, 1))
    finally:
        for future in waiting:
            future.cancel()


class _SplitWriter:
    """Appends one split's windows to its arrays, and keeps its tables until the end."""

    def __init__(self, folder: Path, split: str, source: Source, window: int) -> None:
        self._folder, self.split, self._targets = folder, split, source.targets
        self._images = _NpyAppender(folder / f"images-{split}.npy", np.float32, (len(source.channels), window, window))
        self._labels = {
            target: _NpyAppender(folder / f"labels-{target}-{split}.npy", np.int32, (window, window))
            for target in source.targets
        }
        self.n_windows = 0
        self.index: dict[str, list[Any]] = {"window": [], "image": [], "tissue": [], "y": [], "x": []}
        self.index |= {f"n_cells_{target}": [] for target in source.targets}
        self._cells: list[tuple[int, int, Morphology]] = []
        self._origins: list[str] = []

    def add(self, windows: ImageWindows) -> None:
        self._images.append(windows.pixels)
        for target, labels in windows.labels.items():
            self._labels[target].append(labels)
        for i, (y, x) in enumerate(windows.corners):
            row = {"window": self.n_windows, "image": windows.image, "tissue": windows.tissue, "y": y, "x": x}
            self._origins.append(windows.origin)
            for place, target in enumerate(self._targets):
                shapes = windows.shapes[target][i]
                row[f"n_cells_{target}"] = shapes.area.size
                if shapes.area.size:
                    self._cells.append((self.n_windows, place, shapes))
            for key, value in row.items():
                self.index[key].append(value)
            self.n_windows += 1

    def __enter__(self) -> _SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for appender in (self._images, *self._labels.values()):
            appender.close()
        if kind is None:
            self._write_tables()

    def _write_tables(self) -> None:
        import polars as pl

        integers = ["window", "y", "x", *(f"n_cells_{target}" for target in self._targets)]
        schema = {key: pl.Int32 if key in integers else pl.String for key in self.index}
        index = pl.DataFrame(self.index, schema=schema)
        if self._origins != self.index["image"]:
            index = index.with_columns(origin=pl.Series(self._origins, dtype=pl.String))
        index.write_parquet(self._folder / f"index-{self.split}.parquet")

        sizes = [shapes.area.size for _, _, shapes in self._cells]
        first = np.repeat(np.cumsum([0, *sizes])[:-1], sizes)

        def joined(name: str, dtype: type[np.generic]) -> npt.NDArray[Any]:
            return np.concatenate([np.zeros(0, dtype), *(getattr(shapes, name) for _, _, shapes in self._cells)])

        pl.DataFrame(
            {
                "window": np.repeat(np.array([w for w, _, _ in self._cells], np.int32), sizes),
                "target": pl.Series([self._targets[t] for _, t, _ in self._cells], dtype=pl.Enum(self._targets))
                .gather(np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes))
                .cast(pl.String),
                "label": (np.arange(first.size) - first + 1).astype(np.int32),
                "area": joined("area", np.int32),
                "elongation": joined("elongation", np.float32),
                "convexity": joined("convexity", np.float32),
                "cut": joined("cut", np.bool_),
            }
        ).write_parquet(self._folder / f"cells-{self.split}.parquet")


class _NpyAppender:
    """Writes a .npy whose first dimension grows; the header is set right at the end."""

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self._file = path.open("wb")
        self._dtype, self._shape, self._n = np.dtype(dtype), shape, 0
        self._write_header()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._n, *self._shape)}
        # numpy pads this header so that the first dimension can grow in place to 21 digits
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: npt.NDArray[Any]) -> None:
        if rows.shape[1:] != self._shape or rows.dtype != self._dtype:
            raise ValueError(f"expected {self._dtype} rows {self._shape}, found {rows.dtype} {rows.shape[1:]}")
        self._file.write(np.ascontiguousarray(rows).data)
        self._n += rows.shape[0]

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()
