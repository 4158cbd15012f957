"""The report on a phone and on paper: what is too wide scrolls in its box, what belongs together stays together."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_samples import METHODS, SKILL, TASKS, TISSUES, make_record, write_examples
from test_report_browser import Browser

from segbench.analysis.report import build_report, write_report
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter

pytestmark = pytest.mark.browser
SIX = [(name, title, task) for task in list(TASKS)[::2] for name, title in METHODS.items()]
"""Six runs."""
WIDE = tuple(f"Tissue {chr(65 + n)}" for n in range(18))
A4 = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile), tmp_path_factory.mktemp("downloads"))
        yield browser
        browser.driver.quit()


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of six runs on two tasks, with examples."""
    out = tmp_path_factory.mktemp("six")
    records = [make_record(name, title, task, skill=SKILL[name]) for name, title, task in SIX]
    StoreWriter(ResultsFolder(out)).add(records)
    for record in records:
        write_examples(out, record, TISSUES[:3])
    write_report(build_report(ResultsFolder(out)), out / "report.html")
    return out / "report.html"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The accuracy of three methods on eighteen tissues: a heat map wider than a phone."""
    out = tmp_path_factory.mktemp("wide")
    records = [make_record(name, title, skill=SKILL[name], tissues=WIDE) for name, title in METHODS.items()]
    StoreWriter(ResultsFolder(out)).add(records)
    write_report(build_report(ResultsFolder(out), sections=["accuracy"]), out / "report.html")
    return out / "report.html"


def printed(browser: Browser) -> bytes:
    return base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", A4)["data"])


def test_a_wide_heat_map_scrolls_in_its_box_and_keeps_its_rows_names(browser: Browser, wide: Path) -> None:
    browser.open(wide, "#accuracy", width=390, height=844)
    box = browser.until(lambda: browser.all("#accuracy .across"))[0]
    room, inside = browser.run("return [arguments[0].clientWidth, arguments[0].scrollWidth]", box)
    assert room <= 390
    assert inside > 600, "19 columns stay wide enough for their numbers"
    names = browser.all("#accuracy .row-names span")
    assert sorted(name.text for name in names) == sorted(METHODS.values())
    before = [(name.rect["x"], name.rect["y"]) for name in names]
    browser.run("arguments[0].scrollLeft = 250", box)
    assert [(name.rect["x"], name.rect["y"]) for name in names] == before
    # Each name stands beside its own row of numbers
    texts = browser.run(
        "const all = [...document.querySelectorAll('#accuracy .textpoint')].map((t) => t.getBoundingClientRect());"
        "return [...new Set(all.map((r) => Math.round(r.y + r.height / 2)))]"
    )
    middles = [round(name.rect["y"] + name.rect["height"] / 2) for name in names]
    scrolled = browser.run("return scrollY")
    assert [y - scrolled for y in middles] == pytest.approx(sorted(texts), abs=3)
    assert browser.run("return document.documentElement.scrollWidth") <= 390


def test_on_a_wide_screen_nothing_scrolls_sideways(browser: Browser, wide: Path) -> None:
    browser.open(wide, "#accuracy")
    browser.until(lambda: browser.all("#accuracy .plot .main-svg"))
    assert browser.all("#accuracy .across") == []


def test_no_section_is_wider_than_a_phone(browser: Browser, six: Path) -> None:
    browser.open(six, width=390, height=844)
    browser.draw_all()
    wide = browser.run(
        "return [...document.querySelectorAll('body *')].filter((e) => "
        "e.getBoundingClientRect().right > 391 && !e.closest('.scroll, .across, pre, svg, .skip, .choices'))"
        ".map((e) => e.outerHTML.slice(0, 120))"
    )
    assert wide == []
    assert browser.run("return document.documentElement.scrollWidth") <= 390


def test_six_runs_print_on_fifteen_pages_at_most(browser: Browser, six: Path) -> None:
    browser.open(six)
    pages = len(re.findall(rb"/Type\s*/Page\b", printed(browser)))
    assert 4 <= pages <= 15


def test_figures_are_drawn_for_the_papers_width_and_again_for_the_screen(browser: Browser, wide: Path) -> None:
    browser.open(wide, width=390, height=844)
    browser.until(lambda: browser.all(".across"))
    browser.run(
        "window.seen = []; addEventListener('beforeprint', () => setTimeout(() => 0));"
        "const draw = SB.drawSection; SB.drawSection = (section) => { draw(section); window.seen.push("
        "[...section.querySelectorAll('.plot')].map((plot) => [plot.clientWidth, plot.closest('.frame').clientWidth,"
        " !!plot.closest('.across')])); }"
    )
    printed(browser)
    paper = browser.run("return window.seen[0]")
    assert paper
    for width, room, scrolls in paper:
        assert 0.4 * room < width <= room
        assert room == pytest.approx(248 / 25.4 * 96, abs=2)
        assert not scrolls
    browser.until(lambda: browser.all(".across"))
