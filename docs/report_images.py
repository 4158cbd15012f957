"""Takes the screenshots of ``docs/report.md`` from a report: ``python docs/report_images.py RESULTS_FOLDER``."""

from __future__ import annotations

import base64
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from segbench.analysis.report import build_report, write_report
from segbench.engine.results.folder import ResultsFolder

SHOTS = {"overview": 760, "ranking": 900, "examples": 900, "accuracy": 760, "time": 900}
"""Sections, and how many pixels of each are shown."""


def main(out: ResultsFolder) -> None:
    """Build the report of a results folder and picture its sections in light colours, and the first in dark ones."""
    images = Path(__file__).parent / "images"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Path(folder) / "report.html"
        write_report(build_report(out, title="segbench demo"), page)
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "no-first-run",
            "disable-sync",
            f"user-data-dir={folder}/profile",
        ):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or "chromedriver"))
        try:
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": 1200, "height": 900, "deviceScaleFactor": 1, "mobile": False},
            )
            driver.get(page.as_uri())
            wait(driver, "return 'ready' in document.documentElement.dataset")
            # All of it is drawn first: a section that grows later would push the others down
            driver.execute_script("document.querySelectorAll('section').forEach(SB.drawSection)")
            driver.execute_script("for (const image of document.images) image.loading = 'eager'")
            for section, height in SHOTS.items():
                shoot(driver, section, height).save(images / f"report-{section}.png", optimize=True)
            driver.execute_script(
                "document.documentElement.dataset.theme = 'dark'; "
                "document.querySelectorAll('section').forEach(SB.drawSection)"
            )
            shoot(driver, "ranking", 600).save(images / "report-dark.png", optimize=True)
        finally:
            driver.quit()


def shoot(driver: webdriver.Chrome, section: str, height: int) -> Image.Image:
    """Return the picture of a section's upper part; figures in few colours, so that the file is small."""
    wait(driver, "return [...document.images].every((image) => image.complete)")
    time.sleep(1)
    box = driver.execute_script(
        "const r = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return {x: r.x + scrollX, y: r.y + scrollY, width: r.width, "
        "height: Math.min(r.height, arguments[1]), scale: 1}",
        section,
        height,
    )
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": box})
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    return image if section == "examples" else image.quantize(128)


def wait(driver: webdriver.Chrome, script: str) -> None:
    """Wait until a script says true."""
    while not driver.execute_script(script):
        time.sleep(0.1)


if __name__ == "__main__":
    main(ResultsFolder(Path(sys.argv[1])))
