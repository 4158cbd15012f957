"""Windows' instances become one label map of the whole image, cells across seams included."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from cell_images import discs

from segbench.engine.data.stitching import Stitcher, stitched
from segbench.engine.data.whole import WholeImage, true_map
from segbench.engine.data.windows import number, positions
from segbench.methods.predictions import Instances, LabelInstances, MaskInstances, run_lengths

Labels = npt.NDArray[np.int32]
WINDOW, STEP = 64, 48
Placed = tuple[tuple[int, int], Labels]


def _cut(labels: Labels, window: int = WINDOW, step: int = STEP) -> list[Placed]:
    """Cut a label map into windows that number their cells anew, as preparation does."""
    sides = [positions(length, window, step, "shift") for length in labels.shape]
    placed = []
    for y in sides[0]:
        for x in sides[1]:
            piece = np.zeros((window, window), np.int32)
            number(labels, int(labels.max()), y, x, piece)
            placed.append(((y, x), piece))
    return placed


def _scored(labels: Labels, score: float = 0.9) -> LabelInstances:
    return LabelInstances(labels, np.full(int(labels.max(initial=0)), score))


def _as_masks(labels: Labels, score: float = 0.9) -> MaskInstances:
    counts = [run_lengths(labels == k) for k in range(1, int(labels.max(initial=0)) + 1)]
    return MaskInstances(counts, np.full(len(counts), score))


def _same(found: Labels, truth: Labels) -> bool:
    """Say whether two label maps show the same cells, whatever their numbers."""
    pairs = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(found)) == len(np.unique(truth))


def _field(height: int = 200, width: int = 170, n: int = 60, seed: int = 0) -> Labels:
    labels = discs(height, width, n, seed)[1]
    compact = np.zeros_like(labels)
    number(labels, n, 0, 0, compact)
    return compact


@pytest.mark.parametrize("kind", ["labels", "masks"])
@pytest.mark.parametrize("seed", range(3))
def test_windows_of_the_truth_give_the_truth(kind: str, seed: int) -> None:
    truth = _field(seed=seed)
    # overlapping discs leave slivers: what is in pieces is no one cell to a window
    truth = _whole_pieces(truth)
    make = _scored if kind == "labels" else _as_masks
    whole = stitched(((corner, make(labels)) for corner, labels in _cut(truth)), (WINDOW, WINDOW), truth.shape)
    assert _same(whole.labels, truth)
    assert whole.scores.tolist() == [0.9] * int(truth.max())
    assert np.unique(whole.labels).tolist() == list(range(int(truth.max()) + 1))


def _whole_pieces(labels: Labels) -> Labels:
    from skimage.measure import label

    pieces = np.asarray(label(labels, connectivity=1), np.int32)
    areas = np.bincount(pieces.ravel())
    pieces[areas[pieces] < 40] = 0
    compact = np.zeros_like(pieces)
    number(pieces, int(pieces.max()), 0, 0, compact)
    return compact


def test_a_cell_larger_than_every_window_is_joined_from_its_parts() -> None:
    truth = np.zeros((200, 200), np.int32)
    truth[20:180, 30:50] = 1
    truth[100:120, 50:190] = 1
    truth[60:80, 120:140] = 2
    whole = stitched(((corner, _scored(labels)) for corner, labels in _cut(truth)), (WINDOW, WINDOW), truth.shape)
    assert _same(whole.labels, truth)


def test_touching_cells_across_a_seam_stay_two() -> None:
    truth = np.zeros((64, 112), np.int32)
    truth[10:30, 40:70], truth[30:50, 40:70] = 1, 2
    whole = stitched(((corner, _scored(labels)) for corner, labels in _cut(truth)), (WINDOW, WINDOW), truth.shape)
    assert _same(whole.labels, truth)


def test_the_window_that_shows_a_cell_furthest_from_its_edge_has_it() -> None:
    first, second = np.zeros((2, 64, 64), np.int32)
    first[20:30, 50:60] = 1  # columns 50..60, 4 from the edge of the first window
    second[20:30, 3:13] = 1  # columns 51..61, 3 from the edge of the second
    for flip in (False, True):
        one, two = (second[:, ::-1], first[:, ::-1]) if flip else (first, second)
        whole = stitched([((0, 0), _scored(one, 0.3)), ((0, 48), _scored(two, 0.8))], (64, 64), (64, 112))
        columns = np.flatnonzero(whole.labels[25])
        assert (columns.min(), columns.size) == ((112 - 60, 10) if flip else (50, 10))
        assert whole.scores.tolist() == [0.8 if flip else 0.3]


def test_what_one_window_alone_sees_at_its_edge_is_overruled_by_the_one_that_sees_better() -> None:
    ghost, nothing = np.zeros((2, 64, 64), np.int32)
    ghost[30:36, 58:64] = 1
    assert not stitched([((0, 0), _scored(ghost)), ((0, 40), _scored(nothing))], (64, 64), (64, 104)).scores.size
    assert stitched([((0, 0), _scored(ghost))], (64, 64), (64, 64)).scores.size == 1
    inside = np.roll(ghost, -30, axis=1)
    assert stitched([((0, 0), _scored(inside)), ((0, 40), _scored(nothing))], (64, 64), (64, 104)).scores.size == 1


def test_conflicts_go_to_the_higher_score() -> None:
    merged, apart = np.zeros((2, 64, 64), np.int32)
    merged[20:40, 44:60] = 1  # columns 44..60 of both cells in one
    apart[20:30, 4:20], apart[30:40, 4:20] = 1, 2  # the same place in the window at column 40
    placed = [((0, 0), merged), ((0, 40), apart)]
    for low, high, n in ((0.2, 0.9, 2), (0.9, 0.2, 1)):
        scored = [(corner, _scored(labels, s)) for (corner, labels), s in zip(placed, (low, high), strict=True)]
        whole = stitched(scored, (64, 64), (64, 104))
        assert len(whole.scores) == n
        assert np.count_nonzero(whole.labels) == 320


def test_overlapping_masks_share_no_pixel_in_the_whole_image() -> None:
    masks = np.zeros((3, 40, 40), np.bool_)
    masks[0, 5:20, 5:20] = masks[1, 15:30, 15:30] = masks[2, 6:20, 6:20] = True
    found = MaskInstances([run_lengths(mask) for mask in masks], np.array([0.4, 0.9, 0.5]))
    whole = stitched([((0, 0), found)], (40, 40), (40, 40))
    assert whole.scores.tolist() == [0.9, 0.5]  # the first lies under the third
    assert (np.count_nonzero(whole.labels == 1), np.count_nonzero(whole.labels == 2)) == (225, 196 - 25)


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_noisy_windows_lose_and_double_no_cell(kind: str) -> None:
    """Each window sees each cell a little differently, and seams cut a third of them."""
    rng = np.random.default_rng(1)
    truth = np.zeros((300, 300), np.int32)
    for k, (y, x) in enumerate([(y, x) for y in range(10, 280, 24) for x in range(10, 280, 24)], start=1):
        truth[y : y + 16, x : x + 16] = k
    make = _scored if kind == "labels" else _as_masks

    def seen() -> Iterator[tuple[tuple[int, int], Instances]]:
        for corner, labels in _cut(truth):
            down, right = rng.integers(0, 3, 2)
            yield corner, make(np.ascontiguousarray(np.pad(labels, 1)[down : down + WINDOW, right : right + WINDOW]))

    whole = stitched(seen(), (WINDOW, WINDOW), truth.shape)
    assert len(whole.scores) == truth.max()
    both = (whole.labels > 0) & (truth > 0)
    hits = np.unique(np.stack([whole.labels[both], truth[both]]), axis=1)
    assert hits.shape[1] == truth.max(), "each found cell lies on one true cell"


def test_cells_are_written_as_rows_of_windows_pass(tmp_path) -> None:  # type: ignore[no-untyped-def]
    truth = _whole_pieces(_field(height=600, n=200, seed=4))
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.int32, shape=truth.shape)
    stitcher = Stitcher(*truth.shape, out=out)
    most = 0
    for (top, left), labels in _cut(truth):
        stitcher.add(top, left, _scored(labels), (WINDOW, WINDOW))
        most = max(most, len(stitcher._open))
        if top > 300:
            assert out[: top - 120].any(), "the top is written while the bottom is not yet there"
    whole = stitcher.finish()
    assert most <= 3 * len(positions(truth.shape[1], WINDOW, STEP, "shift"))
    assert _same(np.asarray(whole.labels), truth)


def test_the_order_of_writing_is_that_of_all_at_once() -> None:
    """What waits for its neighbours is decided as if every cell were known."""
    rng = np.random.default_rng(7)

    def guess() -> LabelInstances:
        labels = _whole_pieces(_field(64, 64, 14, seed=int(rng.integers(1000))))
        return LabelInstances(labels, rng.random(int(labels.max())))

    corners = [(y, x) for y in range(0, 400, STEP) for x in range(0, 100, STEP)]
    placed = [(corner, guess()) for corner in corners]
    shape = (corners[-1][0] + 64, corners[-1][1] + 64)
    streamed = stitched(placed, (64, 64), shape)
    late = Stitcher(*shape)
    writes = late._write
    late._write = lambda boxes: None if boxes or late._open else writes(boxes)  # type: ignore[method-assign]
    for (top, left), instances in placed:
        late.add(top, left, instances, (64, 64))
    at_once = late.finish()
    assert _same(streamed.labels, at_once.labels)
    assert sorted(streamed.scores) == sorted(at_once.scores)


def test_windows_out_of_order_or_of_another_size_are_refused() -> None:
    stitcher = Stitcher(100, 100)
    stitcher.add(36, 0, _scored(np.ones((64, 64), np.int32)), (64, 64))
    with pytest.raises(ValueError, match="does not follow"):
        stitcher.add(0, 0, _scored(np.ones((64, 64), np.int32)), (64, 64))
    with pytest.raises(ValueError, match="its label map is"):
        stitcher.add(36, 36, _scored(np.ones((60, 64), np.int32)), (64, 64))
    with pytest.raises(ValueError, match="mask 0 has 4096 pixels"):
        stitcher.add(36, 36, _as_masks(np.ones((64, 64), np.int32)), (60, 64))


def test_what_lies_beyond_the_image_is_left_out() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[40:60, 5:20], labels[52:60, 30:40] = 1, 2
    whole = stitched([((0, 0), _scored(labels))], (64, 64), (50, 45))
    assert whole.labels.shape == (50, 45)
    assert (len(whole.scores), np.count_nonzero(whole.labels)) == (1, 150)


def test_the_true_map_is_that_of_the_image_to_the_pixel() -> None:
    truth = _whole_pieces(_field(seed=5))
    placed = _cut(truth)
    image = WholeImage("a", "skin", tuple(range(len(placed))), tuple(corner for corner, _ in placed), truth.shape)
    assert _same(true_map(np.stack([labels for _, labels in placed]), image), truth)
