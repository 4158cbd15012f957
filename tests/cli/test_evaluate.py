"""``segbench evaluate`` and ``segbench sweep`` read folders, stacks and COCO JSON, and tell mistakes in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.cli.sweep import radii_of
from segbench.errors import SegbenchError
from segbench.methods.predictions import LabelInstances, PredictionWriter


def rows(*arguments: object) -> list[dict[str, object]]:
    """Run a command and return the rows that it prints as JSON."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--format", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def cells(shift: int = 0) -> np.ndarray:
    labels = np.zeros((24, 30), np.uint16)
    for k in range(6):
        y, x = 2 + 11 * (k % 2), 1 + 10 * (k // 2)
        labels[y : y + 8, x + shift : x + shift + 7] = 10 * k + 5
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three maps a folder, as PNG and TIFF; the predictions are better from map to map."""
    truth, found = tmp_path / "truth", tmp_path / "found"
    truth.mkdir()
    found.mkdir()
    for n, name in enumerate(("a1", "a2", "b1")):
        Image.fromarray(cells()).save(truth / f"{name}.png")
        tifffile.imwrite(found / f"{name}.tif", cells(2 - n), compression="zlib")
    return truth, found


def test_folders_are_paired_by_name_and_grouped(folders: tuple[Path, Path], tmp_path: Path) -> None:
    groups = tmp_path / "index.csv"
    groups.write_text("image,tissue\nimages/b1.png,Lung\na1,Colon\na2,Colon\n")
    found = rows("evaluate", *folders, "--groups", groups)
    assert [row["subset"] for row in found] == ["all", "Colon", "Lung"]
    assert [row["truth"] for row in found] == [18, 12, 6]
    assert found[2]["map"] == pytest.approx(1.0)
    assert found[1]["map"] < found[0]["map"] < found[2]["map"]


def test_stacks_give_the_same_as_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    stacks = tmp_path / "truth.npy", tmp_path / "found.tif"
    np.save(stacks[0], np.stack([cells()] * 3))
    tifffile.imwrite(stacks[1], np.stack([cells(2), cells(1), cells(0)]), photometric="minisblack")
    assert rows("evaluate", *stacks, "--areas", "coco") == rows("evaluate", *folders, "--areas", "coco")
    assert rows("evaluate", *stacks, "--threads", "2") == rows("evaluate", *folders)


def test_scores_decide_the_order(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def scored(good: float, bad: float) -> list[dict[str, object]]:
        table = tmp_path / "scores.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "label", "score"])
            for name, score in (("a1", bad), ("a2", bad), ("b1", good)):
                writer.writerows([name, label, score] for label in range(55, 0, -10))
        return rows("evaluate", *folders, "--scores", table)

    assert scored(0.9, 0.1)[0]["ap75"] > scored(0.1, 0.9)[0]["ap75"]


@pytest.mark.slow
def test_cells_intervals_and_rows_an_image(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (metrics,) = rows("evaluate", *folders, "--cells", "--per-image", tmp_path / "images.csv")
    assert metrics["f1_50"] == 1.0
    assert 0 < metrics["pq"] < 1
    counts = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert [int(row["tp_95"]) for row in counts] == [0, 0, 6]
    intervals = {row["metric"]: row for row in rows("evaluate", *folders, "--bootstrap", "50")}
    assert intervals["map"]["low"] < intervals["map"]["value"] < intervals["map"]["high"]


def test_the_gap_is_told_by_kinds_of_error(folders: tuple[Path, Path]) -> None:
    kinds = ("missed", "split", "merged", "spurious", "loose")
    scored, gaps = rows("evaluate", *folders)[0], rows("evaluate", *folders, "--diagnose")
    for row in gaps:
        assert row["score"] == scored[row["metric"]]
        assert sum(row[kind] for kind in kinds) == pytest.approx(1 - row["score"])
    assert gaps[0]["loose"] > 0.1
    arguments = ["evaluate", *map(str, folders), "--diagnose"]
    assert "by quarters of size and density" in CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    with pytest.raises(SegbenchError, match="--diagnose tells errors"):
        CliRunner().invoke(app, [*arguments, "--cells"], catch_exceptions=False)


@pytest.mark.slow
def test_a_runs_predictions_are_read_with_their_scores(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with PredictionWriter(tmp_path / "predictions", "labels", 3, 24, 30) as writer:
        for shift in (2, 1, 0):
            labels = (cells(shift).astype(np.int32) + 5) // 10
            writer.add(LabelInstances(labels, np.full(6, 0.3 - shift / 10)))
    ours = rows("evaluate", folders[0], tmp_path / "predictions")[0]
    assert ours["ap75"] > rows("evaluate", *folders)[0]["ap75"]
    assert rows("sweep", folders[0], tmp_path / "predictions", "--dilate", "0")[0]["map"] == ours["map"]


@pytest.mark.slow
def test_sweep_prints_a_row_a_radius(tmp_path: Path) -> None:
    eroded = tmp_path / "eroded.npy"
    small = np.zeros((3, 24, 30), np.int32)
    small[:, 3:9, 2:7] = 1
    np.save(eroded, small)
    truth = tmp_path / "one.npy"
    whole = np.zeros((3, 24, 30), np.int32)
    whole[:, 2:10, 1:8] = 4
    np.save(truth, whole)
    found = rows("sweep", truth, eroded, "--dilate", "0:2", "--erode", "1,3")
    assert [(row["operation"], row["radius"]) for row in found] == [
        ("dilate", 0), ("dilate", 1), ("dilate", 2), ("erode", 1), ("erode", 3),
    ]  # fmt: skip
    assert max(found, key=lambda row: row["map"])["radius"] == 1
    assert found[-1]["predictions"] == 0
    crossed = rows("sweep", truth, eroded, "--dilate", "1", "--structure", "cross")
    assert crossed[0]["ar75"] == 1.0


def test_coco_json_with_area_ranges(tmp_path: Path) -> None:
    square = [[2, 2, 2, 6, 6, 6, 6, 2]]
    truth = {
        "images": [{"id": 1, "height": 9, "width": 9}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": square, "area": 16, "bbox": [2, 2, 4, 4]}
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "segmentation": square, "score": 0.5}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    by_area = rows("evaluate", tmp_path / "truth.json", tmp_path / "found.json", "--areas", "livecell")
    assert [row["subset"] for row in by_area] == ["all", "area small", "area medium", "area large"]
    assert [row["ar"] for row in by_area] == [1.0, 1.0, None, None]
    with pytest.raises(SegbenchError, match="give both as JSON"):
        rows("evaluate", tmp_path / "truth.json", tmp_path)


def test_mistakes_are_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    truth, found = folders
    scores = tmp_path / "scores.csv"

    def told(message: str, *arguments: object) -> None:
        with pytest.raises(SegbenchError, match=message):
            rows(*arguments)

    told("does not exist", "evaluate", tmp_path / "nowhere", found)
    told("has no label maps; they end in .png", "evaluate", tmp_path, found)
    (found / "a1.tif").rename(found / "a9.tif")
    told("found lacks 'a1'", "evaluate", truth, found)
    (found / "a9.tif").rename(found / "a1.tif")
    (truth / "b1.png").unlink()
    told("found has 'b1' beyond the truth", "evaluate", truth, found)
    Image.fromarray(np.arange(2160).reshape(24, 30, 3).astype(np.uint8)).save(truth / "b1.png")
    told(r"b1.png is a colour picture", "evaluate", truth, found)
    (truth / "b1.png").write_bytes(b"no image")
    told(r"b1.png cannot be read", "evaluate", truth, found)
    scores.write_text("image,score\n")
    told(
        "scores.csv has the columns image, score; it needs image, label, score",
        "evaluate",
        truth,
        found,
        "--scores",
        scores,
    )
    scores.write_text("image,label,score\na1,x,0.5\n")
    told("line 2: label 'x'", "evaluate", truth, found, "--scores", scores)
    scores.write_text("image,group\na1,g\n")
    told("gives no group for 'a2', 'b1'", "evaluate", truth, found, "--groups", scores)
    told("the radii '3:1' are not understood", "sweep", truth, found, "--dilate", "3:1")


@pytest.mark.parametrize("text", ["", "a", "1:", "5:1", "1;2", "0:9:0", "-1"])
def test_radii_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SegbenchError, match="write 0:20"):
        radii_of(text)
