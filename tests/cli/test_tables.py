"""Tables fit the terminal by leaving columns out, and are never folded on a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence

import pytest

from segbench.cli._tables import fitting, short

COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'segbench'; from segbench.cli.app import main; main()"]


def on_a_terminal(arguments: Sequence[str], width: int) -> str:
    """Return what a command prints on a terminal of a width in characters, without colours."""
    here, there = pty.openpty()
    variables = {**os.environ, "COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"}
    with subprocess.Popen([*COMMAND, *arguments], stdout=there, stderr=there, env=variables) as process:
        os.close(there)
        told = b""
        while True:
            try:
                part = os.read(here, 65536)
            except OSError:
                break
            if not part:
                break
            told += part
        process.wait(60)
    os.close(here)
    return told.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_fits_the_terminal_and_names_what_it_leaves_out(width: int) -> None:
    told = on_a_terminal(["methods", "list"], width)
    table, _, left = told.partition("not shown")
    assert max(map(len, table.splitlines())) <= width
    header = next(line for line in told.splitlines() if "method" in line).split()
    assert header[0] == "method"
    left = left.partition("(--wide")[0]
    every = ["title", "category", "environment", "trained", "epochs", "iterations", "batch", "gpus", "usability"]
    assert all((name in header) != (name in left) for name in every)


def test_wide_shows_every_column() -> None:
    told = on_a_terminal(["methods", "list", "--wide"], 80)
    assert "not shown" not in told


def test_on_a_pipe_every_row_is_one_line() -> None:
    told = subprocess.run([*COMMAND, "methods", "list"], capture_output=True, text=True, check=True).stdout
    names = subprocess.run(
        [*COMMAND, "methods", "list", "--format", "csv"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    assert len([line for line in told.splitlines() if line.strip()]) == len(names) + 2  # the header and its rule
    assert "state" in told


def test_the_reader_of_a_pipe_may_go() -> None:
    piped = subprocess.run(
        ["bash", "-c", '"$@" | head -1; exit ${PIPESTATUS[0]}', "bash", *COMMAND, "methods", "list"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (piped.returncode, piped.stderr) == (0, "")


def test_errors_have_no_colour_where_none_is_wanted() -> None:
    told = on_a_terminal(["grid", "plan", "--preset", "papr"], 200)
    assert told.startswith("error: ")


def test_one_column_that_makes_room_alone_goes_before_narrower_ones() -> None:
    columns = ["run", "error", "batch", "gpus"]
    assert fitting(columns, [["0a1b2c3d4e5f", "word " * 30, "8", "1"]], 36) == [0, 2, 3]
    assert fitting(columns, [["0a1b2c3d4e5f", "-", "8", "1"]], 30) == [0, 2, 3]
    assert fitting(columns, [["0a1b2c3d4e5f" * 9, "-", "8", "1"]], 30) == [0]


def test_what_a_row_is_about_stays_before_its_figures() -> None:
    columns = ["suite", "rank", "method", "overall", "accuracy"]
    row = ["study", "1", "cascade-mask-rcnn-seesaw", "0.6134", "0.59"]
    assert fitting(columns, [row], 46) == [0, 1, 2]
    assert fitting(columns, [row], 38) == [0, 2]


def test_a_cell_is_one_line() -> None:
    assert short("one\ntwo") == "one two"
    assert short([1, 2]) == "1, 2"
    assert short(0.123456) == "0.1235"
