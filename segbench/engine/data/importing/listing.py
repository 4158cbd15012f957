"""Finds the files below a folder, and the picture that an annotation belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segbench.engine.files.label_maps import without_ending
from segbench.engine.files.pictures import SUFFIXES
from segbench.errors import SegbenchError

MASK_FOLDERS = frozenset(("masks", "mask", "labels", "label", "annotations", "gt", "groundtruth", "ground_truth"))
"""Names of folders with label maps, beside one with images."""
IMAGE_FOLDERS = frozenset(("images", "image", "imgs", "img", "raw"))
_OTHER_FOLDERS = frozenset(("rois", "roi", "geojson", "segs", "seg", "json"))
SEG_NPY = "_seg.npy"
_PICTURES = (*SUFFIXES, ".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".lsm", ".stk", ".btf", ".tf8")
"""What names of pictures end in: those of slide scanners and microscopes are TIFFs, too."""
_IMAGE_WORD = re.compile(r"(?:img|image|im|raw)[_-](.+)|(.+)[_-](?:img|image|im|raw)", re.IGNORECASE)
"""Names of images that say that they are: ``000_img`` of ``000_masks``."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder."""

    folder: Path
    files: tuple[PurePosixPath, ...]
    """Relative to the folder, in the order of their names."""
    hidden: int = 0
    """Files that were passed over: their name or their folder's begins with a point, or is ``__MACOSX``."""

    def having(self, suffixes: Sequence[str]) -> tuple[PurePosixPath, ...]:
        """Return the files whose names end so, in any case."""
        return tuple(file for file in self.files if file.name.lower().endswith(tuple(suffixes)))

    def pictures(self) -> tuple[PurePosixPath, ...]:
        """Return the files whose names are those of pictures."""
        return tuple(file for file in self.having(_PICTURES) if not file.name.lower().endswith(SEG_NPY))


def list_files(path: Path) -> Listing:
    """Return the files below a folder, or the one file; raises SegbenchError where there is neither."""
    if path.is_file():
        return Listing(path.parent, (PurePosixPath(path.name),))
    if not path.is_dir():
        raise SegbenchError(f"{path} does not exist")
    found, hidden = [], 0
    try:
        for file in path.rglob("*"):
            if not file.is_file():
                continue
            place = PurePosixPath(file.relative_to(path).as_posix())
            if any(part.startswith(".") or part == "__MACOSX" for part in place.parts):
                hidden += 1
            else:
                found.append(place)
    except OSError as error:
        raise SegbenchError(f"{error.filename or path} cannot be read: {error.strerror or error}") from None
    return Listing(path, tuple(sorted(found)), hidden)


def stem_of(name: str) -> str:
    """Return a file's name without its suffix.

    Examples
    --------
    >>> stem_of("slide 1.ome.tif"), stem_of("a.b.PNG"), stem_of("notes.txt")
    ('slide 1', 'a.b', 'notes')
    """
    low = name.lower()
    for suffix in (".ome.tif", ".ome.tiff", *_PICTURES):
        if low.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return PurePosixPath(name).stem


def home_of(place: PurePosixPath) -> tuple[str, ...]:
    """Return the folders that a file lies in, without those that say what it is (images, masks)."""
    words = MASK_FOLDERS | IMAGE_FOLDERS | _OTHER_FOLDERS
    return tuple(part for part in place.parent.parts if part.lower() not in words)


def namer(pattern: str | None, usual: Callable[[str], str]) -> Callable[[str], str | None]:
    """Return what tells an image's name by that of its annotations: by the user's pattern, else the usual way.

    The function returns None for a file that the pattern does not fit.
    """
    if pattern is None:
        return usual
    before, after = pattern.split("{}")
    fits = re.compile(f"{re.escape(before)}(.+){re.escape(after)}")

    def name_of(file_name: str) -> str | None:
        found = fits.fullmatch(file_name)
        return found[1] if found else None

    return name_of


class Pictures:
    """Pictures that can be asked for by name."""

    def __init__(self, folder: Path, places: Iterable[PurePosixPath]) -> None:
        self.folder = folder
        self.places = tuple(places)
        self._by_stem: dict[str, list[PurePosixPath]] = {}
        self._by_name: dict[str, list[PurePosixPath]] = {}
        self._by_word: dict[str, list[PurePosixPath]] = {}
        for place in self.places:
            stem = stem_of(place.name)
            self._by_stem.setdefault(stem, []).append(place)
            word = _IMAGE_WORD.fullmatch(stem)
            if word:
                self._by_word.setdefault(word[1] or word[2], []).append(place)
            self._by_name.setdefault(place.name, []).append(place)

    def of(self, name: str, home: tuple[str, ...], annotation: Path) -> PurePosixPath | None:
        """Return the picture of annotations.

        Parameters
        ----------
        name
            Of the picture, without suffix or with it.
        home
            Folders of the annotations, see ``home_of``: of several pictures of the name, that in the same is meant.
        annotation
            Named in the error.

        Raises
        ------
        SegbenchError
            Several pictures may be meant.
        """
        for key in (name, stem_of(name), without_ending(name)):
            places = self._by_stem.get(key) or self._by_word.get(key)
            if places:
                return self._one(places, [place for place in places if home_of(place) == home], annotation)
        return None

    def by_path(self, path: str, near: PurePosixPath, annotation: Path) -> PurePosixPath | None:
        """Return the picture that a path in a file means: the one that shares most of its last parts.

        Only pictures that were listed are ever returned, wherever the path leads.

        Parameters
        ----------
        path
            As it is written, with either kind of slash.
        near
            Folder of the file with the path: of several pictures, those below it are meant.
        annotation
            Named in the error.
        """
        parts = PurePosixPath(path.replace("\\", "/")).parts
        places = self._by_name.get(parts[-1], []) if parts else []
        if len(places) < 2:
            return places[0] if places else None
        shared = {place: _shared_end(place.parts, parts) for place in places}
        best = [place for place in places if shared[place] == max(shared.values())]
        return self._one(best, [place for place in best if place.is_relative_to(near)], annotation)

    def _one(self, places: list[PurePosixPath], nearest: list[PurePosixPath], annotation: Path) -> PurePosixPath | None:
        for some in (nearest, places):
            if len(some) == 1:
                return some[0]
        shown = ", ".join(map(str, (nearest or places)[:3]))
        raise SegbenchError(
            f"{annotation} may belong to several images: {shown}; keep one, or name the folder --images"
        )


def without_masks(places: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """Return pictures without the label maps of others among them, such as ``a_cp_masks.png`` beside ``a.png``."""
    names = {(place.parent, stem_of(place.name)) for place in places}
    found = []
    for place in places:
        stem = stem_of(place.name)
        short = without_ending(stem)
        if short == stem or (place.parent, short) not in names:
            found.append(place)
    return found


def _shared_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    n = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        n += 1
    return n
