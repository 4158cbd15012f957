"""Percentiles of numbers that are counted and not sorted are those of numpy."""

from __future__ import annotations

import numpy as np
import pytest

from segbench.engine.data.ranks import percentiles_of_bands


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("percents", [(0.1, 99.9), (0.0, 100.0), (50.0, 50.0)])
def test_percentiles_are_those_of_numpy(dtype: str, percents: tuple[float, float]) -> None:
    numbers = np.random.default_rng(1).normal(0, 1000, (211, 37))
    numbers = (np.abs(numbers) if dtype.startswith("u") else numbers).astype(dtype)
    found = percentiles_of_bands(lambda: [numbers[:100], numbers[100:]], percents)
    assert found == tuple(np.percentile(numbers.astype(float), percents))


def test_one_number_and_zeros_of_both_signs_are_ranked() -> None:
    assert percentiles_of_bands(lambda: [np.array([7.5], np.float32)], (0.1, 99.9)) == (7.5, 7.5)
    zeros = np.array([0.0, -0.0, -3.0, 0.0, 2.0], np.float32)
    assert percentiles_of_bands(lambda: [zeros], (0.0, 50.0)) == (-3.0, 0.0)
