"""Usability: sub-scores from a file or the cards, the published composite where there are none, nothing invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from segbench.analysis.ranking import rank_methods
from segbench.analysis.source import Source
from segbench.analysis.usability import read_usability, score_usability, usability_of
from segbench.errors import SegbenchError

HEADER = "method,code_maintenance,ease_of_use,hardware_support,source\n"
TASK = "tissuenet-nuclear-1ch"


def write(path: Path, rows: str) -> Path:
    path.write_text(HEADER + rows)
    return path


def test_sub_scores_are_z_scored_through_the_normal_cdf_and_averaged(results: Any, tmp_path: Path) -> None:
    for method in ("cellpose", "stardist", "mine"):
        results.run(method, TASK, 0.5)
    path = write(tmp_path / "u.csv", "cellpose,9,8,7,me\nstardist,7,9,5,me\nmine,2,3,10,me\n")
    result = score_usability(results.source(), scores=read_usability(path))
    raw = np.array([[9, 8, 7], [7, 9, 5], [2, 3, 10]])
    expected = stats.norm.cdf(stats.zscore(raw, axis=0)).mean(axis=1)
    assert usability_of(result) == pytest.approx(dict(zip(("cellpose", "stardist", "mine"), expected, strict=True)))
    assert set(result.table["basis"]) == {"sub-scores"}
    assert set(result.table["source"]) == {"me"}
    assert rank_methods(results.source(), usability=usability_of(result)).table.height == 3


def test_a_missing_sub_score_is_not_filled_in(results: Any, tmp_path: Path) -> None:
    results.run("cellpose", TASK, 0.5, usability=0.67)
    results.run("stardist", TASK, 0.5, usability=None)
    results.run("mine", TASK, 0.5, usability=None)
    path = write(tmp_path / "u.csv", "cellpose,9,,7,me\nstardist,7,9,5,me\nmine,2,3,10,me\n")
    result = score_usability(results.source(), scores=read_usability(path))
    rows = {row["method"]: row for row in result.table.iter_rows(named=True)}
    assert (rows["cellpose"]["usability"], rows["cellpose"]["basis"]) == (0.67, "study composite")
    assert rows["cellpose"]["ease_of_use"] is None
    assert rows["stardist"]["basis"] == "sub-scores"
    assert any("stand side by side" in warning for warning in result.warnings)


def test_one_method_with_sub_scores_cannot_be_compared(results: Any, tmp_path: Path) -> None:
    results.run("mine", TASK, 0.5, usability=None)
    result = score_usability(results.source(), scores=read_usability(write(tmp_path / "u.csv", "mine,9,9,9,me\n")))
    assert result.table.select("usability", "basis").row(0) == (None, "unknown")
    assert any("no usability is known of Mine" in warning for warning in result.warnings)


def test_the_published_composite_is_marked_as_such(published: Source) -> None:
    result = score_usability(published)
    assert set(result.table["basis"]) == {"study composite"}
    assert usability_of(result)["segment-anything"] == 0.78
    assert all("SegGal" in source for source in result.table["source"])
    assert result.table["ease_of_use"].null_count() == 18


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,11,1,1,me\n", "line 2: code_maintenance of a must be a number from 1 to 10.*'11'"),
        ("a,1,x,1,me\n", "ease_of_use of a must be a number"),
        ("a,1,1,nan,me\n", "hardware_support of a must be a number"),
        ("a,1,1,1,\n", "need a source"),
        ("a,1,1,1,me\na,1,1,1,me\n", "a method of its own"),
        (",1,1,1,me\n", "a method of its own"),
    ],
)
def test_a_bad_file_is_told_by_its_line(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        read_usability(write(tmp_path / "u.csv", rows))


def test_a_file_without_the_columns_or_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("method,ease_of_use\na,1\n")
    with pytest.raises(SegbenchError, match="lacks the columns code_maintenance, hardware_support, source"):
        read_usability(tmp_path / "x.csv")
    with pytest.raises(SegbenchError, match="cannot read"):
        read_usability(tmp_path / "none.csv")
