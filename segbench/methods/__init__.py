"""The segmentation methods: one module a method, each run in its own environment as ``python -m segbench.methods``.

This package imports on a bare Python with numpy; a method's library is imported only inside the method's functions.
"""

from segbench.methods.base import ImageStack, Method, Progress
from segbench.methods.card import Budget, Card, Resources, Usability
from segbench.methods.job import Arrays, Devices, Job, TaskSpec
from segbench.methods.predictions import LabelInstances, MaskInstances, PredictionSet, PredictionWriter

__all__ = [
    "Arrays",
    "Budget",
    "Card",
    "Devices",
    "ImageStack",
    "Job",
    "LabelInstances",
    "MaskInstances",
    "Method",
    "PredictionSet",
    "PredictionWriter",
    "Progress",
    "Resources",
    "TaskSpec",
    "Usability",
]
