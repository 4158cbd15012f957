"""Runs the ``check_`` functions of modules beside this one in the torch environment, where there is no pytest.

    python checking.py REPORT.json MODULE...

Writes what went wrong in each, by module and function, null where nothing did.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def refusal(call: Callable[[], Any], *kinds: type[Exception]) -> str:
    """Return what was said when a call was refused with one of these errors."""
    try:
        call()
    except kinds as error:
        return str(error)
    raise AssertionError("it was not refused")


def run_checks(module: ModuleType) -> dict[str, str | None]:
    """Call each and return what went wrong, None where nothing did."""
    found: dict[str, str | None] = {}
    for name, check in list(vars(module).items()):
        if name.startswith("check_"):
            try:
                check()
                found[name] = None
            except Exception:
                found[name] = traceback.format_exc()
    return found


if __name__ == "__main__":
    report = {name: run_checks(importlib.import_module(name)) for name in sys.argv[2:]}
    Path(sys.argv[1]).write_text(json.dumps(report))
