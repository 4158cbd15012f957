"""``segbench plot`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from segbench.cli.plot import plot
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter
from segbench.errors import SegbenchError

app = typer.Typer()
app.command()(plot)


@pytest.fixture
def out(tmp_path: Path, make_record: object) -> Path:
    StoreWriter(ResultsFolder(tmp_path / "out")).add([make_record()])  # type: ignore[operator]
    return tmp_path / "out"


def test_without_a_name_the_figures_are_listed(out: Path) -> None:
    result = CliRunner().invoke(app, ["--out", str(out)], catch_exceptions=False)
    assert "ranking" in result.output
    assert "time-2" in result.output


def test_a_page_holds_the_figures_section(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "fig.html"
    CliRunner().invoke(app, ["time-2", "-o", str(target), "--out", str(out)], catch_exceptions=False)
    assert '<section id="time"' in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ranking"], "name the file"),
        (["rankin", "-o", "a.svg"], "did you mean ranking"),
        (["ranking-9", "-o", "a.svg"], "unknown figure 'ranking-9'"),
        (["ranking", "-o", "a.gif"], "ends in .svg, .png, .pdf or .html"),
        (["ranking", "-o", "a"], "ends in .svg, .png, .pdf or .html"),
        (["ranking", "-o", "/proc/none/a.svg"], "cannot write /proc/none/a.svg: No such file or directory"),
        (["ranking", "-o", "/proc/none/a.html"], "cannot write /proc/none/a.html: No such file or directory"),
        (["ranking", "-o", "a.svg", "--width", "doubel"], "unknown width 'doubel'; did you mean double"),
        (["ranking", "-o", "a.svg", "--metric", "ap5"], "unknown metric 'ap5'; did you mean ap75 or ap50"),
    ],
)
def test_mistakes_are_told_in_one_line(out: Path, arguments: list[str], told: str) -> None:
    with pytest.raises(SegbenchError, match=told):
        CliRunner().invoke(app, [*arguments, "--out", str(out)], catch_exceptions=False)


def test_a_folder_in_the_place_of_the_file_is_told_in_one_line(out: Path, tmp_path: Path) -> None:
    (tmp_path / "taken.svg").mkdir()
    with pytest.raises(SegbenchError, match="it is a folder"):
        CliRunner().invoke(
            app, ["ranking", "-o", str(tmp_path / "taken.svg"), "--out", str(out)], catch_exceptions=False
        )
