"""``import segbench``: instant, complete, and the same functions as the command line's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import segbench
from segbench.cli.app import app
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
