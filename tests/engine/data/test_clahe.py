"""CLAHE gives what scikit-image gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.exposure import equalize_adapthist

from segbench.engine.data.clahe import equalize


def _error(image: np.ndarray, **options: float) -> float:
    ours = equalize(image, int(options.get("kernel_size", 128)), float(options.get("clip_limit", 0.01)))
    theirs = equalize_adapthist(image, **{"kernel_size": 128, **options})
    assert theirs.dtype == ours.dtype == np.float64
    return float(np.abs(ours - theirs).max())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.2, 6), st.integers(0, 1000))
def test_it_equals_scikit_image_for_any_size_and_brightness(height: int, width: int, power: float, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width)) ** power
    assert _error(image) < 1e-6


@pytest.mark.parametrize(
    "options", [{"kernel_size": 32}, {"kernel_size": 33}, {"clip_limit": 0.0}, {"clip_limit": 1.0}, {"clip_limit": 0.1}]
)
def test_it_equals_scikit_image_for_other_settings(options: dict[str, float]) -> None:
    assert _error(np.random.default_rng(0).gamma(1.0, 0.1, (210, 170)).clip(0, 1), **options) < 1e-6


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_it_equals_scikit_image_on_a_constant_image(value: float) -> None:
    assert _error(np.full((150, 140), value)) == 0


def test_it_equals_scikit_image_on_few_bright_pixels() -> None:
    image = np.zeros((300, 300))
    image[::50, ::60] = 1.0
    assert _error(image) < 1e-6


def test_it_leaves_its_input_alone() -> None:
    image = np.random.default_rng(0).random((64, 64))
    before = image.copy()
    equalize(image)
    np.testing.assert_array_equal(image, before)
