"""The pictures of the report in a real browser: chosen, side by side, enlarged, with a scale and one colour key."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_samples import TISSUES, make_record, write_examples
from selenium.webdriver.common.keys import Keys
from test_report_browser import Browser

from segbench.analysis.report import build_report, write_report
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter
from segbench.words import WORDS

pytestmark = pytest.mark.browser
METHODS = [f"method-{letter}" for letter in "abcdefg"]
TASK, OTHER_TASK = "synthetic-nuclear-2ch", "synthetic-wholecell-1ch"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The examples of seven methods on two-channel images, open."""
    out = tmp_path_factory.mktemp("examples")
    records = [make_record(name, name.title(), TASK, skill=0.3 + 0.05 * n) for n, name in enumerate(METHODS)]
    told = [make_record(name, name.title(), OTHER_TASK) for name in METHODS[:2]]
    StoreWriter(ResultsFolder(out)).add([*records, *told])
    for record in records:
        write_examples(out, record, TISSUES[:3], size=64, windows=3)
    for n, record in enumerate(told):
        write_examples(out, record, TISSUES[:3], size=64, windows=3, telling={"worst": 8 - n, "median": 4, "best": n})
    write_report(build_report(ResultsFolder(out), sections=["examples"]), out / "report.html")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile), tmp_path_factory.mktemp("downloads"))
        browser.open(out / "report.html", "#examples")
        browser.until(lambda: browser.all(".window"))
        yield browser
        browser.driver.quit()


def titles(page: Browser, window: int = 0) -> list[str]:
    return [b.text for b in page.all(f".window:nth-child({window + 1}) .panel b") if b.text and " µm" not in b.text]


def test_the_reader_chooses_which_methods_stand_side_by_side(page: Browser) -> None:
    first = titles(page)
    assert first[:2] == ["Image", "Truth"]
    assert len(first) == 2 + 4, "of many methods four: the best two, one in the middle, the last"
    for name in [box.get_attribute("value") for box in page.all(".chips input:checked")][1:]:
        page.run("arguments[0].click()", page.one(f".chips input[value='{name}']"))
    page.run("arguments[0].click()", page.all(".chips input:not(:checked)")[-1])
    assert len(titles(page)) == 2 + 2
    assert titles(page, 1) == titles(page)


def test_worst_median_and_best_are_those_by_the_scores_of_the_methods_shown(page: Browser) -> None:
    tags = [tag.text for tag in page.all(".tag")]
    assert [tag.split()[0] for tag in tags] == ["worst", "median", "best"]
    means = [float(tag.split()[-1]) for tag in tags]
    assert means == sorted(means)
    shown = [
        [float(text.text.split()[1].rstrip(":")) for text in window.find_elements("css selector", ".panel span")
         if text.text.startswith("AP50")]
        for window in page.all(".window")
    ]  # fmt: skip
    assert [sum(scores) / len(scores) for scores in shown] == pytest.approx(means, abs=0.011)
    page.run("const s = document.querySelector('.pick-images'); s.value = 'all'; s.dispatchEvent(new Event('change'))")
    assert len(page.all(".window")) == 6, "of nine, the first page"
    page.run("document.querySelector('.more').click()")
    assert len(page.all(".window")) == 9
    page.run(
        "const s = document.querySelector('.pick-images'); s.value = 'telling'; s.dispatchEvent(new Event('change'))"
    )


def test_each_methods_worst_of_the_whole_test_set_comes_first(page: Browser) -> None:
    choose(page, ".pick-task", OTHER_TASK)
    tags = [[tag.text for tag in window.find_elements("css selector", ".tag")] for window in page.all(".window")]
    assert [one[0].split(":")[0] for one in tags] == [
        "worst of all 50 test windows for Method-A",
        "worst of all 50 test windows for Method-B",
        "median of all 50 test windows for Method-A",
        "best of all 50 test windows for Method-B",
        "best of all 50 test windows for Method-A",
    ]
    assert tags[2][1].startswith("median of all 50 test windows for Method-B"), "one window can tell of both"
    choose(page, ".pick-tissue", TISSUES[0])
    assert page.all(".tag")[0].text.split(":")[0] == "worst of the 3 windows kept"
    choose(page, ".pick-tissue", "")
    choose(page, ".pick-task", TASK)


def test_a_word_of_segbench_is_explained_to_pointer_keyboard_and_finger(page: Browser) -> None:
    words = [button.text for button in page.all("#examples .word")]
    assert "windows" in words
    assert len(words) == len(set(words)), "once a section"
    word, tip = page.all("#examples .word")[words.index("windows")], page.one(".tip")
    for show, hide in (
        (
            "arguments[0].focus()",
            "document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))",
        ),
        ("arguments[0].click()", "document.body.dispatchEvent(new Event('pointerdown', {bubbles: true}))"),
        ("arguments[0].dispatchEvent(new Event('mouseenter'))", "arguments[0].dispatchEvent(new Event('mouseleave'))"),
    ):
        page.run(show, word)
        assert tip.text == f"window: {WORDS['window']}"
        page.run(hide, word)
        assert not tip.is_displayed()
    described = page.one(f"#{word.get_attribute('aria-describedby')}")
    assert described.get_attribute("textContent") == f"window: {WORDS['window']}"


def choose(page: Browser, selector: str, value: str) -> None:
    """Choose in a list of the examples as a reader does."""
    select = page.one(selector)
    page.run("arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))", select, value)


def test_a_scale_bar_has_the_length_that_it_says_and_the_channels_have_a_key(page: Browser) -> None:
    assert page.one(".bar-of b").get_attribute("textContent") == "5 µm"
    share = page.run(
        "return document.querySelector('.bar-of').offsetWidth / document.querySelector('.tile').offsetWidth"
    )
    assert share == pytest.approx(5 / (64 * 0.5), abs=0.02), "64 pixels of half a micrometre"
    assert page.one(".key-line").text.split() == ["channels:", "nuclear", "membrane"]


def test_an_outlines_kind_can_be_taken_away(page: Browser) -> None:
    over = ".window:first-child .panel:last-child .overlay"
    before = page.until(lambda: page.run(f"return document.querySelector('{over}').src"))
    colours = (
        "const i = document.querySelector(arguments[0]); if (!i.complete || !i.naturalWidth) return null;"
        "const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;"
        "const x = c.getContext('2d'); x.drawImage(i, 0, 0); const d = x.getImageData(0, 0, c.width, c.height).data;"
        "const seen = new Set(); for (let n = 0; n < d.length; n += 4) if (d[n + 3]) seen.add("
        "'#' + [d[n], d[n + 1], d[n + 2]].map((v) => v.toString(16).padStart(2, '0')).join('')); return [...seen]"
    )
    assert "#56b4ff" in page.until(lambda: page.run(colours, over))
    page.run("arguments[0].click()", page.one(".key input[value=found]"))
    page.until(lambda: page.run(f"return document.querySelector('{over}').src") not in ("", before))
    left = page.until(lambda: page.run(colours, over))
    assert "#56b4ff" not in left
    assert "#fff13d" in left, "missed cells stay"
    page.run("arguments[0].click()", page.one(".key input[value=found]"))


def test_a_picture_opens_large_and_all_move_together(page: Browser) -> None:
    page.run("arguments[0].focus()", page.one(".window .tile"))
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    dialog = page.one("dialog.viewer")
    page.until(dialog.is_displayed)
    assert len(page.all(".viewer .tile")) == len(page.all(".window:first-child .tile"))
    assert page.one(".viewer .tile").size["width"] > page.one(".window .tile").size["width"]
    for _ in range(3):
        page.one(".viewer .in").send_keys(Keys.ENTER)
    assert page.one(".viewer .zoom").text == "3.4×"
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    moved = page.run(
        "return [...new Set([...document.querySelectorAll('.viewer .layers')].map((l) => l.style.transform))]"
    )
    assert len(moved) == 1
    assert moved[0].startswith("scale(3.375)")
    assert page.one(".viewer .bar-of b").get_attribute("textContent") == "2 µm"
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until(lambda: not dialog.is_displayed())
    assert page.driver.switch_to.active_element.get_attribute("class") == "tile", "the focus is back where it was"
    assert page.log() == []
