"""How a dataset's images became windows, as plain data: all that is needed to do the same to further images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segbench.engine.data.prepared import PreparedDataset
from segbench.engine.data.rescaling import Rescaling
from segbench.engine.data.spec import PreparationSettings


@dataclass(frozen=True)
class Recipe:
    """How images became windows, and what was known of their scale.

    Examples
    --------
    >>> recipe = Recipe(("nuclear", "membrane"), PreparationSettings(), Rescaling(factor=0.5), 0.65, {"nuclear": 12.0})
    >>> Recipe.from_dict(recipe.to_dict()) == recipe
    True
    """

    channels: tuple[str, ...]
    """Of the dataset, in its order; a task's may be fewer."""
    preparation: PreparationSettings
    rescaling: Rescaling | None = None
    """By how much the originals were rescaled; None where they were not."""
    pixel_size_um: float | None = None
    """Side of a window's pixel in micrometres; None where it is not known."""
    diameters: Mapping[str, float] = field(default_factory=dict)
    """Median diameter of the training cells of each target that has any, in pixels of the windows."""

    @classmethod
    def of(cls, data: PreparedDataset) -> Recipe:
        """Return how a prepared dataset was made."""
        return cls(
            channels=data.channels,
            preparation=data.spec.preparation,
            rescaling=data.rescaling,
            pixel_size_um=data.pixel_size_um,
            diameters={target: median for target, (median, _) in (data.diameters or {}).items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        return {
            "channels": list(self.channels),
            "preparation": self.preparation.to_dict(),
            "rescaling": None if self.rescaling is None else self.rescaling.to_dict(),
            "pixel_size_um": self.pixel_size_um,
            "diameters": dict(self.diameters),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Recipe:
        """Return what ``to_dict`` gave, or JSON of it.

        Raises
        ------
        SegbenchError
            A setting of the preparation is unknown or absurd.
        KeyError, TypeError, ValueError
            A field is missing or of another kind.
        """
        rescaling, size = raw["rescaling"], raw["pixel_size_um"]
        return cls(
            channels=tuple(str(name) for name in raw["channels"]),
            preparation=PreparationSettings.from_dict(raw["preparation"]),
            rescaling=None if rescaling is None else Rescaling.from_dict(rescaling),
            pixel_size_um=None if size is None else float(size),
            diameters={str(target): float(median) for target, median in raw["diameters"].items()},
        )
