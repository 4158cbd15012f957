"""A new user's path, as typed: the best model is applied, exported, and elsewhere imported and applied again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner, Result
from unannotated import write_unannotated

from segbench.cli.app import app
from segbench.engine.models.outputs import FORMS, writable_forms
from segbench.engine.models.predictor import clear_the_dead
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.errors import SegbenchError
from segbench.paths import cache_folder

TOLD = ("--licence", "CC-BY-4.0", "--data-licence", "CC0-1.0", "--author", "A. Person")


def models(*arguments: object) -> Result:
    """Run a command of the models; user's mistakes are raised as they are."""
    return CliRunner().invoke(app, ["models", *map(str, arguments)], catch_exceptions=False)


def best_of(results: ResultsFolder) -> str:
    """Return the id of the run with the highest AP50."""
    return str(
        query(results, "select run_id from accuracy where test_tissue = 'all' order by ap50 desc limit 1").item()
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of four images."""
    return write_unannotated(tmp_path_factory.mktemp("unannotated") / "scans", 4)


@pytest.fixture(scope="module")
def package(results: ResultsFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package of the trained model."""
    folder = tmp_path_factory.mktemp("packages")
    run_id = query(results, "select run_id from attempts where method = 'threshold'").item()
    done = models("export", run_id, "--to", folder, *TOLD, "--results", results)
    assert (done.exit_code, "note: no " in done.output) == (0, False), done.output
    (found,) = folder.iterdir()
    return found


def test_the_best_model_gives_the_same_label_maps_elsewhere(
    results: ResultsFolder, scans: Path, tmp_path: Path
) -> None:
    best, here, there = best_of(results), tmp_path / "here", tmp_path / "there"
    done = models("apply", best[:6], scans, "--to", here, "--write", "all", "--cpu", "--results", results)
    assert done.exit_code == 0, done.output
    for number in range(4):
        for suffix in (suffix for form in writable_forms() for suffix in FORMS[form]):
            assert (here / f"unseen{number}{suffix}").exists()
    assert models("export", best, "--to", tmp_path / "best.zip", *TOLD, "--results", results).exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    assert "added to" in models("import", tmp_path / "best.zip", "--results", elsewhere).output
    (row,) = json.loads(models("list", "--results", elsewhere, "--format", "json").stdout)
    again = models("apply", row["name"], scans, "--to", there, "--write", "tiff", "--cpu", "--results", elsewhere)
    assert again.exit_code == 0, again.output
    for number in range(4):
        first, second = (tifffile.imread(to / f"unseen{number}.labels.tif") for to in (here, there))
        assert np.array_equal(first, second)


def test_packages_are_tested_one_by_one(package: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.zip"
    cut.write_bytes(package.read_bytes()[:5000])
    done = models("test", cut, package, "--format", "json")
    assert done.exit_code == 1
    assert [row["exact"] for row in json.loads(done.stdout)] == [True]
    assert "cut.zip is not a whole zip archive" in done.stderr


def test_a_model_of_a_gallery_is_applied_by_its_name(package: Path, scans: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    site = tmp_path / "site"
    built = CliRunner().invoke(app, ["gallery", "build", str(package), "--to", str(site)], catch_exceptions=False)
    assert built.exit_code == 0
    one, name = scans / "unseen0.tif", package.stem
    done = models("apply", name, one, "--to", tmp_path / "a", "--write", "tiff", "--cpu", "--from", site)
    assert done.exit_code == 0, done.output
    proposed = json.loads(models("recommend", scans, "--from", site, "--format", "json").stdout)
    assert [row["name"] for row in proposed] == [name]
    monkeypatch.chdir(tmp_path)
    assert models("pull", name, "--from", site).stdout.strip() == f"{name}.zip"
    shutil.rmtree(site)
    assert models("apply", name, one, "--to", "b", "--write", "tiff", "--cpu").exit_code == 0
    assert (tmp_path / "a/unseen0.labels.tif").read_bytes() == (tmp_path / "b/unseen0.labels.tif").read_bytes()
    with pytest.raises(SegbenchError, match="no model 'threshold-other'"):
        models("apply", "threshold-other", one, "--to", "c", "--results", tmp_path / "none")


def test_what_cannot_be_meant_is_one_line_and_leaves_nothing(
    results: ResultsFolder, package: Path, scans: Path, tmp_path: Path
) -> None:
    run_id, no = best_of(results), tmp_path / "no"
    (tmp_path / "mine.zip").write_text("a thesis")
    for arguments, words in (
        (("export", "zzz", "--to", no), "no model 'zzz'"),
        (("export", run_id, "--to", no, "--name", "Bad_Name"), "lower-case letters and digits"),
        (("export", run_id, "--to", no, "--licence", "free for all"), "SPDX list"),
        (("export", run_id, "--to", no, "--licence", "MIT OR Apache-2.0"), "SPDX list"),
        (("export", run_id, "--to", no, "--author", "a\nb"), "--author is one line"),
        (("export", run_id, "--to", no, "--data-url", "my disk"), "--data-url is an address"),
        (("export", run_id, "--to", tmp_path / "mine.zip"), "is no package of this run"),
        (("export", package.stem, "--to", no), "no model"),
        (("test", no), "cannot read"),
        (("import", tmp_path / "mine.zip"), "is not a whole zip archive"),
        (("import", run_id), "cannot read"),
        (("list",), "no models in"),
        (("pull", "x", "--from", no), "cannot read"),
        (("recommend", scans, "--from", no), "cannot read"),
        (("recommend", no, "--from", no), "does not exist"),
        (("apply", tmp_path / "none.zip", scans, "--to", no), "there is no package"),
        (("apply", tmp_path / "mine.zip", scans, "--to", no), "is not a whole zip archive"),
        (("apply", package, scans, "--to", tmp_path / "mine.zip"), "is a file"),
        (("apply", package, scans, "--to", scans), "is not empty"),
    ):
        where = results if arguments[0] == "export" and arguments[1] == run_id else tmp_path / "empty"
        with pytest.raises(SegbenchError, match=words) as caught:
            models(*arguments, *(() if arguments[0] in ("test", "pull", "recommend") else ("--results", where)))
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "empty") == ["mine.zip"]
    assert (tmp_path / "mine.zip").read_text() == "a thesis"


def test_a_package_of_the_same_run_is_replaced_with_a_word(
    results: ResultsFolder, package: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.zip"
    shutil.copy(package, kept)
    run_id = query(results, "select run_id from attempts where method = 'threshold'").item()
    done = models("export", run_id, "--to", kept, "--licence", "mit", "--results", results)
    assert "it is replaced" in done.output
    assert hashlib.sha256(kept.read_bytes()).hexdigest() in done.output


def test_results_are_no_images_of_the_next_call(package: Path, scans: Path, tmp_path: Path) -> None:
    inside = tmp_path / "scans"
    shutil.copytree(scans, inside)
    (inside / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    (inside / "notes.csv").write_text("mine")
    to = inside / "results"
    for earlier in ("", "4 were done before"):
        done = models("apply", package, f"{inside}/**/*", "--to", to, "--write", "all", "--cpu")
        assert done.exit_code == 1
        assert "4 of 5 images" in done.output
        assert "gone.tif failed: No such file" in done.output
        assert earlier in done.output
    assert "files left out: they lie in" in done.output


def test_a_call_that_is_killed_goes_on_and_leaves_nothing_behind(
    results: ResultsFolder, scans: Path, tmp_path: Path
) -> None:
    to = tmp_path / "out"
    before = set(cache_folder().glob("apply-*"))
    command = ["models", "apply", best_of(results), str(scans), "--to", str(to), "--cpu", "--results", str(results)]
    code = "import sys; sys.argv[0] = 'segbench'; from segbench.cli.app import main; main()"
    going = subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((to / ".apply").glob("*.json")):
        assert time.monotonic() < deadline
        assert going.poll() is None
        time.sleep(0.02)
    going.send_signal(signal.SIGKILL)
    going.wait()
    left = set(cache_folder().glob("apply-*")) - before
    done = models(*command[1:])
    assert (done.exit_code, "were done before" in done.output) == (0, True), done.output
    assert sorted(path.name for path in to.glob("*.labels.tif")) == [f"unseen{n}.labels.tif" for n in range(4)]
    for work in left:
        old = time.time() - 120
        for path in (work / "alive.lock", work):
            os.utime(path, (old, old))
    clear_the_dead(cache_folder())
    assert set(cache_folder().glob("apply-*")) - before == set()
