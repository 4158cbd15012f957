"""Which tasks a dataset gives, by its channels and targets."""

from __future__ import annotations

from segbench.engine.study.tissues import LIVECELL_CHANNELS, TISSUENET_CHANNELS, TISSUENET_TARGETS
from segbench.methods.job import Task

ALL_TISSUES = "all"
"""The training tissue, and the test tissue, that stands for every tissue of a dataset together."""


def tasks_of(dataset: str, channels: tuple[str, ...], targets: tuple[str, ...]) -> tuple[Task, ...]:
    """Return the tasks that a dataset with these channels and targets gives.

    TissueNet's layout (nuclear and membrane channels) gives four: each target from its own channel, and from both.
    LIVECell's (one phase-contrast channel) gives one. Any other layout gives one task a target, from all channels.

    Examples
    --------
    >>> [t.name for t in tasks_of("tissuenet", ("nuclear", "membrane"), ("nuclear", "wholecell"))]
    ['tissuenet-nuclear-1ch', 'tissuenet-nuclear-2ch', 'tissuenet-wholecell-1ch', 'tissuenet-wholecell-2ch']
    >>> tasks_of("livecell", ("phase",), ("wholecell",))
    (Task(name='livecell-wholecell', dataset='livecell', channels=('phase',), target='wholecell'),)
    """
    if channels == LIVECELL_CHANNELS:
        return tuple(Task(f"{dataset}-{target}", dataset, channels, target) for target in targets)
    tasks: list[Task] = []
    for target in targets:
        if channels == TISSUENET_CHANNELS and target in TISSUENET_TARGETS:
            own = channels[TISSUENET_TARGETS.index(target)]
            tasks.append(Task(f"{dataset}-{target}-1ch", dataset, (own,), target))
        tasks.append(Task(f"{dataset}-{target}-{len(channels)}ch", dataset, channels, target))
    return tuple(tasks)


def counterpart(task: Task, tasks: tuple[Task, ...]) -> Task | None:
    """Return the task of the same dataset and channels that segments TissueNet's other target; None elsewhere.

    Examples
    --------
    >>> four = tasks_of("t", TISSUENET_CHANNELS, TISSUENET_TARGETS)
    >>> counterpart(four[0], four).name
    't-wholecell-1ch'
    """
    if task.target not in TISSUENET_TARGETS:
        return None
    other = TISSUENET_TARGETS[1 - TISSUENET_TARGETS.index(task.target)]
    return next((t for t in tasks if t.target == other and len(t.channels) == len(task.channels)), None)
