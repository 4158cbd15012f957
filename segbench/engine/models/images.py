"""Which images are meant by files, folders, patterns and lists, and what each one's results are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbench.engine.files.microscopy import SUFFIXES as MICROSCOPES
from segbench.engine.files.microscopy import is_picture, is_zarr, parts_of
from segbench.engine.files.pictures import SUFFIXES
from segbench.errors import SegbenchError

_LISTS = (".txt", ".lst")


@dataclass(frozen=True)
class ImageFile:
    """One image that is to be segmented."""

    path: Path
    """Absolute."""
    name: str
    """What its results begin with: a path without suffix, relative to the folder of results."""

    def size(self) -> int:
        """Return its bytes on the disk: how much work it is, as far as can be told without opening it."""
        return sum(part.stat().st_size for part in parts_of(self.path))

    def stamp(self) -> str:
        """Return what tells that it was changed: the bytes and the time of its newest file."""
        facts = [part.stat() for part in parts_of(self.path)]
        return f"{sum(one.st_size for one in facts)} bytes, {max((one.st_mtime_ns for one in facts), default=0)}"


def image_files(given: Sequence[str | os.PathLike[str]]) -> list[ImageFile]:
    """Return the images that are meant, each once, in order.

    A folder stands for the pictures directly in it, a pattern (``*``, ``?``, ``[]``, ``**``) for the files that it
    fits, and a ``.txt`` file for the paths in it, a line each, relative to it.

    Results are called as the images are, without the suffix; where the images lie in several folders, these are kept
    below the one that holds all; and where two differ in the suffix alone, that is kept.

    Raises
    ------
    SegbenchError
        A file does not exist, or a folder, pattern or list names no picture.
    """
    meant = (path for one in given for path in _meant(os.fspath(one)))
    found = dict.fromkeys(Path(os.path.normpath(path.absolute())) for path in meant)
    if not found:
        raise SegbenchError("name the images: files, folders, patterns, or a .txt file with a path a line")
    paths = list(found)
    base = Path(os.path.commonpath([path.parent for path in paths]))
    short = [_stem(path.relative_to(base)) for path in paths]
    times = Counter(name.lower() for name in short)
    names = [
        path.relative_to(base).as_posix() if times[name.lower()] > 1 else name
        for path, name in zip(paths, short, strict=True)
    ]
    return [ImageFile(path, name) for path, name in zip(paths, names, strict=True)]


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
        fitting = sorted(one for one in base.glob(str(path.relative_to(path.anchor))) if is_picture(one))
        if not fitting:
            raise SegbenchError(f"no file fits {text}")
        yield from fitting
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
    return path.suffix.lower() in (*SUFFIXES, *MICROSCOPES) and is_picture(path)


def _stem(path: Path) -> str:
    """Return a path without its suffix, of ``.ome.tif`` and ``.ome.zarr`` without both."""
    bare = path.with_suffix("")
    return (bare.with_suffix("") if bare.suffix.lower() == ".ome" else bare).as_posix()
