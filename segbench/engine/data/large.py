"""Prepares an image that memory cannot hold, some rows at a time: the very windows that ``prepare_image`` makes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.clahe import bins_of, interpolate, maps_of
from segbench.engine.data.morphology import measure
from segbench.engine.data.ranks import percentiles_of_bands
from segbench.engine.data.source import RawImage, check_pixels
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.data.windowed import ImageWindows, RawFacts, percentiles, ranked
from segbench.engine.data.windows import check_labels, number, positions
from segbench.engine.files import spool
from segbench.errors import SegbenchError

_ROWS = 512
"""Rows of an image in memory at a time, where it is read as it is."""


@dataclass(frozen=True)
class _Plane:
    """One channel as it is known before any window is cut."""

    values: npt.NDArray[Any]
    """(H, W): CLAHE's grey levels, or the original where there is no CLAHE. On the disk."""
    low: float
    high: float
    """What becomes 0 and 1."""
    clahe: bool

    def rows(self, top: int, bottom: int) -> npt.NDArray[np.float32]:
        """Return some rows as a window has them."""
        rows = self.values[top:bottom].astype(np.float64)
        spool.let_go(self.values)
        if self.clahe and self.low == self.high:
            return rows.clip(0.0, 1.0).astype(np.float32)
        if not self.high > self.low:
            return np.zeros(rows.shape, np.float32)
        rows -= self.low
        rows /= self.high - self.low
        return (rows if self.clahe else np.clip(rows, 0.0, 1.0)).astype(np.float32)


def prepare_large(raw: RawImage, settings: PreparationSettings, keep_empty: bool) -> Iterator[ImageWindows]:
    """Yield the windows of an image, a row of windows at a time; the last yield has the image's facts, the others none.

    In memory are some hundred rows of the image. CLAHE's grey levels lie on the disk: two bytes a pixel and channel.

    Parameters
    ----------
    raw, settings, keep_empty
        As `prepare_image` takes them; pixels and labels may be on the disk.

    Raises
    ------
    SegbenchError
        As `prepare_image` does.
    """
    size = raw.pixels.shape[1], raw.pixels.shape[2]
    for target, labels in raw.labels.items():
        if labels.shape != size:
            raise SegbenchError(
                f"{raw.image}: the image is {size} (height, width), its {target} labels are {labels.shape}"
            )
    planes = [_plane(plane, settings, raw.image) for plane in raw.pixels]
    tops, lefts = (positions(n, settings.window, settings.step, settings.edge) for n in size)
    empty = 0
    for top in tops:
        windows = _row(raw, planes, settings, top, lefts, keep_empty)
        empty += len(lefts) - len(windows.corners)
        yield windows
    facts = RawFacts(
        image=raw.image,
        origin=raw.origin or raw.image,
        left_out=raw.left_out,
        masks=raw.masks,
        digest=_digest(raw.pixels),
        empty_windows=empty,
        diameters={target: _diameters(labels) for target, labels in raw.labels.items()},
        pixel_size_um=raw.pixel_size_um,
    )
    yield _none(raw, settings, facts)


def _row(
    raw: RawImage,
    planes: list[_Plane],
    settings: PreparationSettings,
    top: int,
    lefts: tuple[int, ...],
    keep_empty: bool,
) -> ImageWindows:
    side = settings.window
    pixels = np.stack([plane.rows(top, top + side) for plane in planes])
    labels = {}
    for target, every in raw.labels.items():
        labels[target] = check_labels(np.asarray(every[top : top + side]), f"{raw.image} ({target} labels)")
        spool.let_go(every)
    highest = {target: int(rows.max()) for target, rows in labels.items()}
    found = _none(raw, settings, None, len(lefts))
    corners: list[tuple[int, int]] = []
    for left in lefts:
        n = len(corners)
        for maps in found.labels.values():
            maps[n] = 0
        cells = [number(rows, highest[t], 0, left, found.labels[t][n]) for t, rows in labels.items()]
        if not keep_empty and not any(cells):
            continue
        corners.append((top, left))
        piece = pixels[:, :, left : left + side]
        found.pixels[n, :, : piece.shape[1], : piece.shape[2]] = piece
        for target, maps in found.labels.items():
            found.shapes[target].append(measure(maps[n]))
    kept = len(corners)
    return ImageWindows(
        raw.image,
        raw.tissue,
        found.pixels[:kept],
        {target: maps[:kept] for target, maps in found.labels.items()},
        corners,
        found.shapes,
        None,
        raw.origin or raw.image,
    )


def _none(raw: RawImage, settings: PreparationSettings, facts: RawFacts | None, room: int = 0) -> ImageWindows:
    """Return an image's windows with room for some and none in it."""
    side = settings.window
    return ImageWindows(
        image=raw.image,
        tissue=raw.tissue,
        pixels=np.zeros((room, raw.pixels.shape[0], side, side), np.float32),
        labels={target: np.zeros((room, side, side), np.int32) for target in raw.labels},
        corners=[],
        shapes={target: [] for target in raw.labels},
        raw=facts,
        origin=raw.origin or raw.image,
    )


def _plane(plane: npt.NDArray[Any], settings: PreparationSettings, image: str) -> _Plane:
    low, high = _percentiles(plane, settings.percentiles, image)
    if not high > low or not settings.clahe_kernel:
        return _Plane(plane, low, high, clahe=False)

    def grey() -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        for top, rows in _bands(plane):
            values = rows.astype(np.float64)
            values -= low
            values /= high - low
            np.clip(values, 0.0, 1.0, out=values)
            yield top, np.rint(values * 65535.0)

    ends = [(float(rows.min()), float(rows.max())) for _, rows in grey()]
    least, most = min(a for a, _ in ends), max(b for _, b in ends)
    bins = spool.array_of(plane.shape, np.uint8, image)
    for top, rows in grey():
        bins[top : top + rows.shape[0]] = bins_of(rows, least, most)
        spool.let_go(bins)
    maps = maps_of(np.asarray(bins), settings.clahe_kernel, settings.clahe_clip)
    spool.let_go(bins)
    levels = spool.array_of(plane.shape, np.uint16, image)
    ends = []
    for top, rows in _bands(bins):
        found = interpolate(np.asarray(rows), maps, settings.clahe_kernel, top)
        ends.append((float(found.min()), float(found.max())))
        levels[top : top + found.shape[0]] = found
        spool.let_go(levels)
    return _Plane(levels, min(a for a, _ in ends), max(b for _, b in ends), clahe=True)


def _bands(plane: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the rows of a plane, some at a time, with the first one's number."""
    for top in range(0, plane.shape[0], _ROWS):
        yield top, plane[top : top + _ROWS]
        spool.let_go(plane)


def _percentiles(plane: npt.NDArray[Any], percents: tuple[float, float], image: str) -> tuple[float, float]:
    """Return the percentiles by counting; pixels of 8 bits that are signed, and of half precision, are sorted."""
    if plane.dtype not in (np.uint8, np.uint16):
        if plane.dtype.kind == "b" or plane.dtype.itemsize < 4:
            return percentiles(check_pixels(plane[None], image)[0], percents)
        for _, rows in _bands(plane):
            check_pixels(rows[None], image)
        return percentiles_of_bands(lambda: (rows for _, rows in _bands(plane)), percents)
    counts = np.zeros(np.iinfo(plane.dtype).max + 1, np.int64)
    for _, rows in _bands(plane):
        counts += np.bincount(rows.ravel(), minlength=counts.size)
    return ranked(counts, percents)


def _diameters(labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    areas = np.zeros(1, np.int64)
    for _, rows in _bands(labels):
        found = np.bincount(rows.astype(np.int64, copy=False).ravel(), minlength=areas.size)
        found[: areas.size] += areas
        areas = found
    found = areas[1:][areas[1:] > 0]
    return np.asarray(np.sqrt(found * (4 / np.pi)), np.float32)


def _digest(pixels: npt.NDArray[Any]) -> bytes | None:
    """Return what tells a picture from others, as of an image in memory; None for one of a single value."""
    digest = hashlib.blake2b(digest_size=16, key=repr(pixels.shape).encode())
    first, constant = pixels[0, 0, 0], True
    for plane in pixels:
        for _, rows in _bands(plane):
            whole = np.ascontiguousarray(rows)
            constant = constant and bool((whole == first).all())
            digest.update(whole.view(np.uint8).reshape(-1).data)
    return None if constant else digest.digest()
