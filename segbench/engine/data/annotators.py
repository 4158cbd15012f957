"""Finds the pictures that several images of a dataset are: the same pixels, each with another person's cells."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.prepared import PreparedDataset

_EVERY = 16
"""Pixels along a side between two that are looked at first."""
Windows = tuple[int, ...]
"""The windows of one image, in the order of their places."""


def annotated_again(data: PreparedDataset, split: str) -> list[list[Windows]]:
    """Return the pictures that stand several times in a split, each as the windows of every image that it is.

    Images are the same picture where all their windows lie at the same places and have the same pixels, whatever the
    files are called. Windows of one value throughout tell nothing.

    Parameters
    ----------
    data
        The dataset.
    split
        Of its images.
    """
    index = data.index(split)
    placed: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for row, (image, y, x) in enumerate(zip(index["image"], index["y"], index["x"], strict=True)):
        placed[image].append((y, x, row))
    pixels = np.load(data.images_path(split), mmap_mode="r")
    alike: dict[bytes, list[Windows]] = defaultdict(list)
    for corners in placed.values():
        corners.sort()
        rows = tuple(row for *_, row in corners)
        first = np.ascontiguousarray(pixels[rows[0], :, ::_EVERY, ::_EVERY])
        places = np.array([(y, x) for y, x, _ in corners]).tobytes()
        alike[hashlib.sha256(places + first.tobytes()).digest()].append(rows)
    pictures: list[list[Windows]] = []
    for bucket in alike.values():
        left = bucket
        while len(left) > 1:
            same = [rows for rows in left if _equal(pixels, left[0], rows)]
            left = [rows for rows in left if rows not in same] if same else left[1:]
            if len(same) > 1:
                pictures.append(same)
    return pictures


def _equal(pixels: npt.NDArray[Any], one: Windows, other: Windows) -> bool:
    """Return whether the windows of two images are the same, and not of one value throughout."""
    if all(pixels[row].min() == pixels[row].max() for row in one):
        return False
    return all(np.array_equal(pixels[a], pixels[b]) for a, b in zip(one, other, strict=True))
