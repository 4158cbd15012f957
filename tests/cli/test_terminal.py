"""What others wrote is shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter
from segbench.engine.results.store.recovery import take_in
from segbench.terminal import harmless, plain

EVIL = "\x1b]0;title\x07\x1b[2J\x1b[1A\x1b[8mhidden\x9b2J\u202efoo\rover\x1b[31mred\x1b[0m"
MAIN = "import sys; sys.argv[0] = 'segbench'; from segbench.cli.app import main; main()"


def on_a_terminal(*arguments: str) -> str:
    """Run the command with a terminal as its output; return what the terminal got."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", MAIN, *arguments]
    process = subprocess.Popen(command, stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    got = b""
    try:
        while piece := os.read(leader, 65536):
            got += piece
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    process.wait()
    return got.decode()


@pytest.fixture
def out(tmp_path: Path, make_record: Callable[..., Record]) -> ResultsFolder:
    """Return results of a run whose every text a hostile method has chosen."""
    found = ResultsFolder(tmp_path / "results")
    texts = {"train_tissue": EVIL, "error": EVIL, "host": EVIL, "method_title": EVIL}
    record = make_record("a" * 12, status=Status.FAILED, **texts)
    attempt = found.attempt("a" * 12, 1).make()
    attempt.write_record(record)
    attempt.job.log.write_text(EVIL + "\n")
    take_in(found, StoreWriter(found))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [("grid", "logs", "aaa"), ("runs", "list", "--wide")],
    ids=" ".join,
)
def test_no_terminal_obeys_a_method(out: ResultsFolder, command: tuple[str, ...]) -> None:
    shown = on_a_terminal(*command, "--out", str(out))
    assert "hidden" in shown
    for obeyed in ("\x1b]", "\x07", "\x1b[2J", "\x1b[1A", "\x1b[8m", "\x9b", "\u202e", "\rover"):
        assert obeyed not in shown


def test_an_error_that_names_a_hostile_file_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    shown = on_a_terminal("evaluate", str(tmp_path / "\x1b[2Jtruth"), str(tmp_path))
    assert "\x1b[2J" not in shown
    assert "␛[2Jtruth" in shown


def test_colours_and_lines_stay_and_one_line_is_one_line() -> None:
    assert harmless("\x1b[1;31ma\x1b[0m\tb\r\nc") == "\x1b[1;31ma\x1b[0m\tb\r\nc"
    assert harmless("\x1b[38;5;208mwarm\x1b[m") == "\x1b[38;5;208mwarm\x1b[m"
    assert plain("a\nb\x1b[31m") == "a␊b␛[31m"
    assert harmless("a" * 10 + "\ud800") == "a" * 10 + "\N{REPLACEMENT CHARACTER}"
