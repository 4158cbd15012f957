"""Keeps the warnings of a reader's library from standard error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(library: str) -> Iterator[None]:
    """Let a library log nothing while the block runs: what matters of a file is raised by us, in one line."""
    log = logging.getLogger(library)
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
