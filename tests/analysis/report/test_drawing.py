"""Figures as files: what stands in them is what stands in the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import METHODS, TASKS, TISSUES
from test_report_file import hostile_store

from segbench.analysis.report.drawing import draw, find_plot, plots
from segbench.analysis.report.model import Source
from segbench.analysis.report.sections import SECTIONS
from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError

pytest.importorskip("matplotlib", reason="matplotlib is not installed: figures cannot be drawn as files")


@pytest.fixture(scope="module")
def source(results: Path) -> Source:
    return Source(ResultsFolder(results))


@pytest.mark.slow
def test_every_figure_of_the_report_is_drawn(source: Source, tmp_path: Path) -> None:
    found = plots(source)
    without = {"examples", "compare", "published", "robustness", "learning-curve"}
    assert {name.rsplit("-", 1)[0] for name in found} | set(found) >= {s.key for s in SECTIONS} - without
    for name, plot in found.items():
        draw(plot, tmp_path / f"{name}.svg")
        text = (tmp_path / f"{name}.svg").read_text()
        assert text.count("</text>") > 3
        assert "<image" in text or text.count("<path") > 5, "marks, bars, lines or a heat map"


@pytest.mark.slow
def test_an_svgs_text_is_text_and_the_same_results_give_the_same_file(source: Source, tmp_path: Path) -> None:
    plot = find_plot(source, "accuracy")
    draw(plot, tmp_path / "a.svg", metric="ap50")
    draw(plot, tmp_path / "b.svg", metric="ap50")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "@font-face" in text
    for word in (*METHODS.values(), *TASKS, *TISSUES):
        assert f">{word}</text>" in text
    row = source.scores.data.filter(
        train_tissue="all", own_task=1, method="cellpose", task="synthetic-nuclear-1ch", test_tissue="Colon"
    )
    assert f">{row['ap50'][0]:.2f}</text>" in text


@pytest.mark.parametrize(("suffix", "head"), [(".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_other_formats(source: Source, tmp_path: Path, suffix: str, head: bytes) -> None:
    draw(find_plot(source, "ranking"), tmp_path / f"figure{suffix}")
    assert (tmp_path / f"figure{suffix}").read_bytes().startswith(head)


def test_a_hostile_name_is_text_in_an_svg(tmp_path: Path) -> None:
    draw(find_plot(Source(ResultsFolder(hostile_store(tmp_path / "r"))), "ranking"), tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert "<script" not in text
    assert "&lt;/script&gt;" in text


def test_nothing_to_draw_is_an_error(source: Source, tmp_path: Path) -> None:
    with pytest.raises(SegbenchError, match="nothing to show for metric accuracy and training tissue Nowhere"):
        draw(find_plot(source, "ranking"), tmp_path / "figure.svg", train="Nowhere")
    assert not (tmp_path / "figure.svg").exists()
