"""Divides what is missing from an AP among kinds of error, whatever the order in which they would be mended."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.coco import accumulate
from segbench.engine.metrics.faults import BEYOND, KINDS, LOOSE, MERGED, MISSED, RIGHT, SPLIT, SPURIOUS

_MENDED_BY_SCORE = (SPLIT, MERGED, SPURIOUS, LOOSE)
"""The kinds that change the list of detections: a bit each of the number of a set of kinds. To mend what is missed
changes how many true cells are to be found, as in TIDE: nobody knows with what score they would have been found."""
_N_SETS = 1 << len(_MENDED_BY_SCORE)


@dataclass(frozen=True)
class Faults:
    """What is wrong at one IoU threshold, of D predictions and G true cells."""

    of_predictions: npt.NDArray[np.uint8]
    """(D,), a kind each."""
    of_truth: npt.NDArray[np.uint8]
    """(G,), a kind each."""
    carriers: npt.NDArray[np.int64]
    """(G,), the prediction whose score a true cell would have, or -1."""


def mended_precision(
    faults: Faults, scores: npt.NDArray[np.float64], order: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Return the precision (2, 16, R) at COCO's recalls after mending each set of kinds.

    The first index says whether what is missed is mended, the second has a bit for each of split, merged, spurious and
    loose, lowest first. [0, 0] is COCO's own.

    Parameters
    ----------
    faults
        Of all predictions and true cells of the images in question.
    scores
        (D,).
    order
        The predictions in question by descending score; those beyond the limit of detections are left out.

    Notes
    -----
    To mend a kind takes away its false predictions, and finds its true cells with the scores that they are given in
    ``carriers``; those that are missed need not be found any more.
    """
    order = order[faults.of_predictions[order] != BEYOND]
    chosen = np.flatnonzero(faults.carriers >= 0)
    rank = np.full(scores.size, -1, np.int64)
    rank[order] = np.arange(order.size)
    chosen = chosen[rank[faults.carriers[chosen]] >= 0]
    # a cell that would be found stands behind the prediction that has its score
    events = np.argsort(np.concatenate([np.arange(order.size), rank[faults.carriers[chosen]]]), kind="stable")
    kind = np.concatenate([faults.of_predictions[order], faults.of_truth[chosen]])[events]
    found = np.concatenate([faults.of_predictions[order] == RIGHT, np.ones(chosen.size, np.bool_)])[events]
    score = np.concatenate([scores[order], scores[faults.carriers[chosen]]])[events]
    mends = _sets_with()[kind]
    # a false prediction is there until its kind is mended, a cell that would be found from then on
    absent = np.where(kind == RIGHT, np.uint16(0), np.where(found, ~mends, mends)).astype(np.uint16)
    matches = np.where(found, 0xFFFF, 0).astype(np.uint16)
    line = np.arange(events.size, dtype=np.int32)
    n_missed = int(np.count_nonzero(faults.of_truth == MISSED))
    result = []
    for n_truth in (faults.of_truth.size, faults.of_truth.size - n_missed):
        precision = accumulate(line, matches, score, n_truth, absent, n_bits=_N_SETS)[0]
        if not n_truth:
            # nothing is left to be found: all is well where nothing false is left either
            left = np.bitwise_or.reduce(~absent) if absent.size else np.uint16(0)
            precision[:] = [[float(not (int(left) >> s) & 1)] for s in range(_N_SETS)]
        result.append(precision)
    return np.stack(result)


def shares_of(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return each kind's share of what mending everything would give, by its name: the Shapley values of the kinds.

    A kind's share is what mending it adds, on average over all orders in which the kinds could be mended one after the
    other. The shares add up to the difference between everything mended and nothing.

    Parameters
    ----------
    values
        (2, 16): the AP after mending each set of kinds, as `mended_precision` counts the sets.

    Examples
    --------
    Two kinds that are both needed for the whole point share it:

    >>> values = np.zeros((2, 16))
    >>> values[1, 4:8] = values[1, 12:] = 1.0  # where what is missed and what is spurious are mended
    >>> shares_of(values)
    {'missed': 0.5, 'split': 0.0, 'merged': 0.0, 'spurious': 0.5, 'loose': 0.0}
    """
    n, shares = len(KINDS), {}
    for kind, name in enumerate(KINDS, start=1):
        others = [other for other in range(1, n + 1) if other != kind]
        share = 0.0
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for mended in itertools.combinations(others, size):
                share += weight * float(values[_place({*mended, kind})] - values[_place(set(mended))])
        shares[name] = share
    return shares


def _place(mended: set[int]) -> tuple[int, int]:
    return int(MISSED in mended), sum(1 << bit for bit, kind in enumerate(_MENDED_BY_SCORE) if kind in mended)


def _sets_with() -> npt.NDArray[np.uint16]:
    """Return for each kind the sets that mend it, a bit a set."""
    sets = np.zeros(256, np.uint16)
    for bit, kind in enumerate(_MENDED_BY_SCORE):
        sets[kind] = sum(1 << s for s in range(_N_SETS) if (s >> bit) & 1)
    return sets
