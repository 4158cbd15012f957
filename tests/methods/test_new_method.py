"""``segbench methods new``: what it refuses, and that the documentation's commands lead to a finished run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from segbench.engine.grid.cards import method_names
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.run.new_method import write_package
from segbench.errors import SegbenchError

ROOT = Path(__file__).parents[2]
NAME = "bright-pixels"


def commands_of_the_page() -> str:
    """Return the shell block of the page's section on adding a method."""
    tokens = MarkdownIt().parse((ROOT / "docs" / "methods.md").read_text())
    start = next(n for n, token in enumerate(tokens) if token.type == "inline" and token.content == "Adding a method")
    return next(token.content for token in tokens[start:] if token.type == "fence" and token.info.strip() == "sh")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Make an environment that has this one's packages and takes others; return its folder of programs.

    A line in a ``.pth`` file adds this environment's folder, and reads the ``.pth`` files in there too: segbench may be
    installed from a checkout.
    """
    folder = tmp_path / "venv"
    venv.create(folder)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "engine.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for program, module in (("segbench", "segbench.cli.app"), ("pip", "pip._internal.cli.main")):
        script = folder / "bin" / program
        script.write_text(f"#!{folder}/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    return folder / "bin"


@pytest.mark.heavy
def test_the_documentations_commands_lead_from_nothing_to_a_finished_run(programs: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    lines = commands_of_the_page()
    for command in ("methods new", "pip install -e", "methods check", "grid launch", "pytest"):
        assert command in lines
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    command = ["bash", "-euxo", "pipefail", "-c", lines]
    variables = {**os.environ, "PATH": path}
    done = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (out,) = home.glob("*/results.duckdb")
    sql = "select method, status, environment, trained, n_train_cells > 0, lock_hash, versions from runs_latest"
    (row,) = query(ResultsFolder(out.parent), sql).rows()
    assert row[:5] == (NAME, "done", NAME, True, True)
    assert "scipy" in str(row[6])
    assert query(ResultsFolder(out.parent), "select ap50 from leaderboard").item() > 0.2
    assert len(row[5]) == 16
    assert NAME not in method_names(), "this process' environment is as it was"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Bright", "no name of a method; allowed: lower case letters"),
        ("bright_pixels", "no name of a method"),
        ("../bright", "no name of a method"),
        ("stardist", "there is a method 'stardist' already"),
        ("torch", "there is an environment 'torch' already"),
        ("class", "a package 'class' would hide what Python has of that name"),
        ("json", "a package 'json' would hide"),
    ],
)
def test_a_name_that_will_not_do_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SegbenchError, match=said):
        write_package(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = write_package(NAME, tmp_path / "methods")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SegbenchError, match="is there already: give another name"):
        write_package(NAME, tmp_path / "methods")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_is_written_follows_its_own_house_rules(tmp_path: Path) -> None:
    folder = write_package(NAME, tmp_path)
    text = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "$" not in text
    ruff = Path(sys.executable).parent / "ruff"
    for command in (("check", "--select", "E,F,W,I,B,UP,PT"), ("format", "--check")):
        words = [ruff, *command, "--isolated", "--line-length", "120", "."]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
