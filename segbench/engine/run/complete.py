"""Whether a built environment holds what its lock pins: what a killed build or a clean-up has left is not believed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_BEGINNING = 16 * 1024


def what_is_missing(folder: Path, versions: Mapping[str, str]) -> str | None:
    """Return the first thing that an environment lacks, in a few words; None where all is there.

    It looks at the interpreter, at the folder that each pinned distribution's installation has left, and whether the
    packages that this lists first are there. Nothing is imported: that takes a second a library.

    Parameters
    ----------
    folder
        Of the environment.
    versions
        Pinned versions by distribution name (lower case, hyphens).
    """
    python = folder / "bin" / "python"
    if not (python.is_file() and os.access(python, os.X_OK)):
        return "its interpreter"
    found = dict(_installed(folder))
    for name, version in versions.items():
        info = found.get((name, version))
        if info is None:
            return f"{name} {version}"
        gone = next((part for part in _parts(info) if not (info.parent / part).exists()), None)
        if gone is not None:
            return f"{gone} of {name} {version}"
    return None


def _installed(folder: Path) -> Iterator[tuple[tuple[str, str], Path]]:
    for place in (*(folder / "lib").glob("python3*/site-packages"), *(each for each in folder.glob("cp3*"))):
        for info in place.glob("*-*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
            yield (re.sub(r"[-_.]+", "-", name).lower(), version.replace("_", "-")), info


def _parts(info: Path) -> set[str]:
    """Return the packages and modules that a distribution's list of files begins with; none where there is no list."""
    try:
        with (info / "RECORD").open("rb") as file:
            found = file.read(_BEGINNING)
    except OSError:
        return {info.name}  # which is there: a distribution that keeps no list
    lines = found.decode(errors="replace").splitlines()
    whole = lines if len(found) < _BEGINNING else lines[:-1]
    paths = [line.partition(",")[0] for line in whole[:200]]
    tops = {path.partition("/")[0] for path in paths if not path.startswith(("..", "/", "__pycache__"))}
    return {top for top in tops if re.fullmatch(r"[\w.+-]+", top)}
