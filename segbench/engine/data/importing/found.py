"""What was found below a folder of annotations: pictures, each with what draws its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from segbench.engine.data.importing.drawing import Drawn, Size
from segbench.engine.data.importing.listing import Listing, Pictures, list_files, without_masks
from segbench.engine.data.importing.options import ImportOptions
from segbench.engine.data.importing.splits import split_named
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class Annotated:
    """A picture with its annotations."""

    picture: Path
    place: PurePosixPath
    """Of the picture, below the images' folder."""
    annotation: Path
    """File or folder that errors name."""
    draw: Callable[[Size], Drawn]
    """Draws the cells on an image of this size."""
    split: str | None = None
    """That the folders of picture or annotation name."""
    size: Size | None = None
    """Of the image, where the annotations tell it."""


@dataclass
class Found:
    """Everything of one import."""

    images: list[Annotated] = field(default_factory=list)
    bare: list[Annotated] = field(default_factory=list)
    """Pictures without annotations."""
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Annotations whose image is not there."""
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Annotation:
    """Annotations of one image, before it is known."""

    files: tuple[PurePosixPath, ...]
    name: str
    """Of the image, with or without suffix."""
    home: tuple[str, ...]


def pictures_for(path: Path, listing: Listing, options: ImportOptions, found: Found) -> Pictures:
    """Return the pictures that annotations may belong to: those of ``--images``, else those beside the annotations."""
    if options.images is not None:
        listing = list_files(options.images)
        _note_hidden(listing, found)
    elif path.is_file():
        listing = list_files(path.parent)
    return Pictures(listing.folder, without_masks(listing.pictures()))


def list_annotations(path: Path, found: Found) -> Listing:
    """Return the files below the annotations' folder; what was passed over is noted."""
    listing = list_files(path)
    _note_hidden(listing, found)
    return listing


def pair(
    annotations: list[Annotation],
    listing: Listing,
    pictures: Pictures,
    found: Found,
    drawer: Callable[[tuple[Path, ...]], Callable[[Size], Drawn]],
) -> None:
    """Add each picture with its annotations to what was found, and what has no partner.

    Parameters
    ----------
    annotations
        Of one image each.
    listing, pictures
        The files below the two folders.
    found
        Is added to.
    drawer
        Gives what draws the cells of some files.

    Raises
    ------
    SegbenchError
        An annotation may be of several pictures, or a picture has two.
    """
    taken: dict[PurePosixPath, Annotation] = {}
    for one in annotations:
        where = listing.folder / one.files[0]
        place = pictures.of(one.name, one.home, where)
        if place is None and len(annotations) == len(pictures.places) == 1:
            place = pictures.places[0]
        if place is None:
            found.lost.append(str(one.files[0]))
            continue
        if place in taken:
            raise SegbenchError(
                f"image {place} has two annotations, {taken[place].files[0]} and {one.files[0]}: keep one, or say with "
                "--pattern '{}_ENDING' which are meant"
            )
        taken[place] = one
        paths = tuple(listing.folder / file for file in one.files)
        found.images.append(
            Annotated(pictures.folder / place, place, where, drawer(paths), split_named(one.files[0], place))
        )
    add_bare([place for place in pictures.places if place not in taken], pictures, found)


def add_bare(places: list[PurePosixPath], pictures: Pictures, found: Found) -> None:
    """Add pictures that have no annotations."""
    for place in places:
        picture = pictures.folder / place
        found.bare.append(Annotated(picture, place, picture, no_cells, split_named(place)))


def no_cells(size: Size) -> Drawn:
    """Return the label map of an image without cells."""
    import numpy as np

    return Drawn(np.zeros(size, np.int32))


def _note_hidden(listing: Listing, found: Found) -> None:
    if listing.hidden:
        found.notes.append(f"{listing.folder}: {listing.hidden:,} hidden files (._NAME and the like) are left out")
