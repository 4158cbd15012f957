"""Image and label files: PNG, TIFF, npy and what Pillow reads, as arrays."""

from __future__ import annotations

import enum
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_PALETTE = 3
_TIFF_SUFFIXES = (".tif", ".tiff")


def read_image(path: Path) -> npt.NDArray[Any]:
    """Return an image file as (C, H, W) in its own numeric dtype.

    A plane is one channel. Of a stack the channel axis is the one that the TIFF names; else the
    shorter one of the first and the last axis. Colour pictures give red, green and blue; an alpha
    channel is left out; palettes are looked up.
    """
    pixels, axis = _read(path, palette=True)
    if pixels.ndim == 2:
        return pixels[None]
    if axis is _Axis.SAMPLES or (axis is _Axis.UNKNOWN and pixels.shape[-1] < pixels.shape[0]):
        pixels = np.moveaxis(pixels, -1, 0)
    if axis is _Axis.SAMPLES and pixels.shape[0] in (2, 4):
        pixels = pixels[:-1]
    return pixels


def read_labels(path: Path) -> npt.NDArray[Any]:
    """Return a label file as (H, W) in its own dtype; of a palette picture the indices are the labels."""
    labels, _ = _read(path, palette=False)
    if labels.ndim != 2:
        raise SegbenchError(f"{path}: a label map is one plane, found shape {labels.shape}")
    return labels


def to_grey(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return red, green and blue (3, H, W) as one grey plane (1, H, W) by ITU-R BT.601's weights."""
    if (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all():
        return pixels[:1].astype(np.float64)
    grey: npt.NDArray[np.float64] = np.tensordot([0.299, 0.587, 0.114], pixels.astype(np.float64), axes=1)[None]
    return grey


def is_colour(pixels: npt.NDArray[Any]) -> bool:
    """Return whether three planes (3, H, W) differ, so that they are more than a grey picture stored as colour."""
    return bool((pixels[0] != pixels[1]).any() or (pixels[0] != pixels[2]).any())


class _Axis(enum.Enum):
    """Which axis of three holds the channels."""

    FIRST = "first"
    SAMPLES = "last, and they are colours"
    UNKNOWN = "unknown"


def _read(path: Path, palette: bool) -> tuple[npt.NDArray[Any], _Axis]:
    """Return the array without axes of length one, and what is known of its channels."""
    if not path.is_file():
        raise SegbenchError(f"{path} does not exist")
    try:
        if path.suffix.lower() in _TIFF_SUFFIXES:
            array, axis = _read_tiff(path)
        elif path.suffix.lower() == ".npy":
            array, axis = np.load(path, allow_pickle=False), _Axis.UNKNOWN
        else:
            array, axis = _read_picture(path, palette)
    # what the decoders raise for broken files: Pillow OSError and SyntaxError, imagecodecs RuntimeError, numpy and
    # tifffile ValueError and the errors of parsing short files
    except (OSError, SyntaxError, RuntimeError, ValueError, EOFError, IndexError, KeyError, struct.error) as error:
        lines = str(error).splitlines()
        raise SegbenchError(f"{path} cannot be read: {lines[0] if lines else type(error).__name__}") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise SegbenchError(f"{path}: expected numbers, found {getattr(array, 'dtype', type(array).__name__)}")
    if array.ndim > 2:
        array = array.squeeze()
    if array.ndim not in (2, 3):
        raise SegbenchError(f"{path}: expected (height, width) or a stack of channels, found shape {array.shape}")
    return array, axis


def _read_tiff(path: Path) -> tuple[npt.NDArray[Any], _Axis]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes = series.axes
        array = series.asarray()
    if axes.endswith("S"):
        return array, _Axis.SAMPLES
    if "C" in axes and array.ndim == 3:
        return np.moveaxis(array, axes.index("C"), 0), _Axis.FIRST
    return array, _Axis.UNKNOWN


def _read_picture(path: Path, palette: bool) -> tuple[npt.NDArray[Any], _Axis]:
    data = path.read_bytes()
    if data.startswith(_PNG_MAGIC) and len(data) > 26:
        depth, colour = data[24], data[25]
        # Pillow would cut 16-bit colours to 8 bits, and keeps the interpreter's lock; it alone gives palette indices
        if depth in (8, 16) and colour != _PNG_PALETTE:
            import imagecodecs

            return imagecodecs.png_decode(data), _Axis.SAMPLES
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV") or (picture.mode in ("P", "PA") and palette):
            array = np.asarray(picture.convert("RGB"))
        else:
            array = np.asarray(picture)
    return array, _Axis.SAMPLES
