"""Run lengths of many masks at once, on the device where the masks are."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

_CACHED = 1 << 20
"""Pixels that a processor compares at once: as many as stay in its cache."""
_LISTED = 1 << 28
"""Pixels that a GPU compares at once: what it needs for that is as large again, and PyTorch lists up to 2^31."""


def encode(masks: torch.Tensor | npt.NDArray[np.bool_]) -> list[npt.NDArray[np.uint32]]:
    """Return COCO's uncompressed run lengths of each mask, as ``run_lengths`` does one by one.

    Of masks on a GPU only the places where they change are copied, those of all masks together.

    Parameters
    ----------
    masks
        (N, H, W), boolean; a tensor on any device, or an array.

    Returns
    -------
    list
        N arrays: down the columns, background first. That of a mask without a pixel has one number.

    Examples
    --------
    >>> masks = np.array([[[0, 1], [1, 1]], [[1, 0], [0, 0]]], dtype=bool)
    >>> [runs.tolist() for runs in encode(masks)]
    [[1, 3], [0, 1, 3]]
    """
    n, height, width = masks.shape
    pixels = height * width
    if not n or not pixels:
        return [np.zeros(1, np.uint32) for _ in range(n)]
    if not isinstance(masks, np.ndarray) and masks.device.type == "cpu":
        masks = masks.numpy()
    found = []
    if isinstance(masks, np.ndarray):
        together = max(1, _CACHED // pixels)
        # one place in memory for all parts: new pages cost a processor more than the comparison
        room = np.empty((min(n, together), height, width), bool)
        for first in range(0, n, together):
            found.append(_changes(masks[first : first + together], room) + first * pixels)
    else:
        together = max(1, _LISTED // pixels)
        for first in range(0, n, together):
            found.append(_changes_on_device(masks[first : first + together]) + first * pixels)
    # each mask begins where the one before it ends; one that begins with its cell changes there once more
    bounds = np.arange(n + 1) * pixels
    ends = np.sort(np.concatenate([*found, bounds]), kind="stable")
    runs = np.diff(ends).astype(np.uint32)
    cuts = np.searchsorted(ends, bounds).tolist()
    return [runs[start:end] for start, end in itertools.pairwise(cuts)]


def _changes(masks: npt.NDArray[np.bool_], room: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return where masks (N, H, W) change, in order, as places in them down the columns, mask after mask.

    Parameters
    ----------
    room
        (N or more, H, W), overwritten.
    """
    changed = room[: len(masks)]
    np.not_equal(masks[:, 1:], masks[:, :-1], out=changed[:, 1:])
    np.not_equal(masks[:, 0, 1:], masks[:, -1, :-1], out=changed[:, 0, 1:])
    changed[:, 0, 0] = masks[:, 0, 0]
    # few are left to be put into another order, where the masks are many pixels to transpose
    places: npt.NDArray[np.int64] = _down_columns(np.flatnonzero(changed), *masks.shape[1:])
    places.sort()
    return places


def _changes_on_device(masks: torch.Tensor) -> npt.NDArray[np.int64]:
    import torch

    changed = torch.empty_like(masks, memory_format=torch.contiguous_format)
    torch.ne(masks[:, 1:], masks[:, :-1], out=changed[:, 1:])
    torch.ne(masks[:, 0, 1:], masks[:, -1, :-1], out=changed[:, 0, 1:])
    changed[:, 0, 0] = masks[:, 0, 0]
    places = _down_columns(changed.flatten().nonzero()[:, 0], *masks.shape[1:]).sort().values
    found: npt.NDArray[np.int64] = places.cpu().numpy()
    return found


def _down_columns(places: Any, height: int, width: int) -> Any:
    """Return places along the rows as places down the columns; of an array or a tensor."""
    pixels = height * width
    masks, within = places // pixels, places % pixels
    return masks * pixels + within % width * height + within // width
