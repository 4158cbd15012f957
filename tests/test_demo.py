"""The whole path at once: the demo's grid with a small budget, from synthetic images to the dashboard."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from unannotated import write_unannotated

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query


def segbench(*arguments: str, out: Path) -> str:
    """Run the command line in a process of its own, and return what it printed."""
    return _run(*arguments, "--out", str(out))


def models(*arguments: str) -> str:
    """Run a command of the models, as ``segbench``."""
    return _run("models", *arguments)


def _run(*arguments: str) -> str:
    command = [sys.executable, "-c", "from segbench.cli.app import main; main()", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert found.returncode == 0, found.stderr[-4000:]
    return found.stdout


def assert_that_the_best_model_is_the_same_elsewhere(out: Path) -> None:
    """Apply the best model to ten images that nobody has annotated, here and, as a package, elsewhere."""
    best = "select run_id from accuracy where test_tissue = 'all' order by ap50 desc limit 1"
    run_id = segbench("sql", best, "--format", "csv", out=out).splitlines()[-1]
    images, package, elsewhere = str(write_unannotated(out / "unseen", 10)), str(out / "best.zip"), str(out / "other")
    to = ("--cpu", "--to")
    models("apply", run_id, images, *to, str(out / "here"), "--write", "all", "--results", str(out))
    models("export", run_id, "--to", package, "--licence", "CC0-1.0", "--author", "A. Person", "--results", str(out))
    assert "added to" in models("import", package, "--results", elsewhere)
    (row,) = json.loads(models("list", "--results", elsewhere, "--format", "json"))
    models("apply", row["name"], images, *to, str(out / "there"), "--write", "tiff", "--results", elsewhere)
    names = sorted(path.name for path in (out / "here").glob("*.labels.tif"))
    assert len(names) == 10
    for name in names:
        assert np.array_equal(*(tifffile.imread(out / folder / name) for folder in ("here", "there")))


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_demo_trains_scores_ranks_and_shows_three_methods(tmp_path: Path) -> None:
    # the demo's own settings, on one of its tasks, for a few passes
    launch = ("grid", "launch", "--preset", "demo", "--task", "synthetic-nuclear-1ch", "--budget-scale", "0.5", "--cpu")
    assert "3 done" in segbench(*launch, out=tmp_path)
    assert "nothing to run: all 3 runs" in segbench(*launch, out=tmp_path)

    board = query(
        ResultsFolder(tmp_path), "select method, ap50, train_s from leaderboard where task = 'synthetic-nuclear-1ch'"
    ).rows()
    assert {method for method, _, _ in board} == {"watershed", "stardist", "cellpose"}
    assert all(ap50 > 0.3 for _, ap50, _ in board), board
    assert {method for method, _, seconds in board if seconds is not None} == {"stardist", "cellpose"}
    falls = (
        "select method, arg_min(loss, point) > arg_max(loss, point) "
        "from history join attempts using (run_id, attempt) group by 1"
    )
    assert dict(query(ResultsFolder(tmp_path), falls).rows()) == {"stardist": True, "cellpose": True}
    versions = dict(
        query(ResultsFolder(tmp_path), "select method, versions->>method from attempts where trained").rows()
    )
    assert versions == {"stardist": "0.9.2", "cellpose": "3.1.1.3"}

    segbench("report", out=tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert all(title in page for title in ("StarDist", "Cellpose", "Watershed"))
    assert_that_the_best_model_is_the_same_elsewhere(tmp_path)
    ranked = segbench("sql", "select method from leaderboard order by place", "--format", "csv", out=tmp_path)
    assert ranked.splitlines()[0] == "method"
