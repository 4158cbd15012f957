"""From masks on a device to run lengths, and the next batch's prediction while the last one is taken.

Imported inside functions only: it needs torch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from segbench.methods.predictions import MaskInstances

_MASKS_TOGETHER = 512
"""Masks whose changes are looked for at a time."""

T = TypeVar("T")


def to_instances(masks: torch.Tensor, scores: torch.Tensor, threshold: float) -> MaskInstances:
    """Return masks (k, H, W) with scores (k,) as run lengths, without empty ones and those below a threshold.

    Only the places where a mask begins or ends leave the device.

    Examples
    --------
    >>> found = to_instances(torch.tensor([[[False, True], [False, True]]]), torch.tensor([0.9]), 0.05)
    >>> found.counts[0].tolist()
    [2, 2]
    """
    told = scores.double().cpu().numpy()
    good = np.flatnonzero(told >= threshold)
    if len(good) < len(masks):
        masks = masks[torch.from_numpy(good).to(masks.device)]
    places, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first in range(0, len(good), _MASKS_TOGETHER):
        place, size = _changes(masks[first : first + _MASKS_TOGETHER])
        places.append(place)
        sizes.append(size)
    counts = _between(np.concatenate(places), np.concatenate(sizes), masks.shape[1] * masks.shape[2])
    kept = [i for i, mine in enumerate(counts) if len(mine) > 1]
    return MaskInstances([counts[i] for i in kept], told[good[kept]])


def _changes(masks: torch.Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where masks (k, H, W) begin or end down their columns, mask after mask, and how often each does."""
    flat = masks.bool().transpose(1, 2).flatten(1)
    change = flat.clone()
    torch.logical_xor(flat[:, 1:], flat[:, :-1], out=change[:, 1:])
    if masks.is_cuda:
        found = change.nonzero().int().cpu().numpy()
        which, place = found[:, 0], found[:, 1]
    else:
        which, place = divmod(np.flatnonzero(change.numpy()), change.shape[1])
    return place.astype(np.int64), np.bincount(which, minlength=len(masks)).astype(np.int64)


def _between(
    places: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], pixels: int
) -> list[npt.NDArray[np.uint32]]:  # fmt: skip
    """Return each mask's run lengths, of the places (m,) where they change and how many of these are each's (k,)."""
    ends = np.cumsum(sizes)
    last = np.insert(places, ends, pixels)
    cuts = np.cumsum(sizes + 1)
    before = np.concatenate([[0], last[:-1]])
    before[cuts[:-1]] = 0
    lengths = (last - before).astype(np.uint32) if len(sizes) else np.zeros(0, np.uint32)
    return np.split(lengths, cuts[:-1]) if len(sizes) else []


def ahead(items: Iterator[T], most: int, begin: Callable[[], Any]) -> Iterator[T]:
    """Yield items that another thread computes, up to ``most`` before they are asked for; it calls ``begin`` first."""
    end: Any = object()
    with ThreadPoolExecutor(1, initializer=begin) as pool:
        waiting: deque[Future[Any]] = deque(pool.submit(next, items, end) for _ in range(most))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
