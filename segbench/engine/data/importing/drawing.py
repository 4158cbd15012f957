"""Draws the cells of one image as a label map, and counts what the map cannot show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from segbench.engine.files.masks import MaskFacts
from segbench.engine.files.painting import Placed, paint
from segbench.errors import SegbenchError

Size = tuple[int, int]
"""(height, width) in pixels."""
T = TypeVar("T")
_ROOM = 2**30
"""Bytes that the masks of one image may take in any case."""
CELLS, OUTSIDE, NO_PIXEL = "cells", "outside", "no pixel"
TWICE, COVERED, LOST, OF, GONE = "twice", "covered", "pixels lost", "of pixels", "gone"
_COUNTS = (CELLS, OUTSIDE, NO_PIXEL, TWICE, COVERED, LOST, OF, GONE)


@dataclass(frozen=True)
class Drawn:
    """The cells of one image."""

    labels: npt.NDArray[np.int32]
    """(H, W), 0 for background."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Cells, and what became of those that are not whole in the map."""
    facts: MaskFacts | None = None
    """What a pass over a label map told; None where the cells were drawn."""


def draw(cells: Sequence[T], mask_of: Callable[[T], Placed], outside: Callable[[T], bool], size: Size) -> Drawn:
    """Return cells as a label map.

    Parameters
    ----------
    cells
        Of any form.
    mask_of, outside
        Give a cell's mask, and whether it lies wholly outside of the image.
    size
        Of the image.

    Raises
    ------
    SegbenchError
        They cover the image so often that they can be no cells.
    """
    counts: Counter[str] = Counter({CELLS: len(cells)})
    masks: list[Placed] = []
    room = max(_ROOM, 32 * size[0] * size[1])
    for cell in cells:
        if outside(cell):
            counts[OUTSIDE] += 1
            continue
        placed = mask_of(cell)
        if not placed[0].any():
            counts[NO_PIXEL] += 1
            continue
        room -= placed[0].size
        if room < 0:
            raise SegbenchError(f"{len(cells):,} outlines cover the image over and over: they are no cells")
        masks.append(placed)
    labels, lost = paint(masks, *size)
    counts += Counter({TWICE: lost.twice, COVERED: lost.covered, LOST: lost.lost, OF: lost.of, GONE: lost.gone})
    return Drawn(labels, dict(counts))


def told(counts: Mapping[str, int], path: Path) -> list[str]:
    """Return in words what the label maps of all images together cannot show, a line a kind.

    Parameters
    ----------
    counts
        Sums over all images.
    path
        Of the annotations, for the error.

    Raises
    ------
    SegbenchError
        Every cell lies outside of its image.
    """
    n = counts.get(CELLS, 0)
    if n and counts.get(OUTSIDE, 0) == n:
        raise SegbenchError(
            f"{path}: all {n:,} cells lie outside of their images: the annotations are of other images, or of a "
            "scaled copy"
        )
    lines = []
    if counts.get(OUTSIDE):
        lines.append(f"{counts[OUTSIDE]:,} of {n:,} cells lie outside of their images: left out")
    if counts.get(NO_PIXEL):
        lines.append(f"{counts[NO_PIXEL]:,} of {n:,} outlines draw no pixel: left out")
    if counts.get(TWICE):
        lines.append(f"{counts[TWICE]:,} of {n:,} cells are outlined twice: the first outline is kept")
    if counts.get(COVERED):
        share = counts[LOST] / max(1, counts[OF])
        lines.append(
            f"{counts[COVERED]:,} of {n:,} cells lie under others, smaller ones on top: they lost {share:.1%} of their "
            f"pixels, {counts.get(GONE, 0):,} of them all"
        )
    rest = {what: k for what, k in counts.items() if what not in _COUNTS and k}
    return [*lines, *(f"{k:,} {what}: left out" for what, k in sorted(rest.items()))]
