"""What was measured of a method is kept in the store, comes before published hours, and tells what does not fit."""

from __future__ import annotations

import dataclasses
import gzip
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from segbench.cli.app import app
from segbench.engine.grid import Run
from segbench.engine.grid.cards import get_card
from segbench.engine.order import CPU, History, expected_seconds
from segbench.engine.order.measured import Line, Point, Profiles, fit_line
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.measurements import Measurement, keep_measurement, read_measurements
from segbench.engine.results.store import StoreWriter
from segbench.engine.results.store.merge import merge_results
from segbench.engine.results.store.recovery import take_in
from segbench.engine.results.store.writer import remove_store
from segbench.engine.run.measure import What, measure_method
from segbench.engine.scheduler import GridRequest, LaunchOptions, Note, launch
from segbench.engine.scheduler.fitting import fitted, memory_notes
from segbench.engine.scheduler.grids import plan
from segbench.engine.scheduler.history import read_history
from segbench.errors import SegbenchError
from segbench.methods.card import Budget, Resources
from segbench.methods.job import Task

STORE = Path(__file__).parents[2] / "stores" / "release-0.1.0" / "results"
TASK = Task("tissuenet-nuclear-1ch", "tissuenet", ("nuclear",), "nuclear")
GB = 10**9


def run_of(share: float = 0.25, batch: int = 8, **resources: Any) -> Run:
    card = get_card("mask-rcnn")
    asked = Resources(num_gpus=share, **resources)
    budget = Budget(batch_size=batch, epochs=2)
    return Run("r", "mask-rcnn", TASK, "all", 0, budget, card.defaults, "f" * 24, asked, True)


def row(stage: str = "train", batch: int = 4, held: float = 10, **changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "measurement": "aaaaaaaaaaaa", "stage": stage, "batch": batch, "method": "mask-rcnn", "precision": "auto",
        "settings": get_card("mask-rcnn").defaults, "device": "NVIDIA H100", "device_bytes": 80 * GB, "num_cpus": 4,
        "side": 256, "n_channels": 1, "windows_per_s": 40.0, "bytes": int(held * GB), "segbench_version": "0",
        "host": "h", "measured_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return Measurement(**{**fields, **changes})


ROWS = [row(batch=4, held=12), row(batch=8, held=22), row("predict", 1, held=3, windows_per_s=100.0)]
"""2 GB and 2.5 GB a window in training."""


def profiles(*rows: Measurement) -> Profiles:
    names = [field.name for field in dataclasses.fields(Point)]
    return Profiles([Point(**{name: getattr(one, name) for name in names}) for one in rows])


@pytest.fixture
def out(tmp_path: Path) -> ResultsFolder:
    """Return a results folder with a measurement in its store."""
    folder = ResultsFolder(tmp_path / "out")
    keep_measurement(folder, ROWS)
    assert StoreWriter(folder).add_measurements() == 1
    return folder


def test_measurements_are_read_as_they_were_kept_and_taken_in_once(out: ResultsFolder) -> None:
    assert read_measurements(out) == ROWS
    assert StoreWriter(out).add_measurements() == 0


def test_a_store_that_is_built_anew_or_merged_has_them(out: ResultsFolder, tmp_path: Path) -> None:
    remove_store(out.store)
    take_in(out, StoreWriter(out))
    assert read_measurements(out) == ROWS
    (out.path / "runs").mkdir()
    other = ResultsFolder(tmp_path / "other")
    merge_results([out], other)
    assert read_measurements(other) == ROWS


def test_a_store_of_the_last_release_has_none_until_something_is_measured(tmp_path: Path) -> None:
    old = ResultsFolder(tmp_path / "old")
    shutil.copytree(STORE, old.path)
    packed = old.path / "results.duckdb.gz"
    old.store.write_bytes(gzip.decompress(packed.read_bytes()))
    assert read_measurements(old) == []
    assert len(read_history(old).by_method) > 0
    keep_measurement(old, ROWS)
    StoreWriter(old).add_measurements()
    assert read_measurements(old) == ROWS


def test_what_was_measured_comes_before_published_hours_and_after_finished_runs(out: ResultsFolder) -> None:
    history = read_history(out, {("f" * 24, "all"): 1000})
    swin = run_of()
    expected = expected_seconds(swin, history, device="H100")
    # 2 epochs of 1,000 windows at 40 a second, TissueNet's test windows at 100, and what is fixed
    assert (expected.source, expected.seconds) == ("measured", pytest.approx(2000 / 40 + 1324 / 100 + 30))
    assert expected_seconds(swin, history, device="A100").source == "published"
    assert expected_seconds(swin, history, device=CPU).source == "default"
    assert expected_seconds(swin, History(), device="H100").source == "published"


def test_windows_of_another_size_count_by_their_pixels() -> None:
    small = profiles(*(one.model_copy(update={"side": 128}) for one in ROWS))
    found = small.of(run_of(), "gpu")
    assert found is not None
    assert found.windows_per_s == {"train": 10.0, "predict": 25.0}


def test_a_share_that_is_too_small_is_told_with_the_share_and_the_batch_that_fit() -> None:
    known = profiles(*ROWS)
    assert memory_notes(run_of(0.25, 8), known, "H100") == (
        "mask-rcnn was measured to hold 22 GB at batch 8 on NVIDIA H100, more than 0.25 of its 80 GB: "
        "--num-gpus 0.28 or --batch-size 7",
    )
    assert memory_notes(run_of(0.28, 8), known, "H100") == ()
    assert memory_notes(run_of(0.25, 7), known, None) == ()
    assert memory_notes(run_of(0.02, 8), known, None)[0].endswith(": --num-gpus 0.28")
    assert memory_notes(run_of(0.25, 64), known, None)[0].endswith(": --batch-size 7")


def test_other_settings_and_other_devices_tell_nothing_of_memory() -> None:
    other = profiles(*(one.model_copy(update={"settings": {**one.settings, "proposals": 5000}}) for one in ROWS))
    assert memory_notes(run_of(0.1), other, "gpu") == ()
    assert memory_notes(run_of(0.1), profiles(*ROWS), CPU) == ()
    assert memory_notes(run_of(0.1), profiles(*ROWS), "A100") == ()


def test_reserved_memory_that_is_too_small_is_told_on_a_processor() -> None:
    known = profiles(*(one.model_copy(update={"device": "cpu", "device_bytes": None}) for one in ROWS))
    (note,) = memory_notes(run_of(1, 8, memory_gb=4), known, CPU)
    assert note == "mask-rcnn was measured to hold 22 GB at batch 8 on cpu, and reserves 4 GB: --memory-gb 22"
    assert memory_notes(run_of(1, 8, memory_gb=22), known, CPU) == ()


def test_a_share_is_raised_where_that_is_asked_for_and_helps() -> None:
    known = profiles(*ROWS)
    raised, notes = fitted(run_of(0.25, 8), known, "H100")
    assert (raised.resources.num_gpus, raised.id, raised.budget) == (0.28, run_of().id, run_of().budget)
    assert notes == (
        "mask-rcnn gets 0.28 of a GPU, not 0.25: 22 GB at batch 8 were measured on NVIDIA H100",
    )  # fmt: skip
    assert memory_notes(raised, known, "H100") == ()
    assert fitted(run_of(0.5, 8), known, "H100") == (run_of(0.5, 8), ())
    too_large = run_of(0.25, 64)
    assert fitted(too_large, known, "H100") == (too_large, memory_notes(too_large, known, "H100"))
    on_cpu = profiles(*(one.model_copy(update={"device": "cpu", "device_bytes": None}) for one in ROWS))
    assert fitted(run_of(1, 8, memory_gb=4), on_cpu, CPU)[0].resources.memory_gb == 22


@pytest.mark.slow
def test_a_plan_asks_for_what_fits_and_a_launch_reserves_it(tmp_path: Path) -> None:
    out, told = tmp_path / "out", []
    held = [one.model_copy(update={"method": "watershed", "settings": get_card("watershed").defaults, "device": "cpu",
                                   "device_bytes": None}) for one in (row("predict", 1, held=0.5),)]  # fmt: skip
    keep_measurement(ResultsFolder(out), held)
    StoreWriter(ResultsFolder(out)).add_measurements()
    grid = {
        "methods": ["watershed"],
        "tasks": ["synthetic-nuclear-1ch"],
        "resources": {"watershed": {"memory_gb": 0.3}},
    }
    how: dict[str, Any] = {"grid": grid, "out": str(out), "cpu": True, "executor": "inline"}
    assert [one.run.resources.memory_gb for one in plan(**how)] == [0.3]
    assert [one.run.resources.memory_gb for one in plan(**how, fit=True)] == [0.5]
    request = GridRequest.of(grid=grid)
    launch(request, ResultsFolder(out), LaunchOptions(cpu=True, executor="inline", fit=True), told.append)
    assert "watershed gets 0.5 GB of memory, not 0.3: 0.5 GB at batch 1 were measured on cpu" in [
        event.text for event in told if isinstance(event, Note)
    ]
    (run,) = ResultsFolder(out).launch.read_grid()["runs"]
    assert run["resources"]["memory_gb"] == 0.5


def test_the_newest_measurement_counts_and_a_line_never_falls() -> None:
    newer = [one.model_copy(update={"measurement": "bbbbbbbbbbbb", "bytes": 5 * GB}) for one in ROWS]
    found = profiles(*ROWS, *newer).of(run_of(), None)
    assert found is not None
    assert found.need(8) == 5 * GB
    assert fit_line([(1, 5.0), (2, 3.0)]) == Line(5.0, 0.0)
    assert Line(5.0, 0.0).windows(4.0) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("plugin")
def test_a_method_is_measured_by_its_own_process(tmp_path: Path) -> None:
    rows = measure_method("threshold", What(batches=(1, 2), side=64), lambda _: None)
    assert [(one.stage, one.batch, one.device) for one in rows] == [
        ("train", 1, "cpu"), ("train", 2, "cpu"), ("predict", 1, "cpu"),
    ]  # fmt: skip
    for one in rows:
        assert one.bytes is not None
        assert one.bytes > 10**7
    assert "scikit-image" in rows[0].versions
    folder = ResultsFolder(tmp_path)
    keep_measurement(folder, rows)
    StoreWriter(folder).add_measurements()
    assert read_measurements(folder) == rows


def test_settings_are_those_of_one_method_and_of_its_card() -> None:
    for arguments, told in (
        (["watershed", "stardist", "--set", "n_rays=8"], "--set is for one method's settings: name one method"),
        (["stardist", "--set", "n_rays=2"], "--set.n_rays: found 2; allowed: a whole number of at least 3"),
        (["stardist", "--set", "n_ray=8"], "did you mean n_rays"),
    ):
        with pytest.raises(SegbenchError) as error:
            app(["methods", "measure", *arguments], standalone_mode=False)
        assert told in str(error.value)
