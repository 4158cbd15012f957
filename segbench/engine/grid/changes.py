"""How the budget and the resources of runs differ from those of their method's card."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from segbench.methods.card import Budget, Resources

_MOST = 1e6
_Amount = Annotated[float, Field(gt=0, le=_MOST)]
_Figure = Annotated[int, Field(gt=0, le=2**31 - 1)]


class _Change(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BudgetChange(_Change):
    """How a run's budget differs from its card's; what is None stays as it is."""

    scale: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Epochs or iterations times this."""
    epochs: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """0 applies a released model as it is: see ``GridSpec.start``."""
    iterations: _Figure | None = None
    batch_size: _Figure | None = None
    steps_per_epoch: _Figure | None = None

    def apply(self, budget: Budget) -> Budget:
        """Return the changed budget: an explicit figure wins over the scale, units that the method lacks go."""
        changed = budget if self.scale is None else budget.scaled(self.scale)
        if self.epochs is not None and budget.epochs is not None:
            changed = dataclasses.replace(changed, epochs=self.epochs)
        if self.iterations is not None and budget.iterations is not None:
            changed = dataclasses.replace(changed, iterations=self.iterations)
        if self.steps_per_epoch is not None and budget.epochs is not None:
            changed = dataclasses.replace(changed, steps_per_epoch=self.steps_per_epoch)
        if self.batch_size is not None:
            changed = dataclasses.replace(changed, batch_size=self.batch_size)
        return changed


class ResourceChange(_Change):
    """How a run's resources differ from its card's; they do not enter its id."""

    num_gpus: float | None = Field(default=None, ge=0, le=_MOST)
    num_cpus: _Amount | None = None
    memory_gb: _Amount | None = None
    gpu_memory_gb: _Amount | None = None

    @field_validator("num_gpus")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("must be a whole number where it is above 1")
        return value

    def apply(self, resources: Resources) -> Resources:
        """Return the changed resources; cores that are asked for by number are neither more nor less."""
        changed = self.model_dump(exclude_none=True)
        if self.num_cpus is not None:
            changed["gpu_cpus"] = 0.0
        return dataclasses.replace(resources, **changed)
