"""The recommendation: the right method for the purpose and budget, and where the answer comes from."""

from __future__ import annotations

from typing import Any

import pytest

from segbench.analysis.recommend import recommend_methods
from segbench.analysis.source import Source
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter
from segbench.errors import SegbenchError

ONE, TWO = "tissuenet-wholecell-1ch", "tissuenet-wholecell-2ch"


def test_the_best_on_the_tissue_comes_first(results: Any) -> None:
    results.run("a", TWO, {"all": 0.8, "Breast": 0.3})
    results.run("b", TWO, {"all": 0.5, "Breast": 0.6})
    results.run("c", ONE, {"all": 0.4, "Breast": 0.4})
    source = results.source()
    table = recommend_methods(source, tissue="Breast").table
    assert table.select("place", "method", "score", "scored_on").rows() == [
        (1, "b", 0.6, "Breast"),
        (2, "c", 0.4, "Breast"),
        (3, "a", 0.3, "Breast"),
    ]
    assert recommend_methods(source).table["method"][0] == "a"
    assert recommend_methods(source, tissue="Breast", channels=1).table["method"].to_list() == ["c"]


def test_the_budget_decides_what_fits(results: Any) -> None:
    results.run("big", TWO, 0.9, train_s=10 * 3600, num_gpus=4)
    results.run("small", TWO, 0.6, train_s=2 * 3600, num_gpus=1)
    results.run("cpu", TWO, 0.5, train_s=3 * 3600, num_gpus=0)
    results.run("untrained", TWO, 0.4, train_s=1, num_gpus=0, trained=False)
    source = results.source()

    def fitting(**budget: Any) -> list[str]:
        table = recommend_methods(source, **budget).table
        return table.filter("fits")["method"].to_list()

    assert fitting() == ["big", "small", "cpu", "untrained"]
    assert fitting(gpu_hours=39) == ["small", "cpu", "untrained"]
    assert fitting(gpu_hours=40) == ["big", "small", "cpu", "untrained"]
    assert fitting(gpu_hours=1) == ["untrained"]
    assert fitting(gpus=0) == ["cpu", "untrained"]
    table = recommend_methods(source, gpus=1).table
    assert table["reason"][0] == "0.90 on the whole test set, 2 channels, 40 GPU hours on 4 GPUs, about 40 h on 1"
    late = recommend_methods(source, gpu_hours=39).table.row(3, named=True)
    assert (late["method"], late["fits"], late["place"]) == ("big", False, 4)
    assert "above 39" in late["reason"]


def test_training_on_all_is_taken_before_the_same_tissue(results: Any) -> None:
    results.run("a", TWO, {"all": 0.5, "Breast": 0.5})
    results.run("a", TWO, {"all": 0.3, "Breast": 0.7}, train_tissue="Breast")
    results.run("b", TWO, {"all": 0.3, "Breast": 0.4}, train_tissue="Breast")
    results.run("b", TWO, {"all": 0.3, "Breast": 0.6}, train_tissue="Colon")
    table = recommend_methods(results.source(), tissue="Breast").table
    assert table.select("method", "train_on", "score").rows() == [("a", "all", 0.5), ("b", "Breast", 0.4)]


def test_an_empty_store_is_answered_from_the_published_scores(results: Any) -> None:
    StoreWriter(ResultsFolder(results.out))
    result = recommend_methods(Source.of_results(ResultsFolder(results.out)), target="nuclear")
    assert result.source == "the published scores"
    assert result.table["method"][0] == "centermask2"
    assert result.table["score"][0] == 0.89
    assert any("this is answered from the published scores" in warning for warning in result.warnings)


def test_a_store_with_another_purpose_is_no_answer(results: Any) -> None:
    results.run("a", TWO, 0.9)
    result = recommend_methods(results.source(), images="phase")
    assert (result.source, result.table["method"][0]) == ("the published scores", "centermask2")


def test_real_data_speak_before_synthetic(results: Any) -> None:
    results.run("a", "synthetic-wholecell-2ch", 0.9)
    source = results.source()
    assert any("synthetic images" in warning for warning in recommend_methods(source).warnings)
    results.run("b", TWO, 0.5)
    result = recommend_methods(results.source())
    assert result.table["method"].to_list() == ["b"]
    assert any("those of synthetic" in warning for warning in result.warnings)


def test_published_gpu_hours_are_those_of_the_cards_gpus(published: Source) -> None:
    table = recommend_methods(published, gpu_hours=20, channels=2).table
    first = table.row(0, named=True)
    assert (first["method"], first["fits"], first["gpu_hours"]) == ("cellpose", True, 19)
    swin = next(row for row in table.iter_rows(named=True) if row["method"] == "swin-s" and row["task"] == TWO)
    assert (swin["fits"], swin["gpu_hours"], swin["hours"]) == (False, 148, 37)


def test_an_unknown_tissue_falls_back_to_the_whole_test_set(published: Source) -> None:
    result = recommend_methods(published, tissue="Kidney")
    assert set(result.table["scored_on"]) == {"all"}
    assert any("no score on Kidney is known" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "cytoplasm"}, "unknown target"),
        ({"images": "brightfield"}, "unknown kind of images"),
        ({"images": "phase", "target": "nuclear"}, "whole cells only"),
        ({"images": "phase", "channels": 2}, "channels must be 1 to 1"),
        ({"channels": 3}, "channels must be 1 to 2"),
        ({"gpu_hours": -1.0}, "GPU hours"),
        ({"gpus": -1}, "at least 0"),
        ({"metric": "f1"}, "unknown metric"),
    ],
)
def test_a_senseless_question_is_refused(published: Source, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        recommend_methods(published, **arguments)
