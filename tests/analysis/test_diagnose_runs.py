"""What a lost point is made of, from stores made by hand: averages, bias, calibration, older stores, scored again."""

from __future__ import annotations

import gzip
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from segbench.analysis import analyse
from segbench.analysis.source import Source
from segbench.engine.metrics import evaluate_labels
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import CalibrationRow, GapRow, ImageTable, Record, StratumRow
from segbench.engine.study.experts import agreement
from segbench.errors import SegbenchError

TASK = "tissuenet-nuclear-2ch"
KINDS = ("missed", "split", "merged", "spurious", "loose")


def gap_row(score: float, *shares: float, tissue: str = "all") -> GapRow:
    told = dict(zip(KINDS, shares, strict=True))
    return GapRow(test_task=TASK, test_tissue=tissue, metric="ap50", score=score, gap=1 - score, **told)


def stratum(area_ratio: float, **fields: Any) -> StratumRow:
    counts = {"n_truth": 10, "found": 5, "missed": 2, "split": 1, "merged": 1, "loose": 1, "spurious": 4}
    place = {"test_tissue": "all", "parted_by": "all", "stratum": 0, "low": None, "high": None}
    outlines = {"mean_iou": 0.8, "boundary_iou": 0.4, "boundary_px": 1.0, "boundary_95_px": 2.0}
    return StratumRow(test_task=TASK, **{**place, **counts, **outlines, "area_ratio": area_ratio, **fields})


def bins(*rows: tuple[int, float, float]) -> list[CalibrationRow]:
    return [
        CalibrationRow(test_task=TASK, test_tissue="all", bin=n, low=s, high=s, n=k, mean_score=s, correct=c)
        for n, (k, s, c) in enumerate(rows)
    ]


def add(results: Any, method: str, score: float, **rows: Any) -> Record:
    results.run(method, TASK, score)
    results.records[-1] = results.records[-1].model_copy(update=rows)
    return results.records[-1]


def test_shares_are_averaged_over_seeds_and_the_largest_is_named(results: Any) -> None:
    add(
        results, "ours", 0.4, gaps=[gap_row(0.4, 0.3, 0.0, 0.1, 0.0, 0.2), gap_row(0.2, 0.8, 0, 0, 0, 0, tissue="Skin")]
    )
    add(results, "ours", 0.6, gaps=[gap_row(0.6, 0.1, 0.0, 0.1, 0.0, 0.2)])
    add(results, "other", 0.9, gaps=[gap_row(0.9, 0.0, 0.02, 0.0, 0.08, 0.0)])
    answer = analyse("diagnosis", results.source())
    row = answer.table.row(by_predicate=(pl.col("method") == "ours") & (pl.col("test_tissue") == "all"), named=True)
    assert {name: row[name] for name in ("score", "gap", "missed", "loose", "runs")} == pytest.approx(
        {"score": 0.5, "gap": 0.5, "missed": 0.2, "loose": 0.2, "runs": 2}
    )
    assert answer.table.filter(method="other")["largest"].item() == "spurious"
    assert "Other, the best with AP50 0.90, loses 0.08 to predictions where there is no cell" in answer.findings[0]
    assert "experts who outlined the same CODEX cells" in answer.findings[-1]


def test_what_became_of_cells_and_scores_is_told(results: Any) -> None:
    add(
        results, "ours", 0.5, gaps=[gap_row(0.5, 0.5, 0, 0, 0, 0)], cell_strata=[stratum(1.5)],
        calibration=bins((30, 0.25, 0.25), (10, 0.95, 0.55)),
    )  # fmt: skip
    answer = analyse("diagnosis", results.source())
    cells = answer.part("cells").row(0, named=True)
    assert (cells["missed"], cells["spurious"], cells["n_truth"]) == (0.2, 0.4, 10)
    assert answer.part("calibration")["correct"].to_list() == [0.25, 0.55]


def windows(*counts: tuple[int, int]) -> ImageTable:
    """Return windows with so many true and so many predicted cells of one pixel."""
    truth, found = ([np.arange(100)[None] * (np.arange(100) <= pair[side]) for pair in counts] for side in (0, 1))
    columns = evaluate_labels(truth, found).images.columns()
    columns |= {"name": ["image"] * len(counts), "tissue": ["Skin"] * len(counts)}
    return ImageTable(
        test_task=TASK, columns={name: list(np.asarray(column).tolist()) for name, column in columns.items()}
    )


def test_bias_in_count_and_size_and_in_scores_is_told(results: Any) -> None:
    add(
        results, "ours", 0.5, gaps=[gap_row(0.5, 0.5, 0, 0, 0, 0)], cell_strata=[stratum(1.5)],
        calibration=bins((30, 0.25, 0.25), (10, 0.95, 0.55)), images=[windows((10, 20), (30, 30))],
    )  # fmt: skip
    answer = analyse("diagnosis", results.source())
    row = answer.part("bias").filter(test_tissue="all").row(0, named=True)
    assert (row["count_bias"], row["count_error"], row["area_ratio"]) == (0.25, 0.25, 1.5)
    assert row["calibration_error"] == pytest.approx(0.1)
    assert any("25% more cells than there are" in sentence for sentence in answer.findings)


def test_a_run_that_was_scored_again_is_told_by_the_newest(results: Any) -> None:
    old = add(results, "ours", 0.5)
    again = old.attempt.model_copy(
        update={
            "run_id": "a" * 12, "folder": f"runs/{'a' * 12}/attempt-001", "stage": "evaluate",
            "of_run": old.attempt.run_id, "of_attempt": 1, "started_at": datetime(2030, 1, 1, tzinfo=UTC),
        }
    )  # fmt: skip
    results.records.append(Record(attempt=again, phases={}, gaps=[gap_row(0.7, 0.3, 0, 0, 0, 0)]))
    add(results, "other", 0.2)
    answer = analyse("diagnosis", results.source())
    assert answer.table.select("method", "score").rows() == [("ours", 0.7)]
    assert any(warning.startswith("1 of 2 finished runs have no errors told") for warning in answer.warnings)


def test_a_store_of_the_last_release_says_how_to_be_told(tmp_path: Path) -> None:
    release = Path(__file__).parent.parent / "stores" / "release-0.1.0" / "results"
    out = shutil.copytree(release, tmp_path / "results")
    (out / "results.duckdb").write_bytes(gzip.decompress((out / "results.duckdb.gz").read_bytes()))
    answer = analyse("diagnosis", Source.of_results(ResultsFolder(out)))
    assert answer.table.is_empty()
    assert "segbench runs evaluate --all" in answer.warnings[-1]
    assert answer.part("bias").height


def test_an_unknown_metric_is_told(published: Source) -> None:
    with pytest.raises(SegbenchError, match="unknown metric of a gap 'ar'"):
        analyse("diagnosis", published, metric="ar")


@pytest.mark.slow
def test_the_experts_figures_are_what_their_masks_give(testdata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from two_experts import compare

    assert compare(testdata).equals(agreement())
