"""The variance of scores: its parts, intervals made of them, and what these cover in worlds whose noise is known."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from segbench.analysis.variance import IMAGES, SEEDS, TISSUES, contrast, estimate, holm, mean_estimate


def simulation() -> ModuleType:
    """Return benchmarks/coverage.py under a name that no package has."""
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("interval_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_seeds_alone_give_students_interval() -> None:
    scores = np.array([0.469, 0.549, 0.483, 0.541])
    found = estimate(scores)
    low, high = stats.t.interval(0.95, 3, scores.mean(), stats.sem(scores))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.of == SEEDS


def test_two_groups_of_seeds_give_welchs_test() -> None:
    one, other = np.array([0.5, 0.52, 0.49]), np.array([0.45, 0.55, 0.5, 0.47])
    found = contrast([(1.0, one, None, True), (-1.0, other, None, True)])
    assert found.p == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)


def test_what_seeds_and_images_both_hold_is_counted_once() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, 5000)
    seeds = np.array([0.4, 0.5, 0.6])
    found = estimate(seeds, seeds[:, None] + noise, 1000)
    assert found.deviation(IMAGES) == pytest.approx(0.02, rel=0.03)
    assert found.deviation(SEEDS) == pytest.approx(0.1 / math.sqrt(3), rel=0.01)
    assert found.variance == pytest.approx(0.02**2 + 0.01 / 3, rel=0.02)


def test_one_seed_has_an_interval_over_images_and_no_p_value() -> None:
    found = estimate(np.array([0.5]), np.linspace(0.45, 0.55, 50)[None], 50)
    assert (found.of, found.p, found.seeds_open) == (IMAGES, None, True)
    assert found.low is not None
    assert found.low < 0.5
    assert estimate(np.array([0.5])).low is None
    assert not estimate(np.array([0.5]), random=False).seeds_open


def test_a_p_value_below_the_level_and_an_interval_without_zero_are_one() -> None:
    rng = np.random.default_rng(1)
    for n in (2, 2, 2, 3, 4, 8):
        for _ in range(20):
            one, other = rng.normal(0.05, 0.04, n), rng.normal(0, 0.02, n)
            draws = rng.normal(0, 0.01, (2, 1, 100))
            found = contrast(
                [(1.0, one, one[:, None] + draws[0], True), (-1.0, other, other[:, None] + draws[1], True)]
            )
            assert found.low is not None
            assert found.high is not None
            assert found.p is not None
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_equal_weights_of_tissues_are_the_usual_mean() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.5])
    found = mean_estimate(values, TISSUES, np.full(4, 7.0))
    assert found.half == pytest.approx(stats.t.ppf(0.975, 3) * stats.sem(values))


def test_holms_correction_leaves_what_is_unknown_alone() -> None:
    assert holm([0.01, None, 0.03, 0.02]) == [pytest.approx(0.03), None, pytest.approx(0.04), pytest.approx(0.04)]
    assert holm([]) == []


def test_holms_correction_is_that_of_statsmodels_with_ties_too() -> None:
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        p = np.round(rng.uniform(0, 0.2, n), 2)
        assert holm(p.tolist()) == pytest.approx(multipletests(p, method="holm")[1].tolist(), abs=1e-15)


@pytest.mark.parametrize("name", ["accuracy", "paired difference"])
def test_intervals_cover_what_they_say_in_a_simulated_world(name: str) -> None:
    module = simulation()
    assert 0.92 <= module.coverage(module.WORLDS[0], module.INTERVALS[name], 400) <= 0.98


def test_the_simulation_does_not_stand_in_for_the_package_of_its_name() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage", path)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match="not the package"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
