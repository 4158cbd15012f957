"""Every sentence of the report follows from the figures beside it, under any choice of the reader's."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import browsing
import pytest
from report_samples import TASKS, make_record

from segbench.analysis.report import build_report, write_report
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record, Status
from segbench.engine.results.store import StoreWriter

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TITLES = {
    "watershed": "Watershed",
    "stardist": "StarDist",
    "cellpose": "Cellpose",
    "mesmer": "Mesmer",
    "hrnet": "HRNet",
}
TISSUES = ("Gut", "Lung", "Skin", "Spleen", "Ovary")
KEYS = (
    *("overview", "ranking", "accuracy", "diagnosis", "regression", "morphology", "channels", "transfer", "modality"),
    *("dilation", "time", "recommendation"),
)


def generated(seed: int) -> list[Record]:
    """Return the records of a store with gaps: methods that lack tasks, ties, failures, tissues without a cell."""
    draw = random.Random(seed)
    tissues = TISSUES[: draw.choice([2, 5])]
    records = []
    for name, title in draw.sample(sorted(TITLES.items()), k=draw.choice([3, 5])):
        for task in draw.sample(list(TASKS), k=draw.choice([2, 3, 4])):
            failed = draw.random() < 0.15
            record = make_record(
                name, title, task, skill=draw.choice([0.3, 0.5, 0.5, 0.7]), tissues=tissues,
                status=Status.FAILED if failed else Status.DONE,
            )  # fmt: skip
            if draw.random() < 0.2:
                rows = [row for row in record.evaluations if row.test_tissue != tissues[0]]
                record = record.model_copy(update={"evaluations": rows})
            records.append(record)
        if draw.random() < 0.5:
            records += [make_record(name, title, train_tissue=tissue, skill=0.4, tissues=tissues) for tissue in tissues]
    return records


@dataclass(frozen=True)
class Shown:
    """What one section shows."""

    sentences: list[str]
    numbers: list[float]
    """Of the figures: values, ends of intervals, coordinates."""
    words: str
    """Every text of the figures: names of rows, columns, panels and groups, and what the pointer is told."""
    empty: bool


# All panels are opened first: a finding may speak of one that is folded
SHOW = """
const section = document.getElementById(arguments[0]);
SB.drawSection(section);
for (const details of section.querySelectorAll('details.more, details.panel-more')) {
  details.open = true; details.dispatchEvent(new Event('toggle'));
}
const numbers = [], words = [];
for (const plot of section.querySelectorAll('.plot')) {
  for (const trace of plot.data) {
    if (trace.name === 'missing') continue;
    for (const values of [trace.x, trace.y, (trace.z ?? []).flat()]) for (const v of values ?? []) if (typeof v === 'number') numbers.push(v);
    for (const [way, sign] of [['array', 1], ['arrayminus', -1]]) (trace.error_x?.[way] ?? []).forEach((v, n) => numbers.push(trace.x[n] + sign * v));
    words.push(...[trace.text, trace.hovertext, trace.hovertemplate].flat(3).filter((text) => typeof text === 'string'));
  }
  for (const axis of ['xaxis', 'yaxis']) words.push(...(plot.layout[axis].ticktext ?? []));
}
words.push(...[...section.querySelectorAll('.figure')].map((figure) => figure.textContent));
return {
  sentences: [section.querySelector('.sentence')?.textContent ?? '', ...[...section.querySelectorAll('.findings li')].map((item) => item.textContent)],
  numbers, words: words.join(' | '), empty: !section.querySelector('.plot'),
};
"""  # noqa: E501


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browsing.Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = browsing.Browser(Path(profile), tmp_path_factory.mktemp("downloads"))
        yield browser
        browser.driver.quit()


def opened(browser: browsing.Browser, records: list[Record], folder: Path) -> list[str]:
    """Open the report of a store with these records; return the sections with figures."""
    StoreWriter(ResultsFolder(folder)).add(records)
    report = build_report(ResultsFolder(folder), sections=KEYS)
    write_report(report, folder / "report.html")
    browser.open(folder / "report.html")
    return list(report.filled)


def choose(browser: browsing.Browser, choices: list[tuple[str, str]]) -> None:
    """Make choices as a link does."""
    browser.run("location.hash = arguments[0]; dispatchEvent(new Event('hashchange'))", f"#?{urlencode(choices)}")


def show(browser: browsing.Browser, key: str) -> Shown:
    return Shown(**browser.run(SHOW, key))


def written(value: float) -> set[str]:
    """Return how a sentence may write a number of a figure."""
    texts = {f"{abs(value):.{digits}f}" for digits in (0, 2, 3)}
    return texts | {f"{abs(value):,.0f}"}


def unfounded(shown: Shown) -> list[str]:
    """Return the numbers of a section's sentences that are not in its figures."""
    known = {text for value in shown.numbers for text in written(value)}
    lacking = []
    for sentence in shown.sentences:
        # Names hold digits, too; spans of time are told by the pointer in the same words
        text = re.sub(
            r"\S+-(?:nuclear|wholecell)-\dch|at batch 8 and 50 epochs|95 % interval|[12] channels?", "", sentence
        )
        for span in re.findall(r"\d[\d.,]* (?:d|h|min|s|ms)\b(?: \d+ (?:h|min|s)\b)?", text):
            text = text.replace(span, "", 1)
            if span not in shown.words:
                lacking.append(f"{span!r} of {sentence!r}")
        # Counts are checked one by one below: here every number with a point, and what is measured in whole ones
        for number in re.findall(r"\d+\.\d+|\d[\d,]*(?= pixels)", text):
            if number not in known:
                lacking.append(f"{number!r} of {sentence!r}")
    return lacking


@pytest.mark.parametrize("seed", [1, 2])
def test_every_number_and_name_of_a_sentence_is_in_its_figures(
    browser: browsing.Browser, tmp_path: Path, seed: int
) -> None:
    records = generated(seed)
    draw = random.Random(seed)
    keys = opened(browser, records, tmp_path / "r")
    choices: dict[str, list[Any]] = browser.run("return SB.choices")
    told = 0
    for _ in range(4):
        query = [("metric", draw.choice(["accuracy", "map", "ap50"])), ("train", draw.choice(choices["train"])[0])]
        for name in ("method", "task", "tissue"):
            if draw.random() < 0.6:
                some = draw.sample(choices[name], k=draw.randint(1, len(choices[name])))
                query += [(name, value) for value, _ in some]
        choose(browser, query)
        for key in keys:
            shown = show(browser, key)
            assert shown.sentences[0], f"{key} says nothing under {query}"
            assert not re.search(r"undefined|null|NaN|Infinity|\[object", " ".join(shown.sentences)), shown.sentences
            assert unfounded(shown) == [], (key, query)
            for title in TITLES.values():
                if any(re.search(rf"\b{title}\b", sentence) for sentence in shown.sentences):
                    assert title in shown.words, (key, query, title)
            told += len(shown.sentences)
    assert told > 60
    assert browser.log() == []


def test_counts_are_those_of_the_marks(browser: browsing.Browser, tmp_path: Path) -> None:
    keys = opened(browser, generated(2), tmp_path / "r")
    assert {"overview", "ranking", "accuracy"} <= set(keys)
    for query in ([], [("metric", "ap50")], [("method", "stardist"), ("method", "cellpose"), ("method", "mesmer")]):
        choose(browser, query)
        bars = browser.run(
            "SB.drawSection(document.getElementById('ranking'));"
            "return [...document.querySelectorAll('#ranking [data-kind=bars] .plot')].map((plot) =>"
            " plot.data[0].x.map((value, n) => [plot.layout.yaxis.ticktext[n], value.toFixed(3)]))"
        )
        firsts = [{name for name, value in plot if value == max(v for _, v in plot)} for plot in bars]
        wins = {name: sum(name in first for first in firsts) for name in set.union(*firsts)}
        most = max(wins.values())
        sentence = show(browser, "ranking").sentences[0]
        if len(bars) > 1 and len({name for plot in bars for name, _ in plot}) > 1:
            assert f"first in {most} of {len(bars)} tasks" in sentence, sentence
            for name in wins:
                assert (name in sentence) is (wins[name] == most), sentence
        runs = browser.run(
            "SB.drawSection(document.getElementById('overview'));"
            "const bars = document.querySelector('#overview .plot').data.flatMap((trace) => trace.x);"
            "return bars.reduce((a, b) => a + b, 0)"
        )
        assert f"{runs} runs" in show(browser, "overview").sentences[0]


def test_where_nothing_can_be_compared_that_is_said_and_not_something_else(
    browser: browsing.Browser, tmp_path: Path
) -> None:
    nuclear, cells = "synthetic-nuclear-1ch", "synthetic-wholecell-1ch"
    alone = make_record("stardist", "StarDist", nuclear, skill=0.6)
    other = make_record("cellpose", "Cellpose", cells, skill=0.6)
    records = [alone, other]
    keys = opened(browser, records, tmp_path / "r")
    assert "modality" in keys
    shown = show(browser, "modality")
    assert "no method here was trained on these images itself" in " ".join(shown.sentences)
    assert "true instances" not in browser.one("#modality").text
    ranking = show(browser, "ranking").sentences[0]
    assert "Cellpose and StarDist are first in 1 of 2 tasks each" in ranking or "StarDist and Cellpose" in ranking
    pareto = " ".join(show(browser, "time").sentences)
    assert "no method is both" not in pareto
    choose(browser, [("method", "stardist")])
    for key in keys:
        assert "Cellpose" not in " ".join(show(browser, key).sentences), key
    assert "StarDist alone has a score" in show(browser, "ranking").sentences[0]
