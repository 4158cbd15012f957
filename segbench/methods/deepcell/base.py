"""What DeepCell's three methods share: devices, data, training, the choice of post-processing, prediction."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segbench.methods.base import ImageStack, Method, OtherWeights, Progress
from segbench.methods.card import Card, Resources
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.deepcell import compat
from segbench.methods.deepcell.batches import Batches
from segbench.methods.deepcell.matching import f1_at_half
from segbench.methods.deepcell.windows import Tiles, cut, pad, tile_side
from segbench.methods.job import Job
from segbench.methods.predictions import Instances, LabelInstances
from segbench.methods.scales import SETTINGS as SCALES
from segbench.methods.setting import Setting
from segbench.methods.tensorflow_devices import WORKERS, names_of, peak_bytes, prepare_tensorflow

LOG = logging.getLogger(__name__)
NO_SLURM = "paper: 4 GPUs; scripts: one, with no distribution strategy"
SETTINGS: Mapping[str, Setting] = {
    **SCALES,
    "crop_size": Setting(
        256,
        "larger windows are cut into pieces of this side for training, down to a power of two",
        unit="pixels",
        minimum=32,
    ),
    "learning_rate_decay": Setting(0.99, "factor of the rate an epoch", above=0, maximum=1),
    "keep_best": Setting(
        True, "keep the weights of the epoch with the lowest validation loss, as upstream's callbacks do"
    ),
    "val_windows": Setting(256, "most validation windows used for the validation loss", unit="windows", minimum=1),
    "batch_norm_momentum": Setting(
        None,
        "of the averages: null for upstream's 0.99, which lags in trainings of few hundred steps",
        type=float,
        words=(None,),
        minimum=0,
        below=1,
    ),
    "postprocessing_arguments": Setting(
        {}, "changes to the post-processing, by the name of its argument", prediction=True
    ),
    "calibration_windows": Setting(32, "most validation windows used to tune", unit="windows", minimum=0),
    "workers": WORKERS,
    "predict_batch": Setting(4, "images predicted together", unit="windows", minimum=1, prediction=True),
}
"""The settings that all three have."""
_REPORT_S = 5.0
_HELD_OUT = 0.1
_NETWORK = "network.json"
_WEIGHTS = "weights.npz"

Choice = Mapping[str, Any]
"""Arguments of a method's post-processing."""


def card(
    name: str,
    title: str,
    libraries: tuple[str, ...],
    choices: Iterable[str],
    settings: Mapping[str, Setting],
    **facts: Any,
) -> Card:
    """Return a card with what the family shares; ``choices`` are the names of the method's post-processings."""
    chosen = Setting(
        "upstream",
        "upstream's own, another named one, or the best on validation windows",
        choices=(*choices, "tuned"),
        prediction=True,
        calibrated=("tuned",),
    )
    return Card(
        name=name,
        title=title,
        family="deepcell",
        environment="tensorflow",
        category="cell-specific",
        trained=True,
        attention=False,
        resources=Resources(num_gpus=1, memory_gb=8),
        libraries=(*libraries, "tensorflow", "tf-keras"),
        settings={**SETTINGS, "postprocessing": chosen, **settings},
        data_parallel="library",
        resumable=True,
        may_halve_batch=True,
        licence="modified Apache-2.0, non-commercial",
        **facts,
    )


@dataclass
class Stage:
    """One network in training, with its batches."""

    model: Any
    train: Batches
    val: Batches | None
    begin: Callable[[], None] = lambda: None
    """What must be done before its first step."""
    signature: Any = None
    """Shapes and types of its batches, once known."""


class DeepcellMethod(Method):
    """A network of DeepCell, trained from scratch on tiles of the windows; a subclass says which one."""

    saves_uncalibrated = True
    min_objects: ClassVar[int] = 0
    """Tiles with fewer cells are left out of training, as upstream's generators do."""
    choices: ClassVar[Mapping[str, Choice]]
    """The named post-processings."""
    grid: ClassVar[Sequence[Choice]]
    """What ``tuned`` chooses from; the first of the best wins."""
    argument_names: ClassVar[frozenset[str]]
    """What ``postprocessing_arguments`` may name."""

    def import_library(self, job: Job) -> None:
        """Import TensorFlow with legacy Keras and DeepCell; set threads, memory, the strategy and the seeds."""
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        self._check_settings(job)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        compat.install()
        import tensorflow as tf

        self._gpus = prepare_tensorflow(job)
        self._tf: Any = tf
        self._calls: dict[int, Any] = {}
        self._choice: Choice = {}
        self._strategy: Any = tf.distribute.get_strategy()
        if len(self._gpus) > 1:
            self._strategy = tf.distribute.MirroredStrategy()
        self._import_deepcell()

    def load(self, job: Job, train: ImageStack | None, val: ImageStack | None) -> None:
        """Cut the windows, build the networks and let each do one step and one validation batch that are then undone.

        Tracing, compiling and the choice of algorithms thus fall into ``load`` and not into T.
        """
        if train is None:
            raise ValueError(f"{self.card.title} needs training windows with labels")
        settings = job.settings
        side = tile_side(train.size, settings["crop_size"])
        rng = np.random.default_rng(job.seed)
        rows = np.arange(len(train))
        if val is not None and len(val) > 0:
            held, stack = np.sort(rng.permutation(len(val))[: settings["val_windows"]]), val
        else:
            shuffled = rng.permutation(rows)
            held, stack = np.sort(shuffled[: max(1, min(settings["val_windows"], round(_HELD_OUT * rows.size)))]), train
            rows = np.setdiff1d(rows, held) if rows.size > 1 else rows
        tiles = cut(train, rows.tolist(), side, self.min_objects)
        if not tiles.objects.any():
            raise ValueError(f"no piece of {side} x {side} pixels shows {max(1, self.min_objects)} cells or more")
        val_tiles = cut(stack, held.tolist(), side, max(1, self.min_objects))
        replicas = self._strategy.num_replicas_in_sync
        if replicas > 1:  # every device must get as many images, as upstream's train_model_conv has it
            batch = min(job.budget.batch_size, len(tiles))
            tiles = tiles.select(rng.permutation(len(tiles))[: len(tiles) // batch * batch])
            val_tiles = val_tiles.select(np.arange(len(val_tiles) // replicas * replicas))
        self._used = sorted(set(tiles.windows.tolist()))
        self._calibration = [
            (stack[n], stack.labels(n)) for n in held[: settings["calibration_windows"]] if stack.labels(n).any()
        ]
        self._channels = train.n_channels
        self._prepare(tiles)
        with self._strategy.scope():
            self._stages = self._build_stages(job, side, tiles, val_tiles if len(val_tiles) else None)
        self._networks = {side: [stage.model for stage in self._stages]}
        for stage in reversed(self._stages):
            self._warm_up(stage)

    def train(self, job: Job, progress: Progress, checkpoints: Checkpoints) -> None:
        """Train the networks one after the other, each for the budget's epochs."""
        start = _Position.read(checkpoints.latest(), self._stages)
        for number, stage in enumerate(self._stages[start.stage :], start=start.stage):
            stage.begin()
            position = start if number == start.stage else _Position(number, 0, math.inf, None)
            self._train_stage(job, stage, position, progress, checkpoints)

    def calibrate(self, job: Job, progress: Progress) -> None:  # noqa: ARG002
        """Choose the post-processing; ``tuned`` tries a small grid on validation windows and keeps that of best F1."""
        changes = job.settings["postprocessing_arguments"]
        if job.settings["postprocessing"] != "tuned":
            self._choice = self._named(job)
        elif not self._calibration:
            self._choice = {**self.choices["upstream"], **changes}
            LOG.warning("no validation window shows a cell: the post-processing is upstream's")
        else:
            candidates = [{**choice, **changes} for choice in self._candidates(job)]
            raw = list(self._raw([image for image, _ in self._calibration], job, candidates))
            scored = [(self._f1(raw, choice), choice) for choice in candidates]
            best = max(score for score, _ in scored)
            self._choice = next(choice for score, choice in scored if score == best)
            for score, choice in scored:
                LOG.info("post-processing %s: F1 %.3f on %d windows", dict(choice), score, len(raw))
        LOG.info("post-processing chosen: %s", dict(self._choice))

    def save(self, folder: Path) -> None:
        """Write the weights of the last network (which contains the others) and all that rebuilds it."""
        # of the networks, which restoring a training that was not calibrated yet has made anew
        np.savez(folder / _WEIGHTS, *next(iter(self._networks.values()))[-1].get_weights())
        facts = {"channels": self._channels, "side": next(iter(self._networks)), "postprocessing": dict(self._choice)}
        (folder / _NETWORK).write_text(json.dumps({**facts, **self._facts()}, indent=1))

    def restore(self, job: Job, folder: Path) -> None:
        """Read what ``save`` wrote; a tuned post-processing is the stored one, the others follow the job's settings."""
        facts = json.loads((folder / _NETWORK).read_text())
        self._channels, self._choice = facts["channels"], facts["postprocessing"]
        self._take_facts(facts)
        self._networks = {facts["side"]: self._build(facts["side"])}
        self._networks[facts["side"]][-1].set_weights(_read_arrays(folder / _WEIGHTS))
        if job.settings["postprocessing"] != "tuned":
            self._choice = self._named(job)
        else:
            self._choice = {**self._choice, **job.settings["postprocessing_arguments"]}

    def other_formats(self, job: Job, folder: Path) -> dict[str, OtherWeights]:  # noqa: ARG002
        """Write the weights as Keras does."""
        import tensorflow

        next(iter(self._networks.values()))[-1].save_weights(str(folder / "weights.h5"))
        comment = "the weights alone: the network is built by segbench, from deepcell's layers"
        return {"keras_hdf5": OtherWeights("weights.h5", comment, {"tensorflow_version": str(tensorflow.__version__)})}

    def predict(self, job: Job, images: ImageStack) -> Iterator[Instances]:
        """Yield the instances of each image; see the card's score rule."""
        for raw in self._raw(images, job, [self._choice]):
            yield self._segment(raw, self._choice, images.size)

    def n_parameters(self) -> int:
        """Return the number of weights of all networks."""
        return int(next(iter(self._networks.values()))[-1].count_params())

    def used_windows(self) -> Sequence[int]:
        """Return the windows that gave at least one tile to the training."""
        return self._used

    def gpu_names(self) -> list[str]:
        """Return the names of the GPUs that TensorFlow sees."""
        return names_of(self._gpus)

    def peak_gpu_memory_bytes(self) -> int | None:
        """Return TensorFlow's own peak on the first GPU."""
        return peak_bytes(self._gpus)

    # what a method says

    def _candidates(self, job: Job) -> Sequence[Choice]:  # noqa: ARG002
        """Return what ``tuned`` chooses from."""
        return self.grid

    @abstractmethod
    def _import_deepcell(self) -> None:
        """Import what the method uses of DeepCell."""

    def _prepare(self, tiles: Tiles) -> None:
        """Learn from the training tiles what the networks are built from."""

    def _facts(self) -> dict[str, Any]:
        """Return what ``_prepare`` learnt, for the model folder."""
        return {}

    def _take_facts(self, facts: Mapping[str, Any]) -> None:
        """Take up what ``_facts`` gave."""

    @abstractmethod
    def _build(self, side: int) -> list[Any]:
        """Return the networks for squares of ``side`` pixels in order of training; the last contains the others."""

    @abstractmethod
    def _build_stages(self, job: Job, side: int, tiles: Tiles, val: Tiles | None) -> list[Stage]:
        """Return compiled networks with their data, in the order of training."""

    @abstractmethod
    def _infer(self, networks: Sequence[Any], x: npt.NDArray[np.float32], candidates: Sequence[Choice]) -> list[Any]:
        """Return what the networks say of each of (B, S, S, C) images, as far as a post-processing needs it."""

    @abstractmethod
    def _segment(self, raw: Any, choice: Choice, size: tuple[int, int]) -> Instances:
        """Return the instances of one image of (H, W) pixels, which is the upper left part of what was inferred."""

    def _labels(self, raw: Any, choice: Choice, size: tuple[int, int]) -> npt.NDArray[np.int32]:
        """Return a label map, for tuning."""
        instances = self._segment(raw, choice, size)
        if not isinstance(instances, LabelInstances):
            raise TypeError(f"{self.card.title} tunes on label maps")
        return instances.labels

    def _variable_axes(self, name: str) -> int:  # noqa: ARG002
        """Return how many axes after the first of an array of a batch vary from batch to batch."""
        return 0

    # training

    def _train_stage(
        self, job: Job, stage: Stage, position: _Position, progress: Progress, checkpoints: Checkpoints
    ) -> None:
        from deepcell.utils.train_utils import rate_scheduler

        epochs, steps, model = job.budget.epochs or 1, self._steps(job, stage), stage.model
        rate = rate_scheduler(lr=job.settings["learning_rate"], decay=job.settings["learning_rate_decay"])
        stage.train.skip(position.epoch * steps)  # what an earlier attempt has seen
        for epoch in range(position.epoch, epochs):
            self._tf.keras.backend.set_value(model.optimizer.lr, rate(epoch))
            told = _Told(progress, len(self._stages), position.stage, epochs, epoch, steps)
            logs = self._fit(stage, steps, [self._reporter(told)])
            val_loss = None if stage.val is None else self._evaluate(stage)
            told.tell(steps, logs["loss"], val_loss)
            if job.settings["keep_best"] and val_loss is not None and val_loss < position.best_loss:
                position.best_loss, position.best = val_loss, model.get_weights()
            position.epoch = epoch + 1
            if checkpoints.due():
                with checkpoints.writing() as folder:
                    position.write(folder, self._stages)
        if position.best is not None:
            model.set_weights(position.best)

    def _fit(self, stage: Stage, steps: int, callbacks: Sequence[Any] = ()) -> dict[str, float]:
        def batches() -> Iterator[Any]:
            return map(_tuples, stage.train.take(steps))

        # one epoch a call: nothing of the next epoch is drawn while this one is validated or saved
        fitted = stage.model.fit(
            self._dataset(stage, batches), epochs=1, steps_per_epoch=steps, verbose=0, callbacks=list(callbacks)
        )
        return {name: values[-1] for name, values in fitted.history.items()}

    def _evaluate(self, stage: Stage, batches: int | None = None) -> float:
        if stage.val is None:
            raise ValueError("there is nothing to evaluate on")
        given = stage.val
        n = len(given) if batches is None else batches

        def give() -> Iterator[Any]:
            return map(_tuples, given.in_order(n))

        logs = stage.model.evaluate(self._dataset(stage, give), steps=n, verbose=0, return_dict=True)
        return float(logs["loss"])

    def _dataset(self, stage: Stage, give: Callable[[], Iterator[Any]]) -> Any:
        return self._tf.data.Dataset.from_generator(give, output_signature=self._signature(stage)).prefetch(2)

    def _signature(self, stage: Stage) -> Any:
        if stage.signature is None:
            batch = _tuples(stage.train.first())

            def spec(path: tuple[Any, ...], array: npt.NDArray[Any]) -> Any:
                free = 1 + self._variable_axes(str(path[-1]))
                return self._tf.TensorSpec((None,) * free + array.shape[free:], array.dtype)

            specs = [spec(path, array) for path, array in _with_paths(batch)]
            stage.signature = self._tf.nest.pack_sequence_as(batch, specs)
        return stage.signature

    def _warm_up(self, stage: Stage) -> None:
        """Do one step and undo it."""
        model, before = stage.model, stage.model.get_weights()
        self._fit(stage, 1)
        if stage.val is not None:
            self._evaluate(stage, 1)
        model.set_weights(before)
        model.optimizer.set_weights([np.zeros_like(array) for array in model.optimizer.get_weights()])
        stage.train.rewind()

    @staticmethod
    def _steps(job: Job, stage: Stage) -> int:
        # whole batches only, as upstream's own training functions count them
        return int(job.budget.steps_per_epoch or max(1, stage.train.n // job.budget.batch_size))

    def _reporter(self, told: _Told) -> Any:
        class Reporter(self._tf.keras.callbacks.Callback):  # type: ignore[misc, name-defined]
            """Tells the mean loss of the epoch so far from time to time, and at once where it is not a number."""

            def on_train_batch_end(self, batch: int, logs: Any) -> None:
                told.batch(batch + 1, logs["loss"])

        return Reporter()

    def _set_momentum(self, model: Any, job: Job) -> None:
        """Set the momentum of the batch norm's averages, where the settings ask for another than upstream's."""
        momentum = job.settings["batch_norm_momentum"]
        if momentum is not None:
            for layer in model.submodules:
                if isinstance(layer, self._tf.keras.layers.BatchNormalization):
                    layer.momentum = momentum

    # prediction

    def _raw(self, images: Sequence[npt.NDArray[np.float32]], job: Job, candidates: Sequence[Choice]) -> Iterator[Any]:
        batch = self.at_once(int(job.settings["predict_batch"]))
        for first in range(0, len(images), batch):
            x = pad(np.stack([np.moveaxis(images[n], 0, -1) for n in range(first, min(first + batch, len(images)))]))
            yield from self._infer(self._networks_for(x.shape[1]), x, candidates)

    def _networks_for(self, side: int) -> list[Any]:
        """Return the trained networks for squares of ``side`` pixels; the weights fit every size."""
        if side not in self._networks:
            weights = next(iter(self._networks.values()))[-1].get_weights()
            self._networks[side] = self._build(side)
            self._networks[side][-1].set_weights(weights)
        return self._networks[side]

    def _call(self, network: Any, x: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Return the outputs of a network for a batch, whatever the strategy of training was."""
        if id(network) not in self._calls:
            self._calls[id(network)] = self._tf.function(
                lambda batch: network(batch, training=False), reduce_retracing=True
            )
        outputs = self._calls[id(network)](self._tf.constant(x))
        return [output.numpy() for output in (outputs if isinstance(outputs, list | tuple) else [outputs])]

    def _f1(self, raw: Sequence[Any], choice: Choice) -> float:
        size = self._calibration[0][1].shape
        return f1_at_half(
            (truth, self._labels(found, choice, (size[0], size[1])))
            for found, (_, truth) in zip(raw, self._calibration, strict=True)
        )

    def _named(self, job: Job) -> Choice:
        return {**self.choices[job.settings["postprocessing"]], **job.settings["postprocessing_arguments"]}

    def _check_settings(self, job: Job) -> None:
        name, known = job.settings["postprocessing"], [*self.choices, "tuned"]
        if name not in known:
            raise ValueError(f"setting 'postprocessing' must be one of {', '.join(known)}, found {name!r}")
        unknown = set(job.settings["postprocessing_arguments"]) - self.argument_names
        if unknown:
            raise ValueError(
                f"setting 'postprocessing_arguments' knows {', '.join(sorted(self.argument_names))}; "
                f"found {', '.join(sorted(unknown))}"
            )


@dataclass
class _Position:
    """Where the training of a stage stands."""

    stage: int
    epoch: int
    """Epochs done."""
    best_loss: float
    best: list[npt.NDArray[Any]] | None
    """The weights of the lowest validation loss so far."""

    def write(self, folder: Path, stages: Sequence[Stage]) -> None:
        """Write the weights of all stages, the optimizer's state of this one and the best weights."""
        for number, stage in enumerate(stages):
            np.savez(folder / f"stage{number}.npz", *stage.model.get_weights())
        np.savez(folder / "optimizer.npz", *stages[self.stage].model.optimizer.get_weights())
        if self.best is not None:
            np.savez(folder / "best.npz", *self.best)
        best_loss = self.best_loss if math.isfinite(self.best_loss) else None
        text = json.dumps({"stage": self.stage, "epoch": self.epoch, "best_loss": best_loss})
        (folder / "position.json").write_text(text)

    @classmethod
    def read(cls, folder: Path | None, stages: Sequence[Stage]) -> _Position:
        """Read a position back into the networks and the optimizer; the start where there is none."""
        if folder is None:
            return cls(0, 0, math.inf, None)
        state = json.loads((folder / "position.json").read_text())
        for number, stage in enumerate(stages):
            stage.model.set_weights(_read_arrays(folder / f"stage{number}.npz"))
        stages[state["stage"]].model.optimizer.set_weights(_read_arrays(folder / "optimizer.npz"))
        best = _read_arrays(folder / "best.npz") if (folder / "best.npz").is_file() else None
        return cls(state["stage"], state["epoch"], math.inf if state["best_loss"] is None else state["best_loss"], best)


@dataclass
class _Told:
    """Tells the progress of one epoch of one stage.

    One of the budget's epochs is an epoch of every stage: with two stages the first half of the epochs are the first's.
    """

    progress: Progress
    stages: int
    stage: int
    epochs: int
    epoch: int
    steps: int
    last: float = 0.0

    def __post_init__(self) -> None:
        self.last = time.monotonic()

    def batch(self, done: int, loss: float) -> None:
        """Tell of a step, where it is time or where the loss is not a number."""
        late = time.monotonic() - self.last > _REPORT_S and done < self.steps
        if late or not np.isfinite(loss):
            self.last = time.monotonic()
            self.tell(done, loss)

    def tell(self, done: int, loss: float, val_loss: float | None = None) -> None:
        """Tell of ``done`` steps of this epoch."""
        before = self.stage * self.epochs + self.epoch
        self.progress.train(
            epoch=before // self.stages + 1, epochs=self.epochs, step=before * self.steps + done,
            steps=self.stages * self.epochs * self.steps, loss=loss, val_loss=val_loss,
        )  # fmt: skip


def mean_scores(labels: npt.NDArray[np.int32], probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the mean probability over each instance of a label map numbered 1..k."""
    k = int(labels.max())
    sums = np.bincount(labels.ravel(), probability.ravel().astype(np.float64), minlength=k + 1)
    return sums[1:] / np.maximum(np.bincount(labels.ravel(), minlength=k + 1)[1:], 1)


def renumbered(labels: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return a label map with its labels numbered 1..k in their order."""
    present, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.reshape(labels.shape)
    return (numbers if present[0] == 0 else numbers + 1).astype(np.int32)


def _tuples(batch: Any) -> Any:
    """Return a batch with its lists as tuples, since tf.data takes a list for an array."""
    if isinstance(batch, list | tuple):
        return tuple(_tuples(item) for item in batch)
    return batch


def _with_paths(batch: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    """Return a batch's arrays with their paths, in TensorFlow's order."""
    if isinstance(batch, dict):
        return [found for name in sorted(batch) for found in _with_paths(batch[name], (*path, name))]
    if isinstance(batch, tuple):
        return [found for number, item in enumerate(batch) for found in _with_paths(item, (*path, number))]
    return [(path, batch)]


def _read_arrays(path: Path) -> list[npt.NDArray[Any]]:
    with np.load(path) as arrays:
        return [arrays[f"arr_{number}"] for number in range(len(arrays.files))]
