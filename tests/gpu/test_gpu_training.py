"""On a GPU every method trains, predicts, is restored, and goes on from where it was killed, in each precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gpu_jobs import ON_CPU, TRAINED, Ran, agreement, run, run_together, steps_told, training

from segbench.engine.grid.cards import get_card
from segbench.methods.folder import JobFolder

Note = Callable[[str, object], None]
ROUNDING = 0.05
"""Share by which losses after a checkpoint may differ from those of a training without one. Sums on a GPU are made in
no fixed order (gradients of regions of interest are added atomically), which changes float32's last digits, and a
proposal at a threshold with them. Other random numbers change the loss of a step of two windows by tens of percent."""


@dataclass(frozen=True)
class Story:
    """What one method's processes did."""

    auto: Ran
    """In the precision of the defaults, with predictions."""
    restored: Ran
    """Its saved model, predicting in another process."""
    precisions: Mapping[str, Ran]
    """Training in each precision that the card declares; float16 is that of the defaults on a GPU. On a processor in
    float32 alone: a step of these networks takes it a minute in half precision."""
    resumed: Ran | None
    """In float32, with the checkpoint of a process that was killed on its way; None where a method keeps none."""


@pytest.fixture(scope="module")
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Run one method's jobs in three processes, two at once: their libraries take longer to import than they train."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    card = get_card(name)
    auto = training(name, folder)
    longer = dataclasses.replace(training(name, folder / "longer", steps=8), predict={})
    each = {
        precision: dataclasses.replace(
            longer, output=str(folder / precision), settings={**longer.settings, "precision": precision}
        )
        for precision in card.precisions
        if precision == "float32" or (precision == "bfloat16" and not ON_CPU)
    }
    # hardly any rate: else a training of so few windows makes percents of what sums in another order leave at its
    # first step, whether it was killed or not
    slow = {**each["float32"].settings, "learning_rate": 1e-6}
    each["float32"] = dataclasses.replace(each["float32"], settings=slow)
    restored = dataclasses.replace(
        auto, output=str(folder / "restored"), train=None, model=str(JobFolder(Path(auto.output)).model)
    )
    kept = dataclasses.replace(each["float32"], checkpoints=str(folder / "kept"), checkpoint_every_s=0.0)
    # which keeps no further states: a state is as large as two models, and twelve methods at once wait for the disk
    resumed = dataclasses.replace(kept, output=str(folder / "resumed"), checkpoint_every_s=600.0)
    later = [restored, resumed][: 2 if card.resumable else 1]

    def on_its_way(killed: JobFolder) -> bool:
        return steps_told(killed) >= 2 and (folder / "kept" / "state.json").exists()

    with ThreadPoolExecutor(1 if ON_CPU else 2) as pool:
        first = pool.submit(run_together, auto, *each.values())
        if card.resumable:
            pool.submit(run, dataclasses.replace(kept, output=str(folder / "killed")), until=on_its_way).result()
        ran = first.result()
    again = run_together(*later)
    precisions = dict(zip(each, ran[1:], strict=True))
    if "float16" in card.precisions and not ON_CPU:
        assert card.defaults["precision"] == "auto"
        precisions["float16"] = ran[0]
    return Story(ran[0], again[0], precisions, again[1] if card.resumable else None)


def of_every(names: tuple[str, ...]) -> pytest.MarkDecorator:
    """Return the mark that gives a test the story of each method."""
    return pytest.mark.parametrize("story", names, indirect=True)


@of_every(TRAINED)
def test_it_trains_and_predicts(story: Story, record_property: Note) -> None:
    ran = story.auto.done()
    losses = list(ran.losses.values())
    assert np.isfinite(losses).all()
    assert len(losses) >= 2
    assert ran.result["timings"]["train"] > 0
    assert len(ran.predictions()) == 6
    record_property("train, s", f"{ran.result['timings']['train']:.1f}")
    record_property("cells predicted", int(ran.predictions().scores.size))
    if not ON_CPU:
        assert len(ran.result["gpu_names"]) == 1
        assert ran.result["peak_gpu_memory_bytes"] > 10e6
        record_property("peak GPU memory", f"{ran.result['peak_gpu_memory_bytes'] / 1e9:.1f} GB")


@of_every(TRAINED)
def test_its_saved_model_predicts_the_same_in_a_new_process(story: Story, record_property: Note) -> None:
    same = agreement(story.auto.done().predictions(), story.restored.done().predictions())
    record_property("the same cells", f"{same:.0%}")
    assert same >= 0.98
    assert story.restored.result["timings"]["train"] is None


@of_every(tuple(name for name in TRAINED if get_card(name).resumable))
def test_a_killed_training_ends_as_one_that_was_not(story: Story, record_property: Note) -> None:
    assert story.resumed is not None
    whole, resumed = story.precisions["float32"].done(), story.resumed.done()
    assert resumed.result["resumed_after_s"] > 0
    assert sorted(resumed.losses) == sorted(whole.losses)
    steps = sorted(whole.losses)
    expected, found = (np.array([ran.losses[step] for step in steps]) for ran in (whole, resumed))
    difference = np.abs(found - expected) / np.abs(expected)
    record_property("largest difference of a loss", f"{difference.max():.2%}")
    assert difference.max() < ROUNDING


@of_every(TRAINED)
def test_losses_are_numbers_in_each_declared_precision(story: Story, record_property: Note) -> None:
    for precision, ran in story.precisions.items():
        losses = list(ran.done().losses.values())
        record_property(precision, f"loss {losses[0]:.3g} to {losses[-1]:.3g}")
        assert np.isfinite(losses).all()
