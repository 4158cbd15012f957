"""LIVECell as it is distributed: COCO JSON annotations and phase-contrast TIFFs."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.files import to_grey
from segbench.engine.data.prepared import in_order
from segbench.engine.data.source import Load, RawImage, Source
from segbench.engine.data.spec import SPLITS
from segbench.engine.files.coco import (
    CocoImage,
    Id,
    check_polygon_numbers,
    check_segmentation,
    checked_id,
    read_images,
)
from segbench.engine.files.coco_masks import Segmentation, mask_of
from segbench.engine.files.painting import Overlaps, near, outlined_twice, paint
from segbench.engine.files.pictures import read_picture
from segbench.engine.study.tissues import ALL_TISSUES, LIVECELL_CHANNELS, LIVECELL_TARGETS, LIVECELL_TISSUES
from segbench.errors import SegbenchError, unknown_name

_IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
_CELL_TYPES = {name.lower(): name for name in LIVECELL_TISSUES}

_SINGLE = "LIVECell_single_cells"
_TWICE, _COVERED, _LOST, _OF, _GONE = _OVERLAPS = ("outlined twice", "covered", "pixels lost", "of pixels", "gone")


@dataclass(frozen=True)
class _Annotation:
    """One cell, packed as it is parsed: a million cells' polygons as Python lists would not fit into memory."""

    id: Any
    image_id: Id
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

    A split's annotations are ``livecell_coco_SPLIT.json``; where there is none, every ``livecell_*_SPLIT.json`` or the
    files of one cell type, ``LIVECell_single_cells/TYPE/SPLIT.json``. Images are found by their file name. The cell
    type is the first part of that name. An image that a file lists several times is several images, each with the
    annotations of its own id, as pycocotools counts them; they share their origin.

    Parameters
    ----------
    folder
        The download's folder.
    options
        ``pixel_size_um`` describes only. ``train_file``: name of the file with the training annotations, such as one
        of ``LIVECell_dataset_size_split``; None for the usual one.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        for key in options:
            if key not in ("pixel_size_um", "train_file"):
                raise unknown_name("option of a LIVECell dataset", key, ["pixel_size_um", "train_file"])
        if not folder.is_dir():
            raise SegbenchError(f"{folder} is not a folder")
        self.channels, self.targets = LIVECELL_CHANNELS, LIVECELL_TARGETS
        self._folder = folder
        train_file = options.get("train_file")
        self._annotations = {
            split: _find_annotations(folder, split, train_file if split == "train" else None) for split in SPLITS
        }
        for split in ("train", "test"):
            if not self._annotations[split]:
                raise SegbenchError(_missing_annotations(folder, split))
        self._paths: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith("._"):
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
            # data with cells that are outlined twice are read another way than they were: only their content changes
            | ({"outlined_twice": n} if (n := sum(map(_count_outlined_twice, self._split(split)))) else {})
            for split in self.counts()
        }

    def told(self, left_out: Mapping[str, int], n_images: int) -> tuple[str, ...]:
        """Return how often images are listed, and what overlapping cells lost."""
        lines = []
        for split in self.counts():
            again = [image for image in self._split(split) if image.name != image.path.name]
            if again:
                lines.append(
                    f"{split}: {len(again):,} images are listed again ({again[0].path.name}): each entry is an image "
                    "of its own with its own annotations"
                )
        if left_out.get(_TWICE):
            lines.append(f"{left_out[_TWICE]:,} cells are outlined twice: the first outline is kept")
        if left_out.get(_COVERED):
            lost = left_out[_LOST] / max(1, left_out[_OF])
            lines.append(
                f"{left_out[_COVERED]:,} cells lie under others: they lost {lost:.1%} of their pixels, "
                f"{left_out.get(_GONE, 0):,} of them all"
            )
        rest = {key: n for key, n in left_out.items() if key not in _OVERLAPS}
        return (*lines, *super().told(rest, n_images))

    def _split(self, split: str) -> list[_Image]:
        if split not in self._images:
            found = [image for path in self._annotations[split] for image in self._read(path)]
            times: Counter[str] = Counter()
            self._images[split] = []
            for image in found:
                times[image.name] += 1
                again = times[image.name]
                name = image.name if again == 1 else f"{image.name}#{again}"
                self._images[split].append(dataclasses.replace(image, name=name))
        return self._images[split]

    def _read(self, path: Path) -> list[_Image]:
        images, annotations = _read_annotations(path)
        cells: dict[Id, list[Segmentation]] = {image: [] for image in images}
        for annotation in annotations:
            where = f"{path}, annotation {annotation.id}"
            if annotation.image_id not in cells:
                raise SegbenchError(f"{where} belongs to image {annotation.image_id!r}, which is not listed")
            check_segmentation(annotation.segmentation, where, images[annotation.image_id].size)
            # a crowd region is not one cell
            if not annotation.crowd:
                cells[annotation.image_id].append(annotation.segmentation)
        result = []
        for number, image in images.items():
            name = Path(str(image.name)).name
            places = self._paths.get(name, [])
            if len(places) != 1:
                found = f"found {len(places)} times: {', '.join(map(str, places[:2]))}" if places else "not there"
                raise SegbenchError(f"{path} names image {name}, which is {found} below {self._folder}")
            result.append(_Image(name, places[0], *image.size, tuple(cells[number])))
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
    equal ones the later; a cell that lies wholly under others is left out. Of outlines that overlap by an IoU above
    0.5, which are one cell outlined twice, the first is kept.

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
    return rasterize_counted(cells, height, width)[0]


def rasterize_counted(
    cells: tuple[Segmentation, ...], height: int, width: int
) -> tuple[npt.NDArray[np.int32], Overlaps]:
    """Return ``rasterize``'s label map and what the cells lost in it."""
    return paint([mask_of(cell, height, width) for cell in cells], height, width)


def _count_outlined_twice(image: _Image) -> int:
    """Return how many cells of an image are left out as outlined twice, looking only at those whose boxes are near."""
    boxes = [
        (points[:, 1].min(), points[:, 0].min(), points[:, 1].max(), points[:, 0].max())
        for points in (np.concatenate(cell).reshape(-1, 2) for cell in image.cells if not isinstance(cell, dict))
    ]
    close = near(np.array(boxes, np.float64).reshape(-1, 4))
    outlines = [cell for cell in image.cells if not isinstance(cell, dict)]
    masks = [mask_of(outlines[n], image.height, image.width) for n in sorted({n for pair in close for n in pair})]
    areas = np.array([int(mask.sum()) for mask, _, _ in masks], np.int64)
    return len(outlined_twice(masks, areas))


def _load(image: _Image) -> RawImage:
    picture = read_picture(image.path)
    pixels = to_grey(picture.pixels) if picture.pixels.shape[0] == 3 else picture.pixels
    if pixels.shape != (1, image.height, image.width):
        raise SegbenchError(
            f"{image.name} is {pixels.shape} (channels, height, width), "
            f"its annotations say (1, {image.height}, {image.width})"
        )
    try:
        labels, overlaps = rasterize_counted(image.cells, image.height, image.width)
    except SegbenchError as error:
        raise SegbenchError(f"{image.name}: {error}") from None
    left_out = {
        _TWICE: overlaps.twice,
        _COVERED: overlaps.covered,
        _LOST: overlaps.lost,
        _OF: overlaps.of,
        _GONE: overlaps.gone,
    }
    return RawImage(
        image.name,
        cell_type(image.name),
        pixels,
        {LIVECELL_TARGETS[0]: labels},
        left_out={what: n for what, n in left_out.items() if n} | dict.fromkeys(picture.notes, 1),
        origin=image.path.name,
    )


def _find_annotations(folder: Path, split: str, name: str | None) -> tuple[Path, ...]:
    """Return the annotation files of a split: the one of this name, else the whole ones, else those of cell types."""
    every = [path for path in sorted(folder.rglob("*.json")) if not path.name.startswith("._")]
    if name is not None:
        named = [path for path in every if path.name == name]
        if len(named) != 1:
            near = [path.name for path in every]
            raise unknown_name("annotation file", name, near) if not named else _ambiguous(folder, name, named)
        return tuple(named)
    whole = [path for path in every if path.name == f"livecell_coco_{split}.json"]
    if len(whole) > 1:
        raise _ambiguous(folder, f"livecell_coco_{split}.json", whole)
    if whole:
        return tuple(whole)
    by_type = [path for path in every if path.match(f"livecell_*_{split}.json")]
    return tuple(by_type or [path for path in every if path.name == f"{split}.json" and _SINGLE in path.parts])


def _ambiguous(folder: Path, name: str, found: Sequence[Path]) -> SegbenchError:
    return SegbenchError(f"{folder} holds {len(found)} files {name}: {', '.join(map(str, found[:4]))}")


def _missing_annotations(folder: Path, split: str) -> str:
    found = sorted({path.name for path in folder.rglob("*.json")})
    sizes = [name for name in found if "percent" in name]
    hint = f"; name one of the parts with --train-file: {', '.join(sizes)}" if sizes and split == "train" else ""
    return f"{folder} holds no livecell_coco_{split}.json; JSON files found: {', '.join(found[:8]) or 'none'}{hint}"


def _read_annotations(path: Path) -> tuple[dict[Id, CocoImage], list[_Annotation]]:
    def pack(values: dict[str, Any]) -> Any:
        if "segmentation" not in values:
            return values
        where = f"{path}, annotation {values.get('id')}"
        return _Annotation(
            values.get("id"),
            checked_id(values.get("image_id"), f"{where}: image_id"),
            _pack(values["segmentation"], where),
            bool(values.get("iscrowd", 0)),
        )

    try:
        raw = json.loads(path.read_bytes(), object_hook=pack)
    except (OSError, ValueError, RecursionError) as error:
        raise SegbenchError(f"{path} is not a COCO annotation file: {' '.join(str(error).split())}") from None
    for key in ("images", "annotations"):
        if not isinstance(raw, dict) or key not in raw:
            raise SegbenchError(f"{path} is not a COCO annotation file: field {key!r} is missing")
    annotations = raw["annotations"]
    # single-cell-type files of the download hold a mapping by id instead of a list
    found = list(annotations.values()) if isinstance(annotations, dict) else annotations
    images = read_images(raw["images"], path)
    for number, image in images.items():
        if not image.name or cell_type(Path(image.name).name) == ALL_TISSUES:
            raise SegbenchError(f"{path}: image {number} has no cell type in its name {image.name!r}")
    if not isinstance(found, list) or not all(isinstance(annotation, _Annotation) for annotation in found):
        raise SegbenchError(f"{path} is not a COCO annotation file: an annotation has no segmentation")
    return images, found


def _pack(segmentation: Any, where: str) -> Segmentation:
    """Return a segmentation in few bytes; polygons become arrays. What is no segmentation is left to the check."""
    if isinstance(segmentation, dict):
        return segmentation
    if not isinstance(segmentation, list) or not segmentation:
        raise SegbenchError(f"{where}: a segmentation is a list of polygons or an object with counts and size")
    parts = []
    for part in segmentation:
        check_polygon_numbers(part, where)
        parts.append(np.asarray(part, np.float64))
    return tuple(parts)
