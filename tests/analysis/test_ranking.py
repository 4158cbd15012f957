"""The ranking: the published order, hand-made boards, and how sure each rank is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from segbench.analysis import published as published_scores
from segbench.analysis.ranking import rank_methods
from segbench.analysis.source import Source
from segbench.errors import SegbenchError

NUCLEAR, BOTH, CELLS = "tissuenet-nuclear-1ch", "tissuenet-nuclear-2ch", "tissuenet-wholecell-1ch"


def test_the_published_order_is_reproduced(published: Source) -> None:
    result = rank_methods(published)
    table = result.table
    assert table["title"].to_list()[:4] == ["Swin-S", "Swin-T", "Cellpose", "Cascade Mask R-CNN Seesaw"]
    assert table["title"].to_list()[-1] == "FeatureNet"
    assert table["complete"].all()
    order = published_scores.scores()["method"].unique(maintain_order=True).to_list()
    rho = stats.spearmanr(table["rank"], [order.index(name) for name in table["method"]])[0]
    assert rho >= 0.98
    assert any(f"is {rho:.3f}" in finding for finding in result.findings)


def test_overall_is_the_mean_of_accuracy_usability_and_scalability(results: Any) -> None:
    results.run("quick", NUCLEAR, 0.8, usability=0.6, train_s=3600)
    results.run("slow", NUCLEAR, 0.6, usability=0.9, train_s=3 * 3600)
    table = rank_methods(results.source()).table
    # Two times are one standard deviation from their mean: the normal distribution function of 1 is 0.8413
    assert table["method"].to_list() == ["quick", "slow"]
    assert table["scalability"].to_list() == pytest.approx([0.841345, 0.158655], abs=1e-6)
    assert table["overall"].to_list() == pytest.approx(
        [(0.8 + 0.6 + 0.841345) / 3, (0.6 + 0.9 + 0.158655) / 3], abs=1e-6
    )
    assert table["hours"].to_list() == [1.0, 3.0]
    assert table[NUCLEAR].to_list() == [0.8, 0.6]


def test_each_task_is_a_component_and_seeds_are_averaged(results: Any) -> None:
    for method, scores in (("a", (0.9, 0.1)), ("b", (0.5, 0.7))):
        for task, score in zip((NUCLEAR, BOTH), scores, strict=True):
            results.run(method, task, score - 0.05)
            results.run(method, task, score + 0.05, seed=1)
    table = rank_methods(results.source()).table
    assert table["method"].to_list() == ["b", "a"]
    assert table["accuracy"].to_list() == pytest.approx([0.6, 0.5])
    # Equal times are no difference: 0.5 each
    assert table["overall"].to_list() == pytest.approx([(1.2 + 0.5 + 0.5) / 4, (1.0 + 0.5 + 0.5) / 4])
    assert table["runs"].to_list() == [4, 4]


def test_weights_are_the_users_choice(results: Any) -> None:
    results.run("quick", NUCLEAR, 0.8, usability=0.6, train_s=3600)
    results.run("slow", NUCLEAR, 0.6, usability=0.9, train_s=3 * 3600)
    source = results.source()
    only = rank_methods(source, weights={"accuracy": 0, "scalability": 0}).table
    assert only["method"].to_list() == ["slow", "quick"]
    assert only["overall"].to_list() == [0.9, 0.6]
    double = rank_methods(source, weights={NUCLEAR: 2, "usability": 1, "scalability": 0}).table
    assert double["overall"].to_list() == pytest.approx([(2 * 0.8 + 0.6) / 3, (2 * 0.6 + 0.9) / 3])
    mine = rank_methods(source, usability={"quick": 0.0, "slow": 1.0}, weights={"accuracy": 0, "scalability": 0}).table
    assert mine["overall"].to_list() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"usabilty": 1}, "did you mean usability"),
        ({"usability": -1}, "at least 0, found -1"),
        ({"usability": math.nan}, "at least 0, found nan"),
        ({"usability": 0, "scalability": 0, "accuracy": 0}, "every weight is 0"),
    ],
)
def test_senseless_weights_are_refused(published: Source, weights: dict[str, float], message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        rank_methods(published, weights=weights)


def test_a_method_that_lacks_a_task_is_ranked_among_those_that_share_its_tasks(results: Any) -> None:
    results.run("a", NUCLEAR, 0.5)
    results.run("b", NUCLEAR, 0.7)
    results.run("half", NUCLEAR, 0.6)
    results.run("a", BOTH, 0.9)
    results.run("b", BOTH, 0.8)
    result = rank_methods(results.source())
    rows = {row["method"]: row for row in result.table.iter_rows(named=True)}
    assert result.table["method"].to_list() == ["b", "a", "half"]
    assert (rows["b"]["rank"], rows["b"]["ranked_among"], rows["b"]["complete"]) == (1, 2, True)
    assert (rows["half"]["rank"], rows["half"]["ranked_among"], rows["half"]["missing"]) == (2, 3, BOTH)
    assert rows["half"]["overall"] == pytest.approx((0.6 + 0.5 + 0.5) / 3)
    assert rows["half"]["pareto"] is None
    assert any("incomplete: Half" in warning for warning in result.warnings)


def test_unknown_usability_and_times_are_missed_not_guessed(results: Any) -> None:
    results.run("a", NUCLEAR, 0.5, train_s=100)
    results.run("b", NUCLEAR, 0.7, train_s=200)
    results.run("baseline", NUCLEAR, 0.6, trained=False, usability=None, train_s=7.0)
    results.run("untimed", NUCLEAR, 0.9, train_s=None)
    rows = {row["method"]: row for row in rank_methods(results.source()).table.iter_rows(named=True)}
    assert rows["baseline"]["usability"] is None
    assert rows["baseline"]["missing"] == "usability"
    assert rows["baseline"]["hours"] == 0
    assert rows["untimed"]["scalability"] is None
    assert (rows["untimed"]["rank"], rows["untimed"]["ranked_among"], rows["untimed"]["missing"]) == (
        1,
        3,
        "scalability",
    )
    assert rows["untimed"]["overall"] == pytest.approx((0.9 + 0.5) / 2)


def test_ties_share_the_better_rank(results: Any) -> None:
    for method, score in (("a", 0.1 + 0.2), ("b", 0.3), ("c", 0.2)):
        results.run(method, NUCLEAR, score)
    assert rank_methods(results.source()).table["rank"].to_list() == [1, 1, 3]


def test_one_method_is_not_ranked_against_itself(results: Any) -> None:
    results.run("solo", NUCLEAR, 0.5)
    result = rank_methods(results.source())
    assert result.table["scalability"].to_list() == [None]
    assert result.table["overall"].to_list() == [0.5]
    assert result.findings == ()
    assert any("a ranking of one method says nothing" in warning for warning in result.warnings)
    assert any("only one has a time" in warning for warning in result.warnings)


def test_the_pareto_front_has_what_nothing_beats(results: Any) -> None:
    for method, score, hours in (("fast", 0.3, 1), ("good", 0.9, 5), ("beaten", 0.8, 6), ("same", 0.9, 5)):
        results.run(method, NUCLEAR, score, train_s=hours * 3600)
    table = rank_methods(results.source()).table
    assert set(table.filter("pareto")["method"]) == {"fast", "good", "same"}


def test_rank_intervals_are_narrow_for_clear_cut_methods_and_wide_for_close_ones(results: Any) -> None:
    tissues = [f"t{n}" for n in range(8)]
    for method, scores in {
        "clear": [0.9] * 8,
        "odd": [0.3 + 0.2 * (n % 2) for n in range(8)],
        "even": [0.5 - 0.2 * (n % 2) for n in range(8)],
    }.items():
        for seed in range(3):
            seen = dict(zip(tissues, scores, strict=True))
            results.run(method, NUCLEAR, {"all": float(np.mean(scores)), **seen}, seed=seed)
    rows = {row["method"]: row for row in rank_methods(results.source(), resamples=500).table.iter_rows(named=True)}
    assert (rows["clear"]["rank_low"], rows["clear"]["rank_high"], rows["clear"]["p_first"]) == (1, 1, 1.0)
    for method in ("odd", "even"):
        assert (rows[method]["rank_low"], rows[method]["rank_high"], rows[method]["p_first"]) == (2, 3, 0.0)


def test_rank_intervals_follow_seeds_too(results: Any) -> None:
    for seed, gap in enumerate((0.2, -0.2, 0.1, -0.1)):
        results.run("noisy", NUCLEAR, {"all": 0.5 + gap, "t0": 0.5 + gap, "t1": 0.5 + gap}, seed=seed)
        results.run("steady", NUCLEAR, {"all": 0.499, "t0": 0.499, "t1": 0.499}, seed=seed)
    rows = {row["method"]: row for row in rank_methods(results.source(), resamples=500).table.iter_rows(named=True)}
    assert (rows["steady"]["rank_low"], rows["steady"]["rank_high"]) == (1, 2)
    assert 0.2 < rows["steady"]["p_first"] < 0.8


def test_the_bootstrap_is_repeatable(results: Any) -> None:
    rng = np.random.default_rng(0)
    for method in "abcd":
        scores = rng.uniform(0.3, 0.7, size=5)
        results.run(method, NUCLEAR, {"all": scores.mean(), **{f"t{n}": s for n, s in enumerate(scores)}})
    source = results.source()
    assert rank_methods(source).table.equals(rank_methods(source).table)


def test_friedman_and_nemenyi_agree_with_scipy_and_demsars_table(results: Any) -> None:
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.2, 0.8, size=(4, 6)).round(3)
    for method, row in zip("abcd", scores, strict=True):
        results.run(method, NUCLEAR, {"all": row.mean(), **{f"t{n}": s for n, s in enumerate(row)}})
    result = rank_methods(results.source())
    test = result.part("friedman").row(0, named=True)
    statistic, p = stats.friedmanchisquare(*scores)
    assert (test["statistic"], test["p"]) == pytest.approx((statistic, p))
    assert (test["blocks"], test["n_blocks"], test["n_methods"]) == ("test tissues", 6, 4)
    # Demsar 2006, table 5: q is 2.569 for four methods at 0.05
    assert test["critical_difference"] == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 6)), abs=1e-3)
    ranks = stats.rankdata(-scores, axis=0).mean(axis=1)
    pairs = result.part("differences")
    assert pairs.height == 6
    first = pairs.filter((pl.col("method_a") == "a") & (pl.col("method_b") == "b")).row(0, named=True)
    assert first["difference"] == pytest.approx(ranks[1] - ranks[0])
    assert first["differ"] == (abs(first["difference"]) > test["critical_difference"]) == (first["p"] < 0.05)


def test_a_tissues_block_is_the_mean_over_the_tasks_that_share_its_images(results: Any) -> None:
    for m, method in enumerate("abc"):
        results.run(method, NUCLEAR, {"all": 0.5, "t0": 0.3 + 0.1 * m, "t1": 0.6})
        results.run(method, BOTH, {"all": 0.5, "t0": 0.5 - 0.3 * (m == 2), "t1": 0.6 + 0.1 * m})
    result = rank_methods(results.source())
    means = np.array([[0.4, 0.45, 0.35], [0.6, 0.65, 0.7]])
    expected = stats.friedmanchisquare(*means.T)
    test = result.part("friedman").row(0, named=True)
    assert (test["n_blocks"], test["statistic"]) == (2, pytest.approx(expected[0]))
    assert dict(result.table.select("method", "mean_rank").iter_rows()) == {"a": 2.5, "b": 1.5, "c": 2.0}


def test_suites_are_ranked_apart(results: Any) -> None:
    results.run("a", NUCLEAR, 0.9)
    results.run("b", NUCLEAR, 0.8)
    results.run("a", "synthetic-nuclear-1ch", 0.1)
    results.run("b", "synthetic-nuclear-1ch", 0.2)
    table = rank_methods(results.source()).table
    best = table.filter(pl.col("rank") == 1)
    assert dict(best.select("suite", "method").iter_rows()) == {"study": "a", "synthetic": "b"}


def test_models_of_one_tissue_other_tasks_and_post_operations_do_not_count(results: Any, make_evaluation: Any) -> None:
    wrong = (
        make_evaluation(NUCLEAR, "all", 0.9, operation="dilate", radius=3),
        make_evaluation(CELLS, "all", 0.9),
    )
    results.run("a", NUCLEAR, {"all": 0.5, "Breast": 0.9}, other=wrong)
    results.run("a", NUCLEAR, 0.9, train_tissue="Breast")
    results.run("b", NUCLEAR, 0.6)
    table = rank_methods(results.source()).table
    assert dict(table.select("method", "accuracy").iter_rows()) == {"a": 0.5, "b": 0.6}


def test_rank_intervals_take_each_method_in_the_same_draw_of_images(results: Any) -> None:
    task, draws = "tissuenet-nuclear-2ch", np.linspace(0.2, 0.8, 40)
    # every draw moves both alike: one is always ahead, though each varies more than they differ
    for seed, off in enumerate((0.0, 0.01, -0.01)):
        results.run("first", task, 0.55 + off, resamples=list(draws + 0.05 + off), seed=seed)
        results.run("second", task, 0.50 + off, resamples=list(draws + off), seed=seed)
    rows = {row["method"]: row for row in rank_methods(results.source()).table.iter_rows(named=True)}
    assert (rows["first"]["rank_low"], rows["first"]["rank_high"]) == (1, 1)
    assert rows["first"]["p_first"] > 0.95
    assert (rows["second"]["rank_low"], rows["second"]["rank_high"]) == (2, 2)


def test_without_draws_of_images_for_every_run_tissues_are_resampled_and_that_is_said(results: Any) -> None:
    scores = {"Colon": 0.6, "Breast": 0.4, "all": 0.5}
    results.run("a", "tissuenet-nuclear-2ch", scores, resamples=[0.4, 0.6])
    results.run("b", "tissuenet-nuclear-2ch", scores)
    assert any("intervals are over test tissues" in text for text in rank_methods(results.source()).warnings)


def test_one_seed_makes_no_claim_though_every_draw_of_images_agrees(results: Any) -> None:
    draws = np.linspace(0.2, 0.8, 40)
    results.run("first", NUCLEAR, 0.55, resamples=list(draws + 0.05))
    results.run("second", NUCLEAR, 0.50, resamples=list(draws))
    result = rank_methods(results.source())
    for row in result.table.iter_rows(named=True):
        assert (row["rank_low"], row["rank_high"], row["group"], row["p_first"]) == (1, 2, 1, None)
        assert row["interval_of"] == "test images"
        assert row["overall_low"] < row["overall"] < row["overall_high"]
    assert result.part("pairs")["differ"].to_list() == [None]
    assert "which method is best is open, for one seed" in result.findings[0]
    assert not any("ranks first" in finding for finding in result.findings)
    assert any("over test images alone" in warning for warning in result.warnings)


def test_four_seeds_of_one_method_under_two_names_are_not_told_apart(results: Any) -> None:
    # one method's seeds as they came out on the demo: 0.469 to 0.549, sd 0.037 against 0.016 over images
    images = np.random.default_rng(0).normal(0, 0.016, 200)
    for seed, (one, other) in enumerate(((0.469, 0.478), (0.549, 0.481), (0.483, 0.549), (0.541, 0.475))):
        results.run("one", NUCLEAR, one, seed=seed, resamples=list(one + images))
        results.run("other", NUCLEAR, other, seed=seed, resamples=list(other + images))
    result = rank_methods(results.source())
    assert result.table["group"].to_list() == [1, 1]
    assert result.table["rank_high"].to_list() == [2, 2]
    assert "cannot be told apart from" in result.findings[0]
    assert not any("ranks first" in finding for finding in result.findings)
    split = result.part("accuracy").row(0, named=True)
    assert split["sd_seeds"] == pytest.approx(np.std([0.469, 0.549, 0.483, 0.541], ddof=1) / 2, rel=0.01)
    assert split["sd_images"] == pytest.approx(0.016, rel=0.15)
    assert (split["interval_of"], split["seeds"]) == ("test images and seeds", 4)


def test_what_is_not_trained_needs_one_run_alone(results: Any) -> None:
    draws = np.linspace(0.4, 0.42, 40)
    results.run("drawn", NUCLEAR, 0.41, trained=False, resamples=list(draws))
    for seed, score in enumerate((0.80, 0.81, 0.79)):
        results.run("learnt", NUCLEAR, score, seed=seed, resamples=list(draws + score - 0.41))
    result = rank_methods(results.source(), weights={"usability": 0, "scalability": 0})
    assert result.table["group"].to_list() == [1, 2]
    assert "Learnt ranks first of 2 methods" in result.findings[0]
    assert result.part("pairs")["differ"].to_list() == [True]


def test_times_that_scatter_widen_the_overall_score(results: Any) -> None:
    for seed, factor in enumerate((1.0, 1.02, 3.0)):
        for name, hours in (("a", 1.0), ("b", 1.3), ("c", 9.0)):
            results.run(name, NUCLEAR, 0.5, train_s=3600 * hours * (factor if name == "a" else 1), seed=seed)
    table = rank_methods(results.source()).table
    assert all("running times" in of for of in table["interval_of"])
    assert table["overall_low"][0] < table["overall"][0]


def test_the_published_first_place_is_open_over_its_rounding(published: Source) -> None:
    result = rank_methods(published)
    shares = dict(result.part("rounding").select("method", "p_first").iter_rows())
    assert shares["swin-s"] == pytest.approx(0.54, abs=0.015)
    assert shares["swin-t"] == pytest.approx(0.46, abs=0.015)
    assert result.findings[0].startswith("study: first place is open")
    assert "Swin-S is first in 54 % and Swin-T is first in 46 % of draws" in result.findings[0]
    assert not any("ranks first" in finding for finding in result.findings)
