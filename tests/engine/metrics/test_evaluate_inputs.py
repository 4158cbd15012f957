"""The evaluator takes any integer maps from arrays or streams, in little memory, and refuses the rest in one line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from random_cells import disturbed, label_map, run_lengths

from segbench.engine.metrics import (
    Evaluation,
    evaluate_instances,
    evaluate_labels,
    evaluate_prediction_set,
    sweep_labels,
)
from segbench.errors import SegbenchError
from segbench.methods.predictions import LabelInstances, MaskInstances, PredictionSet, PredictionWriter


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = np.stack([label_map(rng, (40, 50), 12) for _ in range(30)])
    return truth, np.stack([disturbed(rng, labels) for labels in truth])


def same(one: Evaluation, other: Evaluation) -> bool:
    return (
        np.array_equal(one.pooled.precision, other.pooled.precision)
        and np.array_equal(one.pooled.recall, other.pooled.recall)
        and np.array_equal(one.pooled.score_thresholds, other.pooled.score_thresholds)
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int64, np.uint32, np.uint64])
def test_integer_types_give_the_same(maps, dtype) -> None:
    truth, found = maps
    assert same(evaluate_labels(truth.astype(dtype), found.astype(dtype)), evaluate_labels(truth, found))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("largest", [70_000, 3_000_000, 2**31 - 1])
def test_large_labels_with_gaps_give_the_same(maps, dtype, largest: int) -> None:
    truth, found = (stack.astype(np.int64) for stack in maps)
    spread = largest // max(truth.max(), found.max())
    wide = [(stack * spread).astype(dtype) for stack in (truth, found)]
    if largest == 2**31 - 1:
        wide[0][wide[0] == wide[0].max()] = largest
    assert same(evaluate_labels(*wide), evaluate_labels(truth, found))
    assert same(sweep_labels(*wide, radii=[1])[1], sweep_labels(truth, found, radii=[1])[1])
    masks = [masks_of(labels) for labels in found]
    assert same(evaluate_instances(wide[0], masks), evaluate_instances(truth, masks))


def masks_of(labels: np.ndarray) -> MaskInstances:
    counts = [run_lengths(labels == label) for label in np.unique(labels) if label]
    return MaskInstances(counts, np.ones(len(counts)))


def test_sources_threads_and_layouts_give_the_same(maps, tmp_path: Path) -> None:
    truth, found = maps
    expected = evaluate_labels(truth, found)
    np.save(tmp_path / "truth.npy", truth)
    np.save(tmp_path / "found.npy", found)
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("truth.npy", "found.npy")]
    assert same(evaluate_labels(*mapped), expected)
    assert same(evaluate_labels(list(truth), iter(found)), expected)
    assert same(evaluate_labels(truth, found, threads=2), expected)
    assert same(evaluate_labels(np.asfortranarray(truth), found[:, :, ::-1][:, :, ::-1]), expected)
    assert same(evaluate_instances(truth, [masks_of(labels) for labels in found]), expected)


def test_maps_of_different_sizes_are_paired_one_by_one(maps) -> None:
    truth, found = maps
    cut = [labels[: 20 + n, : 50 - n] for n, labels in enumerate(truth)]
    assert evaluate_labels(cut, (labels[: 20 + n, : 50 - n] for n, labels in enumerate(found))).pooled.n_images == 30


def test_many_pairs_in_one_image_outgrow_the_first_table() -> None:
    """A noise image has more (true, predicted) pairs than the hash table starts with, and labels of a pixel or two."""
    rng = np.random.default_rng(5)
    truth, found = rng.integers(0, 20_000, (2, 150, 150))
    result = evaluate_labels([truth, truth], [found, truth])
    assert result.images.n_truth[0] == np.count_nonzero(np.unique(truth))
    assert result.images.n_predictions[0] == np.count_nonzero(np.unique(found))
    assert result.images.true_positives[1].tolist() == [result.images.n_truth[1]] * 10
    assert same(sweep_labels([truth], [found], radii=[0])[0], evaluate_labels([truth], [found]))


def test_without_scores_the_order_is_that_of_images_and_labels() -> None:
    truth = np.zeros((2, 4, 9), np.int32)
    truth[:, 0:2, 0:2] = 1
    found = np.zeros_like(truth)
    found[0, 0:2, 0:2], found[0, 0:2, 5:7] = 9, 4  # the false alarm has the smaller label: it comes first
    first_is_wrong = evaluate_labels(truth, found).pooled
    found[0, 0:2, 5:7] = 10
    assert evaluate_labels(truth, found).pooled.ap50 > first_is_wrong.ap50


def test_prediction_folders_of_both_kinds(maps, tmp_path: Path) -> None:
    truth, found = maps
    rng = np.random.default_rng(4)
    with (
        PredictionWriter(tmp_path / "labels", "labels", 30, 40, 50) as labels_writer,
        PredictionWriter(tmp_path / "masks", "masks", 30, 40, 50) as masks_writer,
    ):
        for labels in found:
            _, ranks = np.unique(np.concatenate([[0], labels.ravel()]), return_inverse=True)
            ranked = ranks[1:].reshape(labels.shape).astype(np.int32)
            scores = rng.random(ranked.max())
            labels_writer.add(LabelInstances(ranked, scores))
            masks_writer.add(MaskInstances(masks_of(ranked).counts, scores))
    groups = ["ab"[n % 2] for n in range(30)]
    of_labels, of_masks = (
        evaluate_prediction_set(truth, PredictionSet(tmp_path / kind), groups) for kind in ("labels", "masks")
    )
    assert same(of_labels, of_masks)
    assert of_labels.pooled.map > 0
    assert list(of_labels.groups) == ["a", "b"]


def test_no_truth_is_told_from_no_match() -> None:
    empty, cell = np.zeros((1, 4, 4), np.int32), np.ones((1, 4, 4), np.int32)
    assert evaluate_labels(empty, cell).pooled.metrics() == dict.fromkeys(
        ("map", "ap50", "ap75", "ar", "ar50", "ar75"), -1.0
    )
    assert evaluate_labels(cell, empty).pooled.map == 0.0


def test_progress_counts_to_the_last_image(maps) -> None:
    truth, found = maps
    for threads in (1, 2):
        told: list[int] = []
        evaluate_labels(list(truth), list(found), threads=threads, progress=told.append)
        assert told == sorted(told)
        assert told[-1] == 30


@pytest.mark.slow
def test_a_livecell_sized_set_is_streamed_in_little_memory() -> None:
    """1,564 maps of 520x704 with 3,000 cells each are 4.6 GB and 4.7 million cells: under 300 MB beyond the maps."""
    labels = np.zeros((520, 704), np.int32)
    labels[:500, :660] = np.kron(np.arange(1, 3001).reshape(50, 60), np.ones((10, 11), np.int32))
    process = psutil.Process()
    evaluate_labels([labels], [labels])  # compiled before memory is watched
    resident = [process.memory_info().rss]

    def stream() -> Iterator[np.ndarray]:
        for _ in range(1564):
            yield labels.copy()

    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            resident.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = evaluate_labels(stream(), stream())
    stop.set()
    watcher.join()
    assert result.pooled.n_predictions == 1564 * 3000
    assert max(resident) - resident[0] < 300e6


SQUARE = np.ones((1, 4, 4), np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SQUARE, np.ones((2, 4, 4), int)), "truth has 1 label maps, predictions 2"),
        ((SQUARE, np.ones((1, 4, 5), int)), r"maps of truth are \(4, 4\) pixels, those of predictions \(4, 5\)"),
        ((list(SQUARE), [np.ones((4, 5), int)]), r"truth\[0\] is \(4, 4\) pixels, predictions\[0\] \(4, 5\)"),
        ((list(SQUARE), []), "truth has more maps than predictions, which have 0"),
        ((list(SQUARE), [SQUARE[0], SQUARE[0]]), "predictions have more maps than truth, which has 1"),
        ((SQUARE[0], SQUARE[0]), r"truth has shape \(4, 4\); a stack"),
        ((SQUARE, SQUARE.astype(float)), r"predictions\[0\] is of type float64; labels are integers"),
        ((SQUARE, SQUARE.astype(bool)), r"predictions\[0\] is of type bool, a mask .* as skimage.measure.label does"),
        ((SQUARE, -SQUARE), r"predictions\[0\] has the label -1; labels go from 0"),
        ((SQUARE, -SQUARE.astype(np.int64)), r"predictions\[0\] has labels from -1 to -1"),
        ((SQUARE, SQUARE.astype(np.uint32) * (2**31)), r"they go from 0, the background, to 2147483647"),
        ((SQUARE, SQUARE, [[0.5, 0.5]]), r"scores\[0\] has 2 scores, predictions\[0\] 1 labels"),
        ((SQUARE, SQUARE, []), "scores has 0 arrays"),
        ((SQUARE, SQUARE, [[0.5], [0.5]]), "scores has 2 arrays for 1 label maps"),
        ((SQUARE, SQUARE, [[np.nan]]), r"scores\[0\] holds NaN"),
        ((SQUARE, SQUARE, None, ["a", "b"]), "groups has 2 names for 1 label maps"),
        ((SQUARE, SQUARE, None, "ab"), "groups is the text"),
        ((SQUARE, SQUARE, None, None, 0), "max_detections is 0"),
        ((SQUARE[:0], SQUARE[:0]), "hold no label maps"),
    ],
)
def test_wrong_input_is_refused(arguments, message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        evaluate_labels(*arguments)


@pytest.mark.parametrize(
    ("counts", "scores", "message"),
    [
        ([[0, 16], [1]], [0.5, 0.5], r"predictions\[0\]: the run lengths of mask 1 sum to 1, the map has 16"),
        ([[0, 16]], [0.5, 0.5], "1 masks but 2 scores"),
        ([[0, 16]], [np.nan], "holds NaN"),
        ([[]], [0.5], "mask 0 sum to 0"),
    ],
)
def test_wrong_masks_are_refused(counts, scores, message: str) -> None:
    instances = MaskInstances([np.array(c, np.uint32) for c in counts], np.array(scores))
    with pytest.raises(SegbenchError, match=message):
        evaluate_instances(SQUARE, [instances])
