"""What a method's process leaves behind: its log is bounded, its daemons end with it, its words are only words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from segbench.engine.results.attempts import MOST_AT_ONCE, AttemptFolder, progress_line
from segbench.engine.results.status import describe_progress
from segbench.engine.run.process import _MARK, _end_left, cap_log


def test_a_log_of_one_endless_line_is_capped_and_its_tail_kept(tmp_path: Path) -> None:
    attempt = AttemptFolder(tmp_path, "0" * 12, 1).make()
    with attempt.job.log.open("ab") as log:
        log.write(b"a" * 200_000 + b"the end")
        log.flush()
        cap_log(attempt.job.log, most=100_000)
        log.write(b" and more")
    assert attempt.job.log.stat().st_size < 60_000
    tail = attempt.log_tail()
    assert tail is not None
    assert tail.endswith("the end and more")
    assert len(tail) <= 8000
    assert "were cut here" in attempt.job.log.read_text()[:100]


@pytest.mark.parametrize("line", [b"5", b'\0\0\0{"phase": "train"}', b"\xff\xfe", b"[" * 100_000, b"", b'"text"'])
def test_a_line_that_is_no_progress_is_passed_over(tmp_path: Path, line: bytes) -> None:
    assert progress_line(line) is None
    attempt = AttemptFolder(tmp_path, "0" * 12, 1).make()
    attempt.job.progress.write_bytes(b"x" * (2 * MOST_AT_ONCE))
    assert len(attempt.progress_since(0)) == MOST_AT_ONCE


def test_no_terminal_obeys_what_a_method_tells() -> None:
    told = describe_progress({"phase": "\x1b[2J\x07train", "epoch": "\x1b]0;x", "loss": "\n"})
    assert told.isprintable()


def test_a_daemon_that_left_its_group_ends_with_the_methods_process() -> None:
    mark = os.urandom(8).hex()
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "start_new_session=True); print(p.pid, flush=True)"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, _MARK: mark}, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert started.stdout is not None
    daemon = psutil.Process(int(started.stdout.readline()))
    started.wait()
    assert daemon.is_running()
    _end_left(started.pid, mark)
    deadline = time.monotonic() + 20
    while daemon.is_running() and daemon.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE
