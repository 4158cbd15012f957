"""The published table answers as a store does, and every analysis says what it cannot answer."""

from __future__ import annotations

from typing import Any

import duckdb
import polars as pl
import pytest

from segbench.analysis import ANALYSES, analyse
from segbench.analysis import published as published_scores
from segbench.analysis.result import Result
from segbench.analysis.source import Source, read_sql
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter, query
from segbench.engine.study.tissues import LIVECELL_TISSUES, TISSUENET_TISSUES
from segbench.errors import SegbenchError

OF_A_SOURCE = [name for name, analysis in ANALYSES.items() if not analysis.required]
VIEWS = ("runs_latest", "accuracy", "timings", "leaderboard", "tissues", "evaluations")


def test_the_published_table_has_the_studys_138_models() -> None:
    table = published_scores.scores()
    assert table.height == 138
    every = table.filter(pl.col("train_tissue") == "all")
    assert every.group_by("task").len()["len"].to_list() == [18] * 5
    assert table.filter(pl.col("train_tissue") != "all")["method"].unique().to_list() == ["swin-s"]
    assert set(table["train_tissue"]) == {"all", *TISSUENET_TISSUES, *LIVECELL_TISSUES}


def test_the_published_source_has_the_stores_views_and_columns(published: Source, results: Any) -> None:
    StoreWriter(ResultsFolder(results.out))
    for view in VIEWS:
        wanted = query(ResultsFolder(results.out), f"select * from {view} limit 0")
        assert published.frame(f"select * from {view} limit 0").schema == wanted.schema, view


@pytest.mark.parametrize("name", OF_A_SOURCE)
def test_an_empty_store_gives_an_empty_table_and_says_so(results: Any, make_record: Any, name: str) -> None:
    StoreWriter(ResultsFolder(results.out)).add([make_record(status=Status.FAILED)])
    result = analyse(name, Source.of_results(ResultsFolder(results.out)))
    assert result.warnings[0].startswith("there is no finished run in the results in ")
    if name == "recommend":
        assert result.source == "the published scores"
        return
    assert result.table.height == 0
    assert result.table.width > 3
    assert result.findings == ()
    assert all(part.width for part in result.parts.values())


@pytest.mark.parametrize("name", OF_A_SOURCE)
def test_every_analysis_runs_on_the_published_table(published: Source, name: str) -> None:
    result = analyse(name, published)
    assert result.source == "the published scores"
    # What the table cannot answer is said, not left to be guessed from an empty table
    assert result.table.height or result.warnings


@pytest.mark.parametrize("name", OF_A_SOURCE)
def test_a_single_run_makes_no_claim(results: Any, name: str) -> None:
    results.run("solo", "tissuenet-nuclear-1ch", {"all": 0.5, "Breast": 0.5})
    result = analyse(name, results.source())
    assert isinstance(result, Result)
    assert result.warnings or name in ("runtime", "usability", "morphology", "recommend"), name
    assert not any("best" in finding or "first" in finding for finding in result.findings)


def test_an_unknown_analysis_is_told(published: Source) -> None:
    with pytest.raises(SegbenchError, match="did you mean ranking"):
        analyse("rankin", published)


def test_metrics_that_are_none_are_left_out_and_counted(results: Any) -> None:
    results.run("a", "tissuenet-nuclear-1ch", {"all": 0.5})
    results.run(
        "b",
        "tissuenet-nuclear-1ch",
        {"all": {"map": None, "ap50": 0.9, "ap75": 0.9, "ar": 0.9, "ar50": 0.9, "ar75": 0.9}},
    )
    results.run("c", "tissuenet-nuclear-1ch", {"all": 0.4})
    source = results.source()
    with duckdb.connect(results.out / "results.duckdb") as connection:
        # no record can hold these: an older store, or one that was written by hand
        connection.execute("update evaluations set map = -1 where run_id = '000000000001'")
        connection.execute("update evaluations set ap50 = 'nan'::double where run_id = '000000000002'")
    rows = source.frame(read_sql("ranking"))
    scores = {
        method: (accuracy, ap75) for method, accuracy, ap75 in rows.select("method", "accuracy", "ap75").iter_rows()
    }
    assert scores == {"a": (0.5, 0.5), "b": (None, 0.9), "c": (None, 0.4)}
    result = analyse("ranking", source)
    assert result.table["method"].to_list() == ["a"]
    assert any(w.startswith("2 evaluations hold a metric outside 0..1") for w in result.warnings)
    assert any("B and C have no accuracy and are not ranked" in w for w in result.warnings)


def test_what_differs_within_an_average_is_told(results: Any) -> None:
    results.run("a", "tissuenet-nuclear-1ch", 0.5, epochs=50, gpu_names=["A100"], num_gpus=1)
    results.run("a", "tissuenet-nuclear-1ch", 0.6, epochs=5, seed=1, gpu_names=["H100"], num_gpus=1)
    results.run("b", "tissuenet-nuclear-1ch", 0.6, dataset_fingerprint="e" * 16)
    warnings = " | ".join(analyse("ranking", results.source()).warnings)
    assert "different settings, budgets or data are averaged: a on tissuenet-nuclear-1ch" in warnings
    assert "several versions of one dataset are averaged: tissuenet" in warnings
    assert "training times come from different GPUs: A100; H100" in warnings
    assert "some training times come from GPUs and some from CPUs" in warnings


def test_synthetic_datasets_count_like_the_studys(results: Any, tmp_path: Any, make_record: Any) -> None:
    other = type(results)(tmp_path / "real", make_record)
    for folder, fluorescence, phase in ((results, "synthetic", "synthetic-livecell"), (other, "tissuenet", "livecell")):
        for m, method in enumerate(("a", "b", "c")):
            for t, task in enumerate(
                (f"{fluorescence}-nuclear-1ch", f"{fluorescence}-nuclear-2ch", f"{phase}-wholecell")
            ):
                score = 0.2 + 0.1 * m + 0.05 * t
                folder.run(
                    method,
                    task,
                    {"all": score, "Breast": score - 0.1, "Colon": score + 0.1},
                    train_s=100.0 * (m + t + 1),
                )
    sources = results.source(), other.source()
    for name in ("ranking", "channels"):
        made_up, real = (analyse(name, source).table for source in sources)
        assert made_up["suite"].unique().to_list() == ["synthetic"]
        assert real["suite"].unique().to_list() == ["study"]
        numbers = [column for column in made_up.columns if made_up[column].dtype.is_numeric()]
        renamed = real.rename(
            lambda column: column.replace("tissuenet", "synthetic").replace("livecell-", "synthetic-livecell-")
        )
        assert made_up.select(sorted(numbers)).equals(renamed.select(sorted(numbers)))
