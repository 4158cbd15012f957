"""What a picture file is once it is read: planes, what the file says of them, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from segbench.errors import SegbenchError, unknown_name

Projection = Literal["max", "mean"]
_PROJECTIONS = ("max", "mean")


@dataclass(frozen=True)
class Picture:
    """An image of one field: planes of pixels, one a channel."""

    pixels: npt.NDArray[Any]
    """(C, H, W), in the file's own numeric dtype."""
    channels: tuple[str, ...] | None = None
    """Names that the file gives its channels; None where it gives none."""
    pixel_size_um: float | None = None
    """Side of a pixel in micrometres, where the file tells one and the pixels are square."""
    notes: tuple[str, ...] = ()
    """What was left out or changed on the way, each in a few words (``alpha channel left out``)."""


@dataclass(frozen=True)
class Take:
    """Which plane of a stack is meant, where a file has axes other than channels, rows and columns.

    Examples
    --------
    >>> Take.of(project=None, planes=["Z=3"])
    Take(project=None, planes={'Z': 3})
    """

    project: Projection | None = None
    """How every axis that ``planes`` does not name becomes one plane; None refuses such axes."""
    planes: Mapping[str, int] = field(default_factory=dict)
    """Position on an axis, from 0, by the axis' letter (Z: depth, T: time)."""

    def check_absent(self, axes: str, path: object) -> None:
        """Raise SegbenchError where a plane other than the first is asked for on an axis that a file does not have."""
        for axis, position in self.planes.items():
            if axis not in axes and position:
                raise SegbenchError(f"{path} has no axis {axis}: --plane {axis}={position} is not there")

    @classmethod
    def of(cls, project: str | None, planes: list[str] | None) -> Take:
        """Return what the options ``--project max`` and ``--plane Z=3`` mean; raises SegbenchError where nothing."""
        if project is not None and project not in _PROJECTIONS:
            raise unknown_name("projection", project, _PROJECTIONS)
        chosen: dict[str, int] = {}
        for text in planes or []:
            axis, equals, position = text.partition("=")
            if not equals or len(axis.strip()) != 1 or not axis.strip().isalpha() or not position.strip().isdigit():
                raise SegbenchError(f"--plane takes AXIS=POSITION such as Z=3 (positions from 0), found {text!r}")
            letter = axis.strip().upper()
            if letter in "YXCS":
                raise SegbenchError(f"--plane {text}: rows, columns and channels are never left out; Z and T can be")
            if letter in chosen:
                raise SegbenchError(f"--plane names the axis {letter} twice: {letter}={chosen[letter]} and {text}")
            chosen[letter] = int(position)
        return cls(project, chosen)  # type: ignore[arg-type]
