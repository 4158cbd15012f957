"""The gallery in a real browser: filters, sorting, deep links, copying, a phone's width, no request."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Browser
from gallery_samples import facts_for, make_package
from selenium.webdriver.common.by import By

from segbench.analysis.gallery.site import build_gallery

pytestmark = pytest.mark.browser
MODELS = 138


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile), tmp_path_factory.mktemp("downloads"))
        yield browser
        browser.driver.quit()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the gallery of as many models as the study has."""
    folder = tmp_path_factory.mktemp("gallery")
    build_gallery([make_package(folder / "packages", number) for number in range(MODELS)], folder / "the site")
    return folder / "the site"


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the screenshots: ``$SEGBENCH_SCREENSHOTS`` where that is set."""
    return Path(os.environ.get("SEGBENCH_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


def _shown(browser: Browser, key: str) -> list[str]:
    script = "return [...document.querySelectorAll('tbody tr:not([hidden])')].map((row) => row.dataset[arguments[0]])"
    return [str(value) for value in browser.run(script, key)]


def _choose(browser: Browser, key: str, value: str) -> None:
    browser.run(
        "const select = document.querySelector(`[data-filter=${arguments[0]}]`); select.value = arguments[1];"
        "select.dispatchEvent(new Event('input', {bubbles: true}))",
        key,
        value,
    )


def test_138_models_are_usable_within_two_seconds(browser: Browser, site: Path, shots: Path) -> None:
    # of processor time of the page's thread: the machine may have other things to do
    browser.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    browser.open(site / "index.html")
    assert len(_shown(browser, "method")) == MODELS
    metrics = browser.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    spent = {metric["name"]: metric["value"] for metric in metrics}["TaskDuration"]
    assert 0 < spent < 2
    assert browser.log() == []
    assert browser.requests() == []
    assert browser.shoot(shots / "gallery.png").stat().st_size > 5_000


def test_filters_and_search_work_together(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    _choose(browser, "method", "StarDist")
    _choose(browser, "channel", "membrane")
    assert set(_shown(browser, "method")) == {"StarDist"}
    assert all("membrane" in channel for channel in _shown(browser, "channel"))
    n = len(_shown(browser, "method"))
    assert 0 < n < MODELS
    assert browser.one("#told").text == f"{n} of {MODELS} models"
    browser.one("#search").send_keys("wholecell lung")
    assert 0 < len(_shown(browser, "tissue")) < n
    browser.one("#least").send_keys("0.99")
    assert _shown(browser, "tissue") == []
    browser.one("#again").click()
    browser.until(lambda: len(_shown(browser, "method")) == MODELS)


def test_a_click_sorts_and_what_is_not_known_comes_last(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    button = browser.one("[data-sort=accuracy]")
    button.click()
    values = [float(value) for value in _shown(browser, "accuracy")]
    assert values == sorted(values, reverse=True)
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    for _ in range(2):
        browser.one("[data-sort=time]").click()
        times = _shown(browser, "time")
        assert times[-1] == ""
        assert times[0] != ""


def test_an_address_leads_to_what_was_shown(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    _choose(browser, "task", "study-nuclear-2ch")
    browser.one("[data-sort=accuracy]").click()
    address, shown = browser.run("return location.hash"), _shown(browser, "accuracy")
    browser.open(site / "index.html", address)
    assert _shown(browser, "accuracy") == shown
    assert set(_shown(browser, "task")) == {"study-nuclear-2ch"}
    browser.open(site / "index.html", "#task=<script>&method=nobody&sort=evil")
    assert len(_shown(browser, "task")) == MODELS
    assert browser.log() == []


def test_a_models_page_has_its_pictures_and_copies_its_command(browser: Browser, site: Path, shots: Path) -> None:
    facts = facts_for(1)
    browser.open(site / "model" / f"{facts.name}.html")
    browser.run("for (const image of document.images) image.loading = 'eager'")
    browser.until(lambda: browser.run("return [...document.images].every((image) => image.complete)"))
    assert browser.run("return [...document.images].every((image) => image.naturalWidth > 0)")
    # what the clipboard is given: a page opened from a file may not be allowed to
    browser.run("window.copied = null; navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.one("[data-copy=command]").click()
    copied = browser.until(lambda: browser.run("return window.copied"))
    assert copied == (
        f"segbench models pull {facts.name} --from '{site}/'\nsegbench models apply {facts.name}.zip IMAGES --to cells"
    )
    assert browser.until(lambda: browser.one("[data-copy=command]").text == "Copied")
    assert browser.log() == []
    assert browser.requests() == []
    browser.shoot(shots / "gallery-model.png")


@pytest.mark.parametrize("page", ["index.html", "model"])
def test_it_fits_a_phone(browser: Browser, site: Path, shots: Path, page: str) -> None:
    path = site / page if page == "index.html" else site / "model" / f"{facts_for(1).name}.html"
    browser.open(path, width=390, height=844)
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    browser.shoot(shots / f"gallery-phone-{page.removesuffix('.html')}.png")
