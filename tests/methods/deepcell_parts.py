"""What DeepCell's tests do in the tensorflow environment: ``python deepcell_parts.py PART...``; prints JSON last.

For each part what it found, or its ``error``. The part ``compat`` is asked for alone, for it imports what it may.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segbench.methods.base import ImageStack, Progress
from segbench.methods.card import Budget
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.deepcell import FeatureNet, Mesmer, RetinaMask, compat
from segbench.methods.job import Arrays, Job, Task

SIDE = 64


def without_each_item() -> dict[str, str | None]:
    """Use DeepCell with one item of the compatibility module left out; returns the error that this gives, by item."""
    errors = {"legacy_keras": in_child(lambda: use_deepcell("legacy_keras"))}
    # TensorFlow is loaded once for the others, as the first item asks
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow  # noqa: F401

    for item in (*compat.ITEMS[1:], None):
        name = None if item is None else item.__name__
        errors[name or "nothing"] = in_child(lambda name=name: use_deepcell(name))
    errors["has_area"] = in_child(draw_an_empty_box)
    errors["stand-in"] = in_child(use_a_stand_in)
    return errors


def use_deepcell(left_out: str | None) -> None:
    """Import all of it, fit anchors, and resolve two masks that overlap."""
    for item in compat.ITEMS:
        if item.__name__ != left_out:
            item()
    import deepcell
    import deepcell.data.tracking  # noqa: F401
    from deepcell_retinamask.utils.anchor_utils import get_anchor_parameters
    from deepcell_retinamask.utils.postprocessing_utils import retinamask_postprocess

    labels = np.zeros((1, 64, 64, 1), np.int32)
    labels[0, 10:30, 10:30], labels[0, 40:60, 40:60] = 1, 2
    assert get_anchor_parameters(labels)[1] == ["P2"]
    labels = retinamask_postprocess(detections([[10, 10, 30, 30], [22, 10, 42, 30]]), (64, 64))
    assert labels.max() == 2


def draw_an_empty_box() -> None:
    compat.install()
    from deepcell_retinamask.utils.postprocessing_utils import retinamask_postprocess

    from segbench.methods.deepcell.retinamask import has_area

    boxes = np.array([[10.0, 10, 30, 30], [40.2, 10, 40.9, 30], [-1, -1, -1, -1]], np.float32)
    assert has_area(boxes).tolist() == [True, False, False]
    assert retinamask_postprocess(detections(boxes[has_area(boxes)]), (64, 64)).max() == 1
    retinamask_postprocess(detections(boxes), (64, 64))


def use_a_stand_in() -> None:
    compat.install()
    from deepcell.data.tracking import tfa

    tfa.image.rotate(np.zeros((1, 8, 8, 1)), 0.1)


def detections(boxes: Any) -> list[np.ndarray]:
    boxes = np.asarray(boxes, np.float32)
    k = len(boxes)
    return [boxes[None], np.full((1, k), 0.9), np.zeros((1, k)), np.ones((1, k, 28, 28, 1), np.float32)]


def in_child(work: Callable[[], None]) -> str | None:
    """Do something in a forked process; returns its error as one line, None where there is none."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            traceback.print_exc()
            os.write(write, f"{type(error).__name__}: {error}"[:500].encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        text = told.read()
    os.waitpid(child, 0)
    return text or None


def training_goes_on() -> dict[str, Any]:
    """Train FeatureNet whole; interrupted in its second stage and taken up; and on two replicas."""
    first = prepared(FeatureNet, tiny(), devices=2)
    tf = first._tf
    job = job_of(FeatureNet, Budget(batch_size=2, epochs=2), tiny())
    kinds: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        whole, history = fresh(first, job), Progress(Path(os.devnull))
        whole.train(job, history, Checkpoints(None))
        cut_short, told = fresh(first, job), Interrupted(at_step=7)
        kept = Checkpoints(Path(folder) / "c", every_s=0.0)
        kept.begin(told.history)
        try:
            cut_short.train(job, told, kept)
        except KeyboardInterrupt:
            kinds["interrupted_after"] = told.history[-1]["step"]
        resumed, after = fresh(first, job), Progress(Path(os.devnull))
        again = Checkpoints(Path(folder) / "c", every_s=0.0)
        again.begin(after.history)
        resumed.train(job, after, again)
        kinds["earlier"] = [point["step"] for point in again.history if point["val_loss"] is not None]
    kinds["whole"], kinds["after"] = epochs_of(history), epochs_of(after)
    kinds["differs"] = max(float(np.abs(a - b).max()) for a, b in zip(weights(whole), weights(resumed), strict=True))
    first._strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    mirrored, told = fresh(first, job), Progress(Path(os.devnull))
    mirrored.train(job, told, Checkpoints(None))
    kinds["replicas"] = first._strategy.num_replicas_in_sync
    kinds["mirrored"] = [loss for _, _, loss, _ in epochs_of(told)]
    stack = stack_of(1, 2, 1)
    kinds["mirrored_images"] = len(list(mirrored.predict(job, stack)))
    return kinds


def epochs_of(told: Progress) -> list[tuple[Any, ...]]:
    """Return what was told at the end of each epoch; a slow machine tells of steps in between too."""
    return [(p["step"], p["epoch"], p["loss"], p["val_loss"]) for p in told.history if p["val_loss"] is not None]


def tiny() -> dict[str, Any]:
    return {"receptive_field": 17, "n_conv_filters": 4, "n_dense_filters": 8, "n_skips": 0, "learning_rate": 1e-2}


class Interrupted(Progress):
    """A training that ends like one that is killed."""

    def __init__(self, at_step: int) -> None:
        super().__init__(Path(os.devnull))
        self._at = at_step

    def train(self, **told: Any) -> None:
        super().train(**told)
        if told["step"] >= self._at:
            raise KeyboardInterrupt


def fresh(imported: Any, job: Job) -> Any:
    """Return a loaded method in a process that has imported the library already."""
    method = type(imported)()
    method.__dict__.update(imported.__dict__, _calls={}, _choice={})
    method._tf.keras.utils.set_random_seed(job.seed)
    method.load(job, stack_of(1, 4, 0), stack_of(1, 2, 1))
    method.calibrate(job, Progress(Path(os.devnull)))
    return method


def leave_out(stage: Any) -> None:
    """Stands for the step before training where nothing is trained: most of its time is spent on tracing it."""


def weights(method: Any) -> list[np.ndarray]:
    return method._stages[-1].model.get_weights()  # type: ignore[no-any-return]


def boxes_and_masks_are_upstreams() -> dict[str, Any]:
    """Compare RetinaMask's parts with upstream's ``retinamask_bbox`` on the same weights; find very many boxes."""
    method = prepared(RetinaMask, {})
    job = job_of(RetinaMask, Budget(batch_size=2, epochs=1), {"postprocessing": "detections"})
    method._warm_up = leave_out
    method = fresh(method, job)
    model = method._stages[0].model
    # an untrained network says 0.01 everywhere; this one finds something everywhere
    last = model.get_layer("classification_submodel").get_layer("pyramid_classification")
    kernel, bias = last.get_weights()
    last.set_weights([np.random.default_rng(0).normal(0, 1, kernel.shape), np.zeros_like(bias)])
    x = np.stack([np.moveaxis(image, 0, -1) for image in stacks()[1][:1]])
    whole = method._zoo.retinamask_bbox(
        model, nms=True, class_specific_filter=False, anchor_params=method._anchors, max_detections=40
    )
    boxes, scores, _, masks = (output.numpy() for output in whole(x))
    found = method._infer([model], x, [method.choices["detections"]])
    difference = 0.0
    for n, image in enumerate(found):
        from segbench.methods.deepcell.retinamask import has_area

        kept = has_area(boxes[n])
        k = int(kept.sum())
        for ours, theirs in (
            (image.boxes, boxes[n][kept]),
            (image.scores, scores[n][kept]),
            (image.masks, masks[n][kept][..., 0]),
        ):
            difference = max(difference, float(np.abs(ours[:k] - theirs).max()))
    instances = [method._segment(image, choice, (60, 50)) for image in found for choice in method.choices.values()]
    return {
        "difference": difference,
        "found": [int(image.scores.size) for image in found],
        "instances": [len(each.counts) for each in instances],
        "pixels": sorted({int(np.sum(counts)) for each in instances for counts in each.counts}),
    }


def tuned_choices() -> dict[str, Any]:
    """Tune an untrained Mesmer, save it, restore it and predict windows of another size; with two channels."""
    settings = {"postprocessing": "tuned", "postprocessing_arguments": {"small_objects_threshold": 5}}
    method = prepared(Mesmer, settings, n_channels=2)
    job = job_of(Mesmer, Budget(batch_size=4, epochs=1), settings, n_channels=2)
    method._warm_up = leave_out
    method.load(job, *stacks(2))
    method.calibrate(job, Progress(Path(os.devnull)))
    with tempfile.TemporaryDirectory() as folder:
        method.save(Path(folder))
        facts = json.loads((Path(folder) / "network.json").read_text())
        other = type(method)()
        other.__dict__.update(
            {k: v for k, v in method.__dict__.items() if k not in {"_networks", "_stages", "_choice"}}, _calls={}
        )
        other.restore(job, Path(folder))
    images = stacks(2)[1]
    same = all(
        np.array_equal(a.labels, b.labels)
        for a, b in zip(method.predict(job, images), other.predict(job, images), strict=True)
    )
    odd = list(other.predict(job, stack_of(2, 3, 2, size=50)))
    return {"chosen": facts["postprocessing"], "same": same, "odd": [each.labels.shape for each in odd]}


def prepared(kind: Any, settings: dict[str, Any], *, devices: int = 1, n_channels: int = 1) -> Any:
    method = kind()
    if devices > 1:
        compat.install()
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    method.import_library(job_of(kind, Budget(batch_size=2, epochs=2), settings, n_channels))
    return method


def job_of(kind: Any, budget: Budget, settings: dict[str, Any], n_channels: int = 1) -> Job:
    channels = ("nuclear", "membrane")[:n_channels]
    return Job(
        "r", "m:M", Task("t", "d", channels, "nuclear"), budget, 3, "", settings={**kind.card.defaults, **settings}
    )


def stacks(n_channels: int = 1) -> tuple[ImageStack, ImageStack]:
    return stack_of(n_channels, 8, 0), stack_of(n_channels, 4, 1)


def stack_of(n_channels: int, n: int, seed: int, size: int = SIDE) -> ImageStack:
    """Return windows of bright squares on a dim ground, with their labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, size, size), np.int32)
    for window, top, left in np.ndindex(n, 2, 2):
        y, x = (int(v) for v in rng.integers(2, 6, 2) + np.array([top, left]) * (size // 2 - 2))
        labels[window, y : y + 13, x : x + 13] = 1 + 2 * top + left
    images = np.where(labels > 0, 0.8, 0.2)[:, None] + rng.normal(0, 0.05, (n, n_channels, size, size))
    folder = Path(tempfile.mkdtemp())
    np.save(folder / "x.npy", images.astype(np.float32))
    np.save(folder / "y.npy", labels)
    return ImageStack(replace(Arrays(str(folder / "x.npy"), tuple(range(n_channels))), labels=str(folder / "y.npy")))


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "compat": without_each_item, "resume": training_goes_on, "retinamask": boxes_and_masks_are_upstreams,
    "tuned": tuned_choices,
}  # fmt: skip


def found_by(part: str) -> dict[str, Any]:
    try:
        return PARTS[part]()
    except Exception:
        return {"error": traceback.format_exc()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps({part: found_by(part) for part in sys.argv[1:]}) + "\n")
