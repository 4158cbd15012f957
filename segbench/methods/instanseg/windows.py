"""Draws the crops of a training, each epoch's from its own seed, so that one that is resumed sees the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack

STRIDE = 8
"""Crops are multiples of this: the network halves them three times."""

Normalise = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Crops:
    """The crops of a training."""

    windows: ImageStack
    used: Sequence[int]
    """Which windows are drawn from."""
    side: int
    """Of a crop, in pixels; less where a window is smaller."""
    normalise: Normalise
    """Takes and returns (C, H, W)."""
    batch: int
    steps: int
    """In an epoch."""
    seed: int

    def epoch(self, number: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        """Yield an epoch's batches: images (B, C, h, w) and labels (B, 1, h, w); each window once before any twice."""
        rng = np.random.default_rng([self.seed, number])
        size = self.batch * self.steps
        rounds = -(-size // len(self.used))
        order = np.concatenate([rng.permutation(len(self.used)) for _ in range(rounds)])[:size]
        for step in range(self.steps):
            drawn = [self._crop(self.used[n], rng) for n in order[step * self.batch : (step + 1) * self.batch]]
            yield np.stack([image for image, _ in drawn]), np.stack([labels for _, labels in drawn])[:, np.newaxis]

    def _crop(
        self, window: int, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:  # fmt: skip
        image, labels = self.normalise(self.windows[window]), self.windows.labels(window)
        side = min(self.side, *labels.shape) // STRIDE * STRIDE
        top, left = (int(rng.integers(0, whole - side + 1)) for whole in labels.shape)
        image = image[:, top : top + side, left : left + side]
        labels = labels[top : top + side, left : left + side]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        image, labels = np.rot90(image, turns, (1, 2)), np.rot90(labels, turns)
        if mirrored:
            image, labels = image[..., ::-1], labels[..., ::-1]
        return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(labels, np.int64)
