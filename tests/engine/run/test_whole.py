"""Whole images are scored beside windows where a grid says so: each cell once, whatever cuts it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from segbench.engine.data import DatasetSpec, PreparationSettings, PreparedDataset, ensure_prepared, register
from segbench.engine.data.whole import true_map, whole_images
from segbench.engine.grid.run import run_from_dict, run_to_dict
from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store
from segbench.engine.run.whole import evaluate_whole
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.engine.scheduler.again import redo
from segbench.engine.scheduler.planning import plan
from segbench.errors import SegbenchError
from segbench.methods.predictions import LabelInstances, MaskInstances, PredictionSet, PredictionWriter, run_lengths

Labels = npt.NDArray[np.int32]
SIZES = {"train": (256, 256), "test-large": (300, 560), "test-small": (90, 120)}


def _cells(height: int, width: int) -> Labels:
    """Return discs on a grid; every seam of windows cuts some."""
    y, x = np.mgrid[:height, :width]
    row, column = y // 28, x // 28
    labels = row * (width // 28 + 1) + column + 1
    inside = (y % 28 - 13) ** 2 + (x % 28 - 13) ** 2 < 11**2
    return np.unique(np.where(inside, labels, 0), return_inverse=True)[1].reshape(height, width).astype(np.int32)


@pytest.fixture
def truth(tmp_path: Path) -> dict[str, Labels]:
    """Write and register a folder of such images; return their label maps."""
    folder = tmp_path / "grid-cells"
    folder.mkdir()
    maps = {name: _cells(*size) for name, size in SIZES.items()}
    lines = ["image,mask,split,tissue"]
    for number, (name, labels) in enumerate(maps.items()):
        noise = np.random.default_rng(number).integers(0, 30, labels.shape)
        tifffile.imwrite(folder / f"{name}.tif", (100 + 900 * (labels > 0) + noise).astype(np.uint16))
        tifffile.imwrite(folder / f"{name}-mask.tif", labels.astype(np.uint16))
        lines.append(f"{name}.tif,{name}-mask.tif,{name.split('-')[0]},{name.split('-')[-1]}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    register(_spec(folder))
    return maps


def _spec(folder: Path, **settings: int) -> DatasetSpec:
    options = {"target": "cell", "channels": ["image"]}
    return DatasetSpec("grid-cells", "folder", str(folder), options, PreparationSettings(**settings))  # type: ignore[arg-type]


def _prepared(tmp_path: Path) -> PreparedDataset:
    return ensure_prepared(_spec(tmp_path / "grid-cells"))


def _predict(folder: Path, windows: Labels, kind: str) -> PredictionSet:
    """Write the truth of the windows as predictions."""
    with PredictionWriter(folder, kind, len(windows), 256, 256) as writer:  # type: ignore[arg-type]
        for labels in windows:
            scores = np.full(int(labels.max()), 0.5)
            counts = [run_lengths(labels == k) for k in range(1, scores.size + 1)]
            writer.add(LabelInstances(labels, scores) if kind == "labels" else MaskInstances(counts, scores))
    return PredictionSet(folder)


def test_the_windows_give_the_images_and_their_cells_back(tmp_path: Path, truth: dict[str, Labels]) -> None:
    data = _prepared(tmp_path)
    windows = np.load(data.labels_path("test", "cell"))
    large, small = whole_images(data, "test")
    assert (large.name, large.tissue, large.shape, len(large.rows)) == ("test-large.tif", "large", (300, 560), 6)
    assert small.shape == (256, 256), "an image that is smaller than a window is as large as that"
    found = true_map(windows, large)
    pairs = np.unique(np.stack([found.ravel(), truth["test-large"].ravel()]), axis=1)
    assert pairs.shape[1] == truth["test-large"].max() + 1
    assert np.array_equal(true_map(windows, small)[:90, :120] > 0, truth["test-small"] > 0)
    drop = ensure_prepared(_spec(tmp_path / "grid-cells", step=256))
    with pytest.raises(SegbenchError, match="do not overlap"):
        whole_images(drop, "test")


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_the_truth_scores_one_and_each_cell_counts_once(tmp_path: Path, truth: dict[str, Labels], kind: str) -> None:
    data = _prepared(tmp_path)
    windows = np.load(data.labels_path("test", "cell"))
    predictions = _predict(tmp_path / kind, windows, kind)
    whole = evaluate_whole(data, "cell", predictions)
    n_cells = {name.removeprefix("test-"): int(labels.max()) for name, labels in truth.items() if name != "train"}
    assert (whole.map, whole.pooled.n_truth, whole.pooled.n_images) == (1.0, sum(n_cells.values()), 2)
    assert {tissue: scores.n_truth for tissue, scores in whole.groups.items()} == n_cells
    assert {scores.n_predictions for scores in whole.groups.values()} == set(n_cells.values())
    in_windows = evaluate_prediction_set(windows, predictions)
    assert in_windows.pooled.n_truth > 1.3 * whole.pooled.n_truth


def test_a_cell_that_is_missed_lowers_the_recall_by_its_share(tmp_path: Path, truth: dict[str, Labels]) -> None:
    data = _prepared(tmp_path)
    windows = np.load(data.labels_path("test", "cell"))
    windows[0] = 0  # the first window sees nothing
    seen = [np.unique(labels, return_inverse=True)[1].reshape(256, 256).astype(np.int32) for labels in windows]
    whole = evaluate_whole(data, "cell", _predict(tmp_path / "blind", np.stack(seen), "labels"))
    # of columns 0..192 and of rows 0..44 no other window shows the cells whole
    lost = {int(v) for v in np.unique(truth["test-large"][:, :192]) if v} - {0}
    assert 0 < sum(n - f for n, f in [(whole.pooled.n_truth, whole.pooled.n_predictions)]) <= len(lost)
    assert 0.4 < whole.ar < 1


@pytest.mark.usefixtures("truth")
def test_a_grid_asks_for_whole_images_and_the_ids_of_others_stay(tmp_path: Path) -> None:
    _prepared(tmp_path)
    grid = {"methods": ["watershed"], "tasks": ["grid-cells-cell-1ch"]}
    plain, asked, whole = (
        plan(GridRequest.of(grid=grid | more), ResultsFolder(tmp_path / "none"))[0].run
        for more in ({}, {"evaluation": "windows"}, {"evaluation": "whole"})
    )
    assert plain == asked
    assert plain.id != whole.id
    assert "evaluation" not in run_to_dict(plain)
    assert run_from_dict(run_to_dict(whole)) == whole
    with pytest.raises(SegbenchError, match="field evaluation must be 'windows' or 'whole', found 'cells'"):
        GridRequest.of(grid=grid | {"evaluation": "cells"})


def test_a_run_leaves_both_and_the_store_says_which(tmp_path: Path, truth: dict[str, Labels]) -> None:
    out = ResultsFolder(tmp_path / "results")
    grid = {"methods": ["watershed"], "tasks": ["grid-cells-cell-1ch"], "evaluation": "whole"}
    _, summary = launch(GridRequest.of(grid=grid), out, LaunchOptions(executor="inline", cpu=True))
    assert summary is not None
    assert [outcome.status.value for outcome in summary.outcomes] == ["done"]
    n_cells = sum(int(labels.max()) for name, labels in truth.items() if name != "train")
    both = query(
        out, "select evaluation, n_images, n_truth from accuracy_by_evaluation where test_tissue = 'all' order by all"
    )
    assert both.rows()[0] == ("whole", 2, n_cells)
    assert both.rows()[1][:2] == ("windows", 7)
    ap50 = query(out, "select ap50 from whole_evaluations order by test_tissue").to_series()
    assert ap50.len() == 3
    assert ap50.min() > 0.9
    # what the analyses read holds windows alone
    assert query(out, "select count(*) from accuracy where operation = 'none'").item() == 3
    assert check_store(out).faults == ()


def test_a_finished_run_is_scored_on_whole_images_without_another_training(
    tmp_path: Path, truth: dict[str, Labels]
) -> None:
    out = ResultsFolder(tmp_path / "results")
    grid = {"methods": ["watershed"], "tasks": ["grid-cells-cell-1ch"]}
    ((run,), _) = launch(GridRequest.of(grid=grid), out, LaunchOptions(executor="inline", cpu=True))
    assert query(out, "select count(*) from whole_evaluations").item() == 0
    (again,) = redo(out, [run.id], "evaluate", whole=True)
    assert (again.of_run, again.status, again.ap50) == (run.id, "done", again.first_ap50)
    n_cells = sum(int(labels.max()) for name, labels in truth.items() if name != "train")
    both = query(
        out, "select of_run, n_truth from accuracy_by_evaluation where test_tissue = 'all' order by evaluation"
    )
    assert both.rows()[0] == (run.id, n_cells)
    assert query(out, "select count(*) from accuracy where operation = 'none'").item() == 3
