"""The shared statistics: normal scores and the bootstrap of paired differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from segbench.analysis.scores import normal_scores, paired_interval

VALUES = arrays(np.float64, st.integers(2, 20), elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), unique=True)


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_normal_scores_are_scipys_z_score_through_its_normal_cdf(values: np.ndarray) -> None:
    np.testing.assert_allclose(normal_scores(values), stats.norm.cdf(stats.zscore(values)), rtol=1e-9)


@given(VALUES, st.floats(0.01, 100), st.floats(-100, 100), st.randoms())
@settings(max_examples=100, deadline=None)
def test_normal_scores_keep_under_scaling_and_follow_permutation(
    values: np.ndarray, factor: float, shift: float, random: object
) -> None:
    scores = normal_scores(values)
    np.testing.assert_allclose(normal_scores(values * factor + shift), scores, atol=1e-6)
    np.testing.assert_allclose(normal_scores(-values), 1 - scores, atol=1e-9)
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_allclose(normal_scores(values[order]), scores[order], atol=1e-12)


def test_what_cannot_be_compared_has_no_normal_score() -> None:
    assert np.isnan(normal_scores([3.0])).all()
    assert np.isnan(normal_scores([3.0, np.nan])).all()
    assert normal_scores([0.1 + 0.2, 0.3]).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(normal_scores([1.0, np.nan, 3.0])[[0, 2]], stats.norm.cdf([-1, 1]))


def test_a_paired_interval_is_about_its_centre_and_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(1)
    gaps = rng.normal(0.2, 0.1, size=400)
    low, high = paired_interval(gaps, np.ones(400), 0.5, 4000, rng)
    assert low is not None
    assert high is not None
    half = 1.96 * gaps.std() / 20
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.002)
    assert paired_interval(gaps[:1], np.ones(1), 0.5, 100, rng) == (None, None)
    assert paired_interval(np.full(3, 0.1), np.ones(3), 0.1, 100, rng) == pytest.approx((0.1, 0.1))
