"""The segmentation methods: one module a method, each run in its own environment as ``python -m segbench.methods``.

This package imports on a bare Python with numpy; a method's library is imported only inside the method's functions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segbench.methods.base import DivergedError, ImageStack, Method, Progress
    from segbench.methods.card import Budget, Card, Resources, Usability
    from segbench.methods.checkpoints import Checkpoints
    from segbench.methods.job import Arrays, Devices, Job, Task
    from segbench.methods.predictions import Instances, LabelInstances, MaskInstances, PredictionSet, PredictionWriter
    from segbench.methods.setting import Setting

__all__ = [
    "Arrays",
    "Budget",
    "Card",
    "Checkpoints",
    "Devices",
    "DivergedError",
    "ImageStack",
    "Instances",
    "Job",
    "LabelInstances",
    "MaskInstances",
    "Method",
    "PredictionSet",
    "PredictionWriter",
    "Progress",
    "Resources",
    "Setting",
    "Task",
    "Usability",
]

_HOMES = {
    "base": ("DivergedError", "ImageStack", "Method", "Progress"),
    "card": ("Budget", "Card", "Resources", "Usability"),
    "checkpoints": ("Checkpoints",),
    "job": ("Arrays", "Devices", "Job", "Task"),
    "predictions": ("Instances", "LabelInstances", "MaskInstances", "PredictionSet", "PredictionWriter"),
    "setting": ("Setting",),
}


def __getattr__(name: str) -> Any:
    # Imported at first use: the runner must set the libraries' thread counts before numpy is loaded
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
