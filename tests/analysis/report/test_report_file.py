"""The report's file: what stands in it, and that nothing in a store can be anything but text."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from report_samples import METHODS, TASKS, TISSUES, discs, make_record, write_examples

from segbench.analysis.report import Report, build_report, tiles, write_report, write_site
from segbench.analysis.report.embed import frame_data, safe_json
from segbench.analysis.report.model import Frame
from segbench.analysis.report.sections import SECTIONS
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter
from segbench.errors import SegbenchError
from segbench.methods.predictions import LabelInstances, PredictionWriter


def embedded(html: str) -> dict:
    """Return the data of a report."""
    text = re.search(r'id="data">([^<]*)</script>', html)
    assert text
    return json.loads(gzip.decompress(base64.b64decode(text[1])))


def own_part(html: str) -> str:
    """Return the page without the libraries in it."""
    from segbench.analysis.report.page import plotly_bundle, tabulator_bundle

    for bundle in (plotly_bundle(), tabulator_bundle()):
        assert bundle in html
        html = html.replace(bundle, "")
    return html


@pytest.fixture(scope="module")
def html(built: Report) -> str:
    return built.html


@pytest.mark.slow
def test_every_section_has_data(built: Report) -> None:
    assert built.empty == ()
    assert built.filled == tuple(section.key for section in SECTIONS if not section.optional)


@pytest.mark.slow
def test_a_failure_shows_its_error_and_the_end_of_its_log(html: str) -> None:
    assert "needed more memory than the 4 GB it was granted" in html
    assert "epoch 3\nMemoryError" in html


def test_nothing_in_the_page_is_fetched(html: str) -> None:
    page = own_part(html)
    # A method's own address is text, not something to be fetched
    page = re.sub(r"<br>https?://[^<]*</p>", "", page)
    assert not re.search(r"""<(?:script|link|img|iframe|source|audio|video)[^>]+(?:src|href)=["'](?!data:,)""", page)
    assert not re.search(r"""@import|url\(|fetch\(|XMLHttpRequest|https?://""", page)
    assert "default-src 'none'" in page


def test_the_tables_library_is_in_the_file_as_it_is_published_with_its_licence(html: str) -> None:
    import hashlib
    import importlib.resources

    vendor = importlib.resources.files("segbench.analysis.report") / "vendor"
    # npm pack tabulator-tables@6.5.3: dist/js/tabulator.min.js, dist/css/tabulator_simple.min.css
    published = {
        "tabulator.min.js": "ffac518cb793c672a2f0522b7fc80bf862234d96bb1e581c8aaf7f48f130eafa",
        "tabulator_simple.min.css": "edef8839235a4b6a8c3dc391ec93f2ce1bc633dd5270a5f990753b6f9183d32b",
    }
    for name, digest in published.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
    assert "Tabulator v6.5.3" in html
    assert "Permission is hereby granted, free of charge" in html
    assert "sourceMappingURL=tabulator" not in html


def test_frames_hold_the_stores_rows(results: Path, html: str) -> None:
    from segbench.engine.results.store import query

    frame = embedded(html)["frames"]["leaderboard"]
    rows = query(ResultsFolder(results), frame["source"])
    columns = {column["name"]: column for column in frame["columns"]}
    assert list(columns) == rows.columns
    titles = [columns["method_title"]["levels"][code] for code in columns["method_title"]["codes"]]
    assert titles == rows["method_title"].to_list()
    assert columns["ap50"]["values"] == pytest.approx(rows["ap50"].to_list(), rel=1e-5)


def test_examples_come_from_the_runs_folders_with_every_method(html: str) -> None:
    text = re.search(r'id="data-examples">(.*?)</script>', html, re.S)
    assert text
    examples = json.loads(text[1])["examples"]
    assert len(examples) == len(TASKS) * 3 * 2
    for example in examples:
        assert {panel["method"] for panel in example["panels"]} == set(METHODS)
        for panel in example["panels"]:
            true = {kind: n for kind, n in panel["counts"].items() if kind != "spurious"}
            assert sum(true.values()) == example["cells"]
            picture = Image.open(io.BytesIO(base64.b64decode(panel["overlay"])))
            assert picture.size == (96, 96)
            assert picture.convert("RGBA").getpixel((0, 0))[3] == 0


def test_an_unfinished_or_broken_example_folder_leaves_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, broken, outside = (make_record(name, title) for name, title in METHODS.items())
    outside = outside.model_copy(update={"attempt": outside.attempt.model_copy(update={"folder": "../elsewhere"})})
    StoreWriter(ResultsFolder(tmp_path / "r")).add([good, broken, outside])
    for record in (good, broken, outside):
        write_examples(tmp_path / "r", record)
    (tmp_path / "r" / broken.attempt.folder / "examples.npz").write_bytes(b"PK\x03\x04 cut off")
    html = build_report(ResultsFolder(tmp_path / "r"), sections=["examples"]).html
    examples = json.loads(re.search(r'id="data-examples">(.*?)</script>', html, re.S)[1])["examples"]  # type: ignore[index]
    assert {panel["method"] for example in examples for panel in example["panels"]} == {good.attempt.method}
    assert "are left out" in caplog.text
    assert "../elsewhere is no attempt's folder" in caplog.text


def test_anothers_worst_window_is_drawn_from_predictions_that_are_still_there(tmp_path: Path) -> None:
    out = ResultsFolder(tmp_path / "r")
    records = [make_record(name, name, "synthetic-nuclear-2ch") for name in ("whole", "partly", "gone")]
    StoreWriter(out).add(records)
    write_examples(out.path, records[0], TISSUES[:3], telling={"worst": 5, "median": 4, "best": 0})
    for record in records[1:]:
        write_examples(out.path, record, TISSUES[:1], telling={"worst": 1, "median": 1, "best": 0})
    with PredictionWriter(out.attempt_at(records[1].attempt.folder).job.predictions("test"), "labels", 50, 96, 96) as w:
        for n in range(50):
            labels = discs(96, n)
            w.add(LabelInstances(labels, np.ones(labels.max())))
    html = build_report(out, sections=["examples"]).html
    examples = json.loads(re.search(r'id="data-examples">(.*?)</script>', html, re.S)[1])["examples"]  # type: ignore[index]
    worst = next(example for example in examples if example["row"] == 5)
    assert worst["telling"] == [{"method": "whole", "kind": "worst", "of": 50}]
    panels = {panel["method"]: panel for panel in worst["panels"]}
    assert panels["partly"]["counts"]["found"] == worst["cells"] > 0, "its prediction is the truth"
    assert panels["gone"]["overlay"] is None
    assert (
        panels["gone"]["ap50"] == pytest.approx(panels["partly"]["ap50"]) == pytest.approx(0.6 - 0.3 * 5 / 49, abs=1e-4)
    )
    assert "not kept" in panels["gone"]["told"]


HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u2028'\"&amp;"


def hostile_store(out: Path) -> Path:
    """Fill a store with names and texts that would break a careless page."""
    record = make_record("evil", HOSTILE, tissues=(HOSTILE, 'a "quoted" tissue'), skill=0.5)
    attempt = record.attempt.model_copy(
        update={"host": HOSTILE, "settings": {HOSTILE: HOSTILE}, "dataset": HOSTILE, "method": HOSTILE}
    )
    record = record.model_copy(update={"attempt": attempt})
    failed = make_record(
        "failing", "Failing", status=Status.FAILED, error=(HOSTILE + "x" * 10_000), log_tail=HOSTILE * 50
    )
    StoreWriter(ResultsFolder(out)).add([record, failed])
    write_examples(out, record, tissues=(HOSTILE, 'a "quoted" tissue'), size=48, windows=1)
    return out


def test_hostile_names_are_text(tmp_path: Path) -> None:
    html = build_report(ResultsFolder(hostile_store(tmp_path / "r")), title=HOSTILE).html
    page = own_part(html)
    assert "document.title='owned'</script>" not in page
    assert "<img src=x" not in page
    assert page.count("</script>") == len(re.findall(r"<script\b", page))
    data = embedded(html)["frames"]["leaderboard"]
    assert HOSTILE in next(column for column in data["columns"] if column["name"] == "method_title")["levels"]


def test_json_in_a_script_element_ends_neither_the_element_nor_a_line() -> None:
    value = {"<!--": "</script>&\u2028\u2029"}
    assert not set("<>&\u2028\u2029") & set(safe_json(value))
    assert json.loads(safe_json(value)) == value


def test_a_frame_keeps_nulls_and_drops_what_is_no_number() -> None:
    frame = pl.DataFrame(
        {"score": [0.1234567, None, float("nan"), float("inf")], "name": ["a", None, "b", "a"], "n": [1, None, 3, 4]}
    )
    columns = frame_data(Frame("f", frame, "select"))["columns"]
    assert columns[0] == {"name": "score", "values": [0.123457, None, None, None]}
    assert columns[1] == {"name": "name", "levels": ["a", "b"], "codes": [0, -1, 1, 0]}
    assert columns[2] == {"name": "n", "values": [1, None, 3, 4]}


def test_outlines_tell_the_six_kinds_of_cells_apart() -> None:
    truth, prediction = np.zeros((60, 60), np.int32), np.zeros((60, 60), np.int32)
    truth[2:10, 2:10], prediction[2:10, 3:10] = 1, 11  # found
    truth[20:30, 20:30] = 2  # missed
    prediction[33:38, 2:8] = 12  # spurious
    truth[40:50, 2:12], prediction[40:50, 2:7], prediction[40:50, 7:12] = 3, 13, 14  # split in two halves
    prediction[40:44, 2:7] = 0
    prediction[40:44, 7:12] = 0
    truth[2:8, 30:36], truth[2:8, 37:43], prediction[2:8, 30:43] = 4, 5, 15  # merged
    truth[40:50, 40:50], prediction[44:54, 44:54] = 6, 16  # loose
    overlay = tiles.prediction_overlay(truth, prediction)
    assert overlay.counts == {"found": 1, "loose": 1, "missed": 1, "split": 1, "merged": 2, "spurious": 1}
    colours = np.asarray(Image.open(io.BytesIO(base64.b64decode(overlay.picture))).convert("RGBA"))
    drawn = np.argmax((colours[:, :, None] == tiles.PALETTE).all(axis=-1), axis=-1)
    for label, kind in {
        11: tiles.FOUND,
        12: tiles.SPURIOUS,
        13: tiles.SPLIT,
        14: tiles.SPLIT,
        15: tiles.MERGED,
        16: tiles.LOOSE,
    }.items():
        assert set(drawn[tiles.boundary(prediction) & (prediction == label)]) == {kind}
    assert set(drawn[20, 20:30]) == {0, tiles.MISSED}, "missed cells are dashed"
    assert (drawn[4:9, 5:9] == 0).all(), "nothing is drawn inside a cell"


def test_a_piece_of_a_found_cell_is_a_split_and_a_swallowed_cell_is_merged() -> None:
    truth, prediction = np.zeros((30, 40), np.int32), np.zeros((30, 40), np.int32)
    truth[0:10, 0:10], prediction[0:10, 0:8], prediction[0:10, 8:10] = 1, 1, 2
    truth[15:25, 0:10], truth[15:25, 11:14], prediction[15:25, 0:14] = 2, 3, 3
    of_truth, of_predictions = tiles.faults(truth, prediction)
    assert [*of_truth] == [tiles.NOTHING, tiles.FOUND, tiles.FOUND, tiles.MERGED]
    assert [*of_predictions] == [tiles.NOTHING, tiles.FOUND, tiles.SPLIT, tiles.FOUND]


@pytest.mark.parametrize("seed", range(4))
def test_every_cell_and_every_prediction_has_one_kind(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth, prediction = (draw.integers(0, 5, (6, 6)).astype(np.int32).repeat(4, 0).repeat(4, 1) for _ in range(2))
    of_truth, of_predictions = tiles.faults(truth, prediction)
    for labels, kinds in ((truth, of_truth), (prediction, of_predictions)):
        assert {label for label, kind in enumerate(kinds) if kind} == set(np.unique(labels)) - {0}
    assert np.count_nonzero(of_truth == tiles.FOUND) == np.count_nonzero(of_predictions == tiles.FOUND)
    assert not {tiles.MISSED} & {*of_predictions}
    assert not {tiles.SPURIOUS} & {*of_truth}


def test_a_perfect_prediction_finds_every_cell_and_an_empty_one_none() -> None:
    truth = discs(96, 3)
    perfect = tiles.prediction_overlay(truth, np.where(truth > 0, truth + 5, 0).astype(np.int32))
    assert tiles.told(perfect.counts) == f"{truth.max()} found, 0 missed"
    nothing = tiles.prediction_overlay(truth, np.zeros_like(truth))
    assert tiles.told(nothing.counts) == f"0 found, {truth.max()} missed"


def test_a_store_with_failed_runs_only_says_what_brings_data(tmp_path: Path) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add(
        [make_record("stardist", "StarDist", status=Status.LOST, error="the machine went away", epochs=10)]
    )
    built = build_report(ResultsFolder(tmp_path))
    assert "overview" in built.filled
    assert {"ranking", "accuracy", "time", "examples"} <= set(built.empty)
    command = f"segbench grid launch --dataset synthetic --method stardist --budget-scale 0.1 --out {tmp_path}"
    why = "No run on synthetic has finished: launching goes on with them. This would bring them:"
    assert f"No data for this section yet. {why} <code>{command}</code>" in built.html


def test_methods_that_were_not_trained_to_the_end_are_marked_and_controls_are_lines(tmp_path: Path) -> None:
    control = make_record("watershed", "Shuffled truth", skill=0.06)
    control = control.model_copy(
        update={
            "attempt": control.attempt.model_copy(update={"category": "control", "run_id": "c", "method": "shuffled"})
        }
    )
    records = [make_record("stardist", "StarDist", epochs=1), make_record("cellpose", "Cellpose"), control]
    StoreWriter(ResultsFolder(tmp_path)).add(records)
    data = embedded(build_report(ResultsFolder(tmp_path)).html)
    for frame in ("leaderboard", "scores", "timings", "phases", "times", "cost", "statuses", "runs", "gaps"):
        columns = {column["name"]: column for column in data["frames"][frame]["columns"]}
        levels = columns["method_title" if "method_title" in columns else "title"]["levels"]
        assert {"StarDist (undertrained)", "Cellpose"} <= set(levels), frame
    runs = {column["name"]: column for column in data["frames"]["runs"]["columns"]}
    assert any("of its card's budget" in (reason or "") for reason in runs["undertrained"]["levels"])
    assert data["sections"]["ranking"]["figures"][0]["reference"] == "controls"
    controls = {column["name"]: column for column in data["frames"]["controls"]["columns"]}
    assert controls["title"]["levels"] == ["Shuffled truth"]
    assert controls["ap50"]["values"][0] < 0.3


def test_an_unknown_section_is_named_with_its_neighbours(results: Path) -> None:
    with pytest.raises(SegbenchError, match="unknown section 'acuracy'; did you mean accuracy"):
        build_report(ResultsFolder(results), sections=["acuracy"])


def test_sections_are_shown_in_the_order_asked_for(results: Path) -> None:
    built = build_report(ResultsFolder(results), sections=["runs", "ranking"])
    assert built.filled == ("runs", "ranking")
    assert built.html.index('id="runs"') < built.html.index('id="ranking"')


def test_the_file_is_written_whole_or_not_at_all(results: Path, tmp_path: Path) -> None:
    built = build_report(ResultsFolder(results), sections=["runs"])
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SegbenchError, match="cannot write"):
        write_report(built, tmp_path / "taken" / "report.html")
    write_report(built, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == built.html
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_published_scores_stand_beside_these(results: Path) -> None:
    built = build_report(ResultsFolder(results), sections=["published"], published=True)
    frame = embedded(built.html)["frames"]["published"]
    columns = {column["name"]: column for column in frame["columns"]}
    assert set(columns["source"]["levels"]) == {"published", "these results"}
    assert len(columns["method"]["levels"]) >= 18


def test_another_stores_scores_stand_beside_these(results: Path, tmp_path: Path) -> None:
    StoreWriter(ResultsFolder(tmp_path)).add([make_record("stardist", "StarDist", skill=0.3)])
    (tmp_path / "results.duckdb").rename(tmp_path / "last month.duckdb")
    built = build_report(ResultsFolder(results), sections=["compare"], compare=tmp_path / "last month.duckdb")
    assert built.filled == ("compare",)
    assert embedded(built.html)["frames"]["compare-change"]["rows"] == 1


def test_what_was_not_asked_for_is_left_out(built: Report) -> None:
    assert not {"compare", "published"} & {*built.filled, *built.empty}


def test_a_site_links_its_files(results: Path, tmp_path: Path) -> None:
    write_site(build_report(ResultsFolder(results), sections=["overview"], linked=True), tmp_path)
    libraries = {"plotly.min.js", "tabulator.min.js"}
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "report.css", "report.js", *libraries}
    assert (tmp_path / "index.html").stat().st_size < 200_000
    assert '<script src="plotly.min.js">' in (tmp_path / "index.html").read_text(encoding="utf-8")
