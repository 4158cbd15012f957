"""``segbench init``: from annotated images to a prepared dataset and a grid that fits the time, or to nothing."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.engine.data import get_spec, open_prepared
from segbench.engine.scheduler.first_grid import Machine, first_grid
from segbench.errors import SegbenchError

COMMAND = [sys.executable, "-c", "from segbench.cli.app import main; main()"]
Drawn = tuple[np.ndarray, np.ndarray]


def draw(seed: int) -> Drawn:
    """Return an image of 64 x 64 with six squares, and its label map."""
    labels = np.zeros((64, 64), np.uint16)
    for cell in range(6):
        y, x = 4 + 30 * (cell // 3), 3 + 20 * (cell % 3)
        labels[y : y + 12, x : x + 11] = cell + 1
    noise = np.random.default_rng(seed).integers(0, 30, labels.shape)
    return (noise + 150 * (labels > 0)).astype(np.uint8), labels


def corners(labels: np.ndarray, cell: int) -> list[list[int]]:
    """Return the rectangle around a cell."""
    ys, xs = np.nonzero(labels == cell)
    y, x, below, right = int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1
    return [[x, y], [right, y], [right, below], [x, below]]


def as_suffix(folder: Path) -> list[str]:
    (folder / "cells").mkdir()
    for n in range(6):
        image, labels = draw(n)
        tifffile.imwrite(folder / f"cells/f{n}.tif", image)
        tifffile.imwrite(folder / f"cells/f{n}_mask.tif", labels)
    return ["cells"]


def as_coco(folder: Path) -> list[str]:
    (folder / "cells").mkdir()
    images, cells = [], []
    for n in range(6):
        image, labels = draw(n)
        tifffile.imwrite(folder / f"cells/f{n}.tif", image)
        images.append({"id": n, "file_name": f"f{n}.tif", "width": 64, "height": 64})
        for cell in range(1, 7):
            outline = [value for point in corners(labels, cell) for value in point]
            cells.append({"id": 10 * n + cell, "image_id": n, "category_id": 1, "segmentation": [outline]})
    told = {"images": images, "annotations": cells, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "coco.json").write_text(json.dumps(told))
    return ["cells", "--annotations", "coco.json"]


def as_geojson(folder: Path) -> list[str]:
    (folder / "cells").mkdir()
    (folder / "qupath").mkdir()
    for n in range(6):
        image, labels = draw(n)
        meta = {"axes": "CYX", "unit": "um"}
        tifffile.imwrite(
            folder / f"cells/f{n}.tif", np.stack([image, image // 2]), imagej=True, metadata=meta, resolution=(2, 2)
        )
        outlines = [[*corners(labels, cell), corners(labels, cell)[0]] for cell in range(1, 7)]
        features = [
            {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [one]}}
            for one in outlines
        ]
        (folder / f"qupath/f{n}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return ["cells", "--annotations", "qupath", "--channels", "dapi,cd3"]


def as_folder(folder: Path) -> list[str]:
    as_suffix(folder)
    splits = ["train", "train", "train", "val", "test", "test"]
    rows = [f"f{n}.tif,f{n}_mask.tif,{split},gut" for n, split in enumerate(splits)]
    (folder / "cells/index.csv").write_text("\n".join(["image,mask,split,tissue", *rows, ""]))
    return ["cells"]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("layout", [as_suffix, as_coco, as_geojson, as_folder])
def test_every_kind_of_annotation_becomes_a_dataset_and_a_grid_that_can_be_launched(
    layout: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    given = layout(tmp_path)
    done = CliRunner().invoke(app, ["init", *given, "--name", "mine", "--time", "20min", "--cpu"])
    assert done.exit_code == 0, done.output
    prepared = open_prepared("mine")
    assert {split: prepared.n_windows(split) > 0 for split in prepared.splits} == {
        "train": True,
        "val": True,
        "test": True,
    }
    grid = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert grid["methods"] == ["watershed", "stardist", "cellpose"]
    assert grid["tasks"] == [task.name for task in prepared.tasks]
    planned = CliRunner().invoke(app, ["grid", "plan", "--grid", "mine.yaml", "--cpu", "--format", "json"])
    assert sum(row["hours"] for row in json.loads(planned.output)) < 20 / 60 * len(os.sched_getaffinity(0))
    if layout is as_geojson:
        assert prepared.channels == ("dapi", "cd3")
        assert prepared.pixel_size_um == 0.5
    if layout is not as_folder:
        assert (tmp_path / "mine-dataset/index.csv").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "there is nothing at nowhere"),
        ([], "Where are your images?"),
        (["cells", "--time", "5"], "such as 30min, 1h or 2d"),
        (["cells", "--method", "celpose"], "did you mean cellpose?"),
        (["cells", "--name", "My cells"], "name"),
        (["cells", "--name", "synthetic"], "built-in"),
        (["cells", "--grid", "there.yaml"], "there.yaml exists already"),
        (["cells", "--grid", "no/folder.yaml"], "there is no folder no"),
        (["cells", "--channels", "a,a"], "different names"),
        (["cells", "--kind", "coco"], "no .json file"),
        (["cells", "--to", "cells"], "exists already"),
        (["cells", "--split", "0.9"], "--split"),
        (["empty"], "--kind"),
    ],
)
def test_what_cannot_be_is_told_in_a_line_and_leaves_nothing(words: list[str], told: str, tmp_path: Path) -> None:
    as_suffix(tmp_path)
    (tmp_path / "there.yaml").touch()
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["init", *words])
    assert isinstance(done.exception, SegbenchError)
    assert told in str(done.exception)
    assert "\n" not in str(done.exception)
    assert [path for path in sorted(tmp_path.rglob("*")) if "cache" not in path.parts] == before


def test_a_name_of_other_data_is_not_taken_over(tmp_path: Path) -> None:
    given = as_suffix(tmp_path)
    assert CliRunner().invoke(app, ["init", *given, "--name", "mine"]).exit_code == 0
    (tmp_path / "mine.yaml").unlink()
    again = CliRunner().invoke(app, ["init", *given, "--name", "mine", "--to", "other"])
    assert "dataset 'mine' is of" in str(again.exception)
    assert get_spec("mine").source == str(tmp_path / "mine-dataset")
    assert not (tmp_path / "other").exists()


def test_budgets_fit_the_time_and_the_machine(tmp_path: Path) -> None:
    CliRunner().invoke(app, ["init", *as_suffix(tmp_path), "--name", "mine"])
    prepared = open_prepared("mine")
    machine = Machine(2, 0, 16.0)
    hours = [first_grid(prepared, seconds, machine).seconds for seconds in (240.0, 600.0, 3600.0)]
    assert hours == sorted(hours)
    assert all(found <= asked for found, asked in zip(hours, (240.0, 600.0, 3600.0), strict=True))
    assert hours[0] > 120
    # no time is enough for less than one epoch: that is told
    assert "leave out a method" in first_grid(prepared, 5.0, machine).notes[-1]
    small = first_grid(prepared, 600.0, Machine(2, 0, 4.0))
    assert "cellpose asks for 6 GB" in small.notes[1]
    assert yaml.safe_load(small.text)["resources"] == {"stardist": {"memory_gb": 3.6}, "cellpose": {"memory_gb": 3.6}}


def test_on_a_terminal_it_asks_for_what_is_not_given(tmp_path: Path) -> None:
    as_suffix(tmp_path)
    here, there = pty.openpty()
    variables = {**os.environ, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "100"}
    with subprocess.Popen([*COMMAND, "init"], stdin=there, stdout=there, stderr=there, env=variables) as process:
        os.close(there)
        told = ""
        for question, answer in (
            ("Where are your images?", "cels"),
            ("there is nothing at cels", "cells"),
            ("How are they annotated? [suffix]", ""),
            ("called? [cells]", "asked"),
            ("What do the masks label", "nucleus"),
            ("unknown target 'nucleus'", "nuclear"),
            ("What does the channel show? [image]", "dapi"),
            ("How wide is a pixel, in micrometres? [unknown]", "0.65"),
            ("How long may the first grid take here", "10min"),
        ):
            told = _until(here, question, told)
            os.write(here, f"{answer}\n".encode())
        _until(here, "begin: segbench grid launch --grid asked.yaml", told)
        assert process.wait(60) == 0
    os.close(here)
    prepared = open_prepared("asked")
    assert (prepared.targets, prepared.channels, prepared.pixel_size_um) == (("nuclear",), ("dapi",), 0.65)


def _until(terminal: int, words: str, told: str) -> str:
    """Read a terminal until it shows words; return what came after them."""
    end = time.monotonic() + 120
    while words not in " ".join(told.split()):
        assert time.monotonic() < end, told
        if select.select([terminal], [], [], 1)[0]:
            told += os.read(terminal, 65536).decode()
    return ""
