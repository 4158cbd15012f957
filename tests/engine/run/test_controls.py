"""The controls lie where they belong on a metric's scale, are runs like any other, and are ranked with none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from segbench.analysis.registry import analyse
from segbench.analysis.source import Source
from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register, unregister
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.grid.controls import ANNOTATORS, CONTROLS, ONE_CELL, SHUFFLED, TRUTH, VORONOI
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store
from segbench.engine.run.controls import shifted, voronoi
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.engine.scheduler.again import finished_runs, redo
from segbench.errors import SegbenchError
from segbench.methods.job import Job

INLINE = LaunchOptions(executor="inline", cpu=True)
SCORES = "select method, ap50, map, ar from accuracy where test_tissue = 'all' and operation = 'none'"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResultsFolder]:
    """Return the controls on a small dataset, with the baseline beside them."""
    register(DatasetSpec("controlled", "synthetic", None, {"layout": "livecell", "seed": 4, "scale": 0.01}))
    folder = ResultsFolder(tmp_path_factory.mktemp("controls"))
    for request in (
        GridRequest.of(preset="controls", dataset="controlled"),
        GridRequest.of(dataset="controlled", methods="watershed"),
    ):
        launch(request, folder, INLINE)
    yield folder
    unregister("controlled")


def test_the_truth_scores_1_and_what_knows_nothing_of_the_cells_scores_next_to_0(out: ResultsFolder) -> None:
    scores = {row[0]: row[1:] for row in query(out, SCORES).rows()}
    assert scores.pop(TRUTH) == (1.0, 1.0, 1.0)
    baseline = scores.pop("watershed")
    assert set(scores) == {SHUFFLED, ONE_CELL, VORONOI}
    for control, (ap50, mean_ap, _) in scores.items():
        assert 0 <= mean_ap <= ap50 < 0.05 < 1, control
    assert 0 <= baseline[0] < 1


def test_they_are_runs_like_any_other_in_the_store_and_stand_in_no_ranking(out: ResultsFolder) -> None:
    rows = query(out, "select method, category, status, trained from runs_latest where method <> 'watershed'").rows()
    assert {(category, status, trained) for _, category, status, trained in rows} == {("control", "done", False)}
    assert query(out, "select method from leaderboard").rows() == [("watershed",)]
    source = Source.of_results(out)
    for analysis in ("ranking", "runtime", "usability"):
        assert set(analyse(analysis, source).table["method"]) <= {"watershed"}, analysis
    assert query(
        out, f"select control, ap50 from controls where control = '{TRUTH}' and test_tissue = 'all'"
    ).rows() == [("control-truth", 1.0)]
    assert check_store(out).faults == ()


def test_launching_again_runs_none_and_each_can_be_scored_and_made_again(out: ResultsFolder) -> None:
    assert launch(GridRequest.of(preset="controls", dataset="controlled"), out, INLINE)[1] is None
    ids = [row[0] for row in query(out, f"select run_id from runs_latest where method = '{VORONOI}'").rows()]
    for begins in ("evaluate", "predict"):
        for done in redo(out, finished_runs(out, ids), begins, cpu=True):  # type: ignore[arg-type]
            assert (done.status, done.ap50) == ("done", done.first_ap50)


def test_no_job_of_a_method_names_the_truth_of_the_test_images(out: ResultsFolder) -> None:
    jobs = [Job.read(path) for path in out.path.glob("runs/*/attempt-*/job.json")]
    assert {job.method for job in jobs} > set(CONTROLS) - {ANNOTATORS}
    assert all(arrays.labels is None for job in jobs for arrays in job.predict.values())


def test_a_control_is_no_method_that_could_be_applied_to_images() -> None:
    for name in CONTROLS:
        assert get_card(name).category == "control"
        with pytest.raises(SegbenchError, match="is a control"):
            method_object(name)


def test_truth_is_taken_of_another_picture_each_once() -> None:
    origins = ["a"] * 4 + ["b"] * 3 + ["c"] * 2 + ["d"]
    for seed in range(20):
        taken = shifted(origins, seed)
        assert sorted(taken) == list(range(10))
        assert all(origins[n] != origins[other] for n, other in enumerate(taken))
    with pytest.raises(SegbenchError, match="3 of 4 test windows are of one picture"):
        shifted(["a", "a", "a", "b"], 0)


def test_voronoi_cells_are_as_many_as_asked_for_and_fill_the_window() -> None:
    for cells in (1, 7, 500):
        labels = voronoi((64, 64), cells, np.random.default_rng(cells))
        assert np.array_equal(np.unique(labels), np.arange(1, cells + 1))
    assert not voronoi((64, 64), 0, np.random.default_rng(0)).any()


def write_annotated(folder: Path, experts: int) -> Path:
    """Write a folder dataset: a train image, a test image with so many annotations, a test image with one."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["image,mask,split"]
    for picture, split, many in (("train", "train", 1), ("alone", "test", 1), ("shared", "test", experts)):
        pixels = np.random.default_rng(sum(map(ord, picture))).integers(0, 255, (256, 256)).astype(np.uint8)
        for expert in range(many):
            labels = np.zeros((256, 256), np.uint16)
            for cell, top in enumerate(range(20, 220, 40), start=1):
                # each draws the same cells, a little further on
                labels[top : top + 20, 20 + 4 * expert : 60 + 4 * expert] = cell
            name = f"{picture}-{expert}"
            Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
            Image.fromarray(labels).save(folder / "masks" / f"{name}.png")
            rows.append(f"images/{name}.png,masks/{name}.png,{split}")
    (folder / "index.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize(("experts", "ap50"), [(1, None), (2, 1.0), (3, 1.0)])
def test_annotators_are_compared_where_a_picture_has_several(tmp_path: Path, experts: int, ap50: float | None) -> None:
    source = write_annotated(tmp_path / "data", experts)
    register(DatasetSpec(f"experts-{experts}", "folder", str(source), {"target": "cell"}))
    request = GridRequest.of(grid={"methods": [ANNOTATORS], "tasks": [f"experts-{experts}-cell-1ch"]})
    folder = ResultsFolder(tmp_path / "out")
    _, summary = launch(request, folder, INLINE)
    unregister(f"experts-{experts}")
    assert summary is not None
    (outcome,) = summary.outcomes
    if ap50 is None:
        assert "no test picture of dataset 'experts-1' has several annotations" in str(outcome.error)
        return
    scored = query(folder, "select ap50, ap75, n_truth from accuracy where test_tissue = 'all'").rows()
    # 36 of 44 columns are both experts', 32 of 48 where they are two apart
    assert scored == [(ap50, 1.0 if experts == 2 else pytest.approx(2 / 3, abs=0.05), 5 * experts)]


def test_the_preset_has_other_annotators_only_where_there_are_some(tmp_path: Path) -> None:
    from segbench.engine.data import ensure_prepared, get_spec
    from segbench.engine.scheduler.catalogue import known_datasets
    from segbench.engine.scheduler.request import runs_of

    for experts in (1, 2):
        source = write_annotated(tmp_path / str(experts), experts)
        register(DatasetSpec("experts", "folder", str(source), {"target": "cell"}))
        ensure_prepared(get_spec("experts"))
        runs = runs_of(GridRequest.of(preset="controls", dataset="experts"), known_datasets())
        assert ANNOTATORS in {run.method for run in runs} if experts == 2 else len(runs) == 4
        shutil.rmtree(source)
    unregister("experts")
    assert json.loads(json.dumps([run.id for run in runs])) == list(dict.fromkeys(run.id for run in runs))
