"""Models for tests that need no training: the watershed, and the plugin's threshold with a value given by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from segbench.engine.data.recipe import Recipe
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.grid.cards import get_card
from segbench.engine.models.trained import TrainedModel
from segbench.methods.card import Budget
from segbench.methods.job import Task

PLAIN = PreparationSettings(window=64, step=48, clahe_kernel=0)


def model_of(method: str, preparation: PreparationSettings = PLAIN, channels: tuple[str, ...] = ("nuclear",),
             settings: dict[str, Any] | None = None, **changes: Any) -> TrainedModel:  # fmt: skip
    """Return a model of a method, by default on nuclei in windows of 64 pixels."""
    return TrainedModel(
        name=method,
        method=method,
        task=Task("mine-nuclear-1ch", "mine", channels[:1], "nuclear"),
        settings={**get_card(method).defaults, **(settings or {})},
        budget=Budget(batch_size=1),
        recipe=Recipe(channels, preparation, pixel_size_um=changes.pop("pixel_size_um", None)),
        **changes,
    )


def threshold(folder: Path, value: float = 0.5, **settings: Any) -> TrainedModel:
    """Return a model of the plugin's method: cells are what is connected and brighter than a value."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "value.npy", value)
    (folder / "model.json").write_text(json.dumps({"run_id": "x"}))
    return model_of("threshold", settings=settings, folder=folder)
