"""segbench: train, compare and publish cell segmentation methods on equal terms.

The names in ``__all__`` are what segbench offers to Python; everything else may change without notice. Each is imported
at its first use, so that ``import segbench`` is instant, and what an author of a method needs (``Method``, ``Card``,
...) works on a bare Python with numpy.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, whose import would take longer than all of this module
if TYPE_CHECKING:
    from typing import Any

    from segbench.analysis.result import Result
    from segbench.analysis.results import Results
    from segbench.engine.metrics.bootstrap import confidence_intervals
    from segbench.engine.metrics.cells import cell_metrics
    from segbench.engine.metrics.coco_json import CocoEvaluation
    from segbench.engine.metrics.diagnosis import Diagnosis
    from segbench.engine.metrics.evaluation import Evaluation, Scores
    from segbench.engine.metrics.scoring import diagnose, evaluate, evaluate_coco, sweep
    from segbench.engine.metrics.sweep import Sweep
    from segbench.engine.scheduler.forecast import Forecast
    from segbench.engine.scheduler.grids import Launched, LaunchedRun, Plan, launch, plan
    from segbench.engine.scheduler.planning import Planned
    from segbench.errors import ResultsWarning, SegbenchError
    from segbench.methods.base import ImageStack, Method, Progress
    from segbench.methods.card import Budget, Card, Resources, Usability
    from segbench.methods.checkpoints import Checkpoints
    from segbench.methods.job import Job
    from segbench.methods.predictions import Instances, LabelInstances, MaskInstances
    from segbench.methods.setting import Setting

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "Card",
    "Checkpoints",
    "CocoEvaluation",
    "Diagnosis",
    "Evaluation",
    "Forecast",
    "ImageStack",
    "Instances",
    "Job",
    "LabelInstances",
    "Launched",
    "LaunchedRun",
    "MaskInstances",
    "Method",
    "Plan",
    "Planned",
    "Progress",
    "Resources",
    "Result",
    "Results",
    "ResultsWarning",
    "Scores",
    "SegbenchError",
    "Setting",
    "Sweep",
    "Usability",
    "cell_metrics",
    "confidence_intervals",
    "diagnose",
    "evaluate",
    "evaluate_coco",
    "launch",
    "plan",
    "sweep",
]

_HOMES = {
    "analysis.result": ("Result",),
    "analysis.results": ("Results",),
    "engine.metrics.bootstrap": ("confidence_intervals",),
    "engine.metrics.cells": ("cell_metrics",),
    "engine.metrics.coco_json": ("CocoEvaluation",),
    "engine.metrics.diagnosis": ("Diagnosis",),
    "engine.metrics.evaluation": ("Evaluation", "Scores"),
    "engine.metrics.scoring": ("diagnose", "evaluate", "evaluate_coco", "sweep"),
    "engine.metrics.sweep": ("Sweep",),
    "engine.scheduler.forecast": ("Forecast",),
    "engine.scheduler.grids": ("Launched", "LaunchedRun", "Plan", "launch", "plan"),
    "engine.scheduler.planning": ("Planned",),
    "errors": ("ResultsWarning", "SegbenchError"),
    "methods.base": ("ImageStack", "Method", "Progress"),
    "methods.card": ("Budget", "Card", "Resources", "Usability"),
    "methods.checkpoints": ("Checkpoints",),
    "methods.job": ("Job",),
    "methods.predictions": ("Instances", "LabelInstances", "MaskInstances"),
    "methods.setting": ("Setting",),
}


if not TYPE_CHECKING:  # a type checker that saw it would let a misspelt name pass

    def __getattr__(name: str) -> Any:
        for module, names in _HOMES.items():
            if name in names:
                found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
