"""A trained model is found by its run or its folder, described, and read again; what is none is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from segbench.cli.app import app
from segbench.engine.models.trained import (
    DESCRIPTION,
    TrainedModel,
    describe,
    find_model,
    is_named_model,
    write_description,
)
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.errors import SegbenchError


def run_of(results: ResultsFolder, method: str) -> str:
    """Return the id of a method's run."""
    return str(query(results, "select run_id from attempts where method = ?", [method]).item())


@pytest.fixture
def model(results: ResultsFolder) -> TrainedModel:
    """Return the trained one."""
    return find_model(run_of(results, "threshold")[:6], results)


@pytest.fixture
def alone(model: TrainedModel, tmp_path: Path) -> Path:
    """Return the folder of a model on its own."""
    folder = tmp_path / "alone"
    folder.mkdir()
    assert model.folder is not None
    shutil.copytree(model.folder, folder / "model")
    write_description(model, folder)
    return folder


def test_a_run_tells_what_its_model_is(model: TrainedModel, results: ResultsFolder) -> None:
    assert model.name == model.run_id == run_of(results, "threshold")
    assert (model.method, model.task.name, model.task.channels) == ("threshold", "models-wholecell", ("phase",))
    assert (model.train_tissue, model.settings["margin"], model.budget.batch_size) == ("BV2", 0.1, 1)
    assert (model.recipe.channels, model.recipe.preparation.window) == (("phase",), 256)
    assert model.diameter_px is not None
    assert model.folder is not None
    assert (model.folder / "value.npy").is_file()
    assert find_model(run_of(results, "watershed"), results).folder is None


def test_a_model_on_its_own_is_the_same_model(model: TrainedModel, alone: Path, results: ResultsFolder) -> None:
    found = find_model(alone, results)
    assert found.folder == alone / "model"
    assert dataclasses.replace(found, folder=None) == dataclasses.replace(model, folder=None)


def test_an_older_run_is_told_by_its_dataset(model: TrainedModel, results: ResultsFolder, tmp_path: Path) -> None:
    out = ResultsFolder(tmp_path / "old")
    shutil.copytree(results.path, out.path)
    kept = out.attempt(model.name, 1).recipe
    kept.unlink()
    assert find_model(model.name, out).recipe == model.recipe
    attempt = out.attempt(model.name, 1)
    record = attempt.read_record()
    changed = record.attempt.model_copy(update={"dataset_fingerprint": "0" * 24})
    record.model_copy(update={"attempt": changed}).write(attempt.record)
    with pytest.raises(SegbenchError, match="dataset 'models' is not prepared here as it was then"):
        find_model(model.name, out)
    attempt.record.write_text(attempt.record.read_text().replace("0" * 24, "1" * 24))
    with pytest.raises(SegbenchError, match=r"was changed after it was written: .* 'segbench store check' tells"):
        find_model(model.name, out)


def test_what_is_no_model_is_told_in_one_line(model: TrainedModel, results: ResultsFolder, tmp_path: Path) -> None:
    near = model.name[:-1] + ("0" if model.name[-1] != "0" else "1")
    for text, words in ((near, f"did you mean {model.name}"), ("../x", "no run in")):
        with pytest.raises(SegbenchError, match=words):
            find_model(text, results)
    with pytest.raises(SegbenchError, match="there is no run in"):
        find_model("abc", ResultsFolder(tmp_path / "none"))
    with pytest.raises(SegbenchError, match="holds no model"):
        find_model(tmp_path, results)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 99}, "field schema is 99"),
        ({"method": "thresold"}, "did you mean threshold"),
        ({"settings": {"margin": 0.1}}, "setting fail of threshold is missing"),
        ({"settings": {"margin": 7}}, r"settings.margin: found 7"),
        ({"task": {"name": "t", "dataset": "d", "channels": ["red"], "target": "cell"}}, "unknown channel 'red'"),
        ({"task": None}, "does not describe a model"),
        ({"recipe": {"channels": ["phase"]}}, "field 'rescaling' is missing"),
        ({"budget": {"batch_size": 0}}, "batch_size is 0"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(alone: Path, changes: dict[str, object], words: str) -> None:
    told = json.loads((alone / DESCRIPTION).read_text())
    (alone / DESCRIPTION).write_text(json.dumps(told | changes))
    with pytest.raises(SegbenchError, match=words):
        find_model(alone, ResultsFolder(alone))


def test_weights_that_are_missing_are_told(alone: Path, model: TrainedModel) -> None:
    assert describe(model)["name"] == model.name
    (alone / "model" / "model.json").unlink()
    with pytest.raises(SegbenchError, match="holds no finished model of threshold"):
        find_model(alone, ResultsFolder(alone))


def test_a_packed_model_segments_the_same_elsewhere(
    model: TrainedModel, results: ResultsFolder, tmp_path: Path
) -> None:
    def models(*arguments: object) -> None:
        done = CliRunner().invoke(app, ["models", *map(str, arguments)], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    package, elsewhere = tmp_path / "cells.zip", ResultsFolder(tmp_path / "elsewhere")
    images = tmp_path / "images"
    images.mkdir()
    for n in range(3):
        pixels = np.kron(np.random.default_rng(n).integers(0, 200, (12, 14), dtype=np.uint8), np.ones((9, 9), np.uint8))
        tifffile.imwrite(images / f"{n}.tif", pixels)
    models("apply", model.name, images, "--to", tmp_path / "here", "--write", "all", "--results", results, "--cpu")
    models("export", model.name, "--to", package, "--name", "cells", "--licence", "MIT", "--results", results)
    models("import", package, "--results", elsewhere)
    for number, name in enumerate(("cells", str(package))):
        assert is_named_model(name, elsewhere)
        models("apply", name, images, "--to", tmp_path / f"there{number}", "--results", elsewhere, "--cpu")
        for n in range(3):
            first, second = (tifffile.imread(tmp_path / to / f"{n}.labels.tif") for to in ("here", f"there{number}"))
            assert first.max() > 0
            assert np.array_equal(first, second)


def test_arguments_are_told_apart(results: ResultsFolder, alone: Path, tmp_path: Path) -> None:
    assert [is_named_model(text, results) for text in ("28832d", str(alone), "x.tif", str(tmp_path), "scans/*")] == [
        True, True, False, False, False,
    ]  # fmt: skip
