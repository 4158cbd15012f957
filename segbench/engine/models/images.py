"""Which images are meant by files, folders, patterns and lists, and what each one's results are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.engine.files.microscopy import SUFFIXES as MICROSCOPES
from segbench.engine.files.microscopy import is_picture, is_zarr, parts_of
from segbench.engine.files.pictures import SUFFIXES
from segbench.errors import SegbenchError

APPLY = "apply.json"
"""In a folder of results: which model was applied, and how."""
_LISTS = (".txt", ".lst")


@dataclass(frozen=True)
class ImageFile:
    """One image that is to be segmented."""

    path: Path
    """Absolute."""
    name: str
    """What its results begin with: a path without suffix, relative to the folder of results."""

    def size(self) -> int:
        """Return its bytes on the disk: how much work it is, as far as can be told; 0 where it cannot be."""
        try:
            return sum(part.stat().st_size for part in parts_of(self.path))
        except OSError:
            return 0

    def stamp(self) -> str:
        """Return what tells that it was changed: the bytes and the time of its newest file."""
        facts = [part.stat() for part in parts_of(self.path)]
        return f"{sum(one.st_size for one in facts)} bytes, {max((one.st_mtime_ns for one in facts), default=0)}"


def image_files(
    given: Sequence[str | os.PathLike[str]], results: Path | None = None, note: Callable[[str], None] = lambda _: None
) -> list[ImageFile]:
    """Return the images that are meant, each once, in order.

    A folder stands for the pictures directly in it, a pattern (``*``, ``?``, ``[]``, ``**``) for those that it fits
    (for any files, where none looks like a picture), and a ``.txt`` file for the paths in it, a line each, relative to
    it.

    Results are called as the images are, without the suffix; where the images lie in several folders, these are kept
    below the one that holds all; and where two differ in the suffix alone, that is kept.

    Parameters
    ----------
    given
        Files, folders, patterns and lists.
    results
        The folder that results go into: what lies in it is no image, whichever pattern fits it.
    note
        Is told what was left out for that.

    Raises
    ------
    SegbenchError
        A file does not exist, or a folder, pattern or list names no picture.
    """
    every = dict.fromkeys(Path(os.path.normpath(path.absolute())) for one in given for path in _there(os.fspath(one)))
    inside = None
    if results is not None and os.path.isfile(results / APPLY):  # noqa: PTH113 - False, too, where it may not be read
        inside = Path(os.path.normpath(results.absolute()))
    found = [path for path in every if inside is None or inside not in path.parents]
    if len(found) < len(every):
        note(f"note: {len(every) - len(found):,} files left out: they lie in {results}, the folder of the results")
    if not found:
        raise SegbenchError("name the images: files, folders, patterns, or a .txt file with a path a line")
    base = Path(os.path.commonpath([path.parent for path in found]))
    short = [_stem(path.relative_to(base)) for path in found]
    times = Counter(name.lower() for name in short)
    names = [
        path.relative_to(base).as_posix() if times[name.lower()] > 1 else name
        for path, name in zip(found, short, strict=True)
    ]
    return [ImageFile(path, name) for path, name in zip(found, names, strict=True)]


def _there(text: str) -> list[Path]:
    try:
        return list(_meant(text))
    except OSError as error:
        raise SegbenchError(f"{text[:200]} cannot be read: {error.strerror or error}") from None


def _meant(text: str) -> Iterator[Path]:
    path = Path(text)
    if path.is_dir() and not is_zarr(path):
        inside = sorted(one for one in path.iterdir() if _looks_like_picture(one))
        if not inside:
            raise SegbenchError(f"{path} holds no picture directly: name the folder that does, or '{path}/**/*.tif'")
        yield from inside
    elif path.suffix.lower() in _LISTS and path.is_file():
        yield from _listed(path)
    elif is_picture(path):
        yield path
    elif any(sign in text for sign in "*?["):
        base = Path(path.anchor or ".")
        fitting = sorted(base.glob(str(path.relative_to(path.anchor))))
        pictures = [one for one in fitting if _looks_like_picture(one)] or [one for one in fitting if is_picture(one)]
        if not pictures:
            raise SegbenchError(f"no file fits {text}")
        yield from pictures
    else:
        raise SegbenchError(f"{path} does not exist")


def _listed(path: Path) -> Iterator[Path]:
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except UnicodeDecodeError:
        raise SegbenchError(f"{path} is no list of paths: it is not text") from None
    named = [(number, line) for number, line in enumerate(lines, start=1) if line and not line.startswith("#")]
    if not named:
        raise SegbenchError(f"{path} lists no image")
    for number, line in named:
        picture = path.parent / line
        if not is_picture(picture):
            raise SegbenchError(f"{path}, line {number}: {picture} does not exist")
        yield picture


def _looks_like_picture(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    # a link that leads nowhere is one, too: it is told, and not passed over
    named = path.suffix.lower() in (*SUFFIXES, *MICROSCOPES)
    return named and (is_picture(path) or (path.is_symlink() and not path.exists()))


def _stem(path: Path) -> str:
    """Return a path without its suffix, of ``.ome.tif`` and ``.ome.zarr`` without both."""
    bare = path.with_suffix("")
    return (bare.with_suffix("") if bare.suffix.lower() == ".ome" else bare).as_posix()
