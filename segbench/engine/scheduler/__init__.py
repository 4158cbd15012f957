"""Where and when: hands runs to Ray, follows them, and takes their records into the store."""

from segbench.engine.results.launch_files import (
    CANCEL_FILE,
    DRIVER_LOCK,
    GRID_FILE,
    driver_lock,
    is_driven,
    read_driver_state,
    read_grid_file,
    run_from_dict,
)
from segbench.engine.scheduler.events import (
    Event,
    Finished,
    Note,
    Observer,
    Opened,
    Progressed,
    Started,
    Summary,
)
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.ray_session import Session, connected
from segbench.engine.scheduler.retries import Retries

__all__ = [
    "CANCEL_FILE",
    "DRIVER_LOCK",
    "GRID_FILE",
    "Event",
    "Finished",
    "LaunchOptions",
    "Note",
    "Observer",
    "Opened",
    "Progressed",
    "Retries",
    "Session",
    "Started",
    "Summary",
    "connected",
    "driver_lock",
    "is_driven",
    "read_driver_state",
    "read_grid_file",
    "run_from_dict",
]
