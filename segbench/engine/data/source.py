"""What a kind of dataset must tell: its images one at a time, and what identifies its content."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.masks import MaskFacts
from segbench.errors import SegbenchError


@dataclass(frozen=True)
class RawImage:
    """One original image with its labels, before any preparation."""

    image: str
    """Its id, unique in the dataset."""
    tissue: str
    """Its tissue or cell type."""
    pixels: npt.NDArray[Any]
    """(C, H, W), any numeric dtype."""
    labels: Mapping[str, npt.NDArray[Any]]
    """One (H, W) label map a target, 0 for background."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """How often each thing was left out or changed in reading it, by what it was."""
    masks: tuple[MaskFacts, ...] = ()
    """What a pass over its mask files told; none where they are not files of labels."""
    origin: str | None = None
    """The picture that it is, where another image of the dataset is the same picture; None for its own id."""
    pixel_size_um: float | None = None
    """Side of a pixel in micrometres, where its file tells one."""


Load = Callable[[], RawImage]
"""Reads one image; called in a worker thread."""


ProgressCallback = Callable[[str, int, int], None]
"""Called with a split, the images that are done and the images there are."""


class Source(ABC):
    """A dataset's original data. Opening it validates its layout; reading an image validates that image."""

    channels: tuple[str, ...]
    """Names of the image channels, in order."""
    targets: tuple[str, ...]
    """Names of the label maps."""
    one_split_each: bool = False
    """True where the same picture in two splits is an error; False where the distribution is as it is."""

    @abstractmethod
    def counts(self) -> Mapping[str, int]:
        """How many images each split has, in the order train, val, test; splits without images are left out."""

    @abstractmethod
    def images(self, split: str) -> Iterator[Load]:
        """Yield a loader for each image of a split, in a fixed order. What must be read in sequence is read here."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Every file whose bytes decide the content, in a fixed order."""

    def told(self, left_out: Mapping[str, int], n_images: int) -> tuple[str, ...]:
        """Return in words what was left out or changed, a line each.

        Parameters
        ----------
        left_out
            Sums of the images' own counts.
        n_images
            That were read.
        """
        return tuple(f"{what}: {n:,} of {n_images:,} images" for what, n in left_out.items())

    @abstractmethod
    def content(self, digest: Callable[[Path], str]) -> Any:
        """Return JSON-able values that identify the content on every machine: files by their digest, not their path."""


def check_pixels(pixels: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """Return (C, H, W) pixels as they are when they can be prepared; raises SegbenchError where not."""
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise SegbenchError(
            f"{where}: an image is (channels, height, width) with at least one pixel, found {pixels.shape}"
        )
    if pixels.dtype.kind not in "biuf":
        raise SegbenchError(f"{where}: pixels must be numbers, found {pixels.dtype}")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        n = int(np.size(pixels) - np.isfinite(pixels).sum())
        raise SegbenchError(
            f"{where}: the image holds NaN or infinite pixels, {n:,} of {np.size(pixels):,}: give them a value, "
            "such as that of the background, and save it again"
        )
    return pixels
