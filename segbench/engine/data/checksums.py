"""Whether the files of a prepared dataset are what preparation wrote: sizes always, content where one was touched."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segbench.small_files import BAD_ARRAY, read_json, write_whole

SUMS = "checksums.json"
CHECKED = "checked.json"
_OWN = (SUMS, CHECKED)
_PREPARED = (".npy", ".parquet", ".json")


def note_checksums(folder: Path) -> None:
    """Write the size and SHA-256 of every file of a dataset that has just been prepared beside them."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in _OWN]
    write_whole(folder / SUMS, json.dumps({path.name: [path.stat().st_size, _digest(path)] for path in files}))
    _note_checked(folder, {path.name: _touched(path) for path in files})


def what_is_wrong(folder: Path) -> str | None:
    """Return what is wrong with a prepared dataset's files in a few words; None where they are what was written.

    Content is read again only where a file's size or time is not that of the last look. A dataset that an older
    segbench has prepared has no checksums: its array files are held against what their own headers say.
    """
    sums: dict[str, Any] = read_json(folder / SUMS)
    if not sums:
        return f"{SUMS} cannot be read" if (folder / SUMS).exists() else _wrong_array(folder)
    known = (*sums, *_OWN)
    unlisted = [path.name for path in folder.iterdir() if path.suffix in _PREPARED and path.name not in known]
    if unlisted:
        return f"{min(unlisted)} is not in {SUMS}"
    checked = read_json(folder / CHECKED)
    seen: dict[str, list[int]] = {}
    for name, told in sums.items():
        path = folder / name
        try:
            size, digest = told
            seen[name] = _touched(path)
            if seen[name][0] != size:
                return f"{name} has {seen[name][0]} bytes instead of {size}"
            if seen[name] != checked.get(name) and _digest(path) != digest:
                return f"{name} is not what was written"
        except (OSError, ValueError, TypeError) as error:
            return f"{name} cannot be read ({error})"
    if seen != checked:
        _note_checked(folder, seen)
    return None


def note_linked(folder: Path, names: Sequence[str]) -> None:
    """Tell that files which were just looked at got another link: that changes a time of theirs, and no content."""
    checked = read_json(folder / CHECKED)
    for name in names:
        with contextlib.suppress(OSError, ValueError, TypeError):
            now = _touched(folder / name)
            if checked.get(name, [])[:2] == now[:2]:
                checked[name] = now
    if checked:
        _note_checked(folder, checked)


def _wrong_array(folder: Path) -> str | None:
    import numpy as np

    for path in sorted(folder.glob("*.npy")):
        try:
            np.load(path, mmap_mode="r")
        except BAD_ARRAY as error:
            return f"{path.name} is cut off or no array ({' '.join(str(error).split())[:100]})"
    return None


def _note_checked(folder: Path, seen: dict[str, list[int]]) -> None:
    # a cache that others own may be read only: what changed is then read each time
    with contextlib.suppress(OSError):
        write_whole(folder / CHECKED, json.dumps(seen))


def _touched(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
