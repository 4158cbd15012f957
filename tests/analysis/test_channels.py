"""Dual against single channel: published gains, hand-made ones, and their intervals."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from segbench.analysis.channels import compare_channels
from segbench.analysis.source import Source
from segbench.errors import SegbenchError

ONE, TWO = "tissuenet-wholecell-1ch", "tissuenet-wholecell-2ch"


@pytest.mark.parametrize(
    ("method", "single", "dual", "percent"), [("cellpose", 0.17, 0.70, 312), ("centermask2", 0.30, 0.79, 163)]
)
def test_the_studys_gains_are_reproduced(
    published: Source, method: str, single: float, dual: float, percent: int
) -> None:
    table = compare_channels(published).table
    row = table.filter((pl.col("method") == method) & (pl.col("target") == "wholecell")).row(0, named=True)
    assert (row["single"], row["dual"], round(row["gain_percent"])) == (single, dual, percent)
    assert row["gain_low"] is None


def test_the_finding_names_the_greatest_gain(published: Source) -> None:
    assert any(
        "most for Cellpose: 0.17 to 0.70 (+312 %)" in finding for finding in compare_channels(published).findings
    )


def test_gains_are_per_tissue_and_over_seeds(results: Any) -> None:
    for seed, shift in enumerate((0.0, 0.1)):
        results.run(
            "a", ONE, {"all": 0.2 + shift, "Breast": 0.1 + shift, "Colon": 0.3 + shift}, seed=seed, train_s=3600
        )
        results.run(
            "a", TWO, {"all": 0.5 + shift, "Breast": 0.4 + 2 * shift, "Colon": 0.6 + shift}, seed=seed, train_s=7200
        )
    rows = {row["test_tissue"]: row for row in compare_channels(results.source()).table.iter_rows(named=True)}
    assert list(rows) == ["all", "Breast", "Colon"]
    pooled = rows["all"]
    assert (pooled["single"], pooled["dual"], pooled["gain"]) == pytest.approx((0.25, 0.55, 0.3))
    assert pooled["gain_percent"] == pytest.approx(120)
    assert (pooled["single_hours"], pooled["dual_hours"], pooled["pairs"]) == (1, 2, 2)
    # Breast gains 0.3 in one seed and 0.4 in the other
    assert rows["Breast"]["gain"] == pytest.approx(0.35)
    assert (rows["Breast"]["gain_low"], rows["Breast"]["gain_high"]) == pytest.approx((0.3, 0.4))
    assert (rows["Colon"]["gain_low"], rows["Colon"]["gain_high"]) == pytest.approx((0.3, 0.3))


def test_the_pooled_interval_resamples_tissues(results: Any) -> None:
    gaps = [0.0, 0.1, 0.2, 0.3]
    names = ["Breast", "Colon", "Lung", "Tonsil"]
    results.run("a", ONE, {"all": 0.2, **dict.fromkeys(names, 0.2)})
    results.run("a", TWO, {"all": 0.4, **{n: 0.2 + g for n, g in zip(names, gaps, strict=True)}})
    row = compare_channels(results.source()).table.row(0, named=True)
    # The mean gap of the tissues is 0.15 with a standard error of 0.056; the interval is about the pooled gain of 0.2
    assert row["gain"] == pytest.approx(0.2)
    assert row["gain_low"] == pytest.approx(0.2 - 0.1, abs=0.03)
    assert row["gain_high"] == pytest.approx(0.2 + 0.1, abs=0.03)


def test_a_gain_from_zero_has_no_percentage(results: Any) -> None:
    results.run("a", ONE, 0.0)
    results.run("a", TWO, 0.5)
    result = compare_channels(results.source())
    assert result.table["gain_percent"].to_list() == [None]
    assert any("no relative gain" in warning for warning in result.warnings)


def test_methods_without_a_partner_or_score_are_told(results: Any) -> None:
    results.run("a", ONE, 0.5)
    results.run("a", TWO, 0.6)
    results.run("b", ONE, 0.5)
    results.run("c", ONE, 0.5)
    results.run("c", TWO, None)
    result = compare_channels(results.source())
    assert result.table["method"].to_list() == ["a"]
    assert any(warning.startswith("2 scores have no partner") for warning in result.warnings)


def test_an_unknown_metric_is_told(published: Source) -> None:
    with pytest.raises(SegbenchError, match="unknown metric 'mAP50'; did you mean"):
        compare_channels(published, metric="mAP50")
