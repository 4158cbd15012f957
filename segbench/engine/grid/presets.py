"""The grids that have a name: the demo, the paper's runs and the full product."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from segbench.engine.grid.catalogue import STUDY_DATASETS
from segbench.engine.grid.changes import BudgetChange
from segbench.engine.grid.controls import ANNOTATORS, CONTROLS
from segbench.engine.grid.spec import Block, GridSpec
from segbench.engine.study.methods import STUDY_METHODS
from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import unknown_name
from segbench.methods.job import Task

DEMO = GridSpec(
    blocks=(
        Block(
            methods=("watershed", "stardist", "cellpose"),
            tasks=("synthetic-nuclear-1ch", "synthetic-wholecell-2ch"),
        ),
    ),
    budgets={
        "stardist": BudgetChange(epochs=6, steps_per_epoch=80, batch_size=8),
        "cellpose": BudgetChange(epochs=8),
    },
    # small patches of small cells, for processors; the published settings are the cards'
    settings={
        "stardist": {"patch_size": 64, "learning_rate": 1e-3, "val_windows": 20, "calibration_windows": 4},
        "cellpose": {"crop": 64, "diam_mean": 12.0, "calibration_windows": 8},
    },
)
"""Three methods, two tasks, budgets that a two-core machine trains in minutes."""


CONTROLS_PRESET = "controls"


def controls_of(tasks: Sequence[Task], annotated: Collection[str]) -> GridSpec:
    """Return the grid of every control on these tasks; other annotators only where a dataset has several.

    Parameters
    ----------
    tasks
        Of the datasets that are meant.
    annotated
        Names of the datasets of which test pictures have several annotations.
    """
    usual = tuple(name for name in CONTROLS if name != ANNOTATORS)
    blocks = [Block(methods=usual, tasks=tuple(task.name for task in tasks))]
    several = tuple(task.name for task in tasks if task.dataset in annotated)
    if several:
        blocks.append(Block(methods=(ANNOTATORS,), tasks=several))
    return GridSpec(blocks=tuple(blocks))


def preset(name: str) -> GridSpec:
    """Return a preset: ``demo``, ``paper`` (the published 138 runs) or ``full`` (954).

    The preset ``controls`` depends on the datasets that there are: see ``controls_of``.

    Examples
    --------
    >>> len(preset("paper").blocks)
    2
    """
    study_tasks = tuple(task.name for tasks, _ in STUDY_DATASETS.values() for task in tasks)
    presets = {
        "demo": DEMO,
        "paper": GridSpec(
            recipe="study",
            blocks=(
                Block(methods=STUDY_METHODS, tasks=study_tasks),
                Block(methods=("swin-s",), tasks=study_tasks, tissues=("each",)),
            ),
        ),
        "full": GridSpec(
            recipe="cards", blocks=(Block(methods=STUDY_METHODS, tasks=study_tasks, tissues=(ALL_TISSUES, "each")),)
        ),
    }
    if name not in presets:
        raise unknown_name("preset", name, [*presets, CONTROLS_PRESET])
    return presets[name]
