"""The command line as a whole: quick help, one-line errors, the grid commands and segbench sql."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter


def segbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from segbench.cli.app import main; main()", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        "",
        "grid",
        "grid plan",
        "grid launch",
        "grid status",
        "grid cancel",
        "data",
        "data prepare",
        "methods",
        "methods install",
        "evaluate",
        "sweep",
        "sql",
        "report",
        "plot",
        "analyze",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    result = segbench(*command.split(), "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grid", "plan", "--preset", "papr"], "did you mean paper"),
        (["grid", "plan", "--preset", "paper", "--method", "swin-x"], "did you mean swin-"),
        (["grid", "plan", "--dataset", "synthetics"], "did you mean synthetic"),
        (["grid", "plan", "--task", "synthetic-nuclear-1h"], "did you mean synthetic-nuclear-1ch"),
        (["grid", "plan", "--grid", "absent.yaml"], "absent.yaml"),
        (["grid", "plan", "--num-gpus", "1.5"], "--num-gpus"),
        (["grid", "launch", "--preset", "paper", "--method", "cellpose"], "segbench data prepare livecell PATH"),
        (["grid", "status"], "segbench grid launch"),
        (["grid", "cancel"], "segbench grid launch"),
        (["sql", "select 1"], "segbench grid launch"),
        (["data", "prepare", "folder", "absent", "--name", "x"], "absent"),
        (["methods", "show", "celpose"], "did you mean cellpose"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = segbench(*arguments)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plans_are_printed_for_programs() -> None:
    for preset, count in (("paper", 138), ("full", 954)):
        rows = json.loads(segbench("grid", "plan", "--preset", preset, "--format", "json").stdout)
        assert len(rows) == count
        assert {"id", "method", "task", "train_tissue", "seed", "num_gpus", "num_cpus", "memory_gb"} <= rows[0].keys()
        assert len({row["id"] for row in rows}) == count
    table = list(csv.DictReader(io.StringIO(segbench("grid", "plan", "--format", "csv").stdout)))
    assert [row["method"] for row in table] == ["watershed"] * 2 + ["stardist"] * 2 + ["cellpose"] * 2


@pytest.mark.slow
def test_status_and_sql_read_the_store(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add(
        [make_record(), make_record("b" * 12, status=Status.FAILED, error="[bold]killed[/bold]", method="m")]
    )
    status = segbench("grid", "status", "--out", str(tmp_path))
    assert "1 done, 1 failed; no launch runs" in status.stdout
    assert "[bold]killed[/bold]" in status.stdout
    rows = json.loads(
        segbench("sql", "select method, ap50 from leaderboard", "--out", str(tmp_path), "-f", "json").stdout
    )
    assert rows == [{"method": "stardist", "ap50": 0.8}]
    refused = segbench("sql", "delete from attempts", "--out", str(tmp_path))
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (2, 1)
