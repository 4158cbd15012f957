"""``segbench report`` as a user types it."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from segbench.cli.report import report
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter
from segbench.errors import SegbenchError

app = typer.Typer()
app.command()(report)


def test_the_report_lies_in_the_results_folder_by_default(tmp_path: Path, make_record: object) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add([make_record()])  # type: ignore[operator]
    result = CliRunner().invoke(app, ["--out", str(tmp_path), "--title", "My <study>"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<title>My &lt;study&gt;</title>" in html
    assert "report.html" in result.output
    assert datetime.now(UTC).strftime("%Y-%m-%d") in html


def test_the_report_goes_where_output_says(tmp_path: Path, make_record: object) -> None:
    StoreWriter(ResultsFolder(tmp_path / "out")).add([make_record()])  # type: ignore[operator]
    target = tmp_path / "site" / "index.html"
    result = CliRunner().invoke(
        app, ["--out", str(tmp_path / "out"), "--output", str(target), "--sections", "runs, overview"]
    )
    assert result.exit_code == 0, result.output
    assert target.is_file()
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_folder_without_results_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="no results in"):
        CliRunner().invoke(app, ["--out", str(tmp_path / "none")], catch_exceptions=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_watch_writes_again_when_results_come_in(tmp_path: Path, make_record: object) -> None:
    writer = StoreWriter(ResultsFolder(tmp_path))
    writer.add([make_record()])  # type: ignore[operator]
    command = [sys.executable, "-c", "from segbench.cli.report import report; import typer; typer.run(report)"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--sections", "runs", "--watch"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert "report.html" in process.stdout.readline()
        before = (tmp_path / "report.html").stat().st_mtime_ns
        writer.add([make_record(run_id="bbbbbbbbbbbb")])  # type: ignore[operator]
        assert "report.html" in process.stdout.readline()
        assert (tmp_path / "report.html").stat().st_mtime_ns > before
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()


def test_a_file_and_a_site_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="exclude each other"):
        CliRunner().invoke(app, ["--output", "a.html", "--static-dir", str(tmp_path)], catch_exceptions=False)


@pytest.mark.slow
def test_serve_shows_new_results_and_ends_cleanly_on_ctrl_c(tmp_path: Path, make_record: object) -> None:
    writer = StoreWriter(ResultsFolder(tmp_path))
    writer.add([make_record()])  # type: ignore[operator]
    command = [sys.executable, "-c", "from segbench.cli.report import report; import typer; typer.run(report)"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path), "--sections", "runs", "--serve"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        with urllib.request.urlopen(address, timeout=60) as answer:
            before = answer.read()
        assert b'<section id="runs"' in before
        writer.add([make_record(run_id="bbbbbbbbbbbb")])  # type: ignore[operator]
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.read() != before
        assert not (tmp_path / "report.html").exists()
        process.send_signal(signal.SIGINT)
        said, complaints = process.communicate(timeout=60)
        assert process.returncode == 0
        assert said.strip() == "stopped serving"
        assert complaints == ""
    finally:
        process.kill()


def test_serving_writes_no_file() -> None:
    with pytest.raises(SegbenchError, match="--serve writes no file"):
        CliRunner().invoke(app, ["--serve", "--output", "a.html"], catch_exceptions=False)
