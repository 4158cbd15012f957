"""Finds annotations that are pictures of cells: label maps, Cellpose's files, a mask file for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from segbench.engine.data.importing.drawing import CELLS, Drawn, Size, draw
from segbench.engine.data.importing.found import (
    Annotated,
    Annotation,
    Found,
    list_annotations,
    pair,
    pictures_for,
)
from segbench.engine.data.importing.listing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    SEG_NPY,
    Listing,
    Pictures,
    home_of,
    namer,
    stem_of,
)
from segbench.engine.data.importing.options import ImportOptions
from segbench.engine.data.importing.splits import split_named
from segbench.engine.files.label_maps import without_ending
from segbench.engine.files.masks import as_labels, facts_of, read_mask_with_facts
from segbench.engine.files.painting import Placed
from segbench.engine.files.pictures import read_numbers
from segbench.engine.files.seg_npy import read_seg_npy
from segbench.errors import SegbenchError


def find_cellpose(path: Path, options: ImportOptions) -> Found:
    """Find ``_seg.npy`` files, each named as its image."""
    found = Found()
    listing = list_annotations(path, found)
    files = listing.having([".npy"]) if options.pattern or path.is_file() else listing.having([SEG_NPY])
    if not files:
        raise SegbenchError(f"{path} has no file that ends in {SEG_NPY}")
    name_of = namer(
        options.pattern, lambda name: name[: -len(SEG_NPY)] if name.lower().endswith(SEG_NPY) else stem_of(name)
    )
    named = [(file, name_of(file.name)) for file in files]
    annotations = [Annotation((file,), name, home_of(file)) for file, name in named if name is not None]

    def drawer(paths: tuple[Path, ...]) -> Callable[[Size], Drawn]:
        def drawn(_: Size) -> Drawn:
            labels = read_seg_npy(paths[0])
            facts = facts_of(labels, paths[0].name)
            return Drawn(labels, {CELLS: facts.n_labels}, facts)

        return drawn

    pair(annotations, listing, pictures_for(path, listing, options, found), found, drawer)
    return found


def find_suffix(path: Path, options: ImportOptions) -> Found:
    """Find label maps: by what their names end in, by their folder, or all pictures where the images lie apart."""
    found = Found()
    listing = list_annotations(path, found)
    name_of = namer(options.pattern, lambda name: without_ending(stem_of(name)))
    masks: dict[PurePosixPath, str] = {}
    for file in listing.pictures():
        name = name_of(file.name)
        apart = options.images is not None or path.is_file() or options.pattern is not None
        if name is not None and (apart or _is_mask(file)):
            masks[file] = name
    seg = listing.having([SEG_NPY])
    if seg:
        found.notes.append(f"{len(seg):,} files end in {SEG_NPY}: left out; segbench data import cellpose reads them")
    if not masks:
        raise SegbenchError(
            f"{path} has no mask: their names end in _masks, _mask, _labels, _label or _seg, or they lie in a folder "
            "masks beside images; else say --pattern '{}_ENDING.tif', or --images where the images lie apart"
        )
    pictures = pictures_for(path, listing, options, found)
    if options.images is None:
        pictures = Pictures(pictures.folder, [place for place in pictures.places if place not in masks])
    annotations = [Annotation((file,), name, home_of(file)) for file, name in masks.items()]

    def drawer(paths: tuple[Path, ...]) -> Callable[[Size], Drawn]:
        def drawn(_: Size) -> Drawn:
            labels, facts = read_mask_with_facts(paths[0], options.masks, paths[0].name)
            return Drawn(labels, {CELLS: facts.n_labels}, facts)

        return drawn

    pair(annotations, listing, pictures, found, drawer)
    return found


def find_instances(path: Path, options: ImportOptions) -> Found:
    """Find folders of mask files, one a cell, each with its image beside it or of its name."""
    found = Found()
    if path.is_file():
        raise SegbenchError(f"{path} is a file; kind instances is a folder an image, with one mask file a cell")
    listing = list_annotations(path, found)
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for file in listing.pictures():
        folders.setdefault(file.parent, []).append(file)
    if options.images is not None:
        annotations = [_named_folder(folder, files) for folder, files in folders.items()]
        pictures = pictures_for(path, listing, options, found)
        pair(annotations, listing, pictures, found, _mask_files)
        return found
    for folder, files in folders.items():
        if folder.name.lower() in MASK_FOLDERS:
            place = _picture_beside(folder, folders, path)
            if place is None:
                found.lost.append(str(folder))
                continue
            draws = _mask_files(tuple(path / file for file in files))
            found.images.append(Annotated(path / place, place, path / folder, draws, split_named(place)))
    if not found.images and not found.lost:
        raise SegbenchError(f"{path} has no folder masks beside an image; kind instances is one such folder an image")
    _add_without_masks(listing, folders, found)
    return found


def _is_mask(file: PurePosixPath) -> bool:
    stem = stem_of(file.name)
    return without_ending(stem) != stem or any(part.lower() in MASK_FOLDERS for part in file.parent.parts)


def _named_folder(folder: PurePosixPath, files: list[PurePosixPath]) -> Annotation:
    own = folder.parent if folder.name.lower() in MASK_FOLDERS else folder
    return Annotation(tuple(files), own.name, home_of(own))


def _picture_beside(
    folder: PurePosixPath, folders: dict[PurePosixPath, list[PurePosixPath]], root: Path
) -> PurePosixPath | None:
    """Return the one picture of a folder of masks; None where there is none."""
    beside = [
        file
        for other, files in folders.items()
        for file in files
        if other == folder.parent or (other.parent == folder.parent and other.name.lower() in IMAGE_FOLDERS)
    ]
    if len(beside) > 1:
        raise SegbenchError(
            f"{root / folder} lies beside {len(beside)} images; kind instances is a folder an image. Label maps of "
            "several images are kind suffix"
        )
    return beside[0] if beside else None


def _add_without_masks(listing: Listing, folders: dict[PurePosixPath, list[PurePosixPath]], found: Found) -> None:
    taken = {image.place for image in found.images}
    for folder, files in folders.items():
        if folder.name.lower() in IMAGE_FOLDERS:
            for place in files:
                if place not in taken:
                    picture = listing.folder / place
                    found.bare.append(Annotated(picture, place, picture, _mask_files(()), split_named(place)))


def _mask_files(paths: tuple[Path, ...]) -> Callable[[Size], Drawn]:
    def drawn(size: Size) -> Drawn:
        return draw(list(_instances(paths, size)), lambda placed: placed, lambda _: False, size)

    return drawn


def _instances(paths: Iterable[Path], size: Size) -> Iterable[Placed]:
    for path in paths:
        numbers = read_numbers(path)
        if numbers.shape != size:
            raise SegbenchError(f"{path} is {numbers.shape} (height, width), its image is {size}")
        rows, columns = np.flatnonzero(numbers.any(axis=1)), np.flatnonzero(numbers.any(axis=0))
        if not rows.size:
            yield np.zeros((0, 0), np.bool_), 0, 0
            continue
        top, left = int(rows[0]), int(columns[0])
        cell = as_labels(numbers[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1], str(path))
        values = np.unique(cell[cell != 0])
        if len(values) > 1:
            raise SegbenchError(
                f"{path} has the numbers {values[0]} and {values[1]}: the mask of one cell has 0 and one other. Label "
                "maps are kind suffix"
            )
        yield cell != 0, top, left
