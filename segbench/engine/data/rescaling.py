"""By how much the originals of a dataset are enlarged or shrunk before anything else is done to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from segbench.errors import SegbenchError

_LEAST, _MOST = 1 / 64, 16.0
"""Factors outside of these are taken for a wrong unit."""


@dataclass(frozen=True)
class Rescaling:
    """By how much the originals of a dataset were enlarged (above 1) or shrunk before they were cut into windows."""

    factor: float | None = None
    """The same for every image; None where each has its own."""
    pixel_size_um: float | None = None
    """Side of a pixel in micrometres that every image was brought to; None where ``factor`` is the same for all."""

    def factor_of(self, pixel_size_um: float | None, where: str) -> float:
        """Return the factor of an image whose pixels have this side, None where it is not known.

        Raises
        ------
        SegbenchError
            It depends on the pixel size, which is not known, or it is absurd. ``where`` names the image.
        """
        if self.factor is not None:
            factor, told = self.factor, ""
        elif pixel_size_um is None or self.pixel_size_um is None:
            raise SegbenchError(f"{where}: its pixel size is not known, say it with --pixel-size (micrometres)")
        else:
            factor, told = pixel_size_um / self.pixel_size_um, f" ({pixel_size_um:g} um a pixel)"
        if not _LEAST <= factor <= _MOST:
            raise SegbenchError(f"{where}{told} would be rescaled by {factor:.4g}; 1/64 to 16 can be meant")
        return factor

    def to_dict(self) -> dict[str, float | None]:
        """Return the fields as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Rescaling:
        """Return what ``to_dict`` gave."""
        return cls(**raw)
