"""What to run: tasks, cards, presets and files, expanded into runs with ids."""

from segbench.engine.grid.catalogue import Catalogue, DatasetFacts
from segbench.engine.grid.changes import BudgetChange, ResourceChange
from segbench.engine.grid.expansion import Filters, expand
from segbench.engine.grid.presets import DEMO, preset
from segbench.engine.grid.run import Run, run_from_dict, run_to_dict
from segbench.engine.grid.spec import Block, GridSpec, grid_of, read_grid

__all__ = [
    "DEMO",
    "Block",
    "BudgetChange",
    "Catalogue",
    "DatasetFacts",
    "Filters",
    "GridSpec",
    "ResourceChange",
    "Run",
    "expand",
    "grid_of",
    "preset",
    "read_grid",
    "run_from_dict",
    "run_to_dict",
]
