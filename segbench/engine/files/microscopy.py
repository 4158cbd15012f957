"""Reads OME-Zarr, CZI, ND2 and LIF by their own well-kept readers, where these are installed, by the rules for TIFF.

Sources: the OME-Zarr specifications 0.4 and 0.5 (multiscales, omero), and zarr, pylibCZIrw, nd2 and liffile.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.engine.files.axes import UNNAMED, channel_planes, without_other_axes
from segbench.engine.files.limits import check_room
from segbench.engine.files.ome import square
from segbench.engine.files.picture import Picture, Take
from segbench.errors import SegbenchError

SUFFIXES = (".zarr", ".czi", ".nd2", ".lif")
"""What names of these pictures end in."""
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
_MOST_CHUNKS = 4_000_000
_MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


@dataclass(frozen=True)
class _Image:
    """One image of a file, its pixels still on the disk."""

    axes: str
    """One letter an axis, as in TIFF: Y, X, S (red, green, blue), C, Z, T, others."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], npt.NDArray[Any]]
    """Returns the pixels of full resolution, in this shape."""
    channels: tuple[str, ...] | None = None
    pixel_size_um: float | None = None
    notes: tuple[str, ...] = ()
    by_rows: bool = False
    """Whether ``read`` keeps a large image on the disk instead of in memory."""


def is_zarr(path: Path) -> bool:
    """Return whether a path is a folder in Zarr's format: an image that is a folder of files."""
    return path.is_dir() and any((path / name).is_file() for name in _ZARR_FILES)


def is_picture(path: Path) -> bool:
    """Return whether a path can be a picture: a file, or a folder in Zarr's format."""
    return path.is_file() or is_zarr(path)


def parts_of(path: Path) -> list[Path]:
    """Return the files of a picture: of a folder in Zarr's format all in it, in order, else the file itself."""
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def digest_of(path: Path, digest: Callable[[Path], str]) -> str:
    """Return a file's digest, or of a folder one over the names and digests of its files."""
    if not path.is_dir():
        return digest(path)
    parts = "".join(f"{one.relative_to(path).as_posix()} {digest(one)}\n" for one in parts_of(path))
    return hashlib.sha256(parts.encode()).hexdigest()


def reader_of(path: Path, head: bytes) -> Callable[[], _Image] | None:
    """Return what opens a file of one of these formats, by its first 32 bytes; None where it is none of them."""
    if path.is_dir():
        return lambda: _zarr(path)
    for magic, read in _BY_MAGIC.items():
        if head.startswith(magic):
            return lambda: read(path)
    return None


def picture_of(image: _Image, path: Path, take: Take, named: int | None) -> Picture:
    """Return an opened image as planes; errors as of ``read_picture``."""
    array, axes = _pixels(image, path)
    planes, names = channel_planes(array, axes, image.channels, take, named, path)
    return Picture(planes, names, image.pixel_size_um, image.notes)


def labels_of(image: _Image, path: Path, take: Take) -> npt.NDArray[Any]:
    """Return the numbers of an opened image, (H, W) or (N, H, W); errors as of ``read_numbers``."""
    array, axes = _pixels(image, path)
    if "S" in axes:
        raise SegbenchError(f"{path} is a colour picture: a label map is one plane of numbers")
    array, axes = without_other_axes(array, axes, take, path, keep=UNNAMED + "CT")
    rest = [axis for axis in axes if axis not in "YX"]
    if len(rest) > 1:
        raise SegbenchError(f"{path} has the axes {axes} {array.shape}; a label map is one plane, or pages of one kind")
    return np.moveaxis(array, axes.index(rest[0]), 0) if rest else array


def _pixels(image: _Image, path: Path) -> tuple[npt.NDArray[Any], str]:
    """Return the pixels and their axes without those of one plane."""
    if not {"Y", "X"} <= set(image.axes) or len(set(image.axes)) != len(image.axes) or not image.axes.isalpha():
        raise SegbenchError(f"{path} has the axes {image.axes}: rows (Y) and columns (X) are needed, each axis once")
    if not image.by_rows:
        check_room(path, image.shape, image.dtype.itemsize)
    array = image.read()
    kept = [n for n, axis in enumerate(image.axes) if axis in "YX" or array.shape[n] > 1]
    return array.reshape([array.shape[n] for n in kept]), "".join(image.axes[n] for n in kept)


def _library(name: str, path: Path, kind: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SegbenchError(
            f"{path} is {kind}, which {name.partition('.')[0]} reads: install it with pip install 'segbench[formats]'"
        ) from None


def _zarr(path: Path) -> _Image:
    zarr = _library("zarr", path, "in the format Zarr")
    node = zarr.open(store=str(path), mode="r")
    if not isinstance(node, zarr.Group):
        raise SegbenchError(f"{path} is a bare array, whose axes have no names: name the OME-Zarr image that holds it")
    ome = node.attrs.get("ome", node.attrs)  # 0.5 has all of it under one key
    scales = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if not isinstance(scales, list) or not scales:
        inside = [one.name for one in sorted(path.iterdir()) if is_zarr(one)][:4]
        hint = f"; name one of its images, such as {path / inside[0]}" if inside else ""
        raise SegbenchError(f"{path} is no OME-Zarr image: it tells of no multiscales{hint}")
    if len(scales) > 1:
        raise SegbenchError(f"{path} holds {len(scales)} images: save the one that is meant on its own")
    array = node[scales[0]["datasets"][0]["path"]]  # the specification has the full resolution first
    if array.dtype.kind not in "biuf":
        raise SegbenchError(f"{path}: pixels must be numbers, found {array.dtype}")
    # 0.3 and before had bare letters
    axes = [one if isinstance(one, str) else one["name"] for one in scales[0].get("axes", "tczyx")]
    return _Image(
        axes="".join(axes).upper() if all(len(axis) == 1 for axis in axes) else "",
        shape=array.shape,
        dtype=array.dtype,
        read=lambda: _by_rows(array, path),
        channels=_named([one.get("label") for one in ome.get("omero", {}).get("channels", [])]),
        pixel_size_um=_zarr_size(scales[0]),
        notes=tuple(_zarr_notes(array, path, len(scales[0]["datasets"]))),
        by_rows=True,
    )


def _by_rows(array: Any, path: Path) -> npt.NDArray[Any]:
    """Return the pixels of a Zarr array; of a large one some rows are decoded at a time into a file on the disk."""
    if math.prod(array.shape) * array.dtype.itemsize < spool.LARGE_BYTES or array.ndim < 2:
        check_room(path, array.shape, array.dtype.itemsize)
        return np.asarray(array[...])
    pixels = spool.array_of(array.shape, array.dtype, path)
    step = (array.shards or array.chunks)[-2]
    for plane in np.ndindex(array.shape[:-2]):
        for top in range(0, array.shape[-2], step):
            rows = (*plane, slice(top, top + step))
            pixels[rows] = array[rows]
            spool.let_go(pixels)
    return pixels


def _zarr_notes(array: Any, path: Path, n_resolutions: int) -> Iterator[str]:
    if n_resolutions > 1:
        yield "smaller copies left out"
    n_chunks = math.prod(-(-n // side) for n, side in zip(array.shape, array.shards or array.chunks, strict=True))
    if n_chunks > _MOST_CHUNKS:
        raise SegbenchError(f"{path} is cut into {n_chunks:,} chunks: write it anew with larger ones")
    # counted by the files, since a header may claim any number of chunks
    files = (one for one in (path / array.path.strip("/")).rglob("*") if one.is_file())
    lost = n_chunks - sum(one.name not in _ZARR_FILES for one in files)
    if lost > 0:  # the format allows it, and a copy that was cut off looks the same
        yield f"{lost:,} of {n_chunks:,} chunks are not there, their pixels are {array.fill_value}"


def _zarr_size(scales: Mapping[str, Any]) -> float | None:
    """Return the side of a pixel: the resolution's scale times that of the image, where both axes have a unit."""
    factors: dict[str, float | None] = {}
    for n, axis in enumerate(scales.get("axes", [])):
        if not isinstance(axis, str):
            factors[axis["name"].lower()] = _MICROMETRES.get(axis.get("unit", ""))
            for told in (scales["datasets"][0], scales):
                for one in told.get("coordinateTransformations", []):
                    known = factors[axis["name"].lower()]
                    if one.get("type") == "scale" and known is not None:
                        factors[axis["name"].lower()] = known * float(one["scale"][n])
    return square([factors.get("x"), factors.get("y")])


def _czi(path: Path) -> _Image:
    czi = _library("pylibCZIrw.czi", path, "a CZI file")
    with czi.open_czi(str(path)) as file:
        scenes, box = file.scenes_bounding_rectangle, file.total_bounding_box
        if len(scenes) > 1:
            raise SegbenchError(f"{path} holds {len(scenes)} scenes: save the one that is meant on its own")
        others = {axis: range(*box[axis]) for axis in box if axis not in "XY"}
        if any(kind.startswith("Bgr") for kind in file.pixel_types.values()) and len(others.get("C", ())) > 1:
            raise SegbenchError(f"{path} has several channels of colours: save the one that is meant on its own")
        first = file.read(plane={axis: places[0] for axis, places in others.items() if places})
        colours = first.shape[-1] == 3
        metadata = file.metadata.get("ImageDocument", {}).get("Metadata", {})
    shape = (*(len(places) for places in others.values()), *first.shape[:2], *((3,) if colours else ()))

    def read() -> npt.NDArray[Any]:
        array = np.empty(shape, first.dtype)
        with czi.open_czi(str(path)) as file:
            for place in np.ndindex(*(len(places) for places in others.values())):
                plane = {axis: others[axis][n] for axis, n in zip(others, place, strict=True)}
                pixels = file.read(plane=plane)
                array[place] = pixels[..., ::-1] if colours else pixels[..., 0]
        return array

    return _Image(
        axes="".join(others) + ("YXS" if colours else "YX"),
        shape=shape,
        dtype=first.dtype,
        read=read,
        channels=_named(_czi_channels(metadata)),
        pixel_size_um=_czi_size(metadata),
    )


def _czi_channels(metadata: Mapping[str, Any]) -> list[Any]:
    image = metadata.get("Information", {}).get("Image", {})
    channels = (image.get("Dimensions", {}).get("Channels") or {}).get("Channel", [])
    return [one.get("@Name") for one in (channels if isinstance(channels, list) else [channels])]


def _czi_size(metadata: Mapping[str, Any]) -> float | None:
    """Return the side of a pixel; CZI tells it in metres."""
    found = ((metadata.get("Scaling") or {}).get("Items") or {}).get("Distance", [])
    sides = {one.get("@Id"): float(one.get("Value") or 0) for one in (found if isinstance(found, list) else [found])}
    return square([1e6 * sides[axis] if axis in sides else None for axis in "XY"])


def _nd2(path: Path) -> _Image:
    nd2 = _library("nd2", path, "an ND2 file")
    with nd2.ND2File(path) as file:
        sizes, size = dict(file.sizes), file.voxel_size()
        channels = [one.channel.name for one in getattr(file.metadata, "channels", None) or []]
        dtype = file.dtype

    def read() -> npt.NDArray[Any]:
        with nd2.ND2File(path) as file:
            return np.asarray(file.asarray())

    return _Image("".join(sizes), tuple(sizes.values()), dtype, read, _named(channels), square([size.x, size.y]))


def _lif(path: Path) -> _Image:
    liffile = _library("liffile", path, "a LIF file")
    with liffile.LifFile(path) as file:
        n = len(file.images)
        if n != 1:
            raise SegbenchError(f"{path} holds {n} images: save the one that is meant on its own")
        one = file.images[0]
        axes, shape, dtype = "".join(one.dims), tuple(one.shape), np.dtype(one.dtype)
        sides = [_step(one.coords.get(axis)) for axis in "XY"]

    def read() -> npt.NDArray[Any]:
        with liffile.LifFile(path) as file:
            return np.asarray(file.images[0].asarray())

    return _Image(axes, shape, dtype, read, pixel_size_um=square(sides))


def _step(places: Any) -> float | None:
    """Return the distance of neighbouring pixels in micrometres; LIF tells it in metres."""
    return None if places is None or len(places) < 2 else 1e6 * float(places[1] - places[0])


def _named(names: list[Any]) -> tuple[str, ...] | None:
    """Return channels' names where each has one of its own."""
    told = [str(name).strip() for name in names if name]
    return tuple(told) if told and len(set(told)) == len(names) and all(told) else None


def every_file(pictures: Iterator[Path]) -> list[Path]:
    """Return the files of several pictures, each picture's in order."""
    return [part for picture in pictures for part in parts_of(picture)]


_BY_MAGIC: dict[bytes, Callable[[Path], _Image]] = {
    b"ZISRAWFILE": _czi,
    b"\xda\xce\xbe\x0a": _nd2,
    b"\x70\x00\x00\x00": _lif,
}
