"""The report with many methods and tissues: no text hides another, nothing is cut off, long parts are folded."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import browsing
import numpy as np
import pytest
from report_samples import make_record

from segbench.analysis.report import build_report, write_report
from segbench.engine.grid.cards import all_cards
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter
from segbench.engine.study.methods import STUDY_METHODS
from segbench.engine.study.tissues import LIVECELL_TISSUES, TISSUENET_TISSUES

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOWN = (*STUDY_METHODS, "watershed")
TISSUES = (*TISSUENET_TISSUES, *LIVECELL_TISSUES)
TASKS = ("synthetic-nuclear-1ch", "synthetic-wholecell-1ch")
KEYS = ("ranking", "accuracy", "regression", "morphology", "transfer", "dilation", "time", "runs")

# The corners of every text in a plot, turned as it is, with the text and the plot's frame
TEXTS = """
return [...document.querySelectorAll('.plot')].map((plot) => ({
  name: plot.ariaLabel, frame: (({left, top, right, bottom}) => [left, top, right, bottom])(plot.getBoundingClientRect()),
  texts: [...plot.querySelectorAll('svg text')].filter((text) => text.textContent.trim() && getComputedStyle(text).visibility !== 'hidden').map((text) => {
    const box = text.getBBox(), matrix = text.getScreenCTM();
    const corner = (x, y) => { const at = new DOMPoint(x, y).matrixTransform(matrix); return [at.x, at.y]; };
    return [text.textContent, [corner(box.x, box.y), corner(box.x + box.width, box.y), corner(box.x + box.width, box.y + box.height), corner(box.x, box.y + box.height)]];
  }),
}));
"""  # noqa: E501


def overlap(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Return by how many pixels two turned boxes overlap, by the axis on which they overlap least."""
    least = np.inf
    for box in (np.array(a), np.array(b)):
        for edge in (box[1] - box[0], box[3] - box[0]):
            axis = edge / (np.linalg.norm(edge) or 1)
            p, q = np.array(a) @ axis, np.array(b) @ axis
            least = min(least, min(p.max(), q.max()) - max(p.min(), q.min()))
    return float(least)


def collisions(plots: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the texts of plots that lie over each other by more than a line's own leading, or leave their plot."""
    found = []
    for plot in plots:
        left, top, right, bottom = plot["frame"]
        for text, corners in plot["texts"]:
            xs, ys = [x for x, _ in corners], [y for _, y in corners]
            if min(xs) < left - 2 or max(xs) > right + 2 or min(ys) < top - 3 or max(ys) > bottom + 3:
                found.append((plot["name"], text, "is cut off"))
        # Upright boxes around the turned ones first: almost all pairs are apart by these already
        boxes = [(text, at, np.min(at, axis=0), np.max(at, axis=0)) for text, at in plot["texts"]]
        for (one, a, low, high), (other, b, least, most) in itertools.combinations(boxes, 2):
            if low[0] > most[0] or least[0] > high[0] or low[1] > most[1] or least[1] > high[1]:
                continue
            if overlap(a, b) > 3:
                found.append((plot["name"], one, other))
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsing.Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = browsing.Browser(Path(profile), tmp_path_factory.mktemp("downloads"))
        yield browser
        browser.driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the study's methods and the watershed on 18 tissues, one of them trained on each."""
    out = tmp_path_factory.mktemp("room") / "r"
    methods = {name: card.title for name, card in all_cards().items() if name in SHOWN}
    records = [
        make_record(name, title, task, skill=0.3 + 0.025 * (7 * n % 19), tissues=TISSUES)
        for n, (name, title) in enumerate(methods.items())
        for task in TASKS
    ]
    records += [
        make_record("stardist", "StarDist", train_tissue=tissue, skill=0.5, tissues=TISSUES) for tissue in TISSUES
    ]
    StoreWriter(ResultsFolder(out)).add(records)
    write_report(build_report(ResultsFolder(out), sections=KEYS), out / "report.html")
    return out / "report.html"


@pytest.mark.parametrize("width", [1300])
def test_no_text_hides_another_and_none_is_cut_off(browser: browsing.Browser, path: Path, width: int) -> None:
    browser.open(path, width=width)
    browser.run("document.querySelectorAll('section').forEach(SB.drawSection)")
    browser.until(lambda: browser.run("return [...document.querySelectorAll('.plot')].every((p) => p._fullLayout)"))
    browser.run("return new Promise((done) => setTimeout(done, 300))")
    plots = browser.run(TEXTS)
    assert sum(len(plot["texts"]) for plot in plots) > 300
    assert collisions(plots) == []


def test_a_method_has_one_colour_and_mark_and_no_other_has_both(browser: browsing.Browser, path: Path) -> None:
    browser.open(path)
    looks = browser.run(
        "const titles = SB.choices.method.map(([, title]) => title);"
        "return ['method_title', 'title'].map((column) => [...SB.look(column, titles, 'dots')]"
        ".map(([name, look]) => [name, look.colour + look.symbol, look.colour + look.dash]))"
    )
    assert looks[0] == looks[1]
    assert len(looks[0]) == len({mark for _, mark, _ in looks[0]}) == len({dash for *_, dash in looks[0]}) == len(SHOWN)


def test_rows_and_columns_stand_in_the_same_order_everywhere(browser: browsing.Browser, path: Path) -> None:
    browser.open(path)
    browser.run("document.querySelectorAll('section').forEach(SB.drawSection)")
    orders = browser.run("return SB.order")
    axes = browser.run(
        "return [...document.querySelectorAll('.plot')].flatMap((plot) => ['xaxis', 'yaxis'].map((axis) => plot.layout[axis].ticktext ?? []))"  # noqa: E501
    )
    seen = 0
    for kind in ("method", "tissue"):
        for axis in axes:
            names = [name for name in axis if name in orders[kind]]
            assert names == [name for name in orders[kind] if name in names]
            seen += len(names) > 10
    assert seen > 10


def test_numbers_that_do_not_fit_their_cells_are_told_by_the_pointer(browser: browsing.Browser, path: Path) -> None:
    browser.open(path, width=820)
    browser.run("SB.drawSection(document.getElementById('accuracy'))")
    plot = "document.querySelector('#accuracy .plot')"
    browser.until(lambda: browser.run(f"return Boolean({plot}?._fullLayout)"))
    assert browser.run(f"return {plot}.querySelectorAll('.textpoint').length") == 0
    browser.run(f"Plotly.Fx.hover({plot}, {{xval: 0, yval: 0}})")
    first = browser.run(f"return {plot}.data[0].z[0][0].toFixed(4)")
    assert first in browser.until(lambda: browser.run(f"return {plot}.querySelector('.hoverlayer').textContent"))


def test_long_sections_are_folded_and_drawn_when_opened(browser: browsing.Browser, path: Path) -> None:
    browser.open(path)
    browser.run("SB.MOST_HEIGHT = 300; SB.drawSection(document.getElementById('accuracy'))")
    more = browser.until(lambda: browser.all("#accuracy details.more"))[0]
    panel = browser.run("return arguments[0].querySelector('.panel-more')", more)
    assert browser.run("return arguments[0].querySelectorAll('.plot').length", more) == 0
    browser.run("arguments[0].open = true; arguments[1].open = true", more, panel)
    browser.until(lambda: browser.run("return arguments[0].querySelectorAll('.plot').length", panel) == 1)


def test_a_missing_cell_looks_missing_and_zero_is_marked(browser: browsing.Browser, path: Path) -> None:
    browser.open(path)
    browser.run(
        "SB.drawSection(document.getElementById('ranking')); SB.drawSection(document.getElementById('regression'))"
    )
    lacks = browser.run(
        "return [...document.querySelectorAll('#ranking .plot')].flatMap((p) => p.data).filter((t) => t.name === 'missing' && t.type === 'heatmap')"  # noqa: E501
    )
    assert lacks, "Watershed was not trained: it has no time to scale"
    assert "not measured" in lacks[0]["hovertemplate"]
    assert "not measured" in browser.one("#ranking [data-kind=heatmap] .legend").text
    browser.until(lambda: browser.all("#regression .zl"))
