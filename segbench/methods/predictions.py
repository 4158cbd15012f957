"""Predictions on disk: instances with scores, as label maps or as possibly overlapping run-length masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segbench.small_files import BAD_ARRAY, write_whole


@dataclass(frozen=True)
class LabelInstances:
    """The instances of one image that do not overlap.

    Examples
    --------
    >>> from segbench import LabelInstances
    >>> found = LabelInstances(np.array([[1, 1, 0, 2]], np.int32), np.array([0.9, 0.4]))  # of cell 1, of cell 2
    """

    labels: npt.NDArray[np.int32]
    """(H, W), 0 for background, instances numbered 1..k without gaps."""
    scores: npt.NDArray[np.float64]
    """(k,), the score of instance i at i - 1."""


@dataclass(frozen=True)
class MaskInstances:
    """The instances of one image that may overlap.

    Examples
    --------
    >>> from segbench import MaskInstances
    >>> masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], dtype=bool)
    >>> found = MaskInstances([run_lengths(mask) for mask in masks], np.array([0.9, 0.4]))
    >>> [counts.tolist() for counts in found.counts]
    [[0, 2, 1], [1, 2]]
    """

    counts: list[npt.NDArray[np.uint32]]
    """One array a mask: COCO's uncompressed run lengths in column-major order, background first."""
    scores: npt.NDArray[np.float64]
    """(k,)."""


def run_lengths(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Return COCO's uncompressed run lengths of a mask (H, W): down the columns, background first.

    Examples
    --------
    >>> run_lengths(np.array([[0, 1], [1, 1]], dtype=bool)).tolist()
    [1, 3]
    >>> run_lengths(np.array([[1, 0]], dtype=bool)).tolist()
    [0, 1, 1]
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=flat.size).astype(np.uint32)


Instances = LabelInstances | MaskInstances
Kind = Literal["labels", "masks"]


class PredictionWriter:
    """Writes the predictions of N images one by one; nothing looks finished before the last.

    The folder holds ``predictions.json`` (kind, N, H, W; written last), ``scores.npy`` (M,) float64 over all instances,
    ``offsets.npy`` (N + 1,) int64: the instances of image n are ``scores[offsets[n]:offsets[n + 1]]``; and for kind
    ``labels`` ``labels.npy`` (N, H, W) int32, for kind ``masks`` ``counts.npy``
    uint32 with ``mask_offsets.npy`` (M + 1,).
    """

    def __init__(self, folder: Path, kind: Kind, n_images: int, height: int, width: int) -> None:
        self._folder, self._kind, self._shape = Path(folder), kind, (n_images, height, width)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._labels: np.memmap[Any, np.dtype[np.int32]] | None = None
        if kind == "labels" and n_images > 0:
            self._labels = np.lib.format.open_memmap(
                self._folder / "labels.npy", mode="w+", dtype=np.int32, shape=self._shape
            )
        elif kind == "labels":
            np.save(self._folder / "labels.npy", np.zeros(self._shape, np.int32))
        self._scores: list[npt.NDArray[np.float64]] = []
        self._counts: list[npt.NDArray[np.uint32]] = []

    def add(self, instances: Instances) -> None:
        """Append the next image's instances; raises ValueError where they do not fit the contract."""
        n = len(self._scores)
        if n >= self._shape[0]:
            raise ValueError(f"predictions for more than the {self._shape[0]} images asked for")
        scores = np.asarray(instances.scores, dtype=np.float64)
        if not np.isfinite(scores).all():
            raise ValueError(f"image {n}: scores must be finite")
        if isinstance(instances, LabelInstances):
            self._add_labels(n, np.asarray(instances.labels), scores.size)
        else:
            self._add_masks(n, instances.counts, scores.size)
        self._scores.append(scores)

    def _add_labels(self, n: int, labels: npt.NDArray[Any], n_scores: int) -> None:
        if self._labels is None:
            raise ValueError(f"image {n}: label maps given to a writer of masks")
        if labels.shape != self._shape[1:]:
            raise ValueError(f"image {n}: label map has shape {labels.shape}, expected {self._shape[1:]}")
        present = np.unique(labels)
        present = present[present != 0]
        if present.size != n_scores or (present.size and (present[0] != 1 or present[-1] != present.size)):
            raise ValueError(f"image {n}: labels must be 1..k with k scores, found {present.size} and {n_scores}")
        self._labels[n] = labels

    def _add_masks(self, n: int, masks: Sequence[npt.NDArray[Any]], n_scores: int) -> None:
        if self._kind != "masks":
            raise ValueError(f"image {n}: masks given to a writer of label maps")
        if len(masks) != n_scores:
            raise ValueError(f"image {n}: {len(masks)} masks but {n_scores} scores")
        pixels = self._shape[1] * self._shape[2]
        for counts in masks:
            if int(np.sum(counts, dtype=np.int64)) != pixels:
                raise ValueError(f"image {n}: run lengths sum to {int(np.sum(counts))}, the image has {pixels} pixels")
            self._counts.append(np.asarray(counts, dtype=np.uint32))

    def close(self) -> None:
        """Finish the folder; raises ValueError when images are missing."""
        n_images, height, width = self._shape
        if len(self._scores) != n_images:
            raise ValueError(f"predictions for {len(self._scores)} of {n_images} images")
        if self._labels is not None:
            self._labels.flush()
        offsets = np.concatenate([[0], np.cumsum([s.size for s in self._scores])]).astype(np.int64)
        np.save(self._folder / "scores.npy", np.concatenate([*self._scores, np.zeros(0)]))
        np.save(self._folder / "offsets.npy", offsets)
        if self._kind == "masks":
            np.save(
                self._folder / "counts.npy", np.concatenate([*self._counts, np.zeros(0, np.uint32)]).astype(np.uint32)
            )
            lengths = [c.size for c in self._counts]
            np.save(self._folder / "mask_offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
        meta = {"kind": self._kind, "n_images": n_images, "height": height, "width": width}
        write_whole(self._folder / "predictions.json", json.dumps(meta))

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


class PredictionSet:
    """The predictions of one folder, memory-mapped; indexing gives one image's instances.

    Parameters
    ----------
    folder
        As ``PredictionWriter`` leaves it.

    Raises
    ------
    ValueError
        A file of it is cut off, or does not hold what the others say.
    OSError
        A file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            self._open()
        except (OSError, MemoryError):
            raise
        except (*BAD_ARRAY, TypeError, KeyError, OverflowError, RecursionError) as error:
            told = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{self.folder} holds no whole predictions: {told}") from None

    def _open(self) -> None:
        meta = json.loads((self.folder / "predictions.json").read_text())
        if meta["kind"] not in ("labels", "masks"):
            raise ValueError(f"kind is {meta['kind']!r}")
        self.kind: Kind = meta["kind"]
        sizes = tuple(int(meta[name]) for name in ("n_images", "height", "width"))
        self.n_images, self.height, self.width = sizes
        self.scores: npt.NDArray[np.float64] = self._array("scores", "f", 1)
        self.offsets = self._cuts("offsets", self.n_images, self.scores.size)
        if not np.isfinite(self.scores).all():
            raise ValueError("scores that are no numbers")
        if self.kind == "labels":
            self.labels = self._array("labels", "iu", 3, mmap=self.n_images > 0)
            if self.labels.shape != sizes:
                raise ValueError(f"label maps of shape {self.labels.shape}, expected {sizes}")
        else:
            self.counts: npt.NDArray[np.uint32] = self._array("counts", "iu", 1)
            self.mask_offsets = self._cuts("mask_offsets", self.scores.size, self.counts.size)

    def _array(self, name: str, kinds: str, dimensions: int, *, mmap: bool = False) -> npt.NDArray[Any]:
        found = np.load(self.folder / f"{name}.npy", mmap_mode="r" if mmap else None, allow_pickle=False)
        if found.dtype.kind not in kinds or found.ndim != dimensions:
            raise ValueError(f"{name}.npy holds {found.dtype} of shape {found.shape}")
        return np.asarray(found) if not mmap else found

    def _cuts(self, name: str, parts: int, total: int) -> npt.NDArray[np.int64]:
        cuts = self._array(name, "iu", 1)
        if cuts.size != parts + 1 or cuts[0] != 0 or cuts[-1] != total or (np.diff(cuts.astype(np.int64)) < 0).any():
            raise ValueError(f"{name}.npy does not cut {total} values into {parts} parts")
        return cuts

    def __len__(self) -> int:
        return self.n_images

    def __getitem__(self, n: int) -> Instances:
        if not 0 <= n < self.n_images:
            raise IndexError(n)
        first, last = int(self.offsets[n]), int(self.offsets[n + 1])
        scores = self.scores[first:last]
        if self.kind == "labels":
            return LabelInstances(np.asarray(self.labels[n]), scores)
        cuts = self.mask_offsets[first : last + 1]
        counts = [self.counts[cuts[i] : cuts[i + 1]] for i in range(last - first)]
        return MaskInstances(counts, scores)

    def __iter__(self) -> Iterator[Instances]:
        return (self[n] for n in range(self.n_images))
