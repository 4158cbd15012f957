"""Streams pairs of label maps, from memory-mapped stacks or any iterables, in checked batches of flat int32 pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segbench.errors import SegbenchError

LabelMaps = npt.NDArray[Any] | Iterable[npt.NDArray[Any]]
"""A stack (N, H, W), memory-mapped or not, or an iterable of maps (H, W), of any integer type; 0 is background."""

Progress = Callable[[int], None]
"""Called now and then with how many images are done."""

BATCH_PIXELS = 1 << 20
LARGEST_LABEL = 2**31 - 1
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Some consecutive pairs of label maps, their pixels laid out one after the other."""

    first: int
    """The number of the first pair."""
    truth: npt.NDArray[np.int32]
    """(P,), read-only."""
    predictions: npt.NDArray[np.int32]
    """(P,), read-only."""
    offsets: npt.NDArray[np.int64]
    """(n + 1,): where each pair's pixels begin and end."""
    shapes: tuple[tuple[int, int], ...]
    """(H, W) of each pair."""

    def true_map(self, n: int) -> npt.NDArray[Any]:
        """Return the pixels of the n-th true map of the batch."""
        return self.truth[self.offsets[n] : self.offsets[n + 1]]


CHUNK_PIXELS = 1 << 21
"""Of a larger map the pixels are counted so many at a time, on as many threads as there are."""
_AS_THEY_ARE = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int32))


@dataclass(frozen=True)
class MapBatch:
    """Some consecutive pairs of label maps as they came: nothing is copied."""

    first: int
    """The number of the first pair."""
    truth: tuple[npt.NDArray[Any], ...]
    """(H, W) each, of integers."""
    predictions: tuple[npt.NDArray[Any], ...]

    def true_map(self, n: int) -> npt.NDArray[Any]:
        """Return the pixels of the n-th true map of the batch."""
        return self.truth[n]

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) of each pair."""
        return tuple((one.shape[0], one.shape[1]) for one in self.truth)


def paired_maps(truth: LabelMaps, predictions: LabelMaps) -> Iterator[MapBatch]:
    """Yield the pairs of true and predicted maps as they come, some million pixels at a time.

    Raises SegbenchError as `paired_batches`; but what is in the maps is looked at when they are counted: `flat_chunk`.
    """
    if isinstance(truth, np.ndarray) and isinstance(predictions, np.ndarray):
        _check_stacks(truth, predictions)
        refuse_type(truth, "truth[0]")
        refuse_type(predictions, "predictions[0]")
        # nothing is read here: larger batches than where maps are collected
        step = max(1, 4 * BATCH_PIXELS // max(1, truth.shape[1] * truth.shape[2]))
        for first in range(0, len(truth), step):
            yield MapBatch(first, tuple(truth[first : first + step]), tuple(predictions[first : first + step]))
        return
    pending: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
    first = n = pixels = 0
    for n, pair in enumerate(_checked_pairs(truth, predictions)):
        pending.append(pair)
        pixels += pair[0].size
        if pixels >= BATCH_PIXELS:
            yield MapBatch(first, *zip(*pending, strict=True))
            pending, first, pixels = [], n + 1, 0
    if pending:
        yield MapBatch(first, *zip(*pending, strict=True))


def row_chunks(shape: tuple[int, int]) -> list[slice]:
    """Return the rows of each chunk of a map."""
    step = max(1, CHUNK_PIXELS // max(1, shape[1]))
    return [slice(top, top + step) for top in range(0, shape[0], step)]


def flat_chunk(labels: npt.NDArray[Any], rows: slice, what: str, n: int) -> npt.NDArray[Any]:
    """Return some rows of a map, flat and read-only, of a type that the kernels are compiled for.

    Maps of 8 and 16 bits without a sign and of 32 bits are not copied; int32 may be negative.

    Raises
    ------
    SegbenchError
        A label is negative or above 2^31 - 1.
    """
    chunk = labels[rows]
    if chunk.dtype in _AS_THEY_ARE and chunk.dtype.isnative and chunk.flags.c_contiguous and chunk.flags.aligned:
        return _read_only(chunk.reshape(-1))
    if chunk.dtype.itemsize > 2 and chunk.dtype != np.int32 and chunk.size:
        lowest, highest = chunk.min(), chunk.max()
        if lowest < 0 or highest > LARGEST_LABEL:
            raise SegbenchError(_out_of_range(labels, what, n))
    kind = chunk.dtype.newbyteorder("=") if chunk.dtype.newbyteorder("=") in _AS_THEY_ARE else np.dtype(np.int32)
    return _read_only(np.ascontiguousarray(chunk, dtype=kind).reshape(-1))


def paired_batches(truth: LabelMaps, predictions: LabelMaps) -> Iterator[Batch]:
    """Yield the pairs of true and predicted maps, some million pixels at a time.

    Raises
    ------
    SegbenchError
        Where numbers of maps or shapes differ, or labels are not integers from 0 to 2^31 - 1.
    """
    if isinstance(truth, np.ndarray) and isinstance(predictions, np.ndarray):
        _check_stacks(truth, predictions)
        height, width = truth.shape[1:]
        # nothing is copied here: larger batches than where maps are collected
        step = max(1, 4 * BATCH_PIXELS // max(1, height * width))
        for first in range(0, len(truth), step):
            pair = truth[first : first + step], predictions[first : first + step]
            offsets = np.arange(len(pair[0]) + 1, dtype=np.int64) * (height * width)
            yield Batch(
                first,
                _flat(pair[0], "truth", first),
                _flat(pair[1], "predictions", first),
                offsets,
                ((height, width),) * len(pair[0]),
            )
        return
    yield from _collected(truth, predictions)


def _check_stacks(truth: npt.NDArray[Any], predictions: npt.NDArray[Any]) -> None:
    for name, stack in (("truth", truth), ("predictions", predictions)):
        if stack.ndim != 3:
            raise SegbenchError(f"{name} has shape {stack.shape}; a stack of label maps is (N, H, W)")
    if len(truth) != len(predictions):
        raise SegbenchError(
            f"truth has {len(truth)} label maps, predictions {len(predictions)}; give one predicted map a true one"
        )
    if truth.shape != predictions.shape:
        raise SegbenchError(
            f"the maps of truth are {truth.shape[1:]} pixels, those of predictions {predictions.shape[1:]}; "
            "both maps of a pair have one shape"
        )


def _collected(truth: LabelMaps, predictions: LabelMaps) -> Iterator[Batch]:
    pending: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]] = []
    shapes: list[tuple[int, int]] = []
    first = n = pixels = 0
    for n, (true_map, predicted_map) in enumerate(_checked_pairs(truth, predictions)):
        pending.append((_flat(true_map, "truth", n), _flat(predicted_map, "predictions", n)))
        shapes.append((true_map.shape[0], true_map.shape[1]))
        pixels += true_map.size
        if pixels >= BATCH_PIXELS:
            yield _joined(first, pending, shapes)
            pending, shapes, first, pixels = [], [], n + 1, 0
    if pending:
        yield _joined(first, pending, shapes)


def _checked_pairs(truth: LabelMaps, predictions: LabelMaps) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    for n, (true_map, predicted_map) in enumerate(paired(truth, predictions)):
        true_map, predicted_map = checked_map(true_map, "truth", n), checked_map(predicted_map, "predictions", n)
        if true_map.shape != predicted_map.shape:
            raise SegbenchError(
                f"truth[{n}] is {true_map.shape} pixels, predictions[{n}] {predicted_map.shape}; "
                "both maps of a pair have one shape"
            )
        yield true_map, predicted_map


def _joined(
    first: int, maps: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]], shapes: list[tuple[int, int]]
) -> Batch:
    offsets = np.concatenate([[0], np.cumsum([m[0].size for m in maps])]).astype(np.int64)
    if len(maps) == 1:
        return Batch(first, *maps[0], offsets, tuple(shapes))
    flat = [np.concatenate([m[side] for m in maps]) for side in (0, 1)]
    return Batch(first, _read_only(flat[0]), _read_only(flat[1]), offsets, tuple(shapes))


def paired(truth: Iterable[T], predictions: Iterable[Any]) -> Iterator[tuple[T, Any]]:
    """Zip truth with predictions; where one ends first, raise SegbenchError."""
    others = iter(predictions)
    missing = object()
    n = -1
    for n, one in enumerate(truth):
        other = next(others, missing)
        if other is missing:
            raise SegbenchError(
                f"truth has more maps than predictions, which have {n}; give one predicted map a true one"
            )
        yield one, other
    if next(others, missing) is not missing:
        raise SegbenchError(
            f"predictions have more maps than truth, which has {n + 1}; give one predicted map a true one"
        )


def checked_map(labels: Any, what: str, n: int) -> npt.NDArray[Any]:
    """Return one label map as an array (H, W) of integers, or raise SegbenchError."""
    array = np.asarray(labels)
    if array.ndim != 2:
        raise SegbenchError(f"{what}[{n}] has shape {array.shape}; a label map is (H, W)")
    refuse_type(array, f"{what}[{n}]")
    return array


def refuse_type(labels: npt.NDArray[Any], what: str) -> None:
    """Raise SegbenchError, with what would be right, where labels are not integers."""
    if labels.dtype.kind in "iu":
        return
    told = f"{what} is of type {labels.dtype}"
    if labels.dtype.kind == "b":
        raise SegbenchError(
            f"{told}, a mask in which cells that touch are one; labels are integers, 0 for background and a number for "
            "each cell: number them first, as skimage.measure.label does"
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        told += " and holds NaN or infinity"
    raise SegbenchError(f"{told}; labels are integers, 0 for background: convert them, as .astype('int32') does")


def _flat(labels: npt.NDArray[Any], what: str, first: int) -> npt.NDArray[np.int32]:
    """Return the pixels of one map (H, W) or some (n, H, W) as read-only int32, without a copy where they are that.

    Negative int32 pass unseen.
    """
    refuse_type(labels, f"{what}[{first}]")
    if labels.dtype not in (np.int32, np.int16, np.int8, np.uint16, np.uint8) and labels.size:
        lowest, highest = labels.min(), labels.max()
        if lowest < 0 or highest > LARGEST_LABEL:
            raise SegbenchError(_out_of_range(labels, what, first))
    flat = np.ascontiguousarray(np.asarray(labels), dtype=np.int32).reshape(-1)
    return _read_only(flat)


def _out_of_range(labels: npt.NDArray[Any], what: str, first: int) -> str:
    maps = labels if labels.ndim == 3 else labels[None]
    n = next(n for n, one in enumerate(maps) if one.min() < 0 or one.max() > LARGEST_LABEL)
    return (
        f"{what}[{first + n}] has labels from {maps[n].min()} to {maps[n].max()}; "
        f"they go from 0, the background, to {LARGEST_LABEL}"
    )


def _read_only(flat: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    # memory-mapped pixels are read-only: all are, so that the kernels are compiled for one kind
    view = flat.view(np.ndarray)
    view.flags.writeable = False
    return view


B = TypeVar("B", Batch, MapBatch)


def mapped(
    function: Callable[[B], T], batches: Iterable[B], threads: int, progress: Progress | None = None
) -> Iterator[T]:
    """Yield ``function`` of each batch in order, on so many threads, with few batches in memory at a time."""
    waiting: deque[tuple[B, Future[T]]] = deque()

    def finished() -> T:
        batch, future = waiting.popleft()
        result = future.result()
        if progress is not None:
            progress(batch.first + len(batch.shapes))
        return result

    if threads < 2:
        for batch in batches:
            result = function(batch)
            if progress is not None:
                progress(batch.first + len(batch.shapes))
            yield result
        return
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            waiting.append((batch, pool.submit(function, batch)))
            if len(waiting) > 2 * threads:
                yield finished()
        while waiting:
            yield finished()
