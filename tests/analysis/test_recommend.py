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
        ({"dataset": "mine"}, "unknown dataset"),
        ({"gpu_hours": -1.0}, "GPU hours"),
        ({"gpus": -1}, "at least 0"),
        ({"metric": "f1"}, "unknown metric"),
    ],
)
def test_a_senseless_question_is_refused(published: Source, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        recommend_methods(published, **arguments)


@pytest.mark.parametrize(
    ("channels", "target", "asked"),
    [
        (["dapi"], "nuclear", {"target": "nuclear"}),
        (["dapi"], "nuclear", {"target": "nuclear", "channels": 1}),
        (["dapi"], "nuclear", {}),
        (["image"], "cell", {"target": "cell"}),
        (["image"], "cell", {}),
        (["image"], "cell", {"target": "wholecell", "tissue": "liver"}),
        (["dapi", "actin", "tubulin"], "cell", {"target": "cell", "channels": 3}),
        (["dapi", "actin", "tubulin"], "cell", {}),
        (["phase"], "cell", {"images": "phase"}),
        (["phase"], "cell", {}),
        (["phase"], "nuclear", {"images": "phase", "target": "nuclear"}),
        (["brightfield"], "cell", {"images": "phase"}),
    ],
)
def test_own_results_are_recommended_from_whatever_their_channels_are_called(
    results: Any, channels: list[str], target: str, asked: dict[str, Any]
) -> None:
    own = {"dataset": "mine", "kind": "folder", "channels": channels, "n_channels": len(channels), "target": target}
    task = f"mine-{target}-{len(channels)}ch"
    results.run("good", task, {"all": 0.7, "liver": 0.8}, **own)
    results.run("poor", task, {"all": 0.4, "liver": 0.3}, **own)
    result = recommend_methods(results.source(), **asked)
    assert result.source.startswith("the results in")
    assert result.table.select("method", "task").rows() == [("good", task), ("poor", task)]


def test_ones_own_folder_speaks_before_the_studys_data_and_can_be_named(results: Any) -> None:
    results.run("study", TWO, {"all": 0.9, "Breast": 0.9})
    own = {"dataset": "mine", "kind": "folder", "channels": ["dapi"], "n_channels": 1, "target": "cell"}
    results.run("own", "mine-cell-1ch", 0.5, **own)
    source = results.source()
    assert recommend_methods(source).table["method"].to_list() == ["own"]
    assert recommend_methods(source, tissue="Breast").table["method"].to_list() == ["study"]
    assert recommend_methods(source, dataset="tissuenet").table["method"].to_list() == ["study"]


def test_the_best_of_one_seed_is_no_claim_and_of_several_it_is_one(results: Any) -> None:
    results.run("a", TWO, 0.8)
    results.run("b", TWO, 0.3)
    once = recommend_methods(results.source())
    assert any("whether A is the best is open" in finding for finding in once.findings)
    assert once.part("leads")["p"].to_list() == [None]


def test_several_seeds_give_an_interval_and_a_lead(results: Any) -> None:
    draws = [0.79, 0.8, 0.81] * 10
    for seed, off in enumerate((0.0, 0.01, -0.01, 0.005)):
        results.run("a", TWO, 0.8 + off, seed=seed, resamples=[d + off for d in draws])
        results.run("b", TWO, 0.3 - off, seed=seed, resamples=[d - 0.5 - off for d in draws])
    result = recommend_methods(results.source())
    first = result.table.row(0, named=True)
    assert first["score_low"] < first["score"] < first["score_high"]
    assert first["interval_of"] == "test images and seeds"
    assert any("A is ahead of each of them by more than chance" in finding for finding in result.findings)
    lead = result.part("leads").row(0, named=True)
    assert lead["low"] < 0.5 < lead["high"]


def test_the_guideline_is_put_to_the_test_and_said_to_lose_where_it_does(results: Any) -> None:
    tissues = ("Breast", "Colon", "Skin", "Lung")
    for seed, off in enumerate((0.0, 0.01, -0.01)):
        for train in ("all", *tissues):
            scores = {"all": 0.5 + off}
            scores |= {t: (0.5 if train == "all" else 0.8 if t == train else 0.2) + off for t in tissues}
            results.run("a", TWO, scores, train_tissue=train, seed=seed)
    result = recommend_methods(results.source(), tissue="Breast")
    row = result.table.row(0, named=True)
    assert (row["train_on"], row["better_on"]) == ("all", "Breast")
    assert row["better_by"] == pytest.approx(0.3)
    assert 0 < row["better_low"] < 0.3 < row["better_high"]
    assert any("training on Breast scored accuracy +0.30" in f and "guideline loses here" in f for f in result.findings)
    rules = {rule["rule"]: rule for rule in result.part("guideline").iter_rows(named=True)}
    assert rules["all tissues against the same tissue"]["verdict"] == "loses"
    assert rules["the same tissue against the most transferable other"]["verdict"] == "holds"
    assert rules["all tissues against the same tissue"]["tissues"] == 4


def test_the_doubt_about_the_published_hours_is_told(published: Source) -> None:
    result = recommend_methods(published, gpu_hours=40)
    assert any("whether they are raw or standardised is in doubt" in warning for warning in result.warnings)
