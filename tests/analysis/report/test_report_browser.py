"""The report in a real browser: headless Chromium opens the file as a reader does."""

from __future__ import annotations

import base64
import csv
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import browsing
import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_report_file import hostile_store

from segbench.analysis.report import Report, build_report, write_report
from segbench.analysis.report.sections import SECTIONS
from segbench.engine.results.folder import ResultsFolder

pytestmark = pytest.mark.browser
AXE = "4.10.3"
KEYS = [section.key for section in SECTIONS if not section.optional]


class Browser(browsing.Browser):
    """Chromium with a report open in it."""

    def draw_all(self) -> None:
        """Scroll through the page, as a reader does, until every section is drawn and every picture loaded."""
        for key in KEYS:
            self.run("document.getElementById(arguments[0])?.scrollIntoView()", key)
            self.until(
                lambda key=key: self.run(  # type: ignore[misc]
                    "const s = document.getElementById(arguments[0]); "
                    "return !s || s.querySelector('.missing') || 'drawn' in s.dataset",
                    key,
                )
            )
        self.run("for (const image of document.querySelectorAll('img')) image.loading = 'eager'; scrollTo(0, 0)")
        self.until(lambda: self.run("return [...document.querySelectorAll('img')].every((image) => image.complete)"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    downloads = tmp_path_factory.mktemp("downloads")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile), downloads)
        yield browser
        browser.driver.quit()


@pytest.fixture(scope="module")
def path(built: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("opened") / "report.html"
    write_report(built, path)
    return path


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the screenshots: ``$SEGBENCH_SCREENSHOTS`` where that is set."""
    return Path(os.environ.get("SEGBENCH_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


@pytest.fixture(scope="module")
def axe() -> str:
    """Return axe-core's script, from the npm registry."""
    folder = Path(tempfile.gettempdir()) / f"segbench-axe-core-{AXE}"
    script = folder / "package" / "axe.min.js"
    if not script.is_file():
        if shutil.which("npm") is None:
            pytest.skip("npm is not installed: axe-core cannot be had")
        folder.mkdir(exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", f"axe-core@{AXE}", "--silent"], cwd=folder, capture_output=True, text=True
        )
        if packed.returncode:
            pytest.skip(f"axe-core cannot be had from the npm registry: {packed.stderr.strip()[-200:]}")
        with tarfile.open(folder / packed.stdout.strip()) as archive:
            archive.extractall(folder, filter="data")
    return script.read_text(encoding="utf-8")


def test_every_section_is_drawn_without_a_complaint_or_a_request(browser: Browser, path: Path, shots: Path) -> None:
    browser.open(path)
    browser.draw_all()
    drawn = {section.get_attribute("id") for section in browser.all("section[data-drawn]")}
    assert drawn == set(KEYS)
    for key in set(KEYS) - {"examples"}:
        assert browser.all(f"#{key} .plot .main-svg"), f"section {key} shows no figure"
    assert browser.log() == []
    assert browser.requests() == []
    for key in KEYS:
        assert browser.shoot(shots / f"light-{key}.png", f"#{key}").stat().st_size > 5_000


def test_every_plot_has_marks_within_its_frame(browser: Browser, path: Path) -> None:
    browser.open(path)
    browser.draw_all()
    empty = browser.run(
        "return [...document.querySelectorAll('.plot')].filter((plot) => !plot.querySelector("
        "'.point path, path.point, .points path, image, .hm image, .heatmaplayer image, .textpoint, .js-line'"
        ")).map((plot) => plot.ariaLabel)"
    )
    assert empty == []


def test_numbers_in_heat_maps_stand_out_from_their_cells(browser: Browser, path: Path) -> None:
    browser.open(path)
    browser.draw_all()
    pairs = browser.run(
        "return [SB.SEQUENTIAL, SB.DIVERGING].flatMap((scale) => [...Array(101).keys()].map((n) => {"
        " const cell = SB.colourAt(scale, n / 100); return [cell, SB.inkOn(cell)]; }))"
    )
    assert len(pairs) == 202
    assert {ink for _, ink in pairs} == {"#000000", "#ffffff"}
    for cell, ink in pairs:
        lighter, darker = sorted((luminance(cell), luminance([255.0 * (ink == "#ffffff")] * 3)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > 4.5
    maps = browser.run(
        "return [...document.querySelectorAll('.plot')].filter((plot) => plot.data[0].type === 'heatmap').map((plot) =>"
        " [plot.querySelectorAll('.textpoint').length, plot.data[0].z.flat().filter((v) => v !== null).length])"
    )
    # where one number does not fit its cell, the map has none
    assert all(written in (0, cells) for written, cells in maps)
    assert sum(written for written, _ in maps) > 200


def luminance(rgb: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour of 0 to 255, as WCAG 2.2 defines it."""
    linear = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_examples_show_each_methods_outlines_over_the_image(browser: Browser, path: Path) -> None:
    browser.open(path, "#examples")
    panels = browser.until(lambda: browser.all("#examples .window:first-child .panel"))
    captions = [panel.find_element(By.CSS_SELECTOR, "figcaption b").text for panel in panels]
    assert captions == ["Image", "Truth", "Cellpose", "StarDist", "Watershed"]
    browser.until(
        lambda: browser.run(
            "return [...document.querySelectorAll('#examples .window:first-child img')]."
            "every((i) => i.complete && i.naturalWidth === 96)"
        )
    )
    assert all(image.get_attribute("alt") for image in browser.all("#examples .tile img:first-child"))
    tags = [tag.text.split(" of ")[0].lower() for tag in browser.all("#examples .tag")]
    assert tags == ["worst", "median", "best"], "not only images that went well"


def test_filters_change_the_figures_and_stand_in_the_address(browser: Browser, path: Path) -> None:
    browser.open(path, "#ranking")
    rows = "return document.querySelector('#ranking .plot').data[0].x"
    before = browser.until(lambda: browser.run(rows))
    browser.one("#metric").send_keys("AP50")
    browser.until(lambda: browser.run(rows) != before)
    assert len(browser.run(rows)) == 3
    browser.one("details[data-filter=method] summary").click()
    browser.one("details[data-filter=method] input[value=watershed]").click()
    browser.until(lambda: len(browser.run(rows)) == 2)
    assert "Watershed" not in browser.one("#ranking .plots").text
    assert browser.run("return location.hash") == "#ranking?metric=ap50&method=cellpose&method=stardist"
    assert "Watershed" not in browser.one("#ranking .sentence").text
    browser.one("#reset").click()
    browser.until(lambda: len(browser.run(rows)) == 3)
    assert browser.run("return location.hash") == "#ranking?metric=ap50"


def test_a_deep_link_opens_its_section_with_its_choices(browser: Browser, path: Path) -> None:
    browser.open(path, "#dilation?metric=map&task=synthetic-nuclear-1ch&method=cellpose")
    top = browser.until(
        lambda: browser.run("return document.getElementById('dilation').getBoundingClientRect().top + 1")
    )
    assert -5 < top < 200
    assert browser.one("#metric").get_attribute("value") == "map"
    plots = browser.all("#dilation .figure:first-child .plot")
    assert len(plots) == 1
    assert browser.run("return arguments[0].data.length", plots[0]) == 1
    assert browser.one("nav a[aria-current]").text in {"Dilation and erosion", "Modality"}


def test_a_meaningless_link_shows_the_whole_report(browser: Browser, path: Path) -> None:
    browser.open(path, "#no-such?metric=%3Cb%3E&method=nobody&train=%00")
    assert browser.one("#metric").get_attribute("value") == "accuracy"
    browser.until(lambda: browser.all("#overview[data-drawn]"))
    assert browser.log() == []


def open_table(browser: Browser, frame: str) -> str:
    """Open the first table of a frame; return its CSS selector."""
    table = f"details.table[data-frame={frame}]"
    browser.until(lambda: browser.all(table))
    browser.run("arguments[0].scrollIntoView({block: 'center'})", browser.one(f"{table} summary"))
    browser.one(f"{table} summary").click()
    browser.until(lambda: browser.all(f"{table} .tabulator-row"))
    return table


def settled(browser: Browser, selector: str) -> None:
    """Wait until a text changes no more: a table is filtered at every letter that is typed."""
    told = ""
    while told != (told := browser.one(selector).text):
        time.sleep(0.5)


def test_a_tables_rows_can_be_sorted_filtered_and_downloaded(browser: Browser, path: Path) -> None:
    browser.open(path, "#accuracy")
    table = open_table(browser, "scores")
    # Columns to the right of the window have no text for Selenium
    headers = browser.all(f"{table} .tabulator-col")
    header = next(h for h in headers if (h.get_attribute("textContent") or "").strip() == "ap50")
    browser.run("arguments[0].querySelector('.tabulator-col-title').click()", header)
    browser.until(lambda: header.get_attribute("aria-sort") == "descending")
    cells = f"{table} .tabulator-cell[tabulator-field='{header.get_attribute('tabulator-field')}']"
    values = [float(cell.get_attribute("textContent") or "nan") for cell in browser.all(cells)]
    assert len(values) > 9
    assert values == sorted(values, reverse=True)
    before = browser.one(f"{table} .count").text
    browser.one(f"{table} input[type=search]").send_keys("colon")
    browser.until(lambda: browser.one(f"{table} .count").text != before)
    settled(browser, f"{table} .count")
    rows = int(browser.one(f"{table} .count").text.split(" of ")[0].replace(",", ""))
    browser.one(f"{table} .csv").click()
    file = browser.downloads / "scores.csv"
    browser.until(file.is_file)
    with file.open(newline="", encoding="utf-8") as lines:
        downloaded = list(csv.DictReader(lines))
    assert len(downloaded) == rows
    assert all("Colon" in (row["test_tissue"], row["train_tissue"]) for row in downloaded)
    assert [float(row["ap50"]) for row in downloaded] == sorted(
        (float(row["ap50"]) for row in downloaded), reverse=True
    )


def test_the_sql_behind_a_table_is_there_and_runs(browser: Browser, path: Path, results: Path) -> None:
    from segbench.engine.results.store import query

    browser.open(path, "#ranking")
    table = open_table(browser, "leaderboard")
    sql = browser.run("return arguments[0].textContent", browser.one(f"{table} .sql pre"))
    rows = int(browser.one(f"{table} .count").text.split(" of ")[1].split()[0])
    assert query(ResultsFolder(results), sql).height == rows


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser: Browser, path: Path, axe: str, theme: str) -> None:
    browser.open(path)
    browser.run("document.documentElement.dataset.theme = arguments[0]; SB.redrawAll()", theme)
    browser.draw_all()
    browser.run(
        "for (const details of document.querySelectorAll('details')) "
        "if (!details.matches('.filter')) details.open = true"
    )
    browser.until(lambda: browser.all("details.table .tabulator-row"))
    browser.run(axe)
    browser.driver.set_script_timeout(300)
    found = browser.driver.execute_async_script(
        "const done = arguments[1]; axe.run(document, {resultTypes: ['violations'], ...arguments[0]}).then("
        "(r) => done(r.violations), (e) => done([{id: String(e), impact: 'serious', nodes: []}]))",
        # Dark differs from light by its colours alone
        {} if theme == "light" else {"runOnly": ["color-contrast"]},
    )
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_report_is_used_by_keyboard_alone(browser: Browser, path: Path) -> None:
    browser.open(path)
    browser.one("body").send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the report"
    browser.one("details[data-filter=task] summary").send_keys(Keys.ENTER)
    choices = browser.one("details[data-filter=task] .choices")
    assert choices.is_displayed()
    browser.one("details[data-filter=task] input").send_keys(Keys.SPACE)
    assert "3 of 4" in browser.one("details[data-filter=task] summary").text
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not choices.is_displayed()


def test_dark_is_dark(browser: Browser, path: Path, shots: Path) -> None:
    browser.open(path)
    browser.draw_all()
    browser.one("#theme").click()
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.one("#theme").click()
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert light != dark
    browser.run("document.documentElement.dataset.theme = 'dark'; SB.redrawAll()")
    browser.draw_all()
    browser.shoot(shots / "dark.png")


def test_a_phone_has_no_sideways_scroll(browser: Browser, path: Path, shots: Path) -> None:
    browser.open(path, width=360, height=740)
    browser.draw_all()
    open_table(browser, "scores")
    wide = browser.run(
        "return [...document.querySelectorAll('main *')].filter((e) => "
        "e.getBoundingClientRect().right > 361 && !e.closest('.scroll, .across, pre, svg'))"
        ".map((e) => e.outerHTML.slice(0, 120))"
    )
    assert wide == []
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    browser.shoot(shots / "phone.png")


def test_it_prints_every_section_in_light_colours(browser: Browser, results: Path, tmp_path: Path, shots: Path) -> None:
    keys = ["overview", "ranking", "accuracy"]
    write_report(build_report(ResultsFolder(results), sections=keys), tmp_path / "report.html")
    browser.open(tmp_path / "report.html", height=300)
    browser.run("document.documentElement.dataset.theme = 'dark'; SB.redrawAll()")
    pdf = base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")
    (shots / "printed.pdf").parent.mkdir(parents=True, exist_ok=True)
    (shots / "printed.pdf").write_bytes(pdf)
    browser.until(lambda: len(browser.all("section[data-drawn]")) == len(keys))
    assert browser.run("return 'print' in document.documentElement.dataset") is False, "the screen is dark again"


def test_hostile_names_are_shown_and_not_run(browser: Browser, tmp_path: Path, shots: Path) -> None:
    folder = hostile_store(tmp_path / "r")
    write_report(build_report(ResultsFolder(folder), title="A report"), folder / "report.html")
    browser.open(folder / "report.html")
    browser.draw_all()
    assert browser.run("return document.title") == "A report"
    assert not browser.all("img[src=x]")
    assert browser.log() == []
    assert "</script><script>" in browser.one("#overview").text
    bars = browser.one("#ranking [data-kind=bars] .plot")
    browser.run("Plotly.Fx.hover(arguments[0], [{curveNumber: 0, pointNumber: 0}])", bars)
    assert "</script><script>" in browser.until(
        lambda: browser.run("return arguments[0].querySelector('.hoverlayer').textContent", bars)
    )
    assert browser.run("return document.title") == "A report"
    assert browser.requests() == []
    browser.shoot(shots / "hostile.png", "#ranking")
