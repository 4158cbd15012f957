"""What a method's process is given: a job that leads to no test label, and folders that it does not see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segbench.engine.data import DatasetSpec, PreparedDataset, ensure_prepared
from segbench.engine.data.checksums import what_is_wrong
from segbench.engine.data.given import given_folder
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.methods.job import Job

SMALL = DatasetSpec("given", "synthetic", None, {"layout": "livecell", "seed": 9, "scale": 0.01})
HIDE = (
    "import os, sys; from segbench.methods.wall import hide; print(hide(sys.argv[1:]), *map(os.listdir, sys.argv[1:]))"
)


@pytest.fixture(scope="module")
def data() -> PreparedDataset:
    """Return a small dataset, prepared."""
    register(SMALL)
    return ensure_prepared(SMALL)


def test_what_is_given_has_every_window_and_no_test_label(data: PreparedDataset) -> None:
    given = given_folder(data)
    names = {path.name for path in given.iterdir()}
    assert names == {path.name for path in data.folder.glob("*.npy")} - {data.labels_path("test", "wholecell").name}
    assert all((given / name).samefile(data.folder / name) and not (given / name).is_symlink() for name in names)
    assert what_is_wrong(data.folder) is None
    (given / data.images_path("test").name).unlink()
    (given / data.images_path("test").name).write_bytes(b"of what was prepared before")
    assert (given_folder(data) / data.images_path("test").name).samefile(data.images_path("test"))
    assert not [path for path in given.iterdir() if path.name.startswith(".")]


def test_where_no_hard_link_can_be_made_there_are_symbolic_ones(
    data: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    for path in given_folder(data).iterdir():
        path.unlink()
    monkeypatch.setattr(os, "link", refuse)
    assert all(path.is_symlink() and path.is_file() for path in given_folder(data).iterdir())
    for path in given_folder(data).iterdir():
        path.unlink()


def test_a_hidden_folder_is_empty_for_the_process_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "labels.npy").write_bytes(b"truth")
    command = [sys.executable, "-c", HIDE, str(folder), str(tmp_path / "is not there")]
    told = subprocess.run(command[:-1], capture_output=True, text=True, check=True).stdout.strip()
    assert told in ("True []", "False ['labels.npy']")
    if os.getuid() == 0 and Path("/proc/self/ns/mnt").exists() and told.startswith("False"):
        pytest.skip("this system gives no mount namespace")
    assert [path.name for path in folder.iterdir()] == ["labels.npy"]


@pytest.mark.usefixtures("plugin", "data")
def test_a_method_that_looks_for_the_test_labels_finds_none(tmp_path: Path) -> None:
    grid = {"methods": ["threshold"], "tasks": ["given-wholecell"], "tissues": ["BV2"]}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid | {"settings": {"threshold": {"fail": "look"}}}))
    out = ResultsFolder(tmp_path / "results")
    _, summary = launch(GridRequest(grid_file=tmp_path / "grid.yaml"), out, LaunchOptions(executor="inline", cpu=True))
    assert summary is not None
    (outcome,) = summary.outcomes
    assert outcome.status == "done", outcome.error
    (attempt,) = out.attempts(outcome.run_id)
    found = json.loads((attempt.path / "found.json").read_text())
    job = Job.read(attempt.job.job)
    assert job.train is not None
    assert job.hidden == (str(ensure_prepared(SMALL).folder.parent.resolve()),)
    assert found[str(Path(job.train.images).parent)] == []
    told = subprocess.run([sys.executable, "-c", HIDE, *job.hidden], capture_output=True, text=True, check=True).stdout
    if told.startswith("True"):
        assert not any(found.values())
