"""Transfer between tissues and modalities, and dilation: matrices and curves worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage

from segbench.analysis.dilation import measure_dilation
from segbench.analysis.modality import compare_modalities
from segbench.analysis.source import Source
from segbench.analysis.transfer import measure_transfer, recommend_training_data
from segbench.errors import SegbenchError

NUCLEAR, CELLS = "tissuenet-nuclear-1ch", "tissuenet-wholecell-1ch"
MATRIX = {
    "all": {"all": 0.8, "Breast": 0.8, "Colon": 0.7, "Lung": 0.3},
    "Breast": {"all": 0.6, "Breast": 0.9, "Colon": 0.5, "Lung": 0.1},
    "Colon": {"all": 0.5, "Breast": 0.6, "Colon": 0.6, "Lung": 0.4},
    "Lung": {"all": 0.2, "Breast": 0.1, "Colon": 0.2, "Lung": 0.5},
}


@pytest.fixture
def trained(results: Any) -> Any:
    """Return a folder in which one method was trained on each tissue."""
    for train, row in MATRIX.items():
        results.run("a", NUCLEAR, row, train_tissue=train)
    return results


def test_the_matrix_is_the_mean_over_seeds(trained: Any) -> None:
    trained.run("a", NUCLEAR, {"Breast": 0.7}, train_tissue="Breast", seed=1)
    table = measure_transfer(trained.source()).table
    cell = table.filter((pl.col("train_tissue") == "Breast") & (pl.col("test_tissue") == "Breast")).row(0, named=True)
    assert (cell["value"], cell["runs"]) == (pytest.approx(0.8), 2)
    assert table.height == 16


def test_transferability_is_the_mean_off_the_diagonal(trained: Any) -> None:
    result = measure_transfer(trained.source())
    rows = {row["train_tissue"]: row for row in result.part("transferability").iter_rows(named=True)}
    assert set(rows) == {"Breast", "Colon", "Lung"}
    assert (rows["Breast"]["own"], rows["Breast"]["others"], rows["Breast"]["pooled"]) == pytest.approx((0.9, 0.3, 0.6))
    assert rows["Colon"]["others"] == pytest.approx(0.5)
    assert rows["Lung"]["others"] == pytest.approx(0.15)
    assert "Colon transfers best (0.50 on other tissues, 0.60 on its own), Lung worst (0.15)" in result.findings[0]


def test_the_best_training_tissue_of_each_target(trained: Any) -> None:
    rows = {row["test_tissue"]: row for row in measure_transfer(trained.source()).part("best").iter_rows(named=True)}
    best = {name: (row["best"], row["best_other"], row["own_value"], row["all_value"]) for name, row in rows.items()}
    assert best == {
        "Breast": ("Breast", "Colon", 0.9, 0.8),
        "Colon": ("Colon", "Breast", 0.6, 0.7),
        "Lung": ("Lung", "Colon", 0.5, 0.3),
    }


def test_the_order_is_scipys_clustering(trained: Any) -> None:
    order = measure_transfer(trained.source()).part("order")
    names = ["Breast", "Colon", "Lung"]
    matrix = np.array([[MATRIX[train][test] for test in names] for train in names])
    for axis, values in (("train", matrix), ("test", matrix.T)):
        leaves = leaves_list(linkage(values, "average", optimal_ordering=True))
        assert order.filter(pl.col("axis") == axis).sort("position")["tissue"].to_list() == [names[n] for n in leaves]


def test_a_method_trained_once_is_left_out(trained: Any) -> None:
    trained.run("b", NUCLEAR, 0.9)
    assert measure_transfer(trained.source()).table["method"].unique().to_list() == ["a"]


def test_training_data_follow_the_studys_strategy(trained: Any) -> None:
    result = recommend_training_data(trained.source(), tissue="Lung", task=NUCLEAR)
    assert result.table["train_on"].to_list() == ["all", "Lung", "Colon", "Breast"]
    assert result.table["expected"].to_list() == [0.3, 0.5, 0.4, 0.1]
    assert any("Lung was better: accuracy 0.50 against 0.30" in finding for finding in result.findings)


def test_training_data_for_a_new_tissue_and_without_all(results: Any) -> None:
    for train in ("Breast", "Colon", "Lung"):
        results.run("a", NUCLEAR, MATRIX[train], train_tissue=train)
    source = results.source()
    result = recommend_training_data(source, tissue="Skin", task=NUCLEAR)
    assert result.table["train_on"].to_list() == ["Colon", "Breast", "Lung"]
    assert result.table["expected"].null_count() == 3
    assert any("Skin is not a tissue" in warning for warning in result.warnings)
    assert recommend_training_data(source, tissue="Lung", task=NUCLEAR).table["train_on"][0] == "Lung"
    with pytest.raises(SegbenchError, match="did you mean tissuenet-nuclear-1ch"):
        recommend_training_data(source, tissue="Lung", task="tissuenet-nuclear-3ch")


def test_the_published_training_tissues_are_compared_over_the_test_set(published: Source) -> None:
    result = recommend_training_data(published, tissue="Breast", task="tissuenet-nuclear-2ch")
    assert result.table["train_on"].to_list()[:3] == ["all", "Breast", "Pancreas"]
    assert result.table["pooled"].to_list()[:3] == [0.73, 0.44, 0.43]
    assert any("not in it" in warning for warning in result.warnings)


def test_the_other_modality_is_compared_with_a_model_of_its_own(results: Any, make_evaluation: Any) -> None:
    cross = tuple(make_evaluation(CELLS, t, s) for t, s in (("all", 0.2), ("Breast", 0.1), ("Colon", 0.3)))
    results.run("a", NUCLEAR, {"all": 0.8, "Breast": 0.7, "Colon": 0.9}, other=cross)
    results.run("a", CELLS, {"all": 0.5, "Breast": 0.6, "Colon": 0.4}, other=(make_evaluation(NUCLEAR, "all", 0.6),))
    results.run("b", NUCLEAR, 0.7, other=(make_evaluation(CELLS, "all", 0.3),))
    results.run("untrained", NUCLEAR, 0.7, other=(make_evaluation(CELLS, "all", 0.3),), trained=False)
    result = compare_modalities(results.source())
    rows = {(r["method"], r["target"], r["test_tissue"]): r for r in result.table.iter_rows(named=True)}
    pooled = rows["a", "nuclear", "all"]
    assert (pooled["cross"], pooled["same"], pooled["own"]) == (0.2, 0.5, 0.8)
    assert (pooled["change"], pooled["change_percent"]) == pytest.approx((-0.3, -60))
    # The tissues change by -0.5 and -0.1: two tissues resampled give their means, about the pooled change
    assert (pooled["change_low"], pooled["change_high"]) == pytest.approx((-0.5, -0.1))
    assert rows["a", "wholecell", "all"]["change"] == pytest.approx(-0.2)
    assert rows["b", "nuclear", "all"]["same"] is None
    assert {method for method, _, _ in rows} == {"a", "b"}
    assert any(w.startswith("1 rows have no same-modality score") for w in result.warnings)


def test_a_target_that_no_model_was_trained_on_is_known_by_its_task(results: Any, make_evaluation: Any) -> None:
    results.run("a", NUCLEAR, 0.7, other=(make_evaluation(CELLS, "all", 0.3),))
    assert compare_modalities(results.source()).table["test_target"].to_list() == ["wholecell"]


def dilations(
    make_evaluation: Any, curves: dict[str, list[float]], test_task: str = CELLS, operation: str = "dilate"
) -> tuple[Any, ...]:
    """Return the evaluations of curves: the score at radius 0, 1, ... per tissue."""
    return tuple(
        make_evaluation(test_task, tissue, score, operation=operation, radius=radius)
        for tissue, scores in curves.items()
        for radius, score in enumerate(scores)
    )


def test_best_radius_gain_and_the_loss_of_one_radius(results: Any, make_evaluation: Any, make_shape: Any) -> None:
    curves = {"all": [0.2, 0.4, 0.5, 0.3], "Breast": [0.1, 0.6, 0.5, 0.2], "Colon": [0.3, 0.3, 0.6, 0.6]}
    sizes = tuple(make_shape(name, pixel_size_um=5.0) for name in ("all", "Breast", "Colon"))
    results.run("a", NUCLEAR, 0.8, other=dilations(make_evaluation, curves), tissues=sizes)
    results.run("a", CELLS, 0.8, other=dilations(make_evaluation, {"all": [0.2, 0.1]}, NUCLEAR, "erode"))
    result = measure_dilation(results.source())
    rows = {(row["operation"], row["test_tissue"]): row for row in result.table.iter_rows(named=True)}
    breast, colon = rows["dilate", "Breast"], rows["dilate", "Colon"]
    assert (breast["best_radius"], breast["best_radius_um"], breast["gain"]) == (1, 5.0, pytest.approx(0.5))
    # Mean over tissues: 0.2, 0.45, 0.55, 0.4 so radius 2 is best on average; of Colon's equal 2 and 3 it is the
    # smaller
    assert (breast["fixed_radius"], breast["fixed_loss"], colon["fixed_loss"]) == (2, pytest.approx(0.1), 0)
    assert colon["best_radius"] == 2
    # 15 micrometres are 3 pixels
    assert (breast["um_radius"], breast["at_um"], breast["um_loss"]) == (3, 0.2, pytest.approx(0.4))
    eroded = rows["erode", "all"]
    assert (eroded["best_radius"], eroded["gain"]) == (0, 0)
    assert result.part("curves").height == 14
    assert any("0.20 to 0.50 at 2 px" in finding for finding in result.findings)
    assert any("between 1 and 2 px" in finding for finding in result.findings)


def test_a_prediction_on_the_other_modalitys_images_is_no_point_of_the_sweep(
    results: Any, make_evaluation: Any
) -> None:
    cross = make_evaluation(CELLS, "all", 0.9)
    results.run("a", NUCLEAR, 0.8, other=(cross, *dilations(make_evaluation, {"all": [0.2, 0.4, 0.3]})))
    source = results.source()
    assert measure_dilation(source).table.select("at_zero", "best").row(0) == (0.2, 0.4)
    assert compare_modalities(source).table["cross"].to_list() == [0.9]


def test_limits_of_a_sweep_are_told(results: Any, make_evaluation: Any, make_shape: Any) -> None:
    curves = dilations(make_evaluation, {"all": [0.2, 0.4], "Breast": [0.1, 0.6]})
    results.run("a", NUCLEAR, 0.8, other=curves, tissues=(make_shape("Breast", pixel_size_um=0.5),))
    warnings = " | ".join(measure_dilation(results.source()).warnings)
    assert "the best radius is the largest tried in 2 of 2 curves" in warnings
    assert "15 micrometres are 30 pixels, beyond the largest radius tried (1)" in warnings


def test_without_pixel_size_radii_are_pixels_only(results: Any, make_evaluation: Any) -> None:
    results.run("a", NUCLEAR, 0.8, other=dilations(make_evaluation, {"all": [0.2, 0.4, 0.3]}))
    result = measure_dilation(results.source())
    row = result.table.row(0, named=True)
    assert (row["best_radius"], row["best_radius_um"], row["um_radius"], row["fixed_radius"]) == (1, None, None, 1)
    assert "no pixel size is known, so radii are in pixels only" in result.warnings
    with pytest.raises(SegbenchError, match="positive number of micrometres"):
        measure_dilation(results.source(), fixed_um=-1)


def test_curves_without_a_plain_prediction_have_no_gain(results: Any, make_evaluation: Any) -> None:
    curve = dilations(make_evaluation, {"all": [0.2, 0.4, None]})[1:]
    results.run("a", NUCLEAR, 0.8, other=curve)
    result = measure_dilation(results.source())
    assert result.table.select("at_zero", "best_radius", "gain").row(0) == (None, 1, None)
    assert any("no point at radius 0" in warning for warning in result.warnings)


def test_methods_that_are_not_trained_have_no_training_tissue(trained: Any) -> None:
    for tissue in ("Breast", "Colon"):
        trained.run("untrained", NUCLEAR, {"Breast": 0.9, "Colon": 0.8}, train_tissue=tissue, trained=False)
    assert measure_transfer(trained.source()).table["method"].unique().to_list() == ["a"]
