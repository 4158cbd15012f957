"""Small files: written whole or not at all, and JSON that is read however it was left."""

from __future__ import annotations

import json
import os
import secrets
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes | Iterable[str], *, sync: bool = False) -> None:
    """Write a file under another name beside it and rename it into place, so that whoever reads finds old or new.

    Parameters
    ----------
    path
        In a folder that there is.
    content
        Text (written as UTF-8), bytes, or pieces of text that need not all be in memory at once.
    sync
        Wait until it is on the disk before it gets its name: a power cut leaves old or new as well.

    Raises
    ------
    OSError
        It cannot be written; what was there stays.
    """
    # a name of its own: the dead and the living, of several machines, may write the same file
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    pieces: Iterable[str | bytes] = (content,) if isinstance(content, str | bytes) else content
    try:
        with part.open("wb") as file:
            for piece in pieces:
                file.write(piece.encode() if isinstance(piece, str) else piece)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


BAD_ARRAY = (OSError, ValueError, EOFError, SyntaxError, MemoryError, tokenize.TokenError)
"""What ``numpy.load`` raises for a .npy that is cut off or damaged, be it in its header."""


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty where there is none, or it is cut off, no JSON or no object."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
