"""``segbench data`` as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from segbench.cli.data import app
from segbench.errors import SegbenchError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SEGBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def nuclei(tmp_path: Path) -> Path:
    """Write a folder dataset of four images with one square cell each."""
    folder = tmp_path / "My nuclei"
    folder.mkdir()
    rows = [("a", "train", "liver"), ("b", "train", "skin"), ("c", "test", "liver"), ("d", "test", "skin")]
    rng = np.random.default_rng(0)
    for name, _, _ in rows:
        labels = np.zeros((64, 64), np.uint16)
        labels[20:30, 20:30] = 1
        Image.fromarray((rng.integers(0, 50, labels.shape) + 150 * labels).astype(np.uint8)).save(
            folder / f"{name}.png"
        )
        Image.fromarray(labels).save(folder / f"{name}-mask.png")
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["image", "mask", "split", "tissue"], *([f"{n}.png", f"{n}-mask.png", s, t] for n, s, t in rows)]
        )
    return folder


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_a_folder_is_prepared_listed_and_shown(nuclei: Path, cache: Path, tmp_path: Path) -> None:
    result = _run("prepare", "folder", nuclei, "--target", "nuclear", "--channels", "dapi", "--pixel-size", "0.5")
    assert result.exit_code == 0, result.output
    assert "prepared my-nuclei train: 2 images" in result.stderr
    assert "tasks: my-nuclei-nuclear-1ch" in result.stdout
    assert "0.5 um a pixel" in result.stdout
    assert result.stderr.endswith("median diameter of 2 training cells (nuclear): 11.3 pixels (5.64 um)\n")
    assert str(cache) in result.stdout

    listed = {row["name"]: row for row in json.loads(_run("list", "--format", "json").stdout)}
    assert list(listed) == ["synthetic", "synthetic-livecell", "my-nuclei"]
    assert listed["my-nuclei"]["windows"] == 4
    assert listed["synthetic"]["prepared"] == "no"

    shown = _run("show", "my-nuclei", "--format", "csv", "--png", tmp_path / "p.png")
    rows = list(csv.DictReader(shown.stdout.splitlines()))
    assert [(row["split"], row["tissue"]) for row in rows] == [
        ("train", "liver"),
        ("train", "skin"),
        ("test", "liver"),
        ("test", "skin"),
    ]
    assert {(row["cells"], row["area"], row["elongation"]) for row in rows} == {("1", "100.0", "1.0")}
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width == 2 * 192


def test_preparing_again_tells_the_same_without_work(nuclei: Path, cache: Path) -> None:  # noqa: ARG001
    first = _run("prepare", "folder", nuclei, "--format", "json")
    again = _run("prepare", "folder", nuclei, "--format", "json")
    assert json.loads(first.stdout) == json.loads(again.stdout)
    assert "prepared my-nuclei" in first.stderr
    assert "prepared" not in again.stderr


@pytest.mark.slow
def test_a_synthetic_dataset_of_ones_own_is_prepared_by_name(cache: Path) -> None:  # noqa: ARG001
    result = _run(
        "prepare",
        "synthetic",
        "--layout",
        "livecell",
        "--name",
        "mine",
        "--seed",
        "3",
        "--scale",
        "0.2",
        "--format",
        "csv",
    )
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert {row["dataset"] for row in rows} == {"mine"}
    assert len(rows) == 3 * 8
    mine = json.loads(_run("list", "--format", "json").stdout)[-1]
    assert (mine["name"], mine["tasks"]) == ("mine", ["mine-wholecell"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("prepare", "folder"), "where are the data"),
        (("prepare", "folder", "/nowhere/cells"), "there is nothing at|is not a folder"),
        (("prepare", "synthetic", "/tmp"), "take no path"),
        (("prepare", "synthetic", "--target", "cell"), "--target is for kind folder"),
        (("prepare", "synthetic", "--layout", "tissue"), "did you mean tissuenet"),
        (("prepare", "livecell", "/tmp", "--seed", "4"), "are for kind synthetic"),
        (("prepare", "tissuenet", "/tmp", "--pixel-size", "0"), "micrometres above 0"),
        (("show", "synthetic"), r"not prepared: run segbench data prepare synthetic"),
        (("show", "sintetic"), "did you mean synthetic"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_no_cache(cache: Path, arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(SegbenchError, match=why) as caught:
        _run(*arguments)
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_a_failed_preparation_registers_nothing(nuclei: Path, cache: Path) -> None:
    (nuclei / "c-mask.png").write_bytes(b"broken")
    with pytest.raises(SegbenchError, match=r"dataset 'my-nuclei': .*c-mask.png cannot be read"):
        _run("prepare", "folder", nuclei)
    assert not cache.exists()


def test_help_has_examples() -> None:
    assert "segbench data prepare folder" in " ".join(_run("prepare", "--help").output.split())


def test_import_says_what_it_left_out_and_what_comes_next(tmp_path: Path, cache: Path) -> None:
    from segbench.engine.files.writers import write_geojson

    labels = np.zeros((40, 40), np.uint8)
    labels[5:20, 5:20] = 1
    for n, name in enumerate("abc"):
        Image.fromarray(np.random.default_rng(n).integers(0, 99, (40, 40)).astype(np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    for name in "ab":
        write_geojson(tmp_path / f"{name}.geojson", labels)
    target = tmp_path / "new"
    arguments = ["import", "geojson", str(tmp_path), "--to", str(target), "--split", "0.5,0.5", "--format", "json"]
    imported = CliRunner().invoke(app, [*arguments, "--tissue", "lung"])
    assert json.loads(imported.stdout) == [
        {"split": split, "tissue": "lung", "images": 1, "cells": 1} for split in ("train", "test")
    ]
    assert "note: 1 of 3 images have no annotations (c.png): left out (--keep-empty keeps them)" in imported.stderr
    prepared = CliRunner().invoke(app, ["prepare", "folder", str(target), "--format", "json"])
    assert prepared.exit_code == 0, prepared.output
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, SegbenchError)
    assert "exists already" in str(again.exception)
    assert cache.is_dir()
