"""Keeps what DeepCell's generators make of the labels before they turn and scale: once for all runs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.deepcell.windows import Pieces, Tiles, corners_of
from segbench.methods.derived import Kind, derive

Transform = Callable[[npt.NDArray[np.int32]], npt.NDArray[Any]]
"""Returns what is known of each pixel of a tile, given its labels (S, S, 1)."""


def kept_values(tiles: Tiles, name: str, facts: Mapping[str, Any], transform: Transform, spare: Path) -> Pieces:
    """Return one value a pixel, (N, S, S, 1) float32, such as distances.

    Parameters
    ----------
    tiles
        The pieces.
    name, facts
        What is kept, and all that decides it beside the labels and DeepCell's version.
    transform
        Gives one value a pixel.
    spare
        See ``derive``.
    """
    read = _kept(tiles, name, facts, "float32", lambda labels: transform(labels)[..., 0], spare)
    return Pieces(lambda n: read(n)[..., np.newaxis], (len(tiles), tiles.side, tiles.side, 1), np.float32)


def kept_classes(tiles: Tiles, name: str, facts: Mapping[str, Any], transform: Transform, spare: Path) -> Pieces:
    """Return the classes of pixels, (N, S, S, K), of which a bit each is kept; see ``kept_values``."""
    # upstream counts the classes over all pieces: one without a cell has the first alone
    first = transform(tiles.y[int(tiles.objects.argmax())])
    weights = 1 << np.arange(first.shape[-1])

    def bits(labels: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        found = transform(labels)
        packed: npt.NDArray[Any] = found @ weights[: found.shape[-1]]
        return packed

    read = _kept(tiles, name, facts, "uint8", bits, spare)
    shifts = np.arange(weights.size, dtype=np.uint8)

    def unpacked(n: int) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = (read(n)[..., np.newaxis] >> shifts) & 1
        return found.astype(first.dtype, copy=False)

    return Pieces(unpacked, (len(tiles), *first.shape), first.dtype)


def _kept(
    tiles: Tiles, name: str, facts: Mapping[str, Any], dtype: str, transform: Transform, spare: Path
) -> Callable[[int], npt.NDArray[Any]]:
    corners = corners_of(tiles.stack.size, tiles.side)
    place = {corner: number for number, corner in enumerate(corners)}

    def compute(window: int) -> npt.NDArray[Any]:
        whole = tiles.stack.labels(window)[..., np.newaxis]
        pieces = [whole[top : top + tiles.side, left : left + tiles.side] for top, left in corners]
        return np.stack([transform(np.ascontiguousarray(piece)) for piece in pieces])

    known = {**facts, "side": tiles.side, "deepcell": importlib.metadata.version("deepcell")}
    kind = Kind(name, known, (len(corners), tiles.side, tiles.side), dtype)
    derived = derive(tiles.stack, np.unique(tiles.windows).tolist(), kind, compute, spare)

    def read(n: int) -> npt.NDArray[Any]:
        top, left = tiles.corners[n]
        found: npt.NDArray[Any] = derived[int(tiles.windows[n])][place[int(top), int(left)]]
        return found

    return read
