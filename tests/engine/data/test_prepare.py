"""Images become windows as the design says."""

from __future__ import annotations

import numpy as np
import pytest
from cell_images import discs
from skimage.exposure import equalize_adapthist

from segbench.engine.data.prepare import normalize, percentiles, prepare_image
from segbench.engine.data.source import RawImage
from segbench.engine.data.spec import PreparationSettings
from segbench.errors import SegbenchError

SETTINGS = PreparationSettings()


def _raw(pixels: np.ndarray, labels: np.ndarray) -> RawImage:
    return RawImage("a.png", "liver", pixels, {"cell": labels})


def test_normalisation_is_percentiles_clipping_then_clahe() -> None:
    image, _ = discs(300, 280, 12)
    low, high = np.percentile(image, (0.1, 99.9))
    expected = equalize_adapthist(np.clip((image - low) / (high - low), 0, 1), kernel_size=128)
    found = normalize(image, SETTINGS)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (37, 41), (300, 280)])
@pytest.mark.parametrize("percents", [(0.1, 99.9), (0, 100), (33.3, 50)])
def test_percentiles_are_numpys_to_the_last_bit(
    dtype: type, shape: tuple[int, int], percents: tuple[float, float]
) -> None:
    plane = np.random.default_rng(0).gamma(2.0, 20.0, shape).clip(0, 255).astype(dtype)
    assert percentiles(plane, percents) == tuple(np.percentile(plane.astype(np.float64), percents))


def test_without_clahe_only_the_percentiles_act() -> None:
    image, _ = discs(100, 100, 5)
    found = normalize(image, PreparationSettings(clahe_kernel=0, percentiles=(0, 100)))
    np.testing.assert_allclose(found, (image - image.min()) / (image.max() - image.min()), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, bool])
def test_a_constant_channel_becomes_zero(dtype: type) -> None:
    assert not normalize(np.ones((50, 60), dtype), SETTINGS).any()


def test_brightness_and_contrast_of_the_original_do_not_matter() -> None:
    image, _ = discs(200, 200, 8)
    brighter = image.astype(np.float64) * 4 + 100
    np.testing.assert_allclose(normalize(image, SETTINGS), normalize(brighter, SETTINGS), atol=1e-4)


def test_a_pixel_has_one_value_in_all_windows() -> None:
    image, labels = discs(500, 460, 30)
    found = prepare_image(_raw(image[None], labels), SETTINGS, keep_empty=True)
    whole = np.full((500, 460), np.nan, np.float32)
    for (y, x), pixels in zip(found.corners, found.pixels, strict=True):
        seen = whole[y : y + 256, x : x + 256]
        agree = np.isnan(seen) | (seen == pixels[0])
        assert agree.all()
        seen[:] = pixels[0]
    assert not np.isnan(whole).any()
    assert found.corners == [
        (0, 0),
        (0, 192),
        (0, 204),
        (192, 0),
        (192, 192),
        (192, 204),
        (244, 0),
        (244, 192),
        (244, 204),
    ]


def test_cut_cells_keep_their_part_and_every_window_counts_from_one() -> None:
    image, labels = discs(500, 460, 30)
    found = prepare_image(_raw(image[None], labels * 1000), SETTINGS, keep_empty=True)
    for (y, x), numbered, shapes in zip(found.corners, found.labels["cell"], found.shapes["cell"], strict=True):
        original = labels[y : y + 256, x : x + 256]
        assert ((numbered > 0) == (original > 0)).all()
        pairs = set(zip(numbered.ravel().tolist(), original.ravel().tolist(), strict=True))
        assert len(pairs) == len({p[0] for p in pairs}) == len({p[1] for p in pairs})
        assert sorted(p[0] for p in pairs) == list(range(numbered.max() + 1))
        assert shapes.area.tolist() == np.bincount(numbered.ravel())[1:].tolist()


def test_windows_without_cells_go_only_where_they_are_not_kept() -> None:
    image, _ = discs(448, 448, 5)
    labels = np.zeros((448, 448), np.int32)
    labels[10:20, 10:20] = 1
    assert prepare_image(_raw(image[None], labels), SETTINGS, keep_empty=False).corners == [(0, 0)]
    assert len(prepare_image(_raw(image[None], labels), SETTINGS, keep_empty=True).corners) == 4
    nothing = prepare_image(_raw(image[None], np.zeros_like(labels)), SETTINGS, keep_empty=False)
    assert nothing.pixels.shape == (0, 1, 256, 256)


def test_a_small_image_is_one_padded_window() -> None:
    image, labels = discs(100, 130, 6)
    found = prepare_image(_raw(image[None], labels), SETTINGS, keep_empty=True)
    assert found.pixels.shape == (1, 1, 256, 256)
    np.testing.assert_array_equal(found.pixels[0, 0, :100, :130], normalize(image, SETTINGS))
    assert not found.pixels[0, 0, 100:].any()
    assert not found.labels["cell"][0, :, 130:].any()


@pytest.mark.parametrize(
    ("pixels", "labels", "why"),
    [
        (np.full((1, 64, 64), np.nan), np.ones((64, 64), int), "NaN or infinite"),
        (np.full((1, 64, 64), np.inf), np.ones((64, 64), int), "NaN or infinite"),
        (np.zeros((1, 64, 64)), np.ones((64, 60), int), r"image is \(64, 64\).*labels are \(64, 60\)"),
        (np.zeros((1, 64, 64)), -np.ones((64, 64), int), "found -1"),
        (np.zeros((64, 64)), np.ones((64, 64), int), "channels, height, width"),
        (np.zeros((1, 64, 64), complex), np.ones((64, 64), int), "numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared_is_told_with_its_name(pixels: np.ndarray, labels: np.ndarray, why: str) -> None:
    with pytest.raises(SegbenchError, match=f"^a.png.*{why}"):
        prepare_image(_raw(pixels, labels), SETTINGS, keep_empty=True)
