"""``segbench analyze``: every analysis from the command line, for people and for programs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from segbench.cli.analyze import app
from segbench.errors import SegbenchError

COMMANDS = [
    ["ranking"], ["ranking", "--part", "friedman"], ["runtime"], ["runtime", "--part", "scalability"], ["usability"],
    ["channels"], ["morphology"], ["regression"], ["transfer"], ["transfer", "--part", "transferability"],
    ["training-data", "Breast", "--task", "tissuenet-nuclear-2ch"], ["modality"], ["dilation"],
    ["diagnosis"], ["diagnosis", "--part", "experts"], ["recommend", "Breast"],
]  # fmt: skip


def ask(*arguments: str) -> Result:
    """Run the command; its own errors are raised here."""
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_analysis_gives_json_on_the_published_scores(command: list[str]) -> None:
    result = ask(*command, "--store", "published", "--format", "json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert rows or "note: " in result.stderr


def test_a_table_is_followed_by_what_it_says_and_notes_go_to_standard_error() -> None:
    result = ask("ranking", "-s", "published")
    lines = result.stdout.splitlines()
    assert lines[0].strip() == "ranking: the published scores"
    assert any(line.startswith("- study: first place is open") for line in lines)
    assert "note: study: no intervals over images" in result.stderr
    assert "rank_low" not in result.stdout


def test_csv_keeps_every_column_and_only_the_table() -> None:
    rows = list(csv.DictReader(ask("ranking", "-s", "published", "-f", "csv").stdout.splitlines()))
    assert [row["method"] for row in rows[:3]] == ["swin-s", "swin-t", "cellpose"]
    assert rows[0]["rank_low"] == ""
    assert len(rows) == 18


def test_weights_and_usability_scores_change_the_ranking(tmp_path: Path) -> None:
    accurate = json.loads(
        ask("ranking", "-s", "published", "-w", "usability=0", "-w", "scalability=0", "-f", "json").stdout
    )
    assert accurate[0]["method"] == "centermask2"
    scores = tmp_path / "mine.csv"
    scores.write_text(
        "method,code_maintenance,ease_of_use,hardware_support,source\nmesmer,10,10,10,me\ncellpose,1,1,1,me\n"
    )
    rows = json.loads(ask("ranking", "-s", "published", "--usability", str(scores), "-f", "json").stdout)
    mine = {row["method"]: row["usability"] for row in rows}
    assert mine["mesmer"] == pytest.approx(0.841345, abs=1e-6)
    assert mine["cellpose"] == pytest.approx(0.158655, abs=1e-6)
    assert mine["stardist"] == 0.59


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ranking", "-s", "published", "-w", "usability"], "COMPONENT=NUMBER"),
        (["ranking", "-s", "published", "--part", "friedmann"], "did you mean friedman"),
        (["regression", "-s", "published", "-x", "Lung", "--exclude-none"], "contradict each other"),
        (["channels", "-s", "published", "--metric", "ap5"], "unknown metric 'ap5'"),
        (["ranking", "--out", "nowhere"], "no results in nowhere"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(SegbenchError, match=message) as error:
        ask(*arguments)
    assert "\n" not in str(error.value)


def test_a_recommendation_needs_no_results(tmp_path: Path) -> None:
    result = ask("recommend", "--out", str(tmp_path), "--gpus", "1", "--gpu-hours", "40", "-f", "json")
    assert json.loads(result.stdout)[0]["method"] == "cellpose"
    assert "this is answered from the published scores" in result.stderr


def test_help_is_instant_for_it_imports_nothing_heavy() -> None:
    heavy = "{'polars', 'duckdb', 'numpy', 'scipy', 'statsmodels', 'ray'}"
    code = f"import sys, segbench.cli.analyze; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
