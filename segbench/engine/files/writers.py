"""Writes label maps in the forms that other tools read: TIFF, COCO JSON, GeoJSON, ImageJ's ROIs, ``_seg.npy``.

Each form is read again by ``segbench data import``, and none loses a pixel: outlines go along the edges of pixels.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.engine.files.outlines import Ring, trace
from segbench.small_files import write_whole

Labels = npt.NDArray[Any]
"""(H, W), whole numbers from 0, the background."""
_INT16 = 2**15 - 1
_SIDE = 512
"""Of a tile, and rows in memory at a time, of what is large."""
_DENSE = 2**22
"""Labels up to this are looked up by number."""


def narrow(labels: Labels) -> npt.NDArray[Any]:
    """Return labels as uint16, and as uint32 where a label is beyond 65,535."""
    return labels.astype(np.uint32 if labels.size and labels.max() > 65535 else np.uint16)


def write_label_tiff(path: Path, labels: Labels, pixel_size_um: float | None = None) -> None:
    """Write a label map as a TIFF of 16 bits, of 32 where a label is beyond 65,535, compressed without loss.

    Parameters
    ----------
    path
        Of the file.
    labels
        Of an image; one that is large may lie on the disk, and becomes tiles.
    pixel_size_um
        Side of a pixel in micrometres, which the file then tells as OME-TIFF does; None for none.
    """
    import tifffile

    told: dict[str, Any] = {"metadata": None}
    if pixel_size_um is not None:
        size = {f"PhysicalSize{axis}": pixel_size_um for axis in "XY"}
        unit = {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
        told = {"ome": True, "metadata": {"axes": "YX", **size, **unit}}
    if not spool.is_large(labels):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, narrow(labels), compression="zlib", photometric="minisblack", **told)
        write_whole(path, buffer.getvalue())
        return
    highest = max(int(labels[top : top + _SIDE].max()) for top in range(0, labels.shape[0], _SIDE))
    dtype = np.uint32 if highest > 65535 else np.uint16
    part = path.with_name(f"{path.name}.part")
    try:
        tifffile.imwrite(
            part, _tiles(labels, dtype), shape=labels.shape, dtype=dtype, tile=(_SIDE, _SIDE), compression="zlib",
            photometric="minisblack", **told,
        )  # fmt: skip
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _tiles(labels: Labels, dtype: npt.DTypeLike) -> Iterator[npt.NDArray[Any]]:
    for top in range(0, labels.shape[0], _SIDE):
        for left in range(0, labels.shape[1], _SIDE):
            yield np.ascontiguousarray(labels[top : top + _SIDE, left : left + _SIDE], dtype)
        spool.let_go(labels)


def write_coco(
    path: Path, maps: Iterable[tuple[str, Labels]], *, polygons: bool = False, category: str = "cell",
    scores: Sequence[npt.NDArray[np.float64]] | None = None,
) -> None:  # fmt: skip
    """Write the cells of images as a COCO dataset.

    Parameters
    ----------
    path
        Of the JSON file.
    maps
        The ``file_name`` of each image, and its labels.
    polygons
        Write polygons instead of run lengths; cells with holes, which polygons cannot have, are run lengths
        nevertheless.
    category
        Name of the one category.
    scores
        Of each image's cells, that of label i at i - 1; None where they have none.
    """
    images: list[dict[str, Any]] = []

    def pieces() -> Iterator[str]:
        number = 0
        yield '{"annotations": ['
        for image, (name, labels) in enumerate(maps, start=1):
            height, width = labels.shape
            images.append({"id": image, "file_name": name, "height": height, "width": width})
            for label, mask, top, left in cells_of(labels):
                number += 1
                told: dict[str, Any] = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0}
                told |= _coco_shape(mask, top, left, (height, width), polygons)
                if scores is not None:
                    told["score"] = float(scores[image - 1][label - 1])
                yield f"{', ' if number > 1 else ''}{json.dumps(told)}"
        categories = [{"id": 1, "name": category, "supercategory": ""}]
        yield f'], "images": {json.dumps(images)}, "categories": {json.dumps(categories)}}}'

    write_whole(path, pieces())


def write_geojson(path: Path, labels: Labels, measured: Mapping[int, Mapping[str, float]] | None = None) -> None:
    """Write the cells of an image as GeoJSON that QuPath imports as detections; a cell's label is its name.

    Parameters
    ----------
    path
        Of the file.
    labels
        Of the image.
    measured
        For each label the measurements that QuPath shows, by their names; None for none.
    """

    def pieces() -> Iterator[str]:
        yield '{"type": "FeatureCollection", "features": ['
        for number, (label, mask, top, left) in enumerate(cells_of(labels)):
            told: dict[str, Any] = {"objectType": "detection", "name": str(label)}
            if measured is not None:
                told["measurements"] = measured[label]
            feature = {"type": "Feature", "geometry": _geometry(mask, top, left), "properties": told}
            yield f"{', ' if number else ''}{json.dumps(feature)}"
        yield "]}"

    write_whole(path, pieces())


def _geometry(mask: npt.NDArray[np.bool_], top: int, left: int) -> dict[str, Any]:
    polygons = [[_closed(ring) for ring in piece] for piece in _outlines(mask, top, left)]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def write_rois(path: Path, labels: Labels) -> None:
    """Write the cells of an image as a zip of ROIs that ImageJ's ROI manager opens; a cell's label is its name.

    A cell of one piece without holes is a traced selection, any other a composite one.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for label, mask, top, left in cells_of(labels):
            rings = [ring for piece in _outlines(mask, top, left) for ring in piece]
            # a date of its own would make two writings of the same cells differ
            archive.writestr(zipfile.ZipInfo(f"{label}.roi"), _roi(str(label), rings), zipfile.ZIP_DEFLATED)
    write_whole(path, buffer.getvalue())


def write_seg_npy(path: Path, labels: Labels, image: str) -> None:
    """Write a label map as Cellpose saves it with an image, so that its interface opens it.

    Parameters
    ----------
    path
        Beside the image, named as it is with ``_seg.npy`` for the suffix.
    labels
        Cellpose takes labels as consecutive numbers from 1: those of the file are.
    image
        File name of the image.
    """
    from skimage.segmentation import find_boundaries

    values, index = np.unique(labels, return_inverse=True)
    masks = narrow(index.reshape(labels.shape) + (0 if 0 in values else 1))
    n = int(masks.max())
    sizes = np.bincount(masks.ravel())[1:]
    saved = {
        "outlines": np.where(find_boundaries(masks, mode="inner"), masks, 0).astype(masks.dtype),
        "masks": masks,
        "chan_choose": [0, 0],
        "ismanual": np.zeros(n, np.bool_),
        "filename": image,
        "flows": [],
        "diameter": float(np.median(2 * np.sqrt(sizes / np.pi))) if n else 0.0,
    }
    buffer = io.BytesIO()
    np.save(buffer, np.array(saved, object), allow_pickle=True)
    write_whole(path, buffer.getvalue())


def cells_of(labels: Labels) -> Iterator[tuple[int, npt.NDArray[np.bool_], int, int]]:
    """Yield each cell's label, mask on a canvas as small as the cell, and the pixel (top, left) where it lies."""
    from segbench.engine.files.boxes import boxes_of

    bands = range(0, labels.shape[0], _SIDE)
    highest = max((int(labels[top : top + _SIDE].max(initial=0)) for top in bands), default=0)
    if highest > max(_DENSE, labels.size):
        # numbers from 1: a box is kept for every number up to the highest
        values, index = np.unique(labels, return_inverse=True)
        numbers = index.reshape(labels.shape) + (0 if values[0] == 0 else 1)
        names = values if values[0] == 0 else np.concatenate([[0], values])
        yield from ((int(names[n]), mask, top, left) for n, mask, top, left in cells_of(numbers))
        return
    for label, (top, left, bottom, right) in enumerate(boxes_of(labels, highest).tolist(), start=1):
        if bottom > top:
            yield label, np.asarray(labels[top:bottom, left:right] == label), top, left


def _coco_shape(
    mask: npt.NDArray[np.bool_], top: int, left: int, size: tuple[int, int], polygons: bool
) -> dict[str, Any]:
    pieces = _outlines(mask, top, left) if polygons else []
    box = [left, top, mask.shape[1], mask.shape[0]]
    told: dict[str, Any] = {"bbox": box, "area": int(mask.sum())}
    if pieces and all(len(piece) == 1 for piece in pieces):
        return told | {"segmentation": [piece[0].ravel().tolist() for piece in pieces]}
    from segbench.engine.files.coco_masks import run_lengths

    return told | {"segmentation": run_lengths(mask, top, left, size)}


def _outlines(mask: npt.NDArray[np.bool_], top: int, left: int) -> list[list[Ring]]:
    corner = np.array([left, top], np.float64)
    return [[ring + corner for ring in piece] for piece in trace(mask)]


def _closed(ring: Ring) -> list[list[int]]:
    points: list[list[int]] = ring.astype(int).tolist()
    return [*points, points[0]]


def _roi(name: str, rings: list[Ring]) -> bytes:
    from roifile import ROI_TYPE, ImagejRoi

    every = np.concatenate(rings).astype(np.int64)
    (left, top), (right, bottom) = every.min(axis=0).tolist(), every.max(axis=0).tolist()
    if len(rings) == 1 and max(right, bottom) <= _INT16:
        roi = ImagejRoi(roitype=ROI_TYPE.TRACED, name=name)
        roi.integer_coordinates = (every - (left, top)).astype(np.int32)
        roi.n_coordinates = len(every)
    else:
        # a shape is a path: 0 begins a ring at x, y, 1 goes on to x, y, 4 closes it
        path = [v for ring in rings for n, (x, y) in enumerate(ring.tolist()) for v in (min(n, 1), x, y)]
        ends = np.cumsum([3 * len(ring) for ring in rings])
        multi = np.insert(np.array(path, np.float32), ends, 4.0)
        roi = ImagejRoi(roitype=ROI_TYPE.RECT, name=name, multi_coordinates=multi, shape_roi_size=len(multi))
    roi.left, roi.top, roi.right, roi.bottom = (min(v, _INT16) for v in (left, top, right, bottom))
    data: bytes = roi.tobytes()
    return data
