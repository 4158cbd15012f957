"""The input scale as a setting of any method: declared here, read by the runner, so that no method has to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbench.methods.setting import Setting

SCALE = Setting(
    1.0,
    "windows are resampled by this before the method sees them, and what it finds is brought back",
    unit="factor",
    minimum=0.125,
    maximum=8,
    neutral_default=True,
)
PREDICTION_SCALE = Setting(
    "auto",
    "the same in prediction: auto is that of the training",
    unit="factor",
    type=float,
    words=("auto",),
    minimum=0.125,
    maximum=8,
    neutral_default=True,
    prediction=True,
)
SETTINGS = {"scale": SCALE, "prediction_scale": PREDICTION_SCALE}
"""By name; the runner reads them, no method has to."""


def scales_of(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Return the scales of training and of prediction that a job's settings ask for.

    Examples
    --------
    >>> scales_of({"scale": 2.5, "prediction_scale": "auto"}), scales_of({})
    ((2.5, 2.5), (1.0, 1.0))
    """
    train = float(settings.get("scale", 1.0))
    found = settings.get("prediction_scale", "auto")
    return train, train if found == "auto" else float(found)
