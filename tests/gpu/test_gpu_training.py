"""On a GPU every method trains, predicts, is restored, and goes on from where it was killed, in each precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gpu_jobs import ON_CPU, TRAINED, agreement, run, steps_told, training

from segbench.engine.grid.cards import get_card
from segbench.methods.folder import JobFolder

Note = Callable[[str, object], None]
HALF = [
    pytest.param(name, precision, id=f"{name}-{precision}")
    for name in TRAINED
    for precision in get_card(name).precisions
    if precision != "float32"  # in which the methods that go on after a kill are trained
]
RESUMABLE = [name for name in TRAINED if get_card(name).resumable]
ROUNDING = 0.05
"""Share by which losses after a checkpoint may differ from those of a training without one. Sums on a GPU are made in
no fixed order (gradients of regions of interest are added atomically), which changes float32's last digits, and a
proposal at a threshold with them. Other random numbers, or an optimiser without its momenta, change the loss of a step
of two windows by tens of percent."""


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_predicts_and_its_saved_model_predicts_the_same(
    name: str, tmp_path: Path, record_property: Note
) -> None:
    job = training(name, tmp_path)
    first = run(job).done()
    losses = list(first.losses.values())
    assert np.isfinite(losses).all()
    assert len(losses) >= 2
    assert first.result["timings"]["train"] > 0
    restored = run(
        dataclasses.replace(job, output=str(tmp_path / "restored"), train=None, model=str(first.folder.model))
    ).done()
    same = agreement(first.predictions(), restored.predictions())
    record_property("cells predicted", int(first.predictions().scores.size))
    record_property("the same after restoring", f"{same:.0%}")
    assert same >= 0.98
    if not ON_CPU:
        assert len(first.result["gpu_names"]) == 1
        peaks = [ran.result["peak_gpu_memory_bytes"] for ran in (first, restored)]
        record_property("peak GPU memory of training, of prediction", " GB, ".join(f"{p / 1e9:.1f}" for p in peaks))
        assert min(peaks) > 10e6


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_killed_training_ends_as_one_that_was_not(name: str, tmp_path: Path, record_property: Note) -> None:
    job = training(name, tmp_path, steps=8, precision="float32")
    whole = run(dataclasses.replace(job, predict={}, output=str(tmp_path / "whole"))).done()
    job = dataclasses.replace(job, checkpoints=str(tmp_path / "kept"), checkpoint_every_s=0.0)

    def half_way(folder: JobFolder) -> bool:
        return steps_told(folder) >= 4 and (tmp_path / "kept" / "state.json").exists()

    run(dataclasses.replace(job, output=str(tmp_path / "killed")), until=half_way)
    resumed = run(dataclasses.replace(job, output=str(tmp_path / "resumed"))).done()
    assert resumed.result["resumed_after_s"] > 0
    assert sorted(resumed.losses) == sorted(whole.losses)
    here = [point for point in resumed.result["history"] if point["loss"] is not None]
    expected = np.array([whole.losses[point["step"]] for point in here])
    difference = np.abs(np.array([point["loss"] for point in here]) - expected) / np.abs(expected)
    record_property("largest difference of a loss", f"{difference.max():.2%}")
    assert difference.max() < ROUNDING


@pytest.mark.parametrize(("name", "precision"), HALF)
def test_losses_are_numbers_in_each_declared_precision(
    name: str, precision: str, tmp_path: Path, record_property: Note
) -> None:
    ran = run(dataclasses.replace(training(name, tmp_path, precision=precision), predict={})).done()
    losses = list(ran.losses.values())
    record_property("loss", f"{losses[0]:.3g} to {losses[-1]:.3g}")
    assert np.isfinite(losses).all()
