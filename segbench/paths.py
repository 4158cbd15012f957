"""Where segbench keeps what it builds once: the cache folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: ``$SEGBENCH_CACHE``, else ``~/.cache/segbench``. It need not exist yet."""
    return Path(os.environ.get("SEGBENCH_CACHE") or Path.home() / ".cache" / "segbench").expanduser().absolute()
