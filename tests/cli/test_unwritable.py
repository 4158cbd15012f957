"""Places that cannot be written or read are told in one line by every command, and nothing half-made stays there."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segbench.cli.app import main

RELEASE = Path(__file__).parent.parent / "stores" / "release-0.1.0" / "results"
RUN = "5cf39ac1d5b1"
LONG = "n" * 300
Refused = Callable[..., str]
INTO_FOLDERS = {
    "merge": ["store", "merge", "res", "--out"],
    "export": ["store", "export", "--out", "res", "--parquet"],
    "import": ["data", "import", "suffix", "cells", "--to"],
    "init": ["init", "cells", "--name", "mine", "--to"],
    "new method": ["methods", "new", "bright", "--to"],
    "launch": ["grid", "launch", "--method", "watershed", "--inline", "--cpu", "--out"],
    "repeat": ["runs", "repeat", RUN, "--out", "res", "--inline", "--cpu", "--into"],
    "apply": ["models", "apply", RUN, "cells", "--results", "res", "--cpu", "--to"],
    "gallery": ["gallery", "build", "res", "--to"],
    "static report": ["report", "--out", "res", "--static-dir"],
}
INTO_FILES = {
    "figure": (["plot", "accuracy", "--out", "res", "-o"], "pdf"),
    "report": (["report", "--out", "res", "-o"], "html"),
    "grid file": (["init", "cells", "--name", "mine", "--grid"], "yaml"),
    "counts": (["evaluate", "cells/f0_mask.tif", "cells/f0_mask.tif", "--per-image"], "csv"),
    "package": (["models", "export", RUN, "--results", "res", "--to"], "zip"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with results, annotated images and a file."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(RELEASE, folder / "res")
    packed = folder / "res/results.duckdb.gz"
    (folder / "res/results.duckdb").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    (folder / "cells").mkdir()
    for n in range(6):
        labels = np.zeros((32, 32), np.uint8)
        labels[4:14, 4 + n : 14 + n] = 1
        tifffile.imwrite(folder / f"cells/f{n}.tif", labels * 100 + n)
        tifffile.imwrite(folder / f"cells/f{n}_mask.tif", labels)
    (folder / "afile").touch()
    return folder


@pytest.fixture
def refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Return a function that gives the line in which a command refuses to work, having left nothing in the place."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))

    def asked(*arguments: object) -> str:
        before = sorted(place.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["segbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr().err.splitlines()
        assert end.value.code in (1, 2), told
        errors = [line for line in told if line.startswith("error: ")]
        assert len(errors) == 1, told
        assert told[-1] == errors[0]
        assert sorted(place.rglob("*")) == before
        return errors[0]

    return asked


def _mounted(folder: Path, *how: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(["mount", *how, str(folder)], capture_output=True, check=False)
    if done.returncode:
        folder.rmdir()
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def full(place: Path) -> Iterator[Path]:
    """Return a folder on a disk that is nearly full."""
    yield from _mounted(place / "full", "-t", "tmpfs", "-o", "size=16k,nr_inodes=20", "tmpfs")


@pytest.fixture
def read_only(place: Path) -> Iterator[Path]:
    """Return a folder that nobody may write into, root neither."""
    yield from _mounted(place / "ro", "-t", "tmpfs", "-o", "ro", "tmpfs")


@pytest.mark.parametrize("command", INTO_FOLDERS.values(), ids=INTO_FOLDERS)
@pytest.mark.parametrize("where", ["afile", "afile/below", LONG])
def test_a_folder_that_cannot_be_is_told(command: list[str], where: str, refused: Refused) -> None:
    refused(*command, where)


@pytest.mark.parametrize("command", INTO_FOLDERS.values(), ids=INTO_FOLDERS)
def test_a_folder_in_a_read_only_one_is_told(command: list[str], refused: Refused, read_only: Path) -> None:
    told = refused(*command, read_only / "new")
    assert "Read-only file system" in told


@pytest.mark.parametrize("command", ["merge", "export", "import"])
def test_a_full_disk_is_told_and_no_folder_stays(command: str, refused: Refused, full: Path) -> None:
    assert "No space left on device" in refused(*INTO_FOLDERS[command], full / "new")
    assert list(full.iterdir()) == []


@pytest.mark.parametrize(("command", "ending"), INTO_FILES.values(), ids=INTO_FILES)
@pytest.mark.parametrize("where", ["afile/x", LONG])
def test_a_file_that_cannot_be_is_told(command: list[str], ending: str, where: str, refused: Refused) -> None:
    refused(*command, f"{where}.{ending}")


@pytest.mark.parametrize(("command", "ending"), INTO_FILES.values(), ids=INTO_FILES)
def test_a_file_in_a_read_only_folder_is_told(
    command: list[str], ending: str, refused: Refused, read_only: Path
) -> None:
    assert "Read-only file system" in refused(*command, read_only / f"x.{ending}")


def test_results_that_cannot_be_written_are_told_by_repair(place: Path, refused: Refused, read_only: Path) -> None:
    subprocess.run(["umount", str(read_only)], check=True)
    done = subprocess.run(["mount", "--bind", "-o", "ro", str(place / "res"), str(read_only)], check=False)
    assert done.returncode == 0
    if os.access(read_only, os.W_OK):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(read_only)], check=True)
    for command in (["store", "repair"], ["grid", "launch", "--method", "watershed", "--inline", "--cpu"], ["report"]):
        assert "Read-only file system" in refused(*command, "--out", read_only)


@pytest.mark.parametrize("what", ["afile", "afile/below", LONG])
@pytest.mark.parametrize(
    "command",
    [
        ["sql", "select 1", "--out"],
        ["runs", "list", "--out"],
        ["store", "check", "--out"],
        ["grid", "status", "--out"],
        ["grid", "plan", "--grid"],
        ["data", "import", "coco", "--to", "zz"],
        ["data", "prepare", "folder"],
        ["models", "test"],
        ["methods", "run"],
        ["gallery", "build", "--to", "zz"],
        ["store", "merge", "--out", "zz"],
        ["init"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_read_is_told(command: list[str], what: str, refused: Refused) -> None:
    refused(*command, what)


@pytest.mark.parametrize("cache", ["afile", "afile/below"])
def test_a_cache_that_cannot_be_is_told(
    cache: str, place: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGBENCH_CACHE", str(place / cache))
    refused("data", "prepare", "synthetic", "--scale", "0.01")
