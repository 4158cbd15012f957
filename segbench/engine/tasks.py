"""Tasks: what is segmented from what, for each kind of dataset."""

from __future__ import annotations

from dataclasses import dataclass

TISSUENET_CHANNELS = ("nuclear", "membrane")
TISSUENET_TARGETS = ("nuclear", "wholecell")
TISSUENET_TISSUES = (
    "Breast",
    "Colon",
    "Epidermis",
    "Esophagus",
    "Lung",
    "Lymph Node",
    "Lymph Node Metastasis",
    "Pancreas",
    "Spleen",
    "Tonsil",
)
LIVECELL_CHANNELS = ("phase",)
LIVECELL_TARGETS = ("wholecell",)
LIVECELL_TISSUES = ("A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SKOV3", "SkBr3")
ALL_TISSUES = "all"
"""The training tissue, and the test tissue, that stands for every tissue of a dataset together."""


@dataclass(frozen=True)
class Task:
    """What is segmented from what: a dataset, its input channels and the target labels."""

    name: str
    """``DATASET-TARGET-Nch``, or ``DATASET-wholecell`` for the LIVECell layout."""
    dataset: str
    """The dataset's registered name."""
    channels: tuple[str, ...]
    """Input channels, by name, in the order in which methods see them."""
    target: str
    """Which label maps are segmented."""


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
