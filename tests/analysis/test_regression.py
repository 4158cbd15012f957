"""Morphology and regression: tissues as they are, and least squares equal to statsmodels' formulas and NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.analysis.morphology import describe_tissues
from segbench.analysis.regression import fit_least_squares, fit_regressions, scale

TASK = "tissuenet-nuclear-1ch"
TISSUES = ["Breast", "Colon", "Epidermis", "Esophagus", "Lymph Node", "Pancreas", "Tonsil", "Skin", "Lung", "Spleen"]


def tissue_rows(
    make_shape: Any, n: Any, area: Any, elongation: Any, names: list[str] = TISSUES, **fields: Any
) -> tuple[Any, ...]:
    """Return the rows of tissues: training images in the split train, shapes in the split test."""
    rows = []
    for name, images, size, long in zip(names, n, area, elongation, strict=False):
        rows.append(make_shape(name, split="train", n_images=int(images), area=1.0, elongation=0.1, **fields))
        rows.append(make_shape(name, area=float(size), elongation=float(long), **fields))
    return tuple(rows)


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray]:
    """Return predictors (N, S, E of ten tissues) and a response that follows from them, and noise."""
    rng = np.random.default_rng(5)
    predictors = np.column_stack([rng.integers(20, 900, 10), rng.uniform(80, 400, 10), rng.uniform(0.2, 0.9, 10)])
    return predictors, 0.3 + scale(predictors) @ [0.2, 0.1, -0.15] + rng.normal(0, 0.02, 10)


def test_a_fit_equals_statsmodels_formulas_and_numpys_least_squares(results: Any, make_shape: Any, world: Any) -> None:
    predictors, response = world
    rows = tissue_rows(make_shape, *predictors.T)
    results.run("a", TASK, {"all": 0.5, **dict(zip(TISSUES, response, strict=True))}, tissues=rows)
    table = fit_regressions(results.source(), exclude=()).table
    scaled = scale(predictors)
    frame = pd.DataFrame(scaled, columns=["N", "S", "E"]).assign(y=response)
    model = smf.ols("y ~ N + S + E", frame).fit()
    assert table["term"].to_list() == ["intercept", "N", "S", "E"]
    assert table["formula"][0] == "map ~ N + S + E"
    np.testing.assert_allclose(table["coefficient"], model.params)
    np.testing.assert_allclose(table["std_error"], model.bse)
    np.testing.assert_allclose(table["p"], model.pvalues)
    np.testing.assert_allclose(table.select("low", "high"), model.conf_int(0.05))
    assert table.row(0, named=True)["r2"] == pytest.approx(model.rsquared)
    assert table.row(0, named=True)["p_model"] == pytest.approx(model.f_pvalue)
    design = np.column_stack([np.ones(10), scaled])
    np.testing.assert_allclose(table["coefficient"], np.linalg.lstsq(design, response, rcond=None)[0])
    # A predictor's VIF is 1 / (1 - R2) of its regression on the others
    r2 = smf.ols("N ~ S + E", frame).fit().rsquared
    assert table["vif"].to_list()[:2] == [None, pytest.approx(1 / (1 - r2))]


def test_lung_and_spleen_are_left_out_unless_asked_for(results: Any, make_shape: Any, world: Any) -> None:
    predictors, response = world
    rows = tissue_rows(make_shape, *predictors.T)
    results.run("a", TASK, {"all": 0.5, **dict(zip(TISSUES, response, strict=True))}, tissues=rows)
    source = results.source()
    result = fit_regressions(source)
    assert result.table["tissues"].unique().to_list() == [8]
    assert "left out of the fits: Lung and Spleen" in result.warnings
    expected = fit_least_squares(scale(predictors[:8]), response[:8])
    np.testing.assert_allclose(result.table["coefficient"], expected.coefficients)
    assert any(w.startswith("only 8 tissues for 3 predictors") for w in result.warnings)
    assert fit_regressions(source, exclude=["Breast"]).table["tissues"].unique().to_list() == [9]


def test_livecell_is_fitted_on_size_and_elongation_alone(results: Any, make_shape: Any) -> None:
    names = ["A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y"]
    area, elongation = [100, 200, 150, 400, 300, 250], [0.2, 0.9, 0.4, 0.5, 0.3, 0.8]
    rows = tissue_rows(make_shape, [10] * 6, area, elongation, names, target="wholecell", dataset="livecell")
    scores = 0.2 + scale(np.column_stack([area, elongation]).astype(float)) @ [0.4, 0.1]
    results.run("a", "livecell-wholecell", {"all": 0.5, **dict(zip(names, scores, strict=True))}, tissues=rows)
    result = fit_regressions(results.source())
    assert result.table["formula"].unique().to_list() == ["map ~ S + E"]
    np.testing.assert_allclose(result.table["coefficient"], [0.2, 0.4, 0.1], atol=1e-12)
    assert result.table["r2"][0] == pytest.approx(1)
    assert not result.warnings


@pytest.mark.parametrize(
    ("n", "area", "elongation", "message"),
    [
        ([1, 2, 3, 4], [1, 3, 2, 9], [0.1, 0.5, 0.2, 0.9], "too few tissues \\(4\\) to fit 3 predictors, at least 5"),
        ([5] * 6, [7] * 6, [0.5] * 6, "too few tissues \\(6\\) to fit 0 predictors"),
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [0.1, 0.5, 0.2, 0.9, 0.4, 0.3], "depend linearly on each other"),
    ],
)
def test_what_cannot_be_fitted_is_told(
    results: Any, make_shape: Any, n: list[int], area: list[float], elongation: list[float], message: str
) -> None:
    rows = tissue_rows(make_shape, n, area, elongation)
    scores = {name: 0.1 * k for k, name in enumerate(TISSUES[: len(n)])}
    results.run("a", TASK, {"all": 0.5, **scores}, tissues=rows)
    result = fit_regressions(results.source())
    assert result.table.height == 0
    assert any(pl.Series([w]).str.contains(message)[0] and w.endswith(f"A on {TASK}") for w in result.warnings)


def test_a_predictor_that_does_not_vary_is_left_out_of_the_model(results: Any, make_shape: Any) -> None:
    area, elongation = [100, 200, 150, 400, 300, 250], [0.2, 0.9, 0.4, 0.5, 0.3, 0.8]
    rows = tissue_rows(make_shape, [24] * 6, area, elongation)
    scores = 0.2 + scale(np.column_stack([area, elongation]).astype(float)) @ [0.4, 0.1]
    results.run("a", TASK, dict(zip(TISSUES, scores, strict=False)), tissues=rows)
    result = fit_regressions(results.source())
    assert result.table["formula"].unique().to_list() == ["map ~ S + E"]
    np.testing.assert_allclose(result.table["coefficient"], [0.2, 0.4, 0.1], atol=1e-12)
    assert any(w.startswith("N is the same in all tissues and left out of the model") for w in result.warnings)


def test_predictors_that_go_together_are_told(results: Any, make_shape: Any) -> None:
    n = np.arange(1, 11) * 10
    rows = tissue_rows(make_shape, n, n + np.array([0, 1] * 5), np.random.default_rng(0).uniform(0.1, 0.9, 10))
    results.run("a", TASK, dict(zip(TISSUES, np.linspace(0.1, 0.9, 10) ** 2, strict=True)), tissues=rows)
    result = fit_regressions(results.source(), exclude=())
    assert result.table["vif"].max() > 10
    assert any(w.startswith("predictors go together") for w in result.warnings)


def test_tissues_without_score_or_shape_are_left_out_and_told(results: Any, make_shape: Any, world: Any) -> None:
    predictors, response = world
    rows = tissue_rows(make_shape, *predictors[:9].T)
    scores = {**dict(zip(TISSUES, response, strict=True)), "Colon": None}
    results.run("a", TASK, scores, tissues=rows)
    result = fit_regressions(results.source(), exclude=())
    assert result.table["tissues"].unique().to_list() == [8]
    assert any(w.startswith("tissues without a score, training images or cell shapes") for w in result.warnings)


@given(st.floats(0.1, 50), st.floats(-100, 100), st.permutations(range(10)))
@settings(max_examples=40, deadline=None)
def test_a_fit_keeps_under_units_and_order_of_tissues(factor: float, shift: float, order: list[int]) -> None:
    rng = np.random.default_rng(2)
    predictors, response = rng.uniform(0, 1, (10, 3)), rng.uniform(0, 1, 10)
    here = fit_least_squares(scale(predictors), response)
    there = fit_least_squares(scale(predictors[order] * factor + shift), response[order])
    np.testing.assert_allclose(there.coefficients, here.coefficients, atol=1e-8)
    np.testing.assert_allclose(there.p, here.p, atol=1e-8)
    np.testing.assert_allclose(there.vif[1:], here.vif[1:], rtol=1e-6)


def test_morphology_takes_training_images_and_the_shapes_of_test_cells(results: Any, make_shape: Any) -> None:
    rows = tissue_rows(make_shape, [300, 20], [400, 100], [0.3, 0.8], ["Breast", "Colon"], pixel_size_um=0.5)
    results.run("a", TASK, 0.5, tissues=(*rows, make_shape("Breast", split="val", area=9.0)))
    result = describe_tissues(results.source())
    row = result.table.filter(pl.col("tissue") == "Breast").row(0, named=True)
    assert (row["n_train_images"], row["area"], row["elongation"], row["area_um2"]) == (300, 400, 0.3, 100)
    assert "largest cells are those of Breast (400 px)" in result.findings[0]
    assert "the fewest training images are of Colon (20)" in result.findings[0]
