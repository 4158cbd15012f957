"""Reads a TIFF as the pixels of the named file: every page of it, none of another's, each axis for what it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.engine.files.axes import UNNAMED, channel_planes, without_other_axes
from segbench.engine.files.limits import check_room
from segbench.engine.files.ome import OmePlanes, planes_of, square
from segbench.engine.files.picture import Picture, Take
from segbench.engine.files.quiet import quiet
from segbench.errors import SegbenchError

_WHITE, _BLACK, _RGB, _PALETTE, _MASK, _YCBCR = 0, 1, 2, 3, 4, 6
_LOSSY = frozenset((6, 7, 33003, 33005, 34892, 50001))
"""Compressions that change pixels: JPEG, Aperio's JPEG 2000, lossy DNG, WebP."""
_ALPHA = (1, 2)
"""ExtraSamples: associated and unassociated alpha."""
_MICROMETRES = {"micron": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0, "\\u00B5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


@dataclass(frozen=True)
class _Stack:
    """The pages of a file with their axes."""

    array: npt.NDArray[Any]
    axes: str
    """One letter an axis: Y, X, S (samples of a page), C, others."""
    page: Any
    """tifffile's first page of them."""
    colours: npt.NDArray[Any] | None = None
    """(3, n), of a palette."""
    channels: tuple[str, ...] | None = None
    pixel_size_um: float | None = None
    notes: tuple[str, ...] = ()


def read_tiff(path: Path, take: Take, named: int | None, large: bool = False) -> Picture:
    """Return the picture that a TIFF file holds; palettes are looked up, inverted greys turned round.

    Parameters
    ----------
    path
        Of the file. Other files of an OME-TIFF set are never opened.
    take
        What becomes of axes that are neither channels, rows nor columns.
    named
        How many channels the user has named; so many planes of a stack are then channels. None where none were named.
    large
        Pixels that are large are decoded tile by tile into a file on the disk instead of memory.

    Raises
    ------
    SegbenchError
        Pages would be left out or guessed at, a colour space is none of grey, palette and RGB, or the file is broken.
    """
    stack = _open(path, large)
    photometric = int(stack.page.photometric)
    array, axes, notes = stack.array, stack.axes, list(stack.notes)
    if photometric == _WHITE:
        array = _inverted(array, path)
        notes.append("inverted greys turned round")
    elif photometric == _PALETTE and stack.colours is not None:
        array, axes = _looked_up(array, axes, stack.colours)
    elif photometric not in (_BLACK, _RGB, _MASK) and not (photometric == _YCBCR and int(stack.page.compression) == 7):
        raise SegbenchError(
            f"{path} has colours of kind {stack.page.photometric!s}; save it as grey or as red, green and blue"
        )
    array, axes, left_out = _without_alpha(array, axes, stack.page)
    planes, names = channel_planes(array, axes, stack.channels, take, named, path)
    return Picture(planes, names, stack.pixel_size_um, (*notes, *left_out))


def read_tiff_labels(path: Path, take: Take, large: bool = False) -> npt.NDArray[Any]:
    """Return the numbers that a TIFF file stores, (H, W) or (N, H, W) where it has several pages without a meaning.

    Palettes are left alone: their indices are the labels.

    Raises
    ------
    SegbenchError
        As ``read_tiff``; or its compression changes pixels, or it is a colour picture.
    """
    stack = _open(path, large)
    if int(stack.page.compression) in _LOSSY:
        raise SegbenchError(
            f"{path} is compressed by {stack.page.compression.name}, which changes pixels: labels do not survive that. "
            "Save label maps as PNG or as TIFF without loss"
        )
    array, axes, _ = _without_alpha(stack.array, stack.axes, stack.page)
    if "S" in axes:
        array, axes = one_of_equal(np.moveaxis(array, axes.index("S"), 0), path), axes.replace("S", "")
    # maps of several times are maps one after the other
    array, axes = without_other_axes(array, axes, take, path, keep=UNNAMED + "CT")
    rest = [axis for axis in axes if axis not in "YX"]
    if len(rest) > 1:
        raise SegbenchError(f"{path} has the axes {axes} {array.shape}; a label map is one plane, or pages of one kind")
    return np.moveaxis(array, axes.index(rest[0]), 0) if rest else array


def one_of_equal(planes: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    """Return the one plane of a grey picture that was stored as colours; raise SegbenchError for real colours."""
    if any((plane != planes[0]).any() for plane in planes[1:]):
        raise SegbenchError(
            f"{path} is a colour picture, {planes.shape[0]} planes that differ: a label map is one plane of numbers. "
            "Where each colour is a cell, say so with --masks colour"
        )
    return np.asarray(planes[0])


def _open(path: Path, large: bool) -> _Stack:
    import tifffile

    # without these flags tifffile follows a set's description into its other files
    own: dict[str, Any] = {"is_ome": False, "is_mmstack": False, "is_ndtiff": False}
    with quiet("tifffile"), tifffile.TiffFile(path, **own) as file:
        pages: list[Any] = list(file.pages)
        ome = planes_of(pages[0].description or "", path.name, len(pages)) if pages else None
        if ome:
            return _open_ome(path, file, ome, large)
        series, notes = _main_series(path, file)
        shape = (len(series), *series[0].shape) if len(series) > 1 else series[0].shape
        array = _decoded(path, series, shape, large)
        axes = f"I{series[0].axes}" if len(series) > 1 else series[0].axes
        size = _imagej_pixel_size(file) if file.is_imagej else None
        page = series[0].keyframe
        return _Stack(array, axes, page, _colours(page), pixel_size_um=size, notes=notes)


def _open_ome(path: Path, file: Any, images: list[OmePlanes], large: bool) -> _Stack:
    if len(images) > 1:
        raise SegbenchError(f"{path} holds {len(images)} images of an OME set: save the one that is meant on its own")
    image = images[0]
    n_planes = int(np.prod(image.shape))
    full = [page for page in file.pages if not page.is_reduced]
    if len(image.pages) != n_planes or len(set(image.pages)) != n_planes or n_planes < len(full):
        raise SegbenchError(
            f"{path}: its OME description tells of {n_planes} planes in this file, its pages are {len(full)}: "
            "write it anew"
        )
    chosen = [file.pages[n] for n in image.pages]
    first = chosen[0]
    if any(page.shape != first.shape or page.dtype != first.dtype for page in chosen):
        raise SegbenchError(f"{path}: the pages differ in size or type")
    array = _decoded(path, chosen, (n_planes, *first.shape), large).reshape(*image.shape, *first.shape)
    kept = [axis for axis, n in zip(image.axes, image.shape, strict=True) if n > 1]
    array = array.reshape(*(n for n in image.shape if n > 1), *first.shape)
    return _Stack(array, "".join(kept) + first.axes, first, _colours(first), image.channels, image.pixel_size_um)


def _decoded(path: Path, parts: list[Any], shape: tuple[int, ...], large: bool) -> npt.NDArray[Any]:
    """Return the pixels of series or pages: of one alone those, of several, or where ``shape`` says so, a stack."""
    dtype = parts[0].dtype
    stacked = len(shape) > len(parts[0].shape)
    if large and math.prod(shape) * dtype.itemsize >= spool.LARGE_BYTES:
        array = spool.array_of(shape, dtype, path)
        for place, part in zip(array if stacked else [array], parts, strict=True):
            part.asarray(out=place)
            spool.let_go(array)
        return array
    check_room(path, shape, dtype.itemsize)
    return np.stack([part.asarray() for part in parts]) if stacked else np.asarray(parts[0].asarray())


def _main_series(path: Path, file: Any) -> tuple[list[Any], tuple[str, ...]]:
    """Return the series that hold every full-size page of the file, and a note of what was left out."""
    every = list(file.series)
    if not every:
        raise SegbenchError(f"{path} has no page")
    if file.is_svs or file.is_scn or file.is_bif:
        return every[:1], ("label and overview pictures left out",) if len(every) > 1 else ()
    series = [one for one in every if not one.keyframe.is_reduced] or every[:1]
    notes = ("smaller copies left out",) if len(series) < len(every) or len(series[0].levels) > 1 else ()
    if len(series) > 1:
        kinds = {(one.shape, one.dtype, one.axes) for one in series}
        if len(kinds) > 1 or len(series[0].shape) != (3 if "S" in series[0].axes else 2):
            told = ", ".join("x".join(map(str, one.shape)) for one in series[:4])
            raise SegbenchError(
                f"{path} holds {len(series)} images of different kinds ({told}): save the one that is meant on its own"
            )
    read = sum(len(one.pages) for one in series)
    there = sum(not page.is_reduced for page in file.pages)
    if series[0].kind not in ("imagej", "stk", "lsm", "fluoview", "scanimage") and read < there:
        raise SegbenchError(f"{path} has {there} pages of which {read} could be read: write it anew")
    return series, notes


def _imagej_pixel_size(file: Any) -> float | None:
    factor = _MICROMETRES.get(str((file.imagej_metadata or {}).get("unit", "")))
    tags = file.pages[0].tags
    sides: list[float | None] = []
    for name in ("XResolution", "YResolution"):
        tag = tags.get(name)
        pixels, units = tag.value if tag is not None and isinstance(tag.value, tuple) else (0, 0)
        sides.append(factor * units / pixels if factor is not None and pixels else None)
    return square(sides)


def _inverted(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    if array.dtype == np.bool_:
        return ~array
    if array.dtype.kind != "u":
        raise SegbenchError(f"{path} stores {array.dtype} with white as zero: save it with black as zero")
    return np.asarray(np.iinfo(array.dtype).max - array)


def _colours(page: Any) -> npt.NDArray[Any] | None:
    """Return a page's palette, (3, n); None where it has none."""
    return None if page.colormap is None else np.asarray(page.colormap)


def _looked_up(array: npt.NDArray[Any], axes: str, colours: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], str]:
    """Return the colours of a palette's indices as samples; one plane where the palette is grey."""
    if (colours % 257 == 0).all():
        colours = (colours // 257).astype(np.uint8)
    if (colours == colours[0]).all():
        return colours[0][array], axes
    return np.stack([plane[array] for plane in colours], axis=-1), f"{axes}S"


def _without_alpha(array: npt.NDArray[Any], axes: str, page: Any) -> tuple[npt.NDArray[Any], str, tuple[str, ...]]:
    """Return the array without the samples that the file itself calls alpha."""
    extra = tuple(int(kind) for kind in page.extrasamples)
    alpha = sum(kind in _ALPHA for kind in extra)
    if "S" not in axes or not alpha:
        return array, axes, ()
    along = axes.index("S")
    n = array.shape[along]
    keep = [k for k in range(n) if k < n - len(extra) or extra[k - n + len(extra)] not in _ALPHA]
    array = array.take(keep, axis=along)
    if len(keep) == 1:
        array, axes = array.take(0, axis=along), axes.replace("S", "")
    return array, axes, ("alpha channel left out",)
