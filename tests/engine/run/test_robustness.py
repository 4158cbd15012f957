"""A run's model is applied to degraded test images without another training, at once or when it is finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from segbench.analysis.registry import analyse
from segbench.analysis.source import Source
from segbench.engine.data import DatasetSpec
from segbench.engine.data.registry import register, unregister
from segbench.engine.grid import run_from_dict, run_to_dict
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.check import check_store
from segbench.engine.run.robustness import changed_instances
from segbench.engine.scheduler import GridRequest, LaunchOptions, launch
from segbench.engine.scheduler.again import finished_runs, redo
from segbench.engine.scheduler.events import Note
from segbench.engine.scheduler.planning import plan
from segbench.errors import SegbenchError
from segbench.methods.predictions import LabelInstances, MaskInstances, run_lengths

INLINE = LaunchOptions(executor="inline", cpu=True)
GRID = {"methods": ["watershed", "control-truth"], "tasks": ["worse-wholecell"]}
COUNTS = (
    "select kind, clean, count(*) as n from degraded_evaluations where test_tissue = 'all' group by all order by 1, 2"
)


@pytest.fixture(scope="module")
def dataset() -> Iterator[str]:
    """Return the name of a small dataset of one channel."""
    register(DatasetSpec("worse", "synthetic", None, {"layout": "livecell", "seed": 4, "scale": 0.01}))
    yield "worse"
    unregister("worse")


@pytest.fixture(scope="module")
def out(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    """Return a finished run that was tried with two kinds, and a control."""
    folder = ResultsFolder(tmp_path_factory.mktemp(dataset))
    _, summary = launch(GridRequest.of(grid=GRID | {"robustness": ["noise", "larger"]}), folder, INLINE)
    assert summary is not None
    assert [outcome.status.value for outcome in summary.outcomes] == ["done", "done"]
    return folder


def test_every_step_is_scored_and_the_predictions_on_it_are_gone(out: ResultsFolder) -> None:
    assert query(out, COUNTS).rows() == [
        ("larger", False, 4),
        ("larger", True, 4),
        ("noise", False, 4),
        ("none", True, 1),
    ]
    clean, first, last = (
        query(out, f"select ap50 from degraded_evaluations where test_tissue = 'all' and {which}").item()
        for which in ("kind = 'none'", "kind = 'noise' and step = 1", "kind = 'noise' and step = 4")
    )
    assert clean == query(out, "select ap50 from leaderboard").item()
    assert last < first
    assert not list(out.path.glob("runs/*/attempt-*/degraded*"))
    assert query(out, "select count(distinct resample) from degraded_resamples").item() == 200
    assert check_store(out).faults == ()


def test_ids_stay_and_a_launch_says_how_finished_runs_are_tried(out: ResultsFolder) -> None:
    plain, asked = (
        plan(GridRequest.of(grid=GRID | more), ResultsFolder(out.path / "none"))[0].run
        for more in ({}, {"robustness": "all"})
    )
    assert plain.id == asked.id
    assert "robustness" not in run_to_dict(plain)
    assert run_from_dict(run_to_dict(asked)) == asked
    told: list[object] = []
    assert (
        launch(GridRequest.of(grid=GRID | {"robustness": ["noise", "swap", "dim"]}), out, INLINE, told.append)[1]
        is None
    )
    notes = [note.text for note in told if isinstance(note, Note)]
    assert [note.partition(": ")[2] for note in notes] == [
        f"segbench runs robustness {asked.id} --kind dim --out {out}"
    ]


def test_a_finished_run_is_tried_later_and_the_analysis_takes_the_latest_of_each_kind(out: ResultsFolder) -> None:
    chosen = finished_runs(out, every=True, controls=False)
    (again,) = redo(out, chosen, "predict", robustness=["noise", "blur"])
    assert (again.of_run, again.status, again.ap50) == (chosen[0], "done", again.first_ap50)
    found = analyse("robustness", Source.of_results(out))
    assert found.table["kind"].unique(maintain_order=True).to_list() == ["blur", "larger", "noise"]
    assert found.table.height == 12
    (one,) = found.part("methods").iter_rows(named=True)
    assert (one["method"], one["kinds"], one["runs"]) == ("watershed", 3, 1)
    assert 0 < one["low"] <= one["robustness"] <= one["high"]
    kept = [group["kept"].mean() for _, group in found.table.group_by("kind")]
    assert one["robustness"] == pytest.approx(np.mean(kept))


def test_wrong_kinds_and_controls_are_refused_in_one_line(out: ResultsFolder) -> None:
    with pytest.raises(SegbenchError, match=r"field robustness .*blurr.*blur"):
        GridRequest.of(grid=GRID | {"robustness": ["blurr"]})
    control = query(out, "select run_id from runs_latest where category = 'control'").item()
    with pytest.raises(SegbenchError, match="is a control"):
        finished_runs(out, [control], controls=False)
    with pytest.raises(SegbenchError, match="kind of robustness 'fog'"):
        list(redo(out, [control], "predict", robustness=["fog"]))


def test_what_is_left_of_instances_keeps_its_score(tmp_path: Path) -> None:  # noqa: ARG001
    labels = np.array([[1, 1, 0, 0], [0, 0, 2, 3]], np.int32)
    scores = np.array([0.9, 0.5, 0.7])

    def left_half(found: np.ndarray) -> np.ndarray:
        return np.where(np.arange(4) < 3, found, 0).astype(np.int32) * (np.arange(2)[:, None] == 1)

    kept = changed_instances(LabelInstances(labels, scores), (2, 4), left_half)
    assert isinstance(kept, LabelInstances)
    assert (kept.labels.tolist(), kept.scores.tolist()) == ([[0, 0, 0, 0], [0, 0, 1, 0]], [0.5])
    masks = MaskInstances([run_lengths(labels == n) for n in (1, 2, 3)], scores)
    kept = changed_instances(masks, (2, 4), left_half)
    assert isinstance(kept, MaskInstances)
    assert [counts.tolist() for counts in kept.counts] == [run_lengths(labels == 2).tolist()]
    assert kept.scores.tolist() == [0.5]
