"""Which code runs: the git commit of a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import segbench


def git_commit() -> str | None:
    """Return the commit of the checkout that segbench runs from, ``-dirty`` where files differ; None if installed."""
    package = Path(segbench.__file__).parent
    if not (package.parent / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=package, capture_output=True, text=True, check=True, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
