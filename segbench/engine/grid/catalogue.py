"""The datasets that a grid can name, and what its expansion must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from segbench.engine.data.tasks import tasks_of
from segbench.engine.study.tissues import (
    LIVECELL_CHANNELS,
    LIVECELL_TARGETS,
    LIVECELL_TISSUES,
    TISSUENET_CHANNELS,
    TISSUENET_TARGETS,
    TISSUENET_TISSUES,
)
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.job import Task

STUDY_DATASETS = {
    "tissuenet": (tasks_of("tissuenet", TISSUENET_CHANNELS, TISSUENET_TARGETS), TISSUENET_TISSUES),
    "livecell": (tasks_of("livecell", LIVECELL_CHANNELS, LIVECELL_TARGETS), LIVECELL_TISSUES),
}
"""Tasks and tissues of the study's datasets, as they are known without having the data."""


@dataclass(frozen=True)
class DatasetFacts:
    """What expansion must know of a dataset."""

    tasks: tuple[Task, ...]
    tissues: tuple[str, ...]
    """Training tissues; empty where they are known only once the dataset is prepared."""
    fingerprint: str | None = None
    images: Mapping[str, int] = field(default_factory=dict)
    """Training images of each tissue, and of ``all``; empty where they are known only once the dataset is prepared."""


@dataclass(frozen=True)
class Catalogue:
    """The datasets that a grid can name."""

    datasets: Mapping[str, DatasetFacts] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    """Registered datasets of which nothing can be known, and why: their files are gone, say."""

    def with_study(self) -> Catalogue:
        """Return this catalogue with the study's datasets, as they are known without having the data."""
        study = {name: DatasetFacts(tasks, tissues) for name, (tasks, tissues) in STUDY_DATASETS.items()}
        # one of a study's name that is gone must not be taken for the study's
        return Catalogue({**{k: v for k, v in study.items() if k not in self.absent}, **self.datasets}, self.absent)

    def task(self, name: str) -> Task:
        """Return a task by name; raises SegbenchError with the nearest names."""
        known = {task.name: task for facts in self.datasets.values() for task in facts.tasks}
        if name not in known:
            for dataset, why in self.absent.items():
                if name.startswith(f"{dataset}-"):
                    raise SegbenchError(
                        f"dataset {dataset!r} of task {name!r} is not here: {why}. Bring it back, or forget it with "
                        f"'segbench data remove {dataset}'"
                    )
            raise unknown_name("task", name, known)
        return known[name]
