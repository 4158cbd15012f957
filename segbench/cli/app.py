"""The command line's entrance: answers a shell's completion at once, runs commands otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.cli._root import app

__all__ = ["app", "main"]
_COMPLETE = "_SEGBENCH_COMPLETE"


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit status 2."""
    asked = os.environ.get(_COMPLETE)
    if asked:
        from segbench.cli._completion import complete

        if complete(asked):
            return
    from segbench.cli._root import run

    run()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Typer takes longer to import than a completion may take
        if name == "app":
            from segbench.cli._root import app

            return app
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
