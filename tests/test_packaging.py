"""What is handed out, a wheel and an sdist, holds everything and runs where no checkout is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import segbench

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.heavy


def run(*command: object, cwd: Path, **variables: str) -> str:
    """Run a command without this process' import paths, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    found = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert found.returncode == 0, (found.stdout + found.stderr)[-4000:]
    return found.stdout


def tracked(*under: str) -> set[str]:
    """Return the paths of the checkout's files that git knows."""
    return set(run("git", "ls-files", *under, cwd=ROOT).splitlines())


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build the sdist of a copy of the tracked files, and the wheel of the sdist; return both."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    # without --sdist or --wheel, build makes the wheel from the sdist that it has just made
    run(sys.executable, "-m", "build", "--outdir", out, copy, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(handed_out: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an empty virtual environment elsewhere, and return the environment's folder of programs.

    The dependencies are those of this environment, by a line in a ``.pth`` file. Its own segbench is not: that line
    puts them behind the new environment's packages, and ``.pth`` files in there (an editable install) are not read.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(folder)
    python = folder / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", handed_out[1], cwd=folder
    )
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_wheel_built_from_the_sdist_holds_the_checkouts_package_and_no_more(handed_out: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(handed_out[1]) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
    package = {name: content for name, content in files.items() if ".dist-info/" not in name}
    assert set(package) == tracked("segbench")
    assert [name for name, content in package.items() if content != (ROOT / name).read_bytes()] == []
    assert message_from_bytes(files[metadata])["Version"] == segbench.__version__


def test_the_sdist_holds_what_is_needed_to_read_test_and_build_it(handed_out: tuple[Path, Path]) -> None:
    with tarfile.open(handed_out[0]) as sdist:
        names = {member.name.partition("/")[2] for member in sdist if member.isfile()}
    # what begins with a dot serves the repository
    assert {name for name in tracked() - names if not name.startswith(".")} == set()


def test_the_installed_wheel_runs_a_grid_in_a_folder_of_its_own(installed: Path, tmp_path: Path) -> None:
    program, variables = installed / "segbench", {"SEGBENCH_CACHE": str(tmp_path / "cache")}
    where = run(installed / "python", "-c", "import segbench; print(segbench.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "Usage" in run(program, "--help", cwd=tmp_path)
    run(
        program,
        "data",
        "prepare",
        "synthetic",
        "--layout",
        "livecell",
        "--name",
        "tiny",
        "--scale",
        "0.2",
        cwd=tmp_path,
        **variables,
    )
    launch = (program, "grid", "launch", "--dataset", "tiny", "--method", "watershed", "--inline")
    assert "1 done" in run(*launch, cwd=tmp_path, **variables)
    assert "nothing to run" in run(*launch, cwd=tmp_path, **variables)
    run(program, "report", cwd=tmp_path, **variables)
    assert "Watershed" in (tmp_path / "segbench-results" / "report.html").read_text()
