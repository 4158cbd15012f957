"""Learning curves: worked out from scores that follow a known law."""

from __future__ import annotations

import numpy as np
import pytest

from segbench.analysis.learning_curve import Curve, fit, fit_learning_curves
from segbench.analysis.report.model import Source as ReportSource
from segbench.analysis.report.sections.learning_curve import SECTION
from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError

TASK = "synthetic-nuclear-1ch"
LAW = Curve(ceiling=0.8, lost=0.6, exponent=0.5)
SIZES = (5, 10, 20, 50, None)


def add_runs(results, method: str, sizes=SIZES, seeds=(0, 1), noise: float = 0.0) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(1)
    for size in sizes:
        for seed in seeds:
            images = size or 100
            score = float(LAW.at(images)) + float(rng.normal(0, noise))
            drawn = [min(1.0, max(0.0, score + float(x))) for x in rng.normal(0, 0.01, 50)]
            results.run(
                method, TASK, score, seed=seed, train_images=size, n_train_pictures=images, n_train_cells=30 * images,
                resamples=drawn, trained=True,
            )  # fmt: skip


def test_the_curve_and_the_stopping_point_of_a_known_law_are_found(results) -> None:  # type: ignore[no-untyped-def]
    add_runs(results, "stardist")
    found = fit_learning_curves(results.source(), metric="ap50", gain=0.01)
    assert found.table["images"].to_list() == [5, 10, 20, 50, 100]
    assert found.table["score"].to_list() == pytest.approx(LAW.at(np.array([5, 10, 20, 50, 100])))
    images, cells = found.part("fits").sort("against", descending=True).iter_rows(named=True)
    assert (images["against"], cells["against"]) == ("images", "cells")
    assert images["ceiling"] == pytest.approx(0.8, abs=0.01)
    # 0.6 x (1 - 2^-0.5) x n^-0.5 = 0.01 at n = 308.8
    assert images["stop"] == pytest.approx(308.8, rel=0.1)
    assert cells["stop"] == pytest.approx(30 * 308.8, rel=0.1)
    for name in ("ceiling", "doubled", "stop"):
        assert images[f"{name}_low"] < images[f"{name}_high"]
    assert images["doubled_low"] < float(LAW.at(200)) < images["doubled_high"]
    (told,) = found.findings
    assert "beyond what was tried" in told
    assert any("validation images" in warning for warning in found.warnings)


def test_a_larger_gain_stops_earlier_and_within_what_was_tried(results) -> None:  # type: ignore[no-untyped-def]
    add_runs(results, "stardist")
    (told,) = fit_learning_curves(results.source(), metric="ap50", gain=0.05).findings
    assert "within what was tried" in told


def test_seeds_and_resamples_both_widen_the_interval(results) -> None:  # type: ignore[no-untyped-def]
    add_runs(results, "stardist")
    add_runs(results, "cellpose", noise=0.03)
    fits = fit_learning_curves(results.source(), metric="ap50").part("fits")
    width = {
        row["method"]: row["doubled_high"] - row["doubled_low"]
        for row in fits.iter_rows(named=True)
        if row["against"] == "images"
    }
    assert 0 < width["stardist"] < width["cellpose"]


def test_runs_without_parts_and_too_few_sizes_are_told_and_draw_no_curve(results) -> None:  # type: ignore[no-untyped-def]
    add_runs(results, "cellpose", sizes=(None,))
    assert "no run on a part of the training images" in fit_learning_curves(results.source()).warnings[0]
    add_runs(results, "stardist", sizes=(5, None))
    found = fit_learning_curves(results.source())
    assert set(found.table["method"]) == {"stardist"}
    assert found.part("fits").height == 0
    assert any("has 2 sizes" in warning for warning in found.warnings)


def test_a_flat_curve_has_stopped_to_pay_at_once() -> None:
    assert fit(np.array([5.0, 10, 20]), np.array([0.7, 0.7, 0.7])).stop(0.01) == pytest.approx(1.0, abs=5)


@pytest.mark.parametrize("gain", [0.0, 1.0, -0.1, float("nan")])
def test_a_gain_that_is_none_is_refused(results, gain: float) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SegbenchError, match="gain must lie between 0 and 1"):
        fit_learning_curves(results.source(), gain=gain)


def test_the_published_scores_have_no_curve(published) -> None:  # type: ignore[no-untyped-def]
    found = fit_learning_curves(published)
    assert not found.table.height
    assert found.table.columns[:3] == ["task", "method", "train_tissue"]


def test_the_report_draws_the_scores_and_the_fitted_curves(results) -> None:  # type: ignore[no-untyped-def]
    add_runs(results, "stardist", noise=0.01)
    results.source()
    content = SECTION.build(ReportSource(ResultsFolder(results.out)))
    assert [figure.frame for figure in content.figures] == ["learning-curve", "learning-curve-lines"]
    assert [figure.low for figure in content.figures] == ["low", None]
    lines = {frame.name: frame.data for frame in content.frames}["learning-curve-lines"]
    drawn = lines.filter(metric="ap50").sort("images")["score"].to_list()
    assert drawn == sorted(drawn)
    assert drawn[-1] == pytest.approx(float(LAW.at(200)), abs=0.03)
