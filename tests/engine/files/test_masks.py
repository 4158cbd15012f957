"""A mask is checked for being one: what cannot be meant is refused, what may be is told with counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segbench.engine.files.masks import Masks, as_labels, facts_of, numbered_colours, read_mask, survey
from segbench.errors import SegbenchError


def discs(n: int = 9, size: int = 96, radius: int = 8) -> Any:
    """Return n discs numbered from 1 on a grid."""
    labels = np.zeros((size, size), np.int32)
    y, x = np.mgrid[:size, :size]
    for k in range(n):
        cy, cx = 16 + 32 * (k // 3), 16 + 32 * (k % 3)
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = k + 1
    return labels


def told(*maps: Any, ends_at_255: bool = False) -> str:
    return "\n".join(survey([facts_of(labels, f"m{n}.png", ends_at_255) for n, labels in enumerate(maps)]))


def test_a_label_map_raises_no_suspicion() -> None:
    assert told(discs(), discs(4), np.zeros((96, 96), np.int32)) == ""


def test_masks_of_one_number_in_many_pieces_are_refused() -> None:
    binary = (discs() > 0).astype(np.int32)
    with pytest.raises(SegbenchError, match=r"m0.png: 9; 18 pieces in 2 masks.*--masks binary"):
        told(binary, binary * 255)


def test_one_binary_mask_among_label_maps_is_told() -> None:
    assert "1 of 2 masks have one number in several pieces (m1.png: 9)" in told(discs(), (discs() > 0).astype(np.int32))


def test_a_labelled_background_is_told() -> None:
    labelled = discs() + 1
    assert "in 1 of 1 masks a label covers most of the image and of its border (m0.png: label 1" in told(labelled)


def test_a_mask_without_background_is_told() -> None:
    quarters = np.kron(np.array([[1, 2], [3, 4]]), np.ones((20, 20))).astype(np.int32)
    assert "1 of 1 masks have no background" in told(quarters)


def test_numbers_that_end_at_255_and_are_shared_are_told() -> None:
    labels = discs()
    labels[labels >= 8] = 255
    assert "labels end at 255 in an 8-bit file and pieces share numbers" in told(labels, ends_at_255=True)
    assert "255" not in told(discs(), ends_at_255=True)


def test_a_picture_is_no_label_map() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 96)).astype(np.int32)
    with pytest.raises(SegbenchError, match="it is a picture"):
        told(noise)


def test_pieces_and_colours_can_be_numbered(tmp_path: Path) -> None:
    labels = discs()
    Image.fromarray(((labels > 0) * 255).astype(np.uint8)).save(tmp_path / "binary.png")
    numbered = read_mask(tmp_path / "binary.png", Masks.BINARY)
    assert numbered.max() == 9
    assert np.array_equal(numbered > 0, labels > 0)
    colours = np.array([[0, 0, 0], *([10 * k, 255 - k, k] for k in range(1, 10))], np.uint8)
    Image.fromarray(colours[labels]).save(tmp_path / "colour.png")
    coloured = read_mask(tmp_path / "colour.png", Masks.COLOUR)
    assert len(np.unique(coloured)) == 10
    assert np.array_equal(coloured == 0, labels == 0)


def test_without_black_the_colour_of_the_border_is_the_background() -> None:
    planes = np.full((3, 8, 8), 200, np.uint8)
    planes[0, 2:4, 2:4] = 7
    assert numbered_colours(planes).sum() == 4


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.array([[0.5, 1.0]]), "not whole"),
        (np.array([[np.nan, 1.0]]), "NaN"),
        (np.array([[-1, 1]]), "labels from -1 to 1"),
        (np.array([[0, 2**40]]), "they go from 0 to 2147483647"),
        (np.zeros((2, 3, 4), int), r"\(2, 3, 4\)"),
        (np.zeros((0, 4), int), "no pixels"),
        (np.array([["a"]]), "of type"),
    ],
)
def test_numbers_that_are_no_labels_are_refused(numbers: Any, message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        as_labels(numbers, "m.npy")


def test_labels_beyond_65535_and_whole_floats_are_labels() -> None:
    assert as_labels(np.array([[0, 70_000]]), "m").tolist() == [[0, 70_000]]
    assert as_labels(np.array([[0.0, 3.0]]), "m").dtype == np.int32
    assert as_labels(np.array([[False, True]]), "m").tolist() == [[0, 1]]
