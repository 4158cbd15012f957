"""LIVECell as it is distributed: COCO JSON annotations and phase-contrast TIFFs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segbench.engine.data.files import read_image, to_grey
from segbench.engine.data.prepared import in_order
from segbench.engine.data.source import Load, RawImage, Source
from segbench.engine.data.spec import SPLITS
from segbench.engine.study.tissues import ALL_TISSUES, LIVECELL_CHANNELS, LIVECELL_TARGETS, LIVECELL_TISSUES
from segbench.errors import SegbenchError, unknown_name

_IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
_CELL_TYPES = {name.lower(): name for name in LIVECELL_TISSUES}

Segmentation = tuple[npt.NDArray[np.float64], ...] | dict[str, Any]
"""Polygons, each x, y, x, y, ..., or a COCO run-length encoding."""


@dataclass(frozen=True)
class _Annotation:
    """One cell, packed as it is parsed: a million cells' polygons as Python lists would not fit into memory."""

    image_id: int
    segmentation: Segmentation
    crowd: bool


@dataclass(frozen=True)
class _Image:
    name: str
    path: Path
    height: int
    width: int
    cells: tuple[Segmentation, ...]


class LivecellSource(Source):
    """The folder of a LIVECell download, whatever the depth of its sub-folders.

    Annotations are ``livecell_coco_{train,val,test}.json``; where a split has none of that name, every
    ``livecell_*_{split}.json`` (the single-cell-type files). Images are found by their file name. The cell type is the
    file name up to the first underscore.

    Parameters
    ----------
    folder
        The download, or a folder that holds both annotations and images.
    options
        ``pixel_size_um`` describes only.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        for key in options:
            if key != "pixel_size_um":
                raise unknown_name("option of a LIVECell dataset", key, ["pixel_size_um"])
        if not folder.is_dir():
            raise SegbenchError(f"{folder} is not a folder")
        self.channels, self.targets = LIVECELL_CHANNELS, LIVECELL_TARGETS
        self._folder = folder
        self._annotations = {split: _find_annotations(folder, split) for split in SPLITS}
        for split in ("train", "test"):
            if not self._annotations[split]:
                found = sorted(path.name for path in folder.rglob("*.json"))[:8]
                raise SegbenchError(
                    f"{folder} holds no livecell_coco_{split}.json; JSON files found: {', '.join(found) or 'none'}"
                )
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _IMAGE_SUFFIXES:
                self._paths.setdefault(path.name, []).append(path)
        self._images: dict[str, list[_Image]] = {}

    def counts(self) -> Mapping[str, int]:
        """How many images each split has; reads the annotations."""
        return {split: len(self._split(split)) for split in SPLITS if self._annotations[split] and self._split(split)}

    def images(self, split: str) -> Iterator[Load]:
        """Yield a loader for each image, in the annotations' order."""
        for image in self._split(split):
            yield partial(_load, image)

    def files(self) -> list[Path]:
        """The annotations and every image below the folder."""
        annotations = [path for split in SPLITS for path in self._annotations[split]]
        return [*annotations, *(path for paths in self._paths.values() for path in paths)]

    def content(self, digest: Callable[[Path], str]) -> Any:
        """Return the digests of annotations and of the images that they name."""
        return {
            split: {
                "annotations": [digest(path) for path in self._annotations[split]],
                "images": [[image.name, digest(image.path)] for image in self._split(split)],
            }
            for split in self.counts()
        }

    def _split(self, split: str) -> list[_Image]:
        if split not in self._images:
            found = [image for path in self._annotations[split] for image in self._read(path)]
            for name, times in Counter(image.name for image in found).items():
                if times > 1:
                    raise SegbenchError(f"{self._folder}: the {split} annotations name image {name} twice")
            self._images[split] = found
        return self._images[split]

    def _read(self, path: Path) -> list[_Image]:
        images, annotations = _read_annotations(path)
        cells: dict[int, list[Segmentation]] = {int(image["id"]): [] for image in images}
        for annotation in annotations:
            if annotation.image_id not in cells:
                raise SegbenchError(
                    f"{path}: an annotation belongs to image {annotation.image_id}, which is not listed"
                )
            # a crowd region is not one cell
            if not annotation.crowd:
                cells[annotation.image_id].append(annotation.segmentation)
        result = []
        for image in images:
            name = Path(str(image["file_name"])).name
            places = self._paths.get(name, [])
            if len(places) != 1:
                found = f"found {len(places)} times: {', '.join(map(str, places[:2]))}" if places else "not there"
                raise SegbenchError(f"{path} names image {name}, which is {found} below {self._folder}")
            size = int(image["height"]), int(image["width"])
            result.append(_Image(name, places[0], *size, tuple(cells[int(image["id"])])))
        return result


def cell_type(file_name: str) -> str:
    """Return the cell type that a LIVECell file name begins with.

    Examples
    --------
    >>> cell_type("SKBR3_Phase_A3_1_00d00h00m_1.tif"), cell_type("T98G_Phase_set1_1.tif")
    ('SkBr3', 'T98G')
    """
    prefix = file_name.partition("_")[0]
    return _CELL_TYPES.get(prefix.lower(), prefix)


def cell_types(folder: Path) -> tuple[str, ...]:
    """Return the cell types of the image names below a folder."""
    return in_order({cell_type(path.name) for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES})


def rasterize(cells: tuple[Segmentation, ...], height: int, width: int) -> npt.NDArray[np.int32]:
    """Return the label map (height, width) of an image's cells: 1..k in the order of the cells, 0 background.

    Masks are those of pycocotools. Where cells overlap, the smaller one (by the pixels of its mask) is on top, and of
    equal ones the later; a cell that lies wholly under others is left out.

    Examples
    --------
    A small square within a large one:

    >>> large, small = np.array([0, 0, 4, 0, 4, 4, 0, 4.0]), np.array([1, 1, 3, 1, 3, 3, 1, 3.0])
    >>> rasterize(((small,), (large,)), 4, 4)
    array([[2, 2, 2, 2],
           [2, 1, 1, 2],
           [2, 1, 1, 2],
           [2, 2, 2, 2]], dtype=int32)
    """
    masks = [_mask(cell, height, width) for cell in cells]
    order = np.argsort([-int(mask.sum()) for mask, _, _ in masks], kind="stable")
    labels = np.zeros((height, width), np.int32)
    for n in order:
        mask, top, left = masks[n]
        labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = n + 1
    return labels


def _mask(cell: Segmentation, height: int, width: int) -> tuple[npt.NDArray[np.bool_], int, int]:
    """Return a cell's mask and the pixel (top, left) where it lies."""
    if isinstance(cell, dict):
        if list(cell.get("size", [])) != [height, width]:
            raise SegbenchError(f"a run-length encoding of size {cell.get('size')} on an image of {[height, width]}")
        rle = coco_mask.frPyObjects(cell, height, width) if isinstance(cell["counts"], list) else cell
        return coco_mask.decode(rle).astype(bool), 0, 0
    # a small canvas is fast; pycocotools rounds to fifths of pixels first, so a
    # shift after that rounding changes nothing
    fifths = [np.trunc(5 * part.reshape(-1, 2) + 0.5) for part in cell]
    first, last = np.concatenate(fifths).min(axis=0), np.concatenate(fifths).max(axis=0)
    left, top = (max(0, int(v // 5) - 1) for v in first)
    right, bottom = (int(-(-v // 5)) + 2 for v in last)
    right, bottom = min(width, max(right, left + 1)), min(height, max(bottom, top + 1))
    if left >= width or top >= height:
        return np.zeros((0, 0), np.bool_), 0, 0
    shifted = []
    for part in fifths:
        moved = part - (5 * left, 5 * top)
        # its rounding cuts towards zero: below zero a quarter more keeps the number
        shifted.append((np.where(moved < 0, moved - 0.75, moved) / 5).ravel().tolist())
    rles = coco_mask.frPyObjects(shifted, bottom - top, right - left)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool), top, left


def _load(image: _Image) -> RawImage:
    pixels = read_image(image.path)
    if pixels.shape[0] == 3:
        pixels = to_grey(pixels)
    if pixels.shape != (1, image.height, image.width):
        raise SegbenchError(
            f"{image.name} is {pixels.shape} (channels, height, width), "
            f"its annotations say (1, {image.height}, {image.width})"
        )
    try:
        labels = rasterize(image.cells, image.height, image.width)
    except SegbenchError as error:
        raise SegbenchError(f"{image.name}: {error}") from None
    return RawImage(image.name, cell_type(image.name), pixels, {LIVECELL_TARGETS[0]: labels})


def _find_annotations(folder: Path, split: str) -> list[Path]:
    whole = sorted(folder.rglob(f"livecell_coco_{split}.json"))
    if len(whole) > 1:
        raise SegbenchError(
            f"{folder} holds {len(whole)} files livecell_coco_{split}.json: {', '.join(map(str, whole))}"
        )
    return whole or sorted(folder.rglob(f"livecell_*_{split}.json"))


def _read_annotations(path: Path) -> tuple[list[dict[str, Any]], list[_Annotation]]:
    def pack(values: dict[str, Any]) -> Any:
        if "segmentation" not in values:
            return values
        return _Annotation(int(values["image_id"]), _pack(values["segmentation"]), bool(values.get("iscrowd", 0)))

    try:
        raw = json.loads(path.read_text(), object_hook=pack)
        annotations = raw["annotations"]
        # single-cell-type files of the download hold a mapping by id instead of a list
        found = list(annotations.values()) if isinstance(annotations, dict) else list(annotations)
        images = [{key: image[key] for key in ("id", "file_name", "height", "width")} for image in raw["images"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise SegbenchError(f"{path} is not a COCO annotation file: {what}") from None
    for number, image in enumerate(images):
        if cell_type(Path(str(image["file_name"])).name) == ALL_TISSUES:
            raise SegbenchError(f"{path}: image {number} has no cell type in its name {image['file_name']!r}")
    if not all(isinstance(annotation, _Annotation) for annotation in found):
        raise SegbenchError(f"{path} is not a COCO annotation file: an annotation has no segmentation")
    return images, found


def _pack(segmentation: Any) -> Segmentation:
    if isinstance(segmentation, dict):
        if not {"size", "counts"} <= segmentation.keys():
            raise ValueError("a run-length encoding needs size and counts")
        return segmentation
    parts = tuple(np.asarray(part, np.float64) for part in segmentation)
    for part in parts:
        if part.ndim != 1 or part.size < 6 or part.size % 2 or not np.isfinite(part).all():
            raise ValueError(f"a polygon is at least three points x, y, found {part.size} numbers")
    if not parts:
        raise ValueError("a segmentation without polygon")
    return parts
