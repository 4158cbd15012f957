"""``import segbench``: instant, complete, and the same functions as the command line's."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import segbench
from segbench.analysis import ANALYSES
from segbench.cli.app import app
from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import AttemptRow, DegradedRow, EvaluationRow, GapRow, Record, Status, TissueRow
from segbench.engine.results.store import StoreWriter
from segbench.errors import SegbenchError

HEAVY = ("numpy", "polars", "duckdb", "pydantic", "ray", "numba", "scipy", "pyarrow", "typing")


def in_a_process(code: str) -> str:
    """Run code in a Python of its own and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def asked(*arguments: object) -> list[dict[str, Any]]:
    """Return what a command prints as JSON."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--format", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def same(frame: pl.DataFrame, rows: list[dict[str, Any]]) -> bool:
    """Tell whether a frame holds what a command printed."""
    return json.loads(json.dumps(frame.to_dicts(), default=str)) == rows


def same_but_for_totals(frame: pl.DataFrame, rows: list[dict[str, Any]]) -> bool:
    """Tell whether a frame holds what a command printed, which has totals beside it, the same in every row."""
    totals = [{name: value for name, value in row.items() if name not in frame.columns} for row in rows]
    assert totals[0]
    assert all(one == totals[0] for one in totals)
    return same(frame, [{name: row[name] for name in frame.columns} for row in rows])


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    """Three true maps of six cells, and predictions that are better from map to map."""

    def cells(shift: int) -> np.ndarray:
        labels = np.zeros((24, 30), np.uint16)
        for k in range(6):
            y, x = 2 + 11 * (k % 2), 1 + 10 * (k // 2)
            labels[y : y + 8, x + shift : x + shift + 7] = 10 * k + 5
        return labels

    return np.stack([cells(0)] * 3), np.stack([cells(2), cells(1), cells(0)])


def test_importing_loads_nothing_and_dir_names_everything() -> None:
    probe = f"import sys; before = set(sys.modules); import segbench; print({HEAVY!r} & (sys.modules.keys() - before))"
    assert in_a_process(probe.replace(repr(HEAVY), repr(set(HEAVY)))) == "set()"
    assert set(segbench.__all__) <= set(dir(segbench))
    assert in_a_process("from segbench import *; print(callable(evaluate), issubclass(SegbenchError, Exception))") == (
        "True True"
    )
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        segbench.evaluat  # noqa: B018 - raises


def test_every_name_is_in_the_reference_and_has_an_example() -> None:
    told = re.findall(
        r"^::: segbench\.(\w+)$", (Path(__file__).parents[1] / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert sorted(told) == sorted(segbench.__all__) == list(segbench.__all__)
    assert get_args(segbench.Instances) == (segbench.LabelInstances, segbench.MaskInstances)
    for name in set(segbench.__all__) - {"Instances"}:
        doc = inspect.getdoc(getattr(segbench, name)) or ""
        assert re.search(r"Examples\n-{8}\n(.*\n)*?>>> (import segbench|from segbench import)", doc), name
        assert getattr(segbench, name).__module__.startswith("segbench."), name  # its module's doctests are run


def test_a_methods_author_needs_numpy_alone() -> None:
    code = "from segbench import Budget, Card, Job, LabelInstances, Method, Resources; import sys; "
    code += f"print(sorted(({set(HEAVY)!r} - {{'numpy', 'typing'}}) & sys.modules.keys()))"
    assert in_a_process(code) == "[]"


def test_one_pair_is_scored_as_a_stack_of_one_is(maps: tuple[np.ndarray, np.ndarray]) -> None:
    truth, found = maps
    one = segbench.evaluate(truth[0], found[0])
    for given in ((truth[:1], found[:1]), ([truth[0]], [found[0]]), (iter(truth[:1]), list(found[:1]))):
        assert segbench.evaluate(*given).frame().equals(one.frame())
    scores = np.linspace(0, 1, 6)
    scored = segbench.evaluate(truth[0], found[0], scores=scores)
    assert scored.frame().equals(segbench.evaluate(truth[:1], found[:1], scores=[scores]).frame())
    assert segbench.evaluate(truth[0], found[0], scores=[scores]).frame().equals(scored.frame())
    assert (
        segbench.sweep(truth[0], found[0], erode=[1])
        .frame()
        .equals(segbench.sweep(truth[:1], found[:1], erode=[1]).frame())
    )


def test_maps_files_and_the_command_line_give_the_same(maps: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    truth, found = maps
    folders = tmp_path / "truth", tmp_path / "found"
    for folder, stack in zip(folders, maps, strict=True):
        folder.mkdir()
        for name, labels in zip("abc", stack, strict=True):
            np.save(folder / f"{name}.npy", labels)
    (tmp_path / "groups.csv").write_text("image,group\na,Colon\nb,Colon\nc,Lung\n")
    groups, scores = ["Colon", "Colon", "Lung"], np.full(6, 0.5)
    result = segbench.evaluate(truth, found, groups=groups, areas="coco")
    read = segbench.evaluate(*folders, groups=tmp_path / "groups.csv", areas="coco")
    assert read.frame().equals(result.frame())
    options = ["--groups", tmp_path / "groups.csv"]
    assert same(result.frame(), asked("evaluate", *folders, *options, "--areas", "coco"))
    assert same(segbench.cell_metrics(result), asked("evaluate", *folders, *options, "--cells"))
    intervals = segbench.confidence_intervals(result, resamples=50)
    assert same(intervals, asked("evaluate", *folders, *options, "--bootstrap", "50"))
    swept = segbench.sweep(str(folders[0]), found, dilate=range(3), erode=[1], groups=groups, scores=[scores] * 3)
    assert same(swept.frame(), asked("sweep", *folders, *options, "--dilate", "0:2", "--erode", "1"))
    assert swept["dilate", 0].frame().equals(segbench.evaluate(truth, found, groups=groups).frame())
    assert segbench.evaluate(folders[0], iter(found)).map == result.map


def test_an_evaluation_tells_what_it_found(maps: tuple[np.ndarray, np.ndarray]) -> None:
    truth, found = maps
    result = segbench.evaluate(truth, found, groups=["b", "a", "a"], areas={"large": (50, 1e6)})
    assert repr(result).endswith("; 3 images, 18 true cells, 18 predicted; groups a, b; areas large)")
    assert result.frame()["subset"].to_list() == ["all", "a", "b", "area large"]
    assert result.metrics() == {name: getattr(result, name) for name in result.metrics()}
    assert result.images.frame()["tp_95"].to_list() == [0, 0, 6]
    each = segbench.cell_metrics(result, per_image=True)
    assert each["group"].to_list() == ["b", "a", "a"]
    assert each["f1_95"].to_list() == [0.0, 0.0, 1.0]
    assert "<table" in result._repr_html_()


def test_a_sweep_finds_the_best_radius_of_each_group(maps: tuple[np.ndarray, np.ndarray]) -> None:
    truth, _ = maps
    eroded = segbench.sweep(truth, truth, erode=[0, 2])["erode", 2]
    assert eroded.map < 1
    shrunk = truth.copy()
    shrunk[:, 2::11] = 0  # the first row of every cell
    swept = segbench.sweep(truth, shrunk, dilate=[2, 1, 0], groups=["x", "y", "y"])
    assert list(swept) == [("dilate", 0), ("dilate", 1), ("dilate", 2)]
    assert swept.best("map") == swept.best("map", group="y") == ("dilate", 0)
    with pytest.raises(SegbenchError, match="unknown metric 'mapp'; did you mean map"):
        swept.best("mapp")
    with pytest.raises(SegbenchError, match="unknown group 'z'"):
        swept.best(group="z")


def test_no_truth_is_null_in_frames_and_minus_one_in_numbers() -> None:
    empty, cell = np.zeros((4, 4), int), np.ones((4, 4), int)
    result = segbench.evaluate(empty, cell)
    assert result.map == -1.0
    assert result.frame()["map"].to_list() == [None]
    assert segbench.confidence_intervals(result)["low"].null_count() == 6
    assert segbench.cell_metrics(segbench.evaluate(empty, empty))["pq"].to_list() == [None]


MAP = np.ones((4, 4), int)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((MAP, MAP[None]), {}, r"truth is one map \(H, W\), predictions are several \(N, H, W\); give both"),
        (([MAP], MAP), {}, r"predictions is one map \(H, W\), truth are several"),
        ((MAP, MAP[:2]), {}, r"the maps of truth are \(4, 4\) pixels, those of predictions \(2, 4\)"),
        ((MAP, MAP > 0), {}, "predictions is of type bool, a mask .* skimage.measure.label"),
        ((MAP * np.nan, MAP), {}, "truth is of type float64 and holds NaN or infinity; labels are integers"),
        (([MAP], [MAP * 0.5]), {}, r"predictions\[0\] is of type float64; labels are integers, .*\.astype\('int32'\)"),
        ((MAP, -MAP), {}, r"predictions\[0\] has labels from -1 to -1; they go from 0"),
        ((-MAP.astype(np.int32), MAP), {}, r"truth\[0\] has the label -1"),
        (([MAP, MAP], np.stack([MAP, MAP * 2**40]).astype(np.uint64)), {}, r"predictions\[1\] has labels from \d+ to"),
        ((np.stack([MAP] * 3), np.stack([MAP, MAP, MAP * 2**40])), {}, r"predictions\[2\] has labels from"),
        ((MAP[0], MAP), {}, r"truth has shape \(4,\); a label map is \(H, W\)"),
        ((np.zeros((1, 1, 4, 4), int), MAP), {}, r"truth has shape \(1, 1, 4, 4\)"),
        (([MAP[0]], [MAP]), {}, r"truth\[0\] has shape \(4,\)"),
        ((MAP, None), {}, "predictions is of type NoneType; give a label map"),
        (({"a": MAP}, [MAP]), {}, "truth is of type dict"),
        (([], []), {}, "hold no label maps; give at least one pair"),
        (("absent", MAP), {}, "absent does not exist"),
        (("truth.json", "found.json"), {}, "truth is COCO JSON, truth.json: score it by evaluate_coco"),
        ((MAP, MAP), {"scores": [0.5, 0.5]}, r"scores\[0\] has 2 scores, predictions\[0\] 1 labels"),
        ((MAP, MAP), {"scores": 0.5}, "scores is of type float; give one array of numbers a map"),
        ((MAP, MAP), {"scores": ["high"]}, r"scores\[0\] is \['high'\]; give one number a label"),
        ((MAP, MAP), {"scores": [np.nan]}, r"scores\[0\] holds NaN"),
        ((MAP, MAP), {"groups": ["a", "b"]}, "groups has 2 names for 1 label maps"),
        ((MAP, MAP), {"groups": "lung"}, "groups is the text 'lung'; give one name a map"),
        ((MAP, MAP), {"groups": ["all"]}, "groups has the name 'all'"),
        ((MAP, MAP), {"groups": 3}, "groups is of type int"),
        ((MAP, MAP), {"areas": "cocoa"}, "unknown set of areas 'cocoa'; did you mean coco"),
        ((MAP, MAP), {"max_detections": 0}, "max_detections is 0"),
    ],
)
def test_a_wrong_argument_is_named(arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SegbenchError, match=message) as error:
        segbench.evaluate(*arguments, **options)
    assert "\n" not in str(error.value)


def test_a_sweep_refuses_what_it_cannot_do() -> None:
    for options, message in (
        ({"dilate": 3}, "dilate is 3; give radii in pixels"),
        ({"erode": "0:20"}, "erode is '0:20'"),
        ({"dilate": []}, "no radii"),
        ({"dilate": [0.5]}, "whole pixels, 0 to 500"),
        ({"dilate": [501]}, "0 to 500"),
        ({"structure": "dsik"}, "did you mean disk"),
    ):
        with pytest.raises(SegbenchError, match=message):
            segbench.sweep(MAP, MAP, **options)
    with pytest.raises(SegbenchError, match="a generator gives them once"):
        segbench.sweep(iter([MAP]), [MAP], dilate=[1], erode=[1])
    with pytest.raises(
        SegbenchError, match=r"evaluation is of type .*; give what evaluate\(truth, predictions\) returns"
    ):
        segbench.cell_metrics(MAP)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: segbench.Results(None), "a results folder is a path or a URL, found None of type NoneType"),
        (lambda: segbench.plan(preset="demo", out=5), "a results folder is a path or a URL, found 5 of type int"),
        (lambda: segbench.plan(preset="demo", gpus=-1), "gpus is -1; expect the time on at least 1"),
        (lambda: segbench.plan(preset=5), "unknown preset 5"),
        (lambda: segbench.evaluate_coco({}, []), "truth is of type dict; give the path of a COCO JSON file"),
        (lambda: segbench.evaluate_coco("a.json", []), "predictions is of type list; give the path"),
        (lambda: segbench.confidence_intervals(MAP), r"evaluation is of type ndarray; give what evaluate\("),
        (lambda: segbench.confidence_intervals(segbench.evaluate(MAP, MAP), seed=-1), "the seed is -1"),
        (lambda: segbench.evaluate([MAP], [MAP], scores=[[np.inf]]), r"scores\[0\] holds an infinite score"),
    ],
)
def test_what_python_gives_is_checked_where_it_comes_in(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(SegbenchError, match=message):
        ask()


# Every analysis with options that differ from their defaults, as Python and the command line take them
ASKED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "ranking": ({"weights": {"usability": 0, "accuracy": 2}}, ["-w", "usability=0", "--weight", "accuracy=2"]),
    "runtime": ({"watts": 300}, ["--watts", "300"]),
    "usability": ({}, []),
    "channels": ({"metric": "ap50"}, ["--metric", "ap50"]),
    "morphology": ({}, []),
    "regression": ({"metric": "ap75", "exclude": ["Skin"]}, ["--metric", "ap75", "-x", "Skin"]),
    "transfer": ({"metric": "ar"}, ["--metric", "ar"]),
    "training-data": (
        {"tissue": "Breast", "task": "tissuenet-nuclear-1ch"},
        ["Breast", "--task", "tissuenet-nuclear-1ch"],
    ),
    "modality": ({"metric": "map"}, ["--metric", "map"]),
    "learning-curve": ({"metric": "ap50", "gain": 0.02}, ["--metric", "ap50", "--gain", "0.02"]),
    "robustness": ({"metric": "ap50"}, ["--metric", "ap50"]),
    "dilation": ({"fixed_um": 3.5}, ["--fixed-um", "3.5"]),
    "diagnosis": ({"metric": "ap75"}, ["--metric", "ap75"]),
    "recommend": ({"target": "nuclear", "channels": 1, "gpus": 0}, ["--target", "nuclear", "-c", "1", "--gpus", "0"]),
}


_SHARES = {"score": 0.4, "gap": 0.6, "missed": 0.3, "split": 0.1, "merged": 0.05, "spurious": -0.05, "loose": 0.2}
TISSUES = ("all", "Breast", "Colon", "Epidermis", "Gi", "Immune", "Pancreas", "Skin")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a results folder on which every analysis has something to say."""
    out = tmp_path_factory.mktemp("results")
    records = [
        _record(method, f"tissuenet-{target}-{n}ch", tissue, quality)
        for method, quality in (("quick", 0.5), ("slow", 0.6))
        for target in ("nuclear", "wholecell")
        for n in (1, 2)
        for tissue in ("all", "Breast", "Skin")
    ]
    records += [
        _record("learner", "tissuenet-nuclear-2ch", "all", 0.6 - 1 / images, images) for images in (5, 10, 20, 40)
    ]
    StoreWriter(ResultsFolder(out)).add(records)
    return out


def _record(method: str, task: str, train_tissue: str, quality: float, images: int | None = None) -> Record:
    _, target, n_channels = task.split("-")
    other = task.replace(target, "wholecell" if target == "nuclear" else "nuclear")
    digits = hashlib.sha256(
        f"{method} {task} {train_tissue}{'' if images is None else f' {images}'}".encode()
    ).hexdigest()[:12]
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(digits, 16) % 10**9)

    def scored(test_task: str, tissue: str, score: float, **more: Any) -> EvaluationRow:
        metrics = dict.fromkeys(("map", "ap50", "ap75", "ar", "ar50", "ar75"), score)
        return EvaluationRow(
            test_task=test_task, test_tissue=tissue, **metrics, n_images=5, n_truth=50, n_predictions=50, **more
        )

    evaluations = [
        scored(test_task, tissue, quality + 0.1 * (tissue == train_tissue) - 0.2 * (test_task != task) - 0.01 * n)
        for test_task in (task, other)
        for n, tissue in enumerate(TISSUES)
    ]
    if target == "nuclear" and n_channels == "1ch":
        evaluations += [
            scored(other, tissue, quality - abs(radius - 2) / 10, operation="dilate", radius=radius)
            for tissue in ("all", "Breast", "Skin")
            for radius in (1, 2, 3)
        ]
    shapes = [
        TissueRow(
            dataset_fingerprint="f" * 16,
            dataset="tissuenet",
            split=split,
            target=target,
            tissue=tissue,
            n_images=10 * n + 3,
            n_cells=100,
            area=90.0 + n * n,
            elongation=0.7 - n % 3 / 50,
            convexity=0.9,
            pixel_size_um=0.5,
        )
        for split in ("train", "test")
        for n, tissue in enumerate(TISSUES)
    ]
    attempt = AttemptRow(
        run_id=digits,
        train_images=images,
        n_train_pictures=images,
        n_train_cells=None if images is None else 30 * images,
        attempt=1,
        status=Status.DONE,
        method=method,
        method_title=method.title(),
        method_revision=1,
        family="stardist",
        environment="tensorflow",
        category="cell-specific",
        trained=True,
        attention=False,
        task=task,
        dataset="tissuenet",
        dataset_kind="tissuenet",
        dataset_fingerprint="f" * 16,
        channels=["nuclear", "membrane"][: int(n_channels[0])],
        n_channels=int(n_channels[0]),
        target=target,
        train_tissue=train_tissue,
        seed=0,
        settings={},
        batch_size=8,
        epochs=50,
        usability=quality,
        n_train_images=100,
        segbench_version="0",
        host="h",
        num_cpus=1,
        num_gpus=1,
        started_at=start,
        ended_at=start,
        folder=f"runs/{digits}/attempt-001",
    )
    return Record(
        attempt=attempt,
        phases={"train": 3600 * quality},
        evaluations=evaluations,
        images=[],
        resamples=[],
        history=[],
        tissues=shapes,
        gaps=[GapRow(test_task=task, test_tissue="all", metric="ap75", **_SHARES)],
        degraded=[degraded(task, *step) for step in (("none", 0, True, 0.8), ("blur", 1, False, 0.8 * quality))],
    )


def degraded(task: str, kind: str, step: int, clean: bool, score: float) -> DegradedRow:
    """Return a score on test images that are degraded, or as they are."""
    metrics = dict.fromkeys(("map", "ap50", "ap75", "ar", "ar50", "ar75"), score)
    counts = {"n_images": 10, "n_truth": 100, "n_predictions": 100}
    return DegradedRow(
        test_task=task, test_tissue="all", kind=kind, step=step, amount=step, clean=clean, **metrics, **counts
    )


@pytest.mark.filterwarnings("ignore::segbench.ResultsWarning")
@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_in_python_is_what_the_command_prints(store: Path, name: str) -> None:
    options, arguments = ASKED[name]
    results = segbench.Results(store)
    frame = getattr(results, name.replace("-", "_"))(**options)
    assert frame.height
    assert same(frame, asked("analyze", name, *arguments, "--out", store))
    for part in ANALYSES[name].parts:
        other = getattr(results, name.replace("-", "_"))(**options, part=part)
        assert same(other, asked("analyze", name, *arguments, "--part", part, "--out", store))
        assert other.equals(results.analyse(name, **options).part(part))
    published = segbench.Results.published().analyse(name, **options)
    assert same(published.table, asked("analyze", name, *arguments, "--store", "published"))


@pytest.mark.parametrize("name", ANALYSES)
def test_an_analysis_has_the_same_options_everywhere(name: str) -> None:
    analysis = ANALYSES[name]
    module, function = analysis.home.split(":")
    answer = inspect.signature(getattr(importlib.import_module(f"segbench.analysis.{module}"), function)).parameters
    method = inspect.signature(getattr(segbench.Results, name.replace("-", "_"))).parameters
    assert set(method) - {"self", "part"} == {option.name for option in analysis.options} <= set(answer)
    assert ("part" in method) == bool(analysis.parts)
    for option in analysis.options:
        missing = inspect.Parameter.empty
        wanted = missing if option.required else option.default
        assert method[option.name].default == answer[option.name].default == wanted, option.name
    assert set(segbench.Results.published().analyse(name, **ASKED[name][0]).parts) == set(analysis.parts)


def test_queries_runs_leaderboard_and_status_are_what_the_commands_print(store: Path) -> None:
    results = segbench.Results(str(store))
    sql = "select method, count(*) as n from accuracy group by method order by method"
    assert same(results.query(sql), asked("sql", sql, "--out", store))
    assert results.query("select count(*) from runs_latest where method = ?", ["slow"]).item() == 12
    assert same(results.leaderboard(), asked("sql", "select * from leaderboard", "--out", store))
    assert same(results.runs(method="quick"), asked("runs", "list", "-m", "quick", "--out", store))
    assert results.runs(task="tissuenet-nuclear-1ch", status="done").height == 6
    assert same_but_for_totals(results.status(), asked("grid", "status", "--out", store))
    with pytest.raises(SegbenchError, match="unknown status 'don'; did you mean done"):
        results.runs(status="don")


def test_results_are_read_only(store: Path) -> None:
    before = (store / "results.duckdb").read_bytes()
    for results in (segbench.Results(store), segbench.Results.published()):
        for sql in ("delete from attempts", "create table mine as select 1", "drop view leaderboard"):
            with pytest.raises(SegbenchError):
                results.query(sql)
        with pytest.raises(SegbenchError, match=r"disabled by configuration|Permission"):
            results.query("select * from read_csv('/etc/hostname')")
        assert results.leaderboard().height
    assert (store / "results.duckdb").read_bytes() == before


def test_what_limits_an_analysis_is_a_warning_that_points_at_the_caller(store: Path) -> None:
    with pytest.warns(segbench.ResultsWarning) as told:
        segbench.Results(store).ranking()
    assert {warning.filename for warning in told} == {__file__}
    assert any("ranking: study: Friedman's test needs three methods" in str(warning.message) for warning in told)
    findings = segbench.Results(store).analyse("ranking").findings
    assert findings[0].startswith("study: Quick has the highest overall score of 2 methods")


@pytest.mark.slow
def test_a_report_and_a_figure_are_written_where_they_are_told(store: Path, tmp_path: Path) -> None:
    results = segbench.Results(store)
    path = results.report(tmp_path / "mine.html", title="Mine", sections=["overview"], with_published=True)
    assert "<title>Mine</title>" in path.read_text()
    assert results.report(sections=["overview"]) == store / "report.html"
    assert results.report(tmp_path / "site", sections=["runs"], static=True) == tmp_path / "site" / "index.html"
    assert (tmp_path / "site" / "plotly.min.js").is_file()
    names = results.figures()["name"].to_list()
    drawn = results.plot(names[0], tmp_path / "figure.svg")
    assert drawn.read_text().startswith("<?xml")
    for refused, message in (
        (lambda: results.report(static=True), "path is missing"),
        (lambda: results.report(sections=["overvew"]), "did you mean overview"),
        (lambda: segbench.Results.published().report(), "the published scores have no report"),
        (lambda: segbench.Results.published().status(), "the published scores have no status"),
        (lambda: segbench.Results(tmp_path / "none").ranking(), "no results in"),
        (lambda: results.ranking(part="friedmann"), "did you mean friedman"),
        (lambda: results.analyse("ranking", weight={}), "unknown option of ranking 'weight'; did you mean weights"),
        (lambda: results.analyse("training-data", tissue="Skin"), "training-data needs task"),
    ):
        with pytest.raises(SegbenchError, match=message):
            refused()


def test_results_of_a_url_are_read_from_its_newest_snapshot(store: Path, tmp_path: Path) -> None:
    there = tmp_path / "bucket"
    there.mkdir()
    shutil.copy(store / "results.duckdb", there)
    results = segbench.Results(f"file://{there}")
    assert results.leaderboard().equals(segbench.Results(store).leaderboard())
    assert repr(results) == f"Results('file://{there}')"
    assert repr(segbench.Results.published()) == "Results.published()"


GRID = {"methods": ["watershed"], "tasks": ["face-wholecell"], "seeds": [0, 1]}


@pytest.fixture(scope="module")
def tiny() -> None:
    """Register a synthetic dataset of a few windows."""
    register(DatasetSpec("face", "synthetic", None, {"layout": "livecell", "seed": 11, "scale": 0.01}))


@pytest.mark.usefixtures("tiny")
def test_a_plan_is_what_the_command_prints(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(json.dumps(GRID))
    planned = segbench.plan(grid=GRID, out=tmp_path)
    assert [(one.run.method, one.run.seed, one.status) for one in planned] == [
        ("watershed", 0, "to do"),
        ("watershed", 1, "to do"),
    ]
    assert repr(planned) == "Plan(2 to do)"
    assert planned[:1][0] is planned[0]
    assert planned.frame().equals(segbench.plan(grid=str(file), out=tmp_path).frame())
    assert same_but_for_totals(planned.frame(), asked("grid", "plan", "--grid", file, "--out", tmp_path))
    paper = segbench.plan(preset="paper", methods="swin-s", budget_scale=0.5, num_gpus=0.5, out=tmp_path)
    options = ["--preset", "paper", "--method", "swin-s", "--budget-scale", "0.5", "--num-gpus", "0.5"]
    assert same_but_for_totals(paper.frame(), asked("grid", "plan", *options, "--out", tmp_path))
    assert paper.forecast().runs == len(paper) == 53


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "papr"}, "did you mean paper"),
        ({"preset": "paper", "dataset": "synthetic"}, "give one of preset, grid and dataset, found preset and dataset"),
        ({"grid": {"methods": ["watershed"]}}, "grid: field tasks is missing"),
        ({"grid": {**GRID, "sedes": [1]}}, "grid: unknown field 'sedes'; did you mean seeds"),
        ({"grid": {**GRID, "settings": {"watershed": {"smothing": 1}}}}, "grid: settings.watershed: unknown setting"),
        ({"grid": ["watershed"]}, "grid: a grid is a mapping"),
        ({"grid": "absent.yaml"}, "cannot read the grid file absent.yaml"),
        ({"methods": ["watershd"], "preset": "demo"}, "did you mean watershed"),
        ({"methods": 3}, "methods is 3; give one str, or a list of them"),
        ({"seeds": ["1"]}, "seeds has '1'; give one int"),
        ({"epochs": -1}, "epochs must be at least 0, found -1"),
        ({"num_gpus": 1.5}, "num_gpus must be a whole number where it is above 1, found 1.5"),
        ({"executor": "rai"}, "launch option executor must be 'ray' or 'inline', found 'rai'"),
    ],
)
def test_a_grid_that_cannot_be_is_told_in_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    for ask in (segbench.plan, segbench.launch):
        with pytest.raises(SegbenchError, match=message) as error:
            ask(**options, out=tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tiny", "local_ray")
def test_a_grid_is_launched_inline_and_on_ray_with_the_same_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inline = segbench.launch(grid=GRID, out=tmp_path / "inline", executor="inline", cpu=True, progress=True)
    assert inline.counts() == {"done": 2}
    assert "watershed / face-wholecell / all seed 1" in capsys.readouterr().err
    ray = segbench.launch(grid=GRID, out=str(tmp_path / "ray"), executor="ray", cpu=True)
    assert capsys.readouterr().err == ""
    columns = ["run_id", "method", "task", "train_tissue", "seed", "status", "ap50", "error"]
    assert ray.frame().select(columns).equals(inline.frame().select(columns))
    here, there = segbench.Results(inline.out), segbench.Results(ray.out)
    sql = "select * exclude attempt from evaluations order by all"
    assert here.query(sql).equals(there.query(sql))
    assert here.leaderboard()["ap50"].to_list() == pytest.approx([sum(one.ap50 or 0 for one in inline) / 2])
    assert set(here.status()["status"]) == {"done"}
    again = segbench.launch(grid=GRID, out=inline.out, executor="inline", cpu=True)
    assert again.frame().equals(inline.frame())
    assert segbench.plan(grid=GRID, out=inline.out).forecast().runs == 0


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_runs_that_fail_are_told_not_raised(tmp_path: Path) -> None:
    failed = segbench.launch(grid={**GRID, "seeds": [0]}, out=tmp_path, executor="inline", cpu=True, timeout_s=0.001)
    assert [one.status for one in failed.failed] == ["timeout"]
    assert failed.failed[0].error
    assert repr(failed) == f"Launched(1 timeout in {str(tmp_path)!r})"
