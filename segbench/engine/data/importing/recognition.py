"""Guesses what kind of annotations a folder holds, for a message that says what to do."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from segbench.engine.data.importing.listing import IMAGE_FOLDERS, MASK_FOLDERS, SEG_NPY, stem_of
from segbench.engine.files.label_maps import without_ending
from segbench.engine.files.pictures import SUFFIXES

_MOST, _HEAD = 5000, 65536
"""Files that are looked at, and bytes of a JSON file."""


def recognised_kind(folder: Path) -> str | None:
    """Return the kind of annotations that the names of a folder's files look like; None for none."""
    places = [file.relative_to(folder) for file in itertools.islice(folder.rglob("*"), _MOST) if file.is_file()]
    files = [PurePosixPath(place.as_posix()) for place in places if not place.name.startswith(".")]
    for kind, is_of in _SIGNS.items():
        if any(is_of(file, folder) for file in files):
            return kind
    pictures = [file for file in files if file.suffix.lower() in SUFFIXES]
    masks = [file for file in pictures if file.parent.name.lower() in MASK_FOLDERS]
    if masks and _one_each(masks, pictures):
        return "instances"
    return (
        "suffix"
        if masks or any(without_ending(stem_of(file.name)) != stem_of(file.name) for file in pictures)
        else None
    )


def _one_each(masks: list[PurePosixPath], pictures: list[PurePosixPath]) -> bool:
    """Return whether the first folder of masks lies beside one picture alone."""
    home = masks[0].parent
    beside = [
        file
        for file in pictures
        if file.parent == home.parent
        or (file.parent.parent == home.parent and file.parent.name.lower() in IMAGE_FOLDERS)
    ]
    return len(beside) == 1 and sum(file.parent == home for file in masks) > 1


def _holds_rois(file: PurePosixPath, folder: Path) -> bool:
    if file.suffix.lower() != ".zip":
        return file.suffix.lower() == ".roi"
    try:
        with zipfile.ZipFile(folder / file) as archive:
            return any(name.lower().endswith(".roi") for name in archive.namelist())
    except Exception:  # a guess: a broken zip is no sign
        return False


def _holds_coco(file: PurePosixPath, folder: Path) -> bool:
    if file.suffix.lower() != ".json":
        return False
    try:
        with (folder / file).open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError:
        return False
    return b'"images"' in head or b'"annotations"' in head


_SIGNS: Mapping[str, Callable[[PurePosixPath, Path], bool]] = {
    "cellpose": lambda file, _: file.name.lower().endswith(SEG_NPY),
    "geojson": lambda file, _: file.suffix.lower() == ".geojson",
    "imagej": _holds_rois,
    "coco": _holds_coco,
}
