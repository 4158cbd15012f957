"""Cards of the study's methods whose code is not here yet: they can be planned, not launched."""

from __future__ import annotations

_FOUR_GPUS = "paper and Slurm files: 4 GPUs"
