"""What each command loads: asking must be quick, so nothing that computes, draws or trains comes along."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.engine.results.attempts import RECORD_NAME
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.store import StoreWriter

COMPUTING = {"matplotlib", "numba", "plotly", "pycocotools", "ray", "scipy", "skimage", "statsmodels", "torch"}
TABLES = {"duckdb", "polars", "pyarrow"}
RUN = "aaaaaaaaaaaa"
# Runs one command after the other and writes, for each, the packages that are loaded after it
COMMANDS = """\
import json, os, sys
from pathlib import Path
from segbench.cli.app import main
loaded = {}
for command in json.loads(os.environ["COMMANDS"]):
    sys.argv = ["segbench", *command]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (command, end.code)
    loaded[" ".join(command)] = sorted({name.partition(".")[0] for name in sys.modules})
Path(os.environ["LOADED"]).write_text(json.dumps(loaded))
"""


@pytest.fixture
def results(tmp_path: Path, make_record: Callable[..., Record]) -> Path:
    """Return a results folder with one run."""
    out = tmp_path / "results"
    record = make_record(RUN)
    folder = out / record.attempt.folder
    folder.mkdir(parents=True)
    record.write(folder / RECORD_NAME)
    StoreWriter(ResultsFolder(out)).add([record])
    return out


def loaded_by(folder: Path, *commands: list[str]) -> dict[str, set[str]]:
    """Return the packages that a process has loaded after each of these commands, which it runs one after the other."""
    told = folder / "loaded.json"
    variables = {"LOADED": str(told), "COMMANDS": json.dumps(commands)}
    process = subprocess.run(
        [sys.executable, "-c", COMMANDS], env={**os.environ, **variables}, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    return {command: set(packages) for command, packages in json.loads(told.read_text()).items()}


@pytest.mark.slow
def test_asking_a_results_folder_loads_nothing_that_computes(results: Path, tmp_path: Path) -> None:
    commands = [
        ["runs", "list"],
        ["runs", "show", RUN],
        ["sql", "select * from leaderboard"],
        ["grid", "status"],
        ["grid", "logs", RUN, "--path"],
        ["grid", "plan"],
        ["store", "check"],
    ]
    for command, packages in loaded_by(tmp_path, *([*command, "--out", str(results)] for command in commands)).items():
        assert not packages & COMPUTING, command


def test_lists_of_methods_and_datasets_open_no_tables(tmp_path: Path) -> None:
    for command, packages in loaded_by(tmp_path, ["methods", "list"], ["data", "list"]).items():
        assert not packages & (COMPUTING | TABLES), command


def test_help_loads_neither_tables_nor_arrays(tmp_path: Path) -> None:
    groups = ([], ["grid"], ["data"], ["methods"], ["runs"], ["store"], ["analyze"], ["sql"], ["report"], ["evaluate"])
    for command, packages in loaded_by(tmp_path, *([*group, "--help"] for group in groups)).items():
        assert not packages & {*COMPUTING, *TABLES, "numpy"}, command


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("segbench", set()), ("segbench.cli.app", {"typer", "rich", "shellingham", "annotated_doc"})],
)
def test_importing_loads_hardly_more_than_python_has(module: str, allowed: set[str]) -> None:
    probe = (
        f"import sys; before = set(sys.modules); import {module}; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) <= {"segbench", *allowed, *sys.stdlib_module_names}


def test_importing_segbench_takes_less_than_50_ms() -> None:
    def milliseconds() -> float:
        told = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import segbench"], capture_output=True, text=True, check=True
        ).stderr
        found = re.search(r"\|\s*(\d+) \| segbench$", told, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1000

    # The quickest of several: what else the machine does is not the import's
    assert min(milliseconds() for _ in range(5)) < 50
