"""``segbench models`` as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tifffile
from typer.testing import CliRunner, Result

from segbench.cli.app import app
from segbench.engine.data.recipe import Recipe
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.grid.cards import get_card
from segbench.engine.models.trained import DESCRIPTION, TrainedModel, write_description
from segbench.errors import SegbenchError
from segbench.methods.card import Budget
from segbench.methods.job import Task


def models(*arguments: object) -> Result:
    """Run a command of the models; user's mistakes are raised as they are."""
    return CliRunner().invoke(app, ["models", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def nuclei(tmp_path: Path) -> Path:
    """Return the folder of a watershed model of nuclei."""
    folder = tmp_path / "nuclei"
    folder.mkdir()
    write_description(
        TrainedModel(
            name="nuclei",
            method="watershed",
            task=Task("mine-nuclear-1ch", "mine", ("nuclear",), "nuclear"),
            settings=get_card("watershed").defaults,
            budget=Budget(batch_size=1),
            recipe=Recipe(("nuclear",), PreparationSettings()),
        ),
        folder,
    )
    return folder


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Return a folder with two images of four cells each, and one that is broken."""
    folder = tmp_path / "scans"
    folder.mkdir()
    y, x = np.mgrid[:80, :90]
    for n in range(2):
        cells = sum(((y - a) ** 2 + (x - b) ** 2 < 80) for a in (20, 55) for b in (25, 60 + n))
        tifffile.imwrite(folder / f"scan{n}.tif", (cells * 900 + 100).astype(np.uint16))
    (folder / "scan9.tif").write_bytes(b"nothing")
    return folder


def test_a_model_is_applied_to_a_folder(nuclei: Path, scans: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    done = models("apply", nuclei, scans, "--to", to, "--write", "tiff,table,outlines", "--pixel-size", 0.5, "--cpu")
    assert done.exit_code == 1
    assert "2 of 3 images, 8 cells" in done.output
    assert "scan9.tif cannot be read" in done.output
    assert pl.read_csv(to / "scan0.cells.csv")["area_um2"].max() > 0
    (scans / "scan9.tif").unlink()
    again = models("apply", nuclei, scans, "--to", to, "--write", "tiff,table,outlines", "--pixel-size", 0.5)
    assert (again.exit_code, "2 were done before" in again.output) == (0, True)
    with pytest.raises(SegbenchError, match="another pixel-size"):
        models("apply", nuclei, scans, "--to", to, "--write", "tiff,table,outlines")


def test_several_models_are_compared_image_by_image(nuclei: Path, scans: Path, tmp_path: Path) -> None:
    (scans / "scan9.tif").unlink()
    other, to = tmp_path / "other", tmp_path / "out"
    other.mkdir()
    told = json.loads((nuclei / DESCRIPTION).read_text())
    told["settings"]["min_size"] = 60
    (other / DESCRIPTION).write_text(json.dumps(told | {"name": "other"}))
    done = models("apply", nuclei, other, scans, "--to", to, "--cpu", "--rank-images", "--format", "json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [(row["cells_nuclei"], row["cells_other"], row["consensus_cells"]) for row in rows] == [(4, 4, 4)] * 2
    assert all(row["agreement"] == 1 for row in rows)
    assert sorted(path.name for path in to.iterdir() if path.is_dir()) == [".apply", "consensus", "nuclei", "other"]


def test_what_cannot_be_meant_is_told_before_anything_is_done(nuclei: Path, scans: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    for arguments, words in (
        (("x", scans), "no model 'x'"),
        ((nuclei, tmp_path / "none.tif"), "does not exist"),
        ((nuclei, scans, "--write", "tif"), "did you mean tiff"),
        ((nuclei, scans, "--pixel-size", -1), "--pixel-size is above 0"),
        ((nuclei, scans, "--channels", "a,b"), "--channels names 2, the model sees nuclear"),
        ((nuclei, scans, "--overlap", 256), "overlap by 1 to 255"),
        ((nuclei, scans, "--project", "median"), "unknown projection"),
        ((nuclei, scans, "--rank-images"), "name two or more"),
        ((nuclei, nuclei), "name the images after the model"),
    ):
        with pytest.raises(SegbenchError, match=words):
            models("apply", *arguments, "--to", to, "--results", tmp_path / "results")
    assert not to.exists()
    assert "torch" not in sys.modules
