"""Where segbench keeps what it builds once: the cache folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from segbench.errors import SegbenchError


def cache_folder() -> Path:
    """Return the cache folder: ``$SEGBENCH_CACHE``, else ``~/.cache/segbench``. It need not exist yet."""
    return Path(os.environ.get("SEGBENCH_CACHE") or Path.home() / ".cache" / "segbench").expanduser().absolute()


def require_writable_folder(folder: Path, what: str) -> None:
    """Make sure, before long work, that a folder can be written into, or made where it is missing; nothing is left.

    Raises
    ------
    SegbenchError
        It cannot: the line begins with ``what`` ("cannot write results to out") and says why.
    """
    try:
        place = folder.absolute()
        while not place.exists():  # an OSError of its own where a name is too long or a parent is a file
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(20, f"{place} is a file")
        if not folder.exists() and len(os.fsencode(folder.name)) > 255:
            raise OSError(36, "File name too long")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise SegbenchError(f"{what}: {error.strerror or error}") from None


def require_writable_file(path: Path, what: str, *, below: bool = False) -> None:
    """Make sure, before long work, that a file can be written; what is there stays, and nothing is made.

    Parameters
    ----------
    path
        The file.
    what
        The error's line begins with it ("cannot write figure.pdf").
    below
        Its folder may be missing: it will be made.

    Raises
    ------
    SegbenchError
        It cannot: the line says why.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder: name a file")
        if len(os.fsencode(path.name)) > 255:
            raise OSError(36, "File name too long")
        if path.exists():
            with path.open("ab"):
                pass
        elif not below and not path.parent.exists():
            raise FileNotFoundError(2, f"there is no folder {path.parent}")
        require_writable_folder(path.parent, what)
    except OSError as error:
        raise SegbenchError(f"{what}: {error.strerror or error}") from None


@contextlib.contextmanager
def gone_if_failed(folder: Path, unless: str | None = None) -> Iterator[None]:
    """Let a folder be made within the block; where that fails, it and what was made above it are gone again.

    Parameters
    ----------
    folder
        One that was there before stays, with all that is in it.
    unless
        A pattern: where it holds such a file, the folder is worth keeping.
    """
    new = None if folder.exists() else folder.absolute()
    while new is not None and not new.parent.exists():
        new = new.parent
    try:
        yield
    except Exception:
        if new is not None and not (unless and any(folder.rglob(unless))):
            shutil.rmtree(new, ignore_errors=True)
        raise


def require_new_file(path: Path, option: str) -> None:
    """Make sure, before long work, that a file can be written where there is none yet.

    Raises
    ------
    SegbenchError
        There is something, or it cannot be written: the line says to give another ``option``.
    """
    if path.exists() or path.is_symlink():
        raise SegbenchError(f"{path} exists already: give another {option}, or remove it first")
    require_writable_file(path, f"cannot write {path}")
