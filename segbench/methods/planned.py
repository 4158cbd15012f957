"""Cards of the study's methods whose code is not here yet: they can be planned, not launched."""

from __future__ import annotations

from typing import Any

from segbench.methods.card import Budget, Card, Resources
from segbench.methods.published import SCRIPTS, usability

_FOUR_GPUS = "paper and Slurm files: 4 GPUs"


