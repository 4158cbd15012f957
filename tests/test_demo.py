"""The whole path at once: what ``make demo`` does, from synthetic images to the dashboard."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from unannotated import write_unannotated

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query

ROOT = Path(__file__).parent.parent


def segbench(*arguments: str) -> str:
    """Run the command line in a process of its own, and return what it printed."""
    command = [sys.executable, "-c", "from segbench.cli.app import main; main()", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stderr[-4000:]
    return found.stdout


def commands(out: Path) -> list[list[str]]:
    """Return the commands of the Makefile's target, with another results folder."""
    target = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert target is not None
    lines = [line.strip() for line in target[1].splitlines() if "$(BIN)/segbench" in line]
    return [shlex.split(line.replace("$(OUT)", str(out)))[1:] for line in lines]


def assert_that_the_best_model_is_the_same_elsewhere(out: Path) -> None:
    """Apply the best model to ten images that nobody has annotated, here and, as a package, elsewhere."""
    best = "select run_id from accuracy where test_tissue = 'all' order by ap50 desc limit 1"
    run_id = segbench("sql", best, "--format", "csv", "--out", str(out)).splitlines()[-1]
    images = write_unannotated(out / "unseen", 10)
    for path in images.glob("*.tif"):  # the model sees two channels
        image = tifffile.imread(path)
        tifffile.imwrite(path, np.stack([image, image]), imagej=True, metadata={"axes": "CYX"})
    package, elsewhere = str(out / "best.zip"), str(out / "other")
    given = (str(images), "--channels", "1,2", "--cpu", "--to")
    segbench("models", "apply", run_id, *given, str(out / "here"), "--write", "all", "--results", str(out))
    told = ("--licence", "CC0-1.0", "--author", "A. Person", "--results", str(out))
    segbench("models", "export", run_id, "--to", package, *told)
    assert "added to" in segbench("models", "import", package, "--results", elsewhere)
    (row,) = json.loads(segbench("models", "list", "--results", elsewhere, "--format", "json"))
    segbench("models", "apply", row["name"], *given, str(out / "there"), "--write", "tiff", "--results", elsewhere)
    names = sorted(path.name for path in (out / "here").glob("*.labels.tif"))
    assert len(names) == 10
    for name in names:
        assert np.array_equal(*(tifffile.imread(out / folder / name) for folder in ("here", "there")))


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_demo_trains_two_networks_that_beat_the_watershed_ranks_and_shows_them(
    own_cache: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("demo-cache")  # the other tests know no dataset of its name
    (cache / "environments").symlink_to(own_cache / "environments")
    monkeypatch.setenv("SEGBENCH_CACHE", str(cache))
    prepare, launch, report, ranking = commands(tmp_path)
    segbench(*prepare)
    assert "3 done" in segbench(*launch)
    assert "nothing to run: all 3 runs" in segbench(*launch)
    out = ResultsFolder(tmp_path)

    board = {
        method: (mean, ap50, seconds)
        for method, mean, ap50, seconds in query(out, "select method, map, ap50, train_s from leaderboard").rows()
    }
    assert set(board) == {"watershed", "stardist", "cellpose"}
    assert board["watershed"][2] is None
    for method in ("stardist", "cellpose"):
        mean, ap50, seconds = board[method]
        assert seconds > 0
        assert mean > board["watershed"][0], board
        assert ap50 > max(0.2, board["watershed"][1]), board
    falls = (
        "select method, arg_min(loss, point) > arg_max(loss, point) "
        "from history join attempts using (run_id, attempt) group by 1"
    )
    assert dict(query(out, falls).rows()) == {"stardist": True, "cellpose": True}
    versions = dict(query(out, "select method, versions->>method from attempts where trained").rows())
    assert versions == {"stardist": "0.9.2", "cellpose": "3.1.1.3"}

    segbench(*report)
    page = (tmp_path / "report.html").read_text()
    assert all(title in page for title in ("StarDist", "Cellpose", "Watershed"))
    assert_that_the_best_model_is_the_same_elsewhere(tmp_path)
    ranked = segbench(*ranking)
    assert all(method in ranked for method in board)
