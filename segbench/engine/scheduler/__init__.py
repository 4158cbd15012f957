"""Many attempts: hands runs to an executor, follows them, tries them again, and takes their records into the store."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.engine.scheduler.events import (
        Event,
        Finished,
        Note,
        Observer,
        Opened,
        Progressed,
        Started,
        Summary,
        ignore,
    )
    from segbench.engine.scheduler.forecast import Forecast
    from segbench.engine.scheduler.launching import last_options, launch, retry
    from segbench.engine.scheduler.options import LaunchOptions, Retries
    from segbench.engine.scheduler.planning import Planned, plan
    from segbench.engine.scheduler.request import GridRequest

__all__ = [
    "Event",
    "Finished",
    "Forecast",
    "GridRequest",
    "LaunchOptions",
    "Note",
    "Observer",
    "Opened",
    "Planned",
    "Progressed",
    "Retries",
    "Started",
    "Summary",
    "ignore",
    "last_options",
    "launch",
    "plan",
    "retry",
]

# a plan needs nothing of what an attempt needs, and who only writes options needs neither
_HOMES = {
    "events": ("Event", "Finished", "Note", "Observer", "Opened", "Progressed", "Started", "Summary", "ignore"),
    "forecast": ("Forecast",),
    "launching": ("last_options", "launch", "retry"),
    "options": ("LaunchOptions", "Retries"),
    "planning": ("Planned", "plan"),
    "request": ("GridRequest",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
