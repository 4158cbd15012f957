"""Runs the ``check_`` functions of a script in the torch environment, where there is no pytest."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def refusal(call: Callable[[], Any], *kinds: type[Exception]) -> str:
    """Return what was said when a call was refused with one of these errors."""
    try:
        call()
    except kinds as error:
        return str(error)
    raise AssertionError("it was not refused")


def run_checks(script: Mapping[str, Any]) -> None:
    """Call each and write what went wrong, null where nothing did, to the file that the command line names."""
    found: dict[str, str | None] = {}
    for name, check in list(script.items()):
        if name.startswith("check_"):
            try:
                check()
                found[name] = None
            except Exception:
                found[name] = traceback.format_exc()
    Path(sys.argv[1]).write_text(json.dumps(found))
