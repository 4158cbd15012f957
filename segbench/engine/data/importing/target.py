"""A new folder that is written whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segbench.errors import SegbenchError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into, which gets its name when the block ends and is removed where it fails.

    Parameters
    ----------
    target
        Absolute; must not exist, or be an empty folder.

    Raises
    ------
    SegbenchError
        There is something, or the folder cannot be written.
    """
    check_new(target)
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.rename(target)
    except OSError as error:
        _remove(part, made)
        raise SegbenchError(
            f"{error.filename or target} cannot be read or written: {error.strerror or error}"
        ) from None
    except BaseException:
        _remove(part, made)
        raise


def check_new(target: Path) -> None:
    """Raise SegbenchError where a folder of this name would overwrite something."""
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise SegbenchError(f"{target} exists already; choose another folder for --to, or remove it first")


def _remove(part: Path, made: list[Path]) -> None:
    shutil.rmtree(part, ignore_errors=True)
    for folder in made:
        # only where nothing else has come into it meanwhile
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
