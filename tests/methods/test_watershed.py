"""The baseline on drawn discs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segbench.engine.metrics import evaluate_labels
from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, ImageStack, Job, Task
from segbench.methods.predictions import LabelInstances
from segbench.methods.watershed import Watershed


def predict(folder: Path, images: np.ndarray, channels: tuple[str, ...], target: str) -> list[LabelInstances]:
    np.save(folder / "x.npy", images)
    arrays = Arrays(str(folder / "x.npy"), tuple(range(len(channels))))
    job = Job("r", "", Task("t", "d", channels, target), Budget(1), 0, str(folder), settings=Watershed.card.defaults)
    method = Watershed()
    method.import_library(job)
    return list(method.predict(job, ImageStack(arrays)))


def test_discs_are_found_and_scored_by_their_contrast(tmp_path: Path) -> None:
    images, labels = draw_discs(6, size=96, n_discs=8)
    images[:, :, :48] = images[:, :, :48] * 0.8  # the upper half is dimmer
    found = predict(tmp_path, images, ("nuclear",), "nuclear")
    scores = evaluate_labels(list(labels), [f.labels for f in found], [f.scores for f in found])
    assert scores.pooled.ap50 > 0.95
    for each in found:
        rows = [np.nonzero(each.labels == k + 1)[0].mean() for k in range(len(each.scores))]
        assert np.mean([s for s, row in zip(each.scores, rows, strict=True) if row < 44]) < np.mean(
            [s for s, row in zip(each.scores, rows, strict=True) if row > 52]
        )


def test_touching_discs_are_split(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    two = np.minimum(np.hypot(rows - 32, columns - 22), np.hypot(rows - 32, columns - 42)) < 11
    image = np.where(two, 0.8, 0.1).astype(np.float32)[np.newaxis, np.newaxis]
    (found,) = predict(tmp_path, image, ("nuclear",), "nuclear")
    assert len(found.scores) == 2
    assert found.labels[32, 22] != found.labels[32, 42]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_blank_image_has_no_instance(tmp_path: Path, value: float) -> None:
    (found,) = predict(tmp_path, np.full((1, 1, 32, 32), value, np.float32), ("nuclear",), "nuclear")
    assert found.scores.size == 0
    assert not found.labels.any()


def test_nuclei_are_sought_in_their_own_channel(tmp_path: Path) -> None:
    images, labels = draw_discs(1, n_channels=2)
    images[:, 1] = images[:, 1, ::-1]  # the membrane channel shows something else
    (found,) = predict(tmp_path, images, ("nuclear", "membrane"), "nuclear")
    assert evaluate_labels(list(labels), [found.labels], [found.scores]).pooled.ap50 == pytest.approx(1)


def test_phase_contrast_is_segmented_by_its_texture(tmp_path: Path) -> None:
    _, labels = draw_discs(1, size=96, n_discs=5)
    rng = np.random.default_rng(0)
    flat = 0.5 + rng.normal(0, 0.01, (1, 1, 96, 96))
    rough = 0.5 + rng.normal(0, 0.2, (1, 1, 96, 96))  # as bright as the ground on average
    images = np.where(labels[:, np.newaxis] > 0, rough, flat).astype(np.float32)
    (found,) = predict(tmp_path, images, ("phase",), "wholecell")
    centres = [np.argwhere(labels[0] == k).mean(axis=0).astype(int) for k in range(1, labels.max() + 1)]
    assert sorted(found.labels[y, x] for y, x in centres) == list(range(1, len(centres) + 1))
