"""Runs that were not trained to the end: found by their budget and their loss, and marked wherever they are shown."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from segbench.analysis import analyse
from segbench.analysis.recommend import recommend_methods
from segbench.engine.grid.cards import get_card
from segbench.engine.results.record import HistoryRow

TASK = "tissuenet-nuclear-1ch"


def with_losses(results: Any, losses: list[float]) -> None:
    """Give the newest run this curve."""
    curve = [HistoryRow(epoch=n, loss=loss) for n, loss in enumerate(losses, start=1)]
    results.records[-1] = results.records[-1].model_copy(update={"history": curve})


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ([1.0 - 0.1 * n for n in range(10)], True),
        ([1.0, 0.6, 0.4, 0.3, 0.2, 0.1], True),
        ([1.0, 0.5, 0.3, 0.25, 0.24, 0.24, 0.24, 0.24, 0.24, 0.24, 0.24, 0.24], False),
        ([0.5] * 8, False),
        ([0.2, 0.4, 0.5, 0.6], False),
        ([1.0, 0.5], False),
        ([], False),
    ],
)
def test_a_loss_that_still_falls_at_the_end_is_seen(results: Any, losses: list[float], falls: bool) -> None:
    results.run("a", TASK, 0.5)
    with_losses(results, losses)
    found = results.source().undertrained["undertrained"].to_list()
    assert found == (["its loss still fell at the end"] if falls else [])


def test_a_part_of_the_cards_budget_is_seen_and_the_whole_is_not(results: Any) -> None:
    budget = get_card("cellpose").budget
    results.run("cellpose", TASK, 0.5, epochs=budget.epochs // 10)
    results.run("cellpose", TASK, 0.5, epochs=budget.epochs, seed=1)
    steps = get_card("centermask2").budget
    results.run("centermask2", TASK, 0.5, epochs=None, iterations=steps.iterations, batch_size=steps.batch_size // 2)
    results.run("watershed", TASK, 0.5, trained=False, epochs=None)
    found = results.source().undertrained
    assert found.select("method", "seed", "undertrained").rows() == [
        ("cellpose", 0, "10 % of its card's budget"),
        ("centermask2", 0, "50 % of its card's budget"),
    ]


def test_undertrained_methods_are_marked_in_tables_sentences_and_notes(results: Any) -> None:
    for method in ("short", "long"):
        results.run(method, TASK, {"all": 0.6, "Breast": 0.5, "Colon": 0.4})
        with_losses(results, [1.0, 0.8, 0.6, 0.4] if method == "short" else [1.0, 0.5, 0.5, 0.5])
    source = results.source()
    for name in ("ranking", "runtime", "recommend"):
        result = analyse(name, source)
        titles = result.table["title"].unique().sort().to_list()
        assert titles == ["Long", "Short (undertrained)"]
        assert any("1 of 2 trained runs were not trained to the end" in warning for warning in result.warnings)
    reasons = dict(recommend_methods(source).table.select("method", "undertrained").iter_rows())
    assert reasons == {"short": "its loss still fell at the end", "long": None}
    assert any("Short (undertrained)" in finding for finding in analyse("ranking", source).findings)


def test_a_method_is_marked_by_its_runs_on_all_tissues_where_it_has_some(results: Any) -> None:
    results.run("a", TASK, 0.5)
    results.run("a", TASK, 0.4, train_tissue="Breast")
    with_losses(results, [1.0, 0.8, 0.6, 0.4])
    source = results.source()
    assert analyse("ranking", source).table["title"].to_list() == ["A"]
    assert source.undertrained["train_tissue"].to_list() == ["Breast"]
    assert source.mark(pl.DataFrame({"method": ["a"], "title": ["A"]}))["title"].to_list() == ["A"]
