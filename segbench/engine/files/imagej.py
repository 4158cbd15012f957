"""Reads cells from ImageJ's ROI files and zips, through roifile.

Source of the format: ImageJ's ``RoiDecoder.java``. Coordinates are those of pixels' corners, as ImageJ fills them.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from segbench.engine.files.outlines import Outlines, Rings, checked_ring
from segbench.engine.files.pictures import guarded
from segbench.engine.files.quiet import quiet
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    from roifile import ImagejRoi

_LARGEST_ROI, _LARGEST_ZIP, _MOST = 2**24, 2**30, 10**6
"""Bytes of a ROI and of all ROIs in a zip, and ROIs in a zip."""
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError)
"""What reading a broken zip raises."""
_OVAL = 720
"""Points of an oval's outline."""


def read_rois(paths: Sequence[Path]) -> Outlines:
    """Return the cells of ImageJ's ROI files (``.roi``) and zips of them.

    Polygons, freehand and traced selections, rectangles, ovals and composites of them are cells; lines, points, angles
    and text are left out.

    Raises
    ------
    SegbenchError
        A file is broken, a zip has more than any image's cells, or the cells lie on several planes of a stack.
    """
    cells: list[Rings] = []
    left_out: Counter[str] = Counter()
    planes: set[tuple[int, int]] = set()
    for where, data in (one for path in paths for one in _contents(path)):
        with quiet("roifile"):
            rings, plane = guarded(Path(where), lambda data=data, where=where: _rings(data, where))  # type: ignore[misc]
        if rings is None:
            left_out["points and lines"] += 1
            continue
        planes |= plane
        cells.append(rings)
    if len(planes) > 1:
        raise SegbenchError(
            f"{paths[0]} has ROIs on {len(planes)} planes of a stack: save those of each plane on their own, with its "
            "image"
        )
    return Outlines(tuple(cells), dict(left_out))


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what an error calls each ROI, and its bytes; nothing of a zip is ever written anywhere."""
    try:
        if path.suffix.lower() != ".zip":
            if path.stat().st_size > _LARGEST_ROI:
                raise SegbenchError(f"{path} is {path.stat().st_size:,} bytes: it is no ROI")
            yield str(path), path.read_bytes()
            return
        with zipfile.ZipFile(path) as archive:
            for entry in _entries(archive, path):
                with archive.open(entry) as file:
                    data = file.read(_LARGEST_ROI + 1)
                yield f"{path}, {entry.filename}", data
    except (OSError, ValueError, *_BROKEN) as error:
        lines = str(getattr(error, "strerror", None) or error).splitlines()
        raise SegbenchError(f"{path} cannot be read: {lines[0] if lines else type(error).__name__}") from None


def _entries(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    entries = [one for one in archive.infolist() if not one.is_dir()]
    for entry in entries:
        parts = entry.filename.replace("\\", "/").split("/")
        if ".." in parts or entry.filename[:1] in "/\\" or ":" in parts[0]:
            raise SegbenchError(f"{path} names a file outside of itself, {entry.filename!r}: it is refused")
        if entry.file_size > _LARGEST_ROI:
            raise SegbenchError(f"{path}: {entry.filename} claims {entry.file_size:,} bytes: it is no ROI")
    names = [PurePosixPath(one.filename).name.lower() for one in entries]
    rois = [one for one, name in zip(entries, names, strict=True) if name.endswith(".roi") and name[:2] != "._"]
    if entries and not rois:
        raise SegbenchError(f"{path} holds no .roi file")
    size = sum(entry.file_size for entry in rois)
    if size > _LARGEST_ZIP or len(rois) > _MOST:
        raise SegbenchError(f"{path} claims {len(rois):,} ROIs of {size:,} bytes: no image has as many cells")
    return rois


def _rings(data: bytes, where: str) -> tuple[Rings | None, set[tuple[int, int]]]:
    """Return the rings of one ROI, None where it encloses nothing, and the plane it lies on, where it tells one."""
    from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi

    roi = ImagejRoi.frombytes(data)
    in_stack = roi.c_position or roi.z_position or roi.t_position
    plane = {(roi.z_position, roi.t_position) if in_stack else (roi.position, 0)} - {(0, 0)}
    if roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.ARROW, ROI_SUBTYPE.IMAGE):
        return None, plane
    if roi.roitype in (ROI_TYPE.RECT, ROI_TYPE.OVAL) and not roi.composite:
        return [_box(roi, round_=roi.roitype == ROI_TYPE.OVAL, where=where)], plane
    if roi.roitype not in (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED, ROI_TYPE.RECT):
        return None, plane
    return [checked_ring(ring.tolist(), where) for ring in roi.coordinates(multi=True)], plane


def _box(roi: ImagejRoi, *, round_: bool, where: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return a rectangle's or an oval's outline; roifile gives an oval 33 points, which lose pixels of a large one."""
    if roi.subpixelrect:
        left, top, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
    else:
        left, top, width, height = roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top
    if round_:
        angle = np.linspace(0, 2 * np.pi, _OVAL, endpoint=False)
        x, y = (1 + np.cos(angle)) / 2, (1 + np.sin(angle)) / 2
    else:
        x, y = np.array([0.0, 1, 1, 0]), np.array([0.0, 0, 1, 1])
    return checked_ring(np.column_stack([left + width * x, top + height * y]).tolist(), where)
