"""What several models find in one image, put together: the cells that most of them have, and how far they agree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.engine.files.boxes import boxes_of

_ROWS = 512
_SAME = 0.5
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Consensus:
    """The cells that more than half of the models have."""

    labels: npt.NDArray[np.int32]
    """(H, W): of each cell the pixels that more than half of all models give it; numbered from 1 without gaps."""
    agreement: npt.NDArray[np.float64]
    """(k,), 0..1: mean IoU of a cell over all pairs of models, 0 for a pair of which one does not have it."""
    image_agreement: float
    """0..1: the mean over all pairs of models of the panoptic quality of one against the other; 1 where none has a
    cell."""


@dataclass(frozen=True)
class _Pair:
    """Cells of two models that are one cell: they share more than half of what either covers."""

    iou: float
    first: tuple[int, int]
    """Model and label."""
    second: tuple[int, int]


def consensus_of(maps: Sequence[Labels], image: str = "image") -> Consensus:
    """Return what two or more label maps of one image have in common.

    Cells of two models are one where their IoU is above a half. The best pairs are joined first, and no model has two
    cells of a group.

    Parameters
    ----------
    maps
        (H, W) each, numbered from 1, 0 for background; may lie on the disk.
    image
        What an error about the disk calls the image.

    Examples
    --------
    >>> one, two = np.zeros((2, 4, 8), np.int32)
    >>> one[:, :4], two[:, :4], two[:, 6:] = 1, 1, 2
    >>> found = consensus_of([one, two])
    >>> found.labels[0], found.agreement, round(found.image_agreement, 2)
    (array([1, 1, 1, 1, 0, 0, 0, 0], dtype=int32), array([1.]), 0.67)
    """
    highest = [max(int(labels[top : top + _ROWS].max()) for top in _bands(labels)) for labels in maps]
    sizes = [_sizes(labels, k) for labels, k in zip(maps, highest, strict=True)]
    matched: list[_Pair] = []
    qualities = []
    for a, b in itertools.combinations(range(len(maps)), 2):
        pairs = _matches(a, b, maps, sizes)
        matched += pairs
        cells = int((sizes[a][1:] > 0).sum() + (sizes[b][1:] > 0).sum())
        qualities.append(2 * sum(pair.iou for pair in pairs) / cells if cells else 1.0)
    out = spool.array_of(maps[0].shape, np.int32, image)
    agreement = _paint(out, maps, highest, _groups(matched), matched)
    return Consensus(out, agreement, float(np.mean(qualities)))


def _bands(labels: Labels) -> range:
    return range(0, labels.shape[0], _ROWS)


def _sizes(labels: Labels, highest: int) -> npt.NDArray[np.int64]:
    sizes = np.zeros(highest + 1, np.int64)
    for top in _bands(labels):
        sizes += np.bincount(np.asarray(labels[top : top + _ROWS]).ravel(), minlength=highest + 1)
        spool.let_go(labels)
    return sizes


def _matches(a: int, b: int, maps: Sequence[Labels], sizes: Sequence[npt.NDArray[np.int64]]) -> list[_Pair]:
    """Return the cells of two models that are one: with an IoU above a half there is one partner at most."""
    n = sizes[b].size
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for top in _bands(maps[a]):
        first, second = (np.asarray(maps[k][top : top + _ROWS]).ravel().astype(np.int64) for k in (a, b))
        there = (first > 0) & (second > 0)
        some, shared = np.unique(first[there] * n + second[there], return_counts=True)
        keys, place = np.unique(np.concatenate([keys, some]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, shared]), minlength=keys.size).astype(np.int64)
        spool.let_go(maps[a])
        spool.let_go(maps[b])
    one, two = keys // n, keys % n
    iou = counts / (sizes[a][one] + sizes[b][two] - counts)
    return [_Pair(float(iou[k]), (a, int(one[k])), (b, int(two[k]))) for k in np.flatnonzero(iou > _SAME).tolist()]


def _groups(matched: Sequence[_Pair]) -> list[dict[int, int]]:
    """Return the cells that are one, as the label of each model that has it."""
    of: dict[tuple[int, int], dict[int, int]] = {}
    for pair in sorted(matched, key=lambda pair: (-pair.iou, pair.first, pair.second)):
        one = of.setdefault(pair.first, dict([pair.first]))
        two = of.setdefault(pair.second, dict([pair.second]))
        if one is two or one.keys() & two.keys():
            continue
        one |= two
        of |= dict.fromkeys(two.items(), one)
    return list({id(group): group for group in of.values()}.values())


def _paint(
    out: npt.NDArray[np.int32], maps: Sequence[Labels], highest: Sequence[int], groups: Sequence[dict[int, int]],
    matched: Sequence[_Pair],
) -> npt.NDArray[np.float64]:  # fmt: skip
    """Write the cells that more than half of the models have, the most agreed upon first; return their agreement."""
    boxes = [boxes_of(labels, k) for labels, k in zip(maps, highest, strict=True)]
    ious = {frozenset((pair.first, pair.second)): pair.iou for pair in matched}
    n, n_pairs = len(maps), len(maps) * (len(maps) - 1) / 2

    def agreement(group: dict[int, int]) -> float:
        found = (ious.get(frozenset(pair), 0.0) for pair in itertools.combinations(group.items(), 2))
        return sum(found) / n_pairs

    kept = sorted((-agreement(group), sorted(group.items())) for group in groups if 2 * len(group) > n)
    scores: list[float] = []
    for score, members in kept:
        own = np.array([boxes[model][label - 1] for model, label in members])
        (top, left), (bottom, right) = own[:, :2].min(axis=0).tolist(), own[:, 2:].max(axis=0).tolist()
        place = np.s_[top:bottom, left:right]
        votes = np.sum([np.asarray(maps[model][place]) == label for model, label in members], axis=0)
        region = out[place]
        mask = (2 * votes > n) & (region == 0)
        if mask.any():
            scores.append(-score)
            region[mask] = len(scores)
    return np.array(scores, np.float64)
