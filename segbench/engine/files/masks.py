"""Tells a label map from what people take for one: a binary mask, a picture, numbers that were cut off at 255."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.pictures import read_numbers, read_picture
from segbench.errors import SegbenchError

LARGEST_LABEL = 2**31 - 1
_MOST = 0.5
"""A label on more than this share of the image and of its border looks like the background."""
_TINY, _MANY = 3.0, 50
"""Pixels a piece, and pieces: a mask of so many so small pieces looks like a picture."""


class Masks(enum.StrEnum):
    """What the numbers of mask files mean."""

    LABELS = "labels"
    """Each number is a cell, 0 the background."""
    BINARY = "binary"
    """Everything but 0 is cell; each connected piece becomes a cell."""
    COLOUR = "colour"
    """Each colour is a cell; black, or else the one colour of the whole border, is the background."""


@dataclass(frozen=True)
class MaskFacts:
    """What one pass over a label map tells."""

    name: str
    n_labels: int
    n_pieces: int
    """Connected pieces of one number, corners touching."""
    has_background: bool
    largest: int
    """The label on most pixels; 0 where there is none."""
    area_share: float
    """Of the image, by the largest label."""
    border_share: float
    """Of the image's border, by the largest label."""
    ends_at_255: bool
    """The largest number is 255, of a file of 8 bits."""
    pixels: int
    """On cells."""

    @property
    def looks_binary(self) -> bool:
        """Return whether one number has several pieces."""
        return self.n_labels == 1 and self.n_pieces > 1

    @property
    def looks_like_background(self) -> bool:
        """Return whether the largest label covers most of the image and most of its border."""
        return self.area_share > _MOST and self.border_share > _MOST

    @property
    def looks_cut_off(self) -> bool:
        """Return whether numbers end where 8 bits do, and pieces share them."""
        return self.ends_at_255 and self.n_pieces > self.n_labels

    @property
    def looks_like_a_picture(self) -> bool:
        """Return whether the pieces are as small as a picture's noise."""
        return self.n_pieces >= _MANY and self.pixels / max(1, self.n_pieces) < _TINY


def read_mask(path: Path, kind: Masks = Masks.LABELS) -> npt.NDArray[np.int32]:
    """Return a mask file as a label map (H, W), 0 for background.

    Raises
    ------
    SegbenchError
        The file is no mask: of another shape, with negative, broken or too large numbers, in a format that loses
        what it stores, or a colour picture where ``kind`` is not ``colour``.
    """
    return _read(path, kind)[0]


def read_mask_with_facts(path: Path, kind: Masks, name: str) -> tuple[npt.NDArray[np.int32], MaskFacts]:
    """Return what ``read_mask`` does, and what one pass over it tells; errors as there."""
    labels, eight_bits = _read(path, kind)
    return labels, facts_of(labels, name, eight_bits and int(labels.max()) == 255)


def _read(path: Path, kind: Masks) -> tuple[npt.NDArray[np.int32], bool]:
    """Return a label map, and whether its numbers are those of a file of 8 bits."""
    if kind is Masks.COLOUR:
        return numbered_colours(read_picture(path).pixels), False
    numbers = read_numbers(path)
    labels = as_labels(numbers, str(path))
    if kind is Masks.BINARY:
        return numbered_pieces(labels), False
    return labels, bool(numbers.dtype == np.uint8)


def as_labels(numbers: npt.NDArray[Any], what: str) -> npt.NDArray[np.int32]:
    """Return numbers as a label map (H, W) of int32.

    Parameters
    ----------
    numbers
        (H, W) of any type whose values are whole; True and False are 1 and 0.
    what
        Names it in the error.
    """
    if numbers.ndim != 2:
        raise SegbenchError(f"{what} has shape {numbers.shape}; a label map is (H, W)")
    if numbers.size == 0:
        raise SegbenchError(f"{what} has no pixels, its shape is {numbers.shape}")
    if numbers.dtype.kind == "f":
        if not np.isfinite(numbers).all():
            raise SegbenchError(f"{what} holds NaN or infinite numbers; labels are whole numbers, 0 for background")
        if (numbers != np.rint(numbers)).any():
            raise SegbenchError(f"{what} holds numbers that are not whole: is it a picture, or probabilities?")
    elif numbers.dtype.kind not in "biu":
        raise SegbenchError(f"{what} is of type {numbers.dtype}; labels are whole numbers, 0 for background")
    if numbers.dtype.kind != "b":
        low, high = numbers.min(), numbers.max()
        if low < 0 or high > LARGEST_LABEL:
            raise SegbenchError(f"{what} has labels from {low:.0f} to {high:.0f}; they go from 0 to {LARGEST_LABEL}")
    return np.ascontiguousarray(numbers, dtype=np.int32)


def numbered_pieces(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return the connected pieces of what is not 0, numbered from 1; corners touching join (8-connectivity)."""
    from scipy import ndimage

    pieces, _ = ndimage.label(labels != 0, structure=np.ones((3, 3), bool))
    return np.asarray(pieces, np.int32)


def numbered_colours(planes: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return a number for each colour of a picture (C, H, W), from 1; the background is 0.

    The background is black where black occurs, else the one colour of the whole border, else none.
    """
    flat = planes.reshape(planes.shape[0], -1).T
    colours, index = np.unique(flat, axis=0, return_inverse=True)
    index = index.reshape(planes.shape[1:])
    black = np.flatnonzero((colours == 0).all(axis=1))
    border = np.unique(np.concatenate([index[0], index[-1], index[:, 0], index[:, -1]]))
    background = int(black[0]) if black.size else int(border[0]) if border.size == 1 else -1
    numbers = np.zeros(len(colours), np.int32)
    rest = np.flatnonzero(np.arange(len(colours)) != background)
    numbers[rest] = np.arange(1, rest.size + 1)
    return numbers[index]


def facts_of(labels: npt.NDArray[np.int32], name: str, ends_at_255: bool = False) -> MaskFacts:
    """Return what one pass over a label map (H, W) tells; ``ends_at_255`` is known of its file alone."""
    from skimage.measure import label

    values, counts = np.unique(labels, return_counts=True)
    cells = values != 0
    _, n_pieces = label(labels, background=0, connectivity=2, return_num=True)
    largest = int(values[cells][np.argmax(counts[cells])]) if cells.any() else 0
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    on_cells = int(counts[cells].sum())
    return MaskFacts(
        name=name,
        n_labels=int(cells.sum()),
        n_pieces=int(n_pieces),
        has_background=bool((~cells).any()),
        largest=largest,
        area_share=float(counts[cells].max()) / labels.size if largest else 0.0,
        border_share=float((border == largest).mean()) if largest else 0.0,
        ends_at_255=ends_at_255,
        pixels=on_cells,
    )


def survey(facts: Sequence[MaskFacts]) -> tuple[str, ...]:
    """Return what a set of label maps is suspected of, a line a suspicion with counts.

    Raises
    ------
    SegbenchError
        It cannot be meant: every map that has cells has one number in many pieces, or looks like a picture.
    """
    with_cells = [one for one in facts if one.n_labels]
    binary = [one for one in with_cells if one.looks_binary]
    if binary and all(one.n_labels == 1 for one in with_cells):
        pieces = sum(one.n_pieces for one in with_cells)
        raise SegbenchError(
            f"every mask has one number in several pieces ({binary[0].name}: {binary[0].n_pieces:,}; {pieces:,} pieces "
            f"in {len(with_cells):,} masks): they are binary masks. Number the pieces with --masks binary"
        )
    pictures = [one for one in with_cells if one.looks_like_a_picture]
    if pictures:
        one = pictures[0]
        raise SegbenchError(
            f"{one.name} has {one.n_pieces:,} pieces of {one.pixels / one.n_pieces:.1f} pixels on average: it is a "
            f"picture, no label map ({len(pictures):,} of {len(facts):,} masks are like it)"
        )
    return tuple(_suspicions(facts, with_cells, binary))


def _suspicions(facts: Sequence[MaskFacts], with_cells: list[MaskFacts], binary: list[MaskFacts]) -> list[str]:
    lines = []
    total = f"of {len(facts):,} masks"
    background = [one for one in with_cells if one.looks_like_background]
    if background:
        one = background[0]
        lines.append(
            f"in {len(background):,} {total} a label covers most of the image and of its border ({one.name}: label "
            f"{one.largest}, {one.area_share:.0%} and {one.border_share:.0%}): is it the background? It must be 0"
        )
    full = [one for one in with_cells if not one.has_background and not one.looks_like_background]
    if full:
        lines.append(f"{len(full):,} {total} have no background, no pixel is 0 ({full[0].name})")
    cut_off = [one for one in with_cells if one.looks_cut_off]
    if cut_off:
        one = cut_off[0]
        lines.append(
            f"in {len(cut_off):,} {total} labels end at 255 in an 8-bit file and pieces share numbers ({one.name}: "
            f"{one.n_pieces:,} pieces, {one.n_labels:,} numbers): were they cut off? Save them with 16 bits"
        )
    if binary:
        lines.append(
            f"{len(binary):,} {total} have one number in several pieces ({binary[0].name}: {binary[0].n_pieces:,}): if "
            "they are binary masks, number the pieces with --masks binary"
        )
    pieces = [
        one for one in with_cells if one.n_pieces > one.n_labels and not one.looks_cut_off and not one.looks_binary
    ]
    if pieces:
        extra, labels = sum(one.n_pieces - one.n_labels for one in pieces), sum(one.n_labels for one in pieces)
        lines.append(
            f"{len(pieces):,} {total} have labels in several pieces ({pieces[0].name}): {extra:,} pieces more than the "
            f"{labels:,} labels there"
        )
    return lines
