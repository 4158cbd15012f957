"""Counts the pixels that labels of two maps have in common: maps as they are, large ones in pieces on all threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import matching
from segbench.engine.metrics.batches import CHUNK_PIXELS, MapBatch, flat_chunk, row_chunks

Pairs = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""(J,) each: true labels, predicted labels, pixels."""


class PairCounter:
    """Counts one map after the other; not to be shared by threads."""

    def __init__(self) -> None:
        self._positions = np.empty(1 << 16, np.uint32)
        self._table = matching.new_table(4096)
        self._pairs: Pairs = (np.empty(4096, np.int32), np.empty(4096, np.int32), np.empty(4096, np.int32))
        self._n = 0

    def add(self, truth: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> None:
        """Count two flat pieces of maps, which are not empty; read-only, of types that the kernels know."""
        if self._positions.size < truth.size:
            self._positions = np.empty(truth.size, np.uint32)
        while (n := self._collect(truth, predictions)) < 0:
            if n == -1:
                self._table = matching.new_table(2 * self._table[0].size)
            else:
                room = 2 * self._pairs[0].size
                grown = [np.empty(room, np.int32) for _ in self._pairs]
                for new, old in zip(grown, self._pairs, strict=True):
                    new[: self._n] = old[: self._n]
                self._pairs = grown[0], grown[1], grown[2]
        self._n = n

    def _collect(self, truth: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> int:
        return int(matching.collect_pairs(truth, predictions, self._positions, *self._table, *self._pairs, self._n))

    @property
    def n(self) -> int:
        """How many pairs there are so far."""
        return self._n

    def take(self) -> Pairs:
        """Return the pairs that were counted, and begin anew."""
        one, other, pixels = (column[: self._n].copy() for column in self._pairs)
        self._n = 0
        return one, other, pixels


def count_batch(batch: MapBatch, in_pieces: Callable[..., Iterable[Pairs]]) -> tuple[*Pairs, npt.NDArray[np.int64]]:
    """Return the pairs of labels of all maps of a batch, end to end, and where each map's begin and end.

    Parameters
    ----------
    batch
        Of any integer types.
    in_pieces
        ``map``, or that of an executor: maps larger than `CHUNK_PIXELS` are counted by it, a piece a call.

    Raises
    ------
    SegbenchError
        A label is above 2^31 - 1, or negative in a type that cannot be matched as it is.
    """
    counter, parts = PairCounter(), list[Pairs]()
    offsets = np.zeros(len(batch.truth) + 1, np.int64)
    before = 0
    for k, pair in enumerate(zip(batch.truth, batch.predictions, strict=True)):
        if pair[0].size > CHUNK_PIXELS:
            parts.append(counter.take())
            parts.append(_merged(list(in_pieces(_piece_of(pair, batch.first + k), row_chunks(pair[0].shape)))))
            before += parts[-2][0].size + parts[-1][0].size
        elif pair[0].size:
            counter.add(*_flat(pair, slice(None), batch.first + k))
        offsets[k + 1] = before + counter.n
    parts.append(counter.take())
    if len(parts) == 1:
        return *parts[0], offsets
    one, other, pixels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return one, other, pixels, offsets


def executor_of(threads: int) -> ThreadPoolExecutor | None:
    """Return what counts the pieces of large maps, where there are several threads."""
    return ThreadPoolExecutor(threads) if threads > 1 else None


def _piece_of(pair: tuple[npt.NDArray[Any], npt.NDArray[Any]], n: int) -> Callable[[slice], Pairs]:
    def count(rows: slice) -> Pairs:
        counter = PairCounter()
        counter.add(*_flat(pair, rows, n))
        return counter.take()

    return count


def _flat(
    pair: tuple[npt.NDArray[Any], npt.NDArray[Any]], rows: slice, n: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return flat_chunk(pair[0], rows, "truth", n), flat_chunk(pair[1], rows, "predictions", n)


def _merged(pieces: list[Pairs]) -> Pairs:
    one, other, pixels = (np.concatenate(columns) for columns in zip(*pieces, strict=True))
    n = matching.merge_pairs(one, other, pixels)
    return one[:n], other[:n], pixels[:n]
