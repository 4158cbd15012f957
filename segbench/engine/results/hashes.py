"""Hashes the files of a finished attempt, and finds those that are not what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from segbench.engine.results.attempts import AttemptFolder


def hash_files(attempt: AttemptFolder) -> dict[str, str]:
    """Return the SHA-256 of every file in an attempt's folder but the record, by its path there."""
    left_out = {attempt.record, attempt.broken_record, attempt.unpushed}
    files = [path for path in sorted(attempt.path.rglob("*")) if _is_file_of(attempt, path) and path not in left_out]
    return {path.relative_to(attempt.path).as_posix(): _sha256(path) for path in files}


def changed_files(attempt: AttemptFolder, files: Mapping[str, str]) -> list[str] | None:
    """Return what has become of the files of a record, a line each that is not as it was.

    Returns
    -------
    list of str or None
        Empty where all is as it was; None where no file of the attempt is here (merged or fetched without artifacts).
    """
    here = {name: attempt.path / name for name in files if _is_file_of(attempt, attempt.path / name)}
    if files and not here:
        return None
    gone = [f"{name} is gone" for name in files if name not in here]
    return gone + [f"{name} was changed" for name, path in here.items() if _sha256(path) != files[name]]


def _is_file_of(attempt: AttemptFolder, path: Path) -> bool:
    """Return whether a path, and all that it links to, lies in the attempt's folder: records come from anyone."""
    try:
        return path.is_file() and path.resolve().is_relative_to(attempt.path.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
