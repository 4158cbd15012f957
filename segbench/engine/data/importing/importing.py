"""Imports annotations: finds their images, draws label maps, divides the images, writes all into a new folder."""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segbench.engine.data.folder import INDEX, NO_TISSUE
from segbench.engine.data.importing import outlined, painted
from segbench.engine.data.importing.choice import choice_of
from segbench.engine.data.importing.drawing import told
from segbench.engine.data.importing.found import Annotated, Found
from segbench.engine.data.importing.listing import home_of, stem_of
from segbench.engine.data.importing.options import DEFAULT_SPLIT, ImportOptions
from segbench.engine.data.importing.splits import check_groups, divided, kept_split, missing_splits
from segbench.engine.data.importing.target import check_new, new_folder
from segbench.engine.files.masks import MaskFacts, survey
from segbench.engine.files.picture import Take
from segbench.engine.files.pictures import read_picture
from segbench.engine.files.writers import write_label_tiff
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError
from segbench.small_files import write_whole

_FINDERS: Mapping[str, Callable[[Path, ImportOptions], Found]] = {
    "coco": outlined.find_coco,
    "geojson": outlined.find_geojson,
    "imagej": outlined.find_imagej,
    "cellpose": painted.find_cellpose,
    "instances": painted.find_instances,
    "suffix": painted.find_suffix,
}
Progress = Callable[[str, int, int], None]
"""Called with what is done, the images that are done and the images there are."""


@dataclass(frozen=True)
class Imported:
    """A folder dataset that was written."""

    folder: Path
    rows: tuple[Mapping[str, str | int], ...]
    """Split, tissue, images and cells of each split and tissue."""
    notes: tuple[str, ...]
    """What was left out or is suspected, each in one line."""


@dataclass(frozen=True)
class _Row:
    image: str
    mask: str
    split: str
    tissue: str
    group: str


def import_annotations(
    kind: str, path: Path, target: Path, options: ImportOptions | None = None, progress: Progress | None = None
) -> Imported:
    """Write annotations and their images as a folder dataset.

    The folder has ``images/`` (copies), ``masks/`` (label maps as TIFF of 16 bits, of 32 where a label is beyond
    65,535) and ``index.csv``. It is written whole or not at all.

    Parameters
    ----------
    kind
        One of ``KINDS``.
    path
        File or folder with the annotations.
    target
        New folder, or an empty one.
    options
        How annotations find their images, and how these are divided.
    progress
        Is told of every image.

    Raises
    ------
    SegbenchError
        Something cannot be read or is not what it should be; one line that names the file. Nothing is left behind.
    """
    options = ImportOptions() if options is None else options
    path, target = path.expanduser(), target.expanduser().absolute()
    options.check_for(kind)
    check_new(target)
    found = _FINDERS[kind](path, options)
    notes = [*found.notes, *_told_partners(found, options)]
    images = sorted(found.images + (found.bare if options.keep_empty else []), key=lambda one: one.place)
    if not images:
        raise SegbenchError(f"{path}: no image has annotations. {' '.join(notes[-2:])}".strip())
    rows = _rows(images, options, notes)
    counts: Counter[str] = Counter(found.left_out)
    facts: list[MaskFacts] = []
    cells: Counter[tuple[str, str]] = Counter()
    with new_folder(target) as folder:
        for n, (image, row) in enumerate(zip(images, rows, strict=True), start=1):
            drawn_counts, n_cells, fact = _write_image(folder, image, row)
            counts += Counter(drawn_counts)
            facts += [] if fact is None else [fact]
            cells[row.split, row.tissue] += n_cells
            if progress is not None:
                progress(kind, n, len(images))
        notes += [*told(counts, path), *survey(facts)]
        _write_index(folder / INDEX, rows, options.group_by is not None)
    n_images = Counter((row.split, row.tissue) for row in rows)
    table: list[Mapping[str, str | int]] = [
        {"split": split, "tissue": tissue, "images": n_images[split, tissue], "cells": cells[split, tissue]}
        for split, tissue in sorted(n_images, key=lambda one: (("train", "val", "test").index(one[0]), one[1]))
    ]
    return Imported(target, tuple(table), tuple(notes))


def _rows(images: list[Annotated], options: ImportOptions, notes: list[str]) -> list[_Row]:
    """Return the index's rows; notes are added to."""
    tissues = [NO_TISSUE] * len(images)
    if options.tissue is not None:
        tissue_of = choice_of(options.tissue, "--tissue", options.table, constant=True)
        tissues = [tissue_of(image.place) for image in images]
    if ALL_TISSUES in tissues:
        raise SegbenchError(f"--tissue: no tissue can be named {ALL_TISSUES!r}, which stands for every tissue")
    groups = [_name_of(image.place) for image in images]
    if options.group_by is not None:
        group_of = choice_of(options.group_by, "--group-by", options.table, constant=False)
        groups = [group_of(image.place) for image in images]
    splits = None
    if options.split is None:
        splits = kept_split([image.split for image in images], [image.place for image in images])
    if splits is None:
        splits = divided(groups, tissues, options.split or DEFAULT_SPLIT, options.seed)
    else:
        check_groups(
            groups, splits, "the folders' split" if options.group_by is None else f"--group-by {options.group_by}"
        )
        notes.append(f"the split of the folders is kept: {_counted(splits)}")
    lacking = missing_splits(splits)
    if lacking:
        notes.append(f"no image stands in {' or '.join(lacking)}, which a dataset needs: {_counted(splits)}")
    names = _Names()
    return [
        _Row(*names.of(image.place), split, tissue, group)
        for image, split, tissue, group in zip(images, splits, tissues, groups, strict=True)
    ]


def _name_of(place: PurePosixPath) -> str:
    """Return an image's path without suffix and without the folders that say what it is."""
    folders, stem = home_of(place), stem_of(place.name)
    if folders and folders[-1] == stem:
        folders = folders[:-1]  # a folder of the image's own
    # a table's values are read without the blanks around them
    return "/".join(part.strip() or "_" for part in (*folders, stem))


class _Names:
    """Gives each image a name of its own in the new folder."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, place: PurePosixPath) -> tuple[str, str]:
        """Return the paths of an image and its mask in the new folder."""
        base = _name_of(place)
        name, n = base, 1
        while name.lower() in self._taken:
            n += 1
            name = f"{base}-{n}"
        self._taken.add(name.lower())
        return f"images/{name}{place.name[len(stem_of(place.name)) :].strip()}", f"masks/{name}.tif"


def _write_image(folder: Path, image: Annotated, row: _Row) -> tuple[Mapping[str, int], int, MaskFacts | None]:
    """Write one image and its label map; return what was counted, its cells, and what its mask told."""
    size = _size_of(image.picture)
    if image.size is not None and image.size != size:
        raise SegbenchError(f"{image.picture} is {size} (height, width), {image.annotation} says {image.size}")
    try:
        drawn = image.draw(size)
    except SegbenchError as error:
        text = str(error)
        known = str(image.annotation) in text or str(image.annotation.parent) in text
        raise SegbenchError(text if known else f"{image.annotation}: {text}") from None
    except MemoryError:
        raise SegbenchError(f"{image.annotation} needs more memory than there is") from None
    if drawn.labels.shape != size:
        raise SegbenchError(
            f"{image.picture} is {size} (height, width), but its mask {image.annotation} is {drawn.labels.shape}"
        )
    for name in (row.image, row.mask):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.picture, folder / row.image)
    write_label_tiff(folder / row.mask, drawn.labels)
    n_cells = int(np.unique(drawn.labels[drawn.labels != 0]).size) if drawn.facts is None else drawn.facts.n_labels
    return drawn.counts, n_cells, drawn.facts


def _size_of(picture: Path) -> tuple[int, int]:
    # which plane of a stack is meant does not matter for its size: prepare asks for it
    height, width = read_picture(picture, Take("max")).pixels.shape[1:]
    return int(height), int(width)


def _told_partners(found: Found, options: ImportOptions) -> list[str]:
    lines = []
    total = len(found.images) + len(found.bare)
    if found.bare:
        becomes = "kept as images without cells" if options.keep_empty else "left out (--keep-empty keeps them)"
        lines.append(f"{len(found.bare):,} of {total:,} images have no annotations ({found.bare[0].place}): {becomes}")
    if found.lost:
        n = len(found.lost) + len(found.images)
        lines.append(f"{len(found.lost):,} of {n:,} annotations have no image ({found.lost[0]}): left out")
    return lines


def _counted(splits: list[str]) -> str:
    return ", ".join(f"{split} {n:,}" for split, n in sorted(Counter(splits).items()))


def _write_index(path: Path, rows: list[_Row], grouped: bool) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["image", "mask", "split", "tissue", *(["group"] if grouped else [])])
    for row in rows:
        writer.writerow([row.image, row.mask, row.split, row.tissue, *([row.group] if grouped else [])])
    write_whole(path, buffer.getvalue())
