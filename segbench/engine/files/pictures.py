"""Reads one picture, whatever its format: TIFF, PNG, npy, what Pillow decodes itself, and microscopes' own formats."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segbench.engine.files.axes import channel_planes
from segbench.engine.files.limits import check_npy, check_room
from segbench.engine.files.microscopy import is_zarr, labels_of, picture_of, reader_of
from segbench.engine.files.picture import Picture, Take
from segbench.errors import SegbenchError

SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".pgm", ".ppm")
"""What names of pictures end in; what a file is, its first bytes tell."""
_PNG, _NPY = b"\x89PNG\r\n\x1a\n", b"\x93NUMPY"
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_LOSSY = {b"\xff\xd8\xff": "JPEG"}
_FORMATS = ("PNG", "JPEG", "JPEG2000", "BMP", "GIF", "WEBP", "PPM")
"""What Pillow may decode: nothing that it hands to another program, nothing that draws."""
_PNG_PALETTE = 3
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PILLOW = threading.Lock()
"""Held while Pillow's own limit of pixels is away."""
T = TypeVar("T")


def read_picture(path: Path, take: Take | None = None, named: int | None = None, *, large: bool = False) -> Picture:
    """Return an image file as planes (C, H, W) with what it says of them.

    A plane is one channel. Of a stack the channel axis is the one that the file names; where it names none, the
    shorter one of the first and the last axis; with a ``take`` that asks for depth or time, that axis is what is asked
    for. Colour pictures give red, green and blue; a sample is left out as alpha
    only where the file calls it that; palettes are looked up.

    Parameters
    ----------
    path
        Of the file.
    take
        What becomes of depth, time and other axes; None refuses them.
    named
        How many channels the user has named, or None.
    large
        A large TIFF is decoded into a file on the disk instead of memory; False refuses what memory cannot hold.

    Raises
    ------
    SegbenchError
        There is no such file, it is broken or of no known kind, or it holds something else than one picture; one line
        that names the file.
    """
    head = _head(path)
    take = Take() if take is None else take
    of_microscope = reader_of(path, head)
    if of_microscope is not None:
        picture = guarded(path, lambda: picture_of(of_microscope(), path, take, named))
    elif head.startswith(_TIFF):
        from segbench.engine.files.tiff import read_tiff

        picture = guarded(path, lambda: read_tiff(path, take, named, large))
    elif head.startswith(_NPY):
        array = _squeezed(_load_npy(path), path)
        picture = Picture(channel_planes(array, "QYX"[3 - array.ndim :], None, take, named, path)[0])
    else:
        picture = guarded(path, lambda: _read_picture(path, head))
    if of_microscope is None and not head.startswith((*_TIFF, _NPY)):
        take.check_absent("", path)
    pixels = picture.pixels
    if pixels.dtype.kind not in "biuf":
        raise SegbenchError(f"{path}: pixels must be numbers, found {pixels.dtype}")
    if 0 in pixels.shape:
        raise SegbenchError(f"{path} has no pixels, its shape is {pixels.shape}")
    return picture


def read_numbers(path: Path, take: Take | None = None, *, large: bool = False) -> npt.NDArray[Any]:
    """Return the numbers that a label file stores: (H, W), or (N, H, W) of a TIFF of several pages or a .npy stack.

    Of a palette picture the indices are the numbers. A colour picture whose planes are all the same is one plane.

    Raises
    ------
    SegbenchError
        As ``read_picture``; or the format loses what it stores (JPEG), or it is a colour picture.
    """
    head = _head(path)
    for magic, name in _LOSSY.items():
        if head.startswith(magic):
            raise SegbenchError(
                f"{path} is a {name} file, which changes pixels: labels do not survive that. "
                "Save label maps as PNG or TIFF"
            )
    of_microscope = reader_of(path, head)
    if of_microscope is not None:
        numbers = guarded(path, lambda: labels_of(of_microscope(), path, Take() if take is None else take))
    elif head.startswith(_TIFF):
        from segbench.engine.files.tiff import read_tiff_labels

        numbers = guarded(path, lambda: read_tiff_labels(path, Take() if take is None else take, large))
    elif head.startswith(_NPY):
        numbers = _load_npy(path)
    else:
        numbers = guarded(path, lambda: _read_indices(path, head))
    if numbers.dtype.kind not in "biuf":
        raise SegbenchError(f"{path}: labels must be numbers, found {numbers.dtype}")
    if 0 in numbers.shape:
        raise SegbenchError(f"{path} has no pixels, its shape is {numbers.shape}")
    while numbers.ndim > 2 and 1 in (numbers.shape[0], numbers.shape[-1]):
        numbers = numbers[0] if numbers.shape[0] == 1 else numbers[..., 0]
    return numbers


def guarded(path: Path, read: Callable[[], T]) -> T:
    """Return what ``read`` returns; whatever a decoder raises for a broken file becomes one line that names it."""
    try:
        return read()
    except SegbenchError:
        raise
    except MemoryError:
        raise SegbenchError(f"{path} needs more memory than there is") from None
    except Exception as error:  # decoders in C and Python raise of all kinds: zlib, struct, their own
        lines = str(error).splitlines()
        raise SegbenchError(f"{path} cannot be read: {lines[0] if lines else type(error).__name__}") from None


def _head(path: Path) -> bytes:
    if is_zarr(path):
        return b""
    if not path.is_file():
        raise SegbenchError(f"{path} does not exist" if not path.exists() else f"{path} is not a file")
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError as error:
        raise SegbenchError(f"{path} cannot be read: {error.strerror or error}") from None


def _load_npy(path: Path) -> npt.NDArray[Any]:
    check_npy(path)
    return guarded(path, lambda: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)))


def _squeezed(array: npt.NDArray[Any], path: Path) -> npt.NDArray[Any]:
    squeezed = array.squeeze() if array.ndim > 2 else array
    if squeezed.ndim not in (2, 3):
        raise SegbenchError(f"{path}: expected (height, width) or a stack of channels, found shape {array.shape}")
    return squeezed


def _read_picture(path: Path, head: bytes) -> Picture:
    png = _png_header(path, head)
    if png is not None and png[0] in (8, 16) and png[1] != _PNG_PALETTE:
        pixels = _decoded_png(path)
        alpha = png[1] in (4, 6)
        planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        return Picture(planes[:-1] if alpha else planes, notes=("alpha channel left out",) if alpha else ())
    with _opened(path) as picture:
        if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV", "P", "PA"):
            colours = picture.convert("RGBA" if "A" in picture.mode or "transparency" in picture.info else "RGB")
            alpha = "A" in colours.mode
            planes = np.moveaxis(np.asarray(colours), -1, 0)[:3]
            if picture.mode in ("P", "PA") and (planes == planes[0]).all():
                planes = planes[:1]
            return Picture(planes, notes=("transparency left out",) if alpha else ())
        pixels, alpha = np.asarray(picture), picture.mode in ("LA", "RGBA", "La", "RGBa")
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return Picture(planes[:-1] if alpha else planes, notes=("alpha channel left out",) if alpha else ())


def _read_indices(path: Path, head: bytes) -> npt.NDArray[Any]:
    png = _png_header(path, head)
    if png is not None and png[0] in (8, 16) and png[1] != _PNG_PALETTE:
        pixels, alpha = _decoded_png(path), png[1] in (4, 6)
    else:
        with _opened(path) as picture:
            if picture.format == "WEBP":
                raise SegbenchError(f"{path} is a WebP file, which may change pixels: save label maps as PNG or TIFF")
            pixels, alpha = np.asarray(picture), picture.mode in ("LA", "PA", "RGBA")
    if pixels.ndim == 3:
        from segbench.engine.files.tiff import one_of_equal

        planes = np.moveaxis(pixels, -1, 0)
        return one_of_equal(planes[:-1] if alpha else planes, path)
    return pixels


def _png_header(path: Path, head: bytes) -> tuple[int, int] | None:
    """Return a PNG's bit depth and colour type; None where it is no PNG. Raises where it does not fit into memory."""
    if not head.startswith(_PNG) or len(head) < 26:
        return None
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    depth, colour = head[24], head[25]
    check_room(path, (height, width, _PNG_SAMPLES.get(colour, 4)), max(1, depth // 8))
    return depth, colour


def _decoded_png(path: Path) -> npt.NDArray[Any]:
    # Pillow would cut 16-bit colours to 8 bits, and keeps the interpreter's lock
    import imagecodecs

    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def _opened(path: Path) -> Any:
    """Return Pillow's picture of a file, its size checked by us: Pillow's own limit is no matter of memory."""
    from PIL import Image, UnidentifiedImageError

    class _Checked:
        def __enter__(self) -> Any:
            with _PILLOW:
                before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                try:
                    self._picture = Image.open(io.BytesIO(path.read_bytes()), formats=_FORMATS)
                except UnidentifiedImageError:
                    raise SegbenchError(
                        f"{path} cannot be read: it is no TIFF, PNG, npy, JPEG or other picture"
                    ) from None
                finally:
                    Image.MAX_IMAGE_PIXELS = before
            width, height = self._picture.size
            check_room(path, (height, width), 4 * len(self._picture.getbands()))
            frames = getattr(self._picture, "n_frames", 1)
            if frames > 1:
                raise SegbenchError(f"{path} holds {frames} pictures: save the one that is meant on its own")
            return self._picture

        def __exit__(self, *_: object) -> None:
            self._picture.close()

    return _Checked()
