"""Gives the batches of DeepCell's generators in upstream's order and by its chances, made by several threads."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.methods.ahead import made_ahead
from segbench.methods.deepcell.warping import warp
from segbench.methods.deepcell.windows import Pieces, Tiles

LOG = logging.getLogger(__name__)
_Drawing = tuple[npt.NDArray[Any], list[dict[str, Any]]]
"""Numbers of tiles, and what upstream drew to transform each."""

Make = Callable[[Any, npt.NDArray[Any]], Any]
"""Makes a batch with one of upstream's iterators and the numbers of its tiles."""


class Batches:
    """The batches of one of upstream's iterators.

    Each batch's order and chances are drawn before it is made, one batch after the other, from numpy's global
    generator, which upstream's iterator seeds at every batch: however many threads make them, they are those that
    upstream's ``next`` gives. Each batch has a copy of the iterator: upstream changes its generator as it makes one.

    Parameters
    ----------
    iterator
        Of ``flow``. Its generator's ``get_random_transform`` must be all that draws.
    workers
        Threads.
    make
        Makes a batch; by default upstream does.
    """

    def __init__(self, iterator: Any, workers: int, make: Make | None = None) -> None:
        self.iterator, self.workers = iterator, max(1, workers)
        self._make: Make = make or (lambda one, numbers: one._get_batches_of_transformed_samples(numbers))

    @property
    def n(self) -> int:
        """How many tiles."""
        return int(self.iterator.n)

    def __len__(self) -> int:
        return len(self.iterator)

    def rewind(self) -> None:
        """Begin again with the first batch."""
        iterator = self.iterator
        iterator.total_batches_seen, iterator.index_array = 0, None
        iterator.index_generator = iterator._flow_index()

    def skip(self, batches: int) -> None:
        """Leave out the next batches."""
        for _ in range(batches):
            next(self.iterator.index_generator)

    def first(self) -> Any:
        """Return the first batch in the order of the tiles."""
        batch = self._made(self._drawn(np.arange(min(self.n, self.iterator.batch_size))))
        self.rewind()
        return batch

    def take(self, batches: int) -> Iterator[Any]:
        """Yield the next batches; nothing is drawn for later ones."""
        drawn = (self._drawn(next(self.iterator.index_generator)) for _ in range(batches))
        return made_ahead(drawn, self._made, self.workers)

    def in_order(self, batches: int) -> Iterator[Any]:
        """Yield the first batches in the order of the tiles, as those of a validation."""
        size = self.iterator.batch_size
        starts = range(0, batches * size, size)
        drawn = (self._drawn(np.arange(first, min(first + size, self.n))) for first in starts)
        return made_ahead(drawn, self._made, self.workers)

    def _drawn(self, numbers: npt.NDArray[Any]) -> _Drawing:
        generator, shape = self.iterator.image_data_generator, self.iterator.x.shape[1:]
        return numbers, [generator.get_random_transform(shape) for _ in numbers]

    def _made(self, drawn: _Drawing) -> Any:
        numbers, chances = drawn
        iterator = copy.copy(self.iterator)
        iterator.image_data_generator = _Drawn(iterator.image_data_generator, chances)
        return self._make(iterator, numbers)


class _Drawn:
    """A generator whose chances are drawn already and whose transformations are the fast ones."""

    def __init__(self, generator: Any, drawn: Sequence[Mapping[str, Any]]) -> None:
        own = copy.copy(generator)
        left = iter(drawn)
        own.get_random_transform = lambda shape, seed=None: dict(next(left))  # noqa: ARG005
        own.apply_transform = lambda x, parameters: warp(x, parameters, own.interpolation_order)
        self.random_transform, self.standardize = own.random_transform, own.standardize


def flow_lazily(flow: Callable[..., Any], tiles: Tiles, **options: Any) -> Any:
    """Return upstream's iterator over tiles, which it reads as it uses them.

    Upstream copies what it is given, more than once, and leaves out tiles with fewer than ``min_objects + 1`` different
    labels (deepcell/image_generators/semantic.py:105). It is given one tile, and then all that it would have kept.
    """
    min_objects = int(options.get("min_objects", 0))
    kept = kept_tiles(tiles, min_objects)
    if not len(kept):
        raise ValueError(f"no piece of {tiles.side} x {tiles.side} pixels shows {min_objects} cells and some ground")
    if len(kept) < len(tiles):
        LOG.warning(
            "left out %d of %d pieces with fewer than %d cells", len(tiles) - len(kept), len(tiles), min_objects
        )
    iterator = flow({"X": kept.x[:1], "y": kept.y[:1]}, **options)
    iterator.x, iterator.y, iterator.n = kept.x, kept.y, len(kept)
    return iterator


def kept_tiles(tiles: Tiles, min_objects: int) -> Tiles:
    """Return the tiles that upstream's iterators do not leave out."""
    return tiles.select(tiles.distinct - 1 >= min_objects)


@dataclass(frozen=True)
class Targets:
    """What an iterator has in place of labels where its targets are known; ``targets[n : n + 1]``: those of a tile."""

    parts: Sequence[Pieces]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the first part."""
        return self.parts[0].shape

    def __getitem__(self, key: slice) -> list[npt.NDArray[Any]]:
        return [part[key] for part in self.parts]
