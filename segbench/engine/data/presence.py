"""What is known of a registered dataset whose files may be gone or damaged; opens no tables."""

from __future__ import annotations

from segbench.engine.data.prepared import PreparedDataset
from segbench.engine.data.registry import layout
from segbench.engine.data.spec import DatasetSpec
from segbench.engine.data.tasks import tasks_of
from segbench.errors import SegbenchError
from segbench.methods.job import Task
from segbench.small_files import BAD_ARRAY


def tasks_or_why(spec: DatasetSpec, prepared: PreparedDataset | None) -> tuple[tuple[Task, ...], str | None]:
    """Return a dataset's tasks, or why there are none: its files are gone, say."""
    try:
        return (tasks_of(spec.name, *layout(spec)) if prepared is None else prepared.tasks), None
    except (SegbenchError, OSError) as error:
        return (), " ".join(str(error).split())


def windows_of(prepared: PreparedDataset) -> int | None:
    """Return how many windows a dataset has; None where its arrays cannot be read."""
    try:
        return sum(map(prepared.n_windows, prepared.splits))
    except BAD_ARRAY:
        return None
