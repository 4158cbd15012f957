"""Finds annotations that outline cells: COCO JSON, QuPath's GeoJSON, ImageJ's ROIs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segbench.engine.data.importing.drawing import Drawn, Size, draw
from segbench.engine.data.importing.found import (
    Annotated,
    Annotation,
    Found,
    list_annotations,
    no_cells,
    pair,
    pictures_for,
)
from segbench.engine.data.importing.listing import Listing, Pictures, home_of, namer, stem_of
from segbench.engine.data.importing.options import ImportOptions
from segbench.engine.data.importing.splits import split_named
from segbench.engine.files.coco import CocoObject, CocoTruth, Id, read_truth
from segbench.engine.files.coco_masks import mask_of
from segbench.engine.files.geojson import read_geojson
from segbench.engine.files.imagej import read_rois
from segbench.engine.files.outlines import Outlines, fill, is_outside
from segbench.engine.files.painting import Placed
from segbench.errors import SegbenchError

_ROI_SET = re.compile(r"(?:roi_?set[ _-]+)?(.+?)(?:[ _-]+(?:roi_?set|rois?))?", re.IGNORECASE)
_ANNOTATION_FOLDERS = ("annotations", "labels", "result", "annotation")


def find_geojson(path: Path, options: ImportOptions) -> Found:
    """Find GeoJSON files, each named as its image."""
    found = Found()
    listing = list_annotations(path, found)
    files = listing.files if path.is_file() else listing.having([".geojson"]) or listing.having([".json"])
    if not files:
        raise SegbenchError(f"{path} has no .geojson file")
    name_of = namer(options.pattern, lambda name: PurePosixPath(name).stem)
    pairs = [(file, name_of(file.name)) for file in files]
    annotations = [Annotation((file,), name, home_of(file)) for file, name in pairs if name is not None]
    pictures = pictures_for(path, listing, options, found)
    pair(annotations, listing, pictures, found, lambda paths: _drawer(lambda: read_geojson(paths[0], options.nuclei)))
    return found


def find_imagej(path: Path, options: ImportOptions) -> Found:
    """Find zips of ROIs and ROI files, named as their image, or ROI files in a folder named as their image."""
    found = Found()
    listing = list_annotations(path, found)
    files = listing.having([".zip", ".roi"])
    if not files:
        raise SegbenchError(f"{path} has no .zip or .roi file")
    pictures = pictures_for(path, listing, options, found)
    name_of = namer(options.pattern, lambda name: _roi_name(PurePosixPath(name).stem))
    named = [(file, name_of(file.name)) for file in files]
    annotations = _roi_groups([(file, name) for file, name in named if name is not None], pictures)
    pair(annotations, listing, pictures, found, lambda paths: _drawer(lambda: read_rois(paths)))
    return found


def find_coco(path: Path, options: ImportOptions) -> Found:
    """Find COCO datasets, and their images by the names that they give."""
    found = Found()
    listing = list_annotations(path, found)
    files = listing.files if path.is_file() else listing.having([".json"])
    if not files:
        raise SegbenchError(f"{path} has no .json file")
    base = path
    if path.is_file():
        base = path.parent.parent if path.parent.name.lower() in _ANNOTATION_FOLDERS else path.parent
    beside = listing if options.images is not None else list_annotations(base, Found())
    pictures = pictures_for(base, beside, options, found)
    taken: set[PurePosixPath] = set()
    for file in files:
        _add_coco(listing, file, pictures, found, taken)
    unlisted = [place for place in pictures.places if place not in taken]
    if unlisted:
        found.notes.append(f"{len(unlisted):,} images below {pictures.folder} are not listed ({unlisted[0]}): left out")
    return found


def _roi_name(stem: str) -> str:
    found = _ROI_SET.fullmatch(stem)
    return found[1] if found else stem


def _roi_groups(named: list[tuple[PurePosixPath, str]], pictures: Pictures) -> list[Annotation]:
    """Return zips on their own, and ROI files too unless their folder is named as an image and they are not."""
    stems = {stem_of(place.name) for place in pictures.places}
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    alone = []
    for file, name in named:
        folder = _roi_name(file.parent.name)
        if file.suffix.lower() == ".roi" and name not in stems and folder in stems:
            folders.setdefault(file.parent, []).append(file)
        else:
            alone.append(Annotation((file,), name, home_of(file)))
    grouped = [
        Annotation(tuple(files), _roi_name(folder.name), home_of(folder)) for folder, files in sorted(folders.items())
    ]
    return alone + grouped


def _drawer(read: Callable[[], Outlines]) -> Callable[[Size], Drawn]:
    def drawn(size: Size) -> Drawn:
        outlines = read()
        done = draw(outlines.cells, lambda rings: fill(rings, *size), lambda rings: is_outside(rings, *size), size)
        return Drawn(done.labels, Counter(done.counts) + Counter(outlines.left_out))

    return drawn


def _add_coco(
    listing: Listing, file: PurePosixPath, pictures: Pictures, found: Found, taken: set[PurePosixPath]
) -> None:
    path = listing.folder / file
    truth = read_truth(path)
    found.notes += truth.notes
    crowds = sum(one.crowd for one in truth.objects)
    if crowds:
        found.left_out["crowd regions (iscrowd)"] += crowds
    used = {one.category for one in truth.objects}
    if len(used) > 1:
        found.notes.append(f"{file}: cells of {len(used):,} categories are taken for cells alike")
    objects: dict[Id, list[CocoObject]] = {number: [] for number in truth.images}
    for one in truth.objects:
        if not one.crowd:
            objects[one.image].append(one)
    for number, image in truth.images.items():
        place = _coco_picture(truth, number, file, path, pictures)
        if place is None:
            found.lost.append(f"{image.name!r} in {file}")
            continue
        taken.add(place)
        own = objects[number]
        split = split_named(file, stem_of(file.name), place)
        where = pictures.folder / place
        if own:
            found.images.append(Annotated(where, place, path, _coco_drawer(own), split, image.size))
        else:
            found.bare.append(Annotated(where, place, path, no_cells, split, image.size))


def _coco_picture(
    truth: CocoTruth, number: Id, file: PurePosixPath, path: Path, pictures: Pictures
) -> PurePosixPath | None:
    name = truth.images[number].name
    if not name:
        raise SegbenchError(f"{path}: image {number!r} has no file_name")
    place = pictures.by_path(name, file.parent, path)
    parts = name.replace("\\", "/").split("/")
    if place is None and (".." in parts or not parts[0] or ":" in parts[0]):
        raise SegbenchError(f"{path} names an image outside of its folder, {name!r}: say with --images where they lie")
    return place


def _coco_drawer(objects: list[CocoObject]) -> Callable[[Size], Drawn]:
    def drawn(size: Size) -> Drawn:
        return draw(
            [_shape(one) for one in objects], lambda shape: _placed(shape, size), lambda s: _outside(s, size), size
        )

    return drawn


def _shape(one: CocoObject) -> Any:
    """Return polygons as arrays, run lengths as they are."""
    if isinstance(one.segmentation, list):
        return tuple(np.asarray(polygon, np.float64) for polygon in one.segmentation)
    return one.segmentation


def _placed(shape: Any, size: Size) -> Placed:
    return mask_of(shape, *size)


def _outside(shape: Any, size: Size) -> bool:
    return isinstance(shape, tuple) and is_outside([polygon.reshape(-1, 2) for polygon in shape], *size)
