"""FeatureNet: two small convolutional networks, one for foreground and one for edges and interiors of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segbench.methods.card import Budget
from segbench.methods.deepcell.base import (
    NO_SLURM,
    Choice,
    DeepcellMethod,
    Stage,
    card,
    mean_scores,
    renumbered,
)
from segbench.methods.deepcell.batches import Batches, flow_lazily
from segbench.methods.deepcell.targets import kept_classes
from segbench.methods.deepcell.windows import Pieces, Tiles
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances
from segbench.methods.published import SCRIPTS
from segbench.methods.setting import Setting
from segbench.methods.tensorflow_devices import data_threads

_FOREGROUND, _INTERIOR = 1, 2
_TRANSFORMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("fgbg", {}),
    ("pixelwise", {"dilation_radius": 1, "separate_edge_classes": True}),
)


class FeatureNet(DeepcellMethod):
    """Two ``bn_feature_net_skip_2D``: the second sees the first's answer, which is frozen by then."""

    card = card(
        "featurenet",
        "FeatureNet",
        ("deepcell", "deepcell-toolbox"),
        ("upstream", "published"),
        {
            "learning_rate": Setting(1e-3, "of SGD, in the first epoch", above=0),
            "momentum": Setting(0.9, "of SGD", minimum=0, below=1),
            "decay": Setting(1e-6, "of the learning rate, a step", minimum=0),
            "clipvalue": Setting(0.5, "largest number in a gradient", above=0),
            "receptive_field": Setting(61, "of the network", unit="pixels", minimum=5),
            "n_skips": Setting(1, "connections past the network, each with a second network's pass", minimum=0),
            "n_conv_filters": Setting(32, "of each convolution", unit="channels", minimum=1),
            "n_dense_filters": Setting(128, "of the layer before the classes", unit="channels", minimum=1),
        },
        budget=Budget(
            batch_size=16,
            epochs=25,
            note=f"of each of the two models; paper: batch 16, 25 epochs; {SCRIPTS}: batch 1 (hard-coded), foreground "
            f"model 25 and edge model 100 epochs. {NO_SLURM}",
        ),
        score_rule="the mean predicted probability of a cell's interior over the instance's pixels",
        paper="Van Valen et al., PLoS Computational Biology 12 (2016), doi:10.1371/journal.pcbi.1005177",
        url="https://github.com/vanvalenlab/deepcell-tf",
    )
    choices: ClassVar[Mapping[str, Choice]] = {
        # deepcell_toolbox.pixelwise's own defaults
        "upstream": {},
        # the study's scripts: interiors in the foreground, components joined over corners too
        "published": {"threshold": 0.2, "foreground_threshold": 0.9, "corners": True},
    }
    grid: ClassVar[Sequence[Choice]] = [
        {"threshold": threshold, "foreground_threshold": foreground, "min_size": min_size, "grow": grow}
        for grow in (0, 1, 2)
        for threshold in (0.8, 0.5, 0.3)
        for foreground in (None, 0.5)
        for min_size in (50, 10)
    ]
    argument_names = frozenset({"threshold", "min_size", "foreground_threshold", "corners", "grow"})

    def _import_deepcell(self) -> None:
        from deepcell.image_generators import ImageFullyConvDataGenerator, _transform_masks
        from deepcell.losses import weighted_categorical_crossentropy
        from deepcell.model_zoo.featurenet import bn_feature_net_skip_2D
        from deepcell_toolbox.processing import pixelwise

        self._generator, self._crossentropy = ImageFullyConvDataGenerator, weighted_categorical_crossentropy
        self._net, self._pixelwise, self._transform_masks = bn_feature_net_skip_2D, pixelwise, _transform_masks
        self._options: dict[str, Any] = {}

    def load(self, job: Job, train: Any, val: Any) -> None:
        """See the base; the networks' sizes come from the settings."""
        self._options = _options(job)
        super().load(job, train, val)

    def restore(self, job: Job, folder: Any) -> None:
        """See the base; the networks' sizes come from the settings."""
        self._options = _options(job)
        super().restore(job, folder)

    def _build(self, side: int) -> list[Any]:
        shape, options = (side, side, self._channels), self._options
        foreground = self._net(n_features=2, input_shape=shape, norm_method="std", last_only=False, **options)
        edges = self._net(
            n_features=4, input_shape=shape, norm_method="std", last_only=False, fgbg_model=foreground, **options
        )
        return [foreground, edges]

    def _build_stages(self, job: Job, side: int, tiles: Tiles, val: Tiles | None) -> list[Stage]:
        models = self._build(side)
        stages = []
        for model, (transform, arguments) in zip(models, _TRANSFORMS, strict=True):
            if transform == "fgbg":
                _set_trainable(model, True)  # the second network's builder has frozen it
            self._set_momentum(model, job)
            settings = job.settings
            optimizer = self._tf.keras.optimizers.SGD(
                learning_rate=settings["learning_rate"], decay=settings["decay"], momentum=settings["momentum"],
                nesterov=True, clipvalue=settings["clipvalue"],
            )  # fmt: skip
            shapes = model.output_shape if isinstance(model.output_shape, list) else [model.output_shape]
            model.compile(loss=self._loss(shapes[-1][-1]), optimizer=optimizer)
            flow = {
                "batch_size": job.budget.batch_size, "skip": len(shapes) - 1 or None, "transform": transform,
                "transform_kwargs": arguments,
            }  # fmt: skip
            augmented = self._generator(
                rotation_range=180, zoom_range=(0.8, 1.2), horizontal_flip=True, vertical_flip=True
            )
            train = flow_lazily(augmented.flow, tiles, seed=job.seed % 2**31, shuffle=True, **flow)
            # upstream transforms the labels of all pieces at the beginning
            train.y = self._classes(job, tiles, transform, arguments)
            plain = None
            if val is not None:
                held = flow_lazily(self._generator().flow, val, shuffle=False, **flow)
                held.y = self._classes(job, val, transform, arguments)
                plain = Batches(held, data_threads(job, self._gpus))
            stages.append(Stage(model, Batches(train, data_threads(job, self._gpus)), plain))
        foreground = models[0]
        stages[0].begin = lambda: _set_trainable(foreground, True)
        stages[1].begin = lambda: _set_trainable(foreground, False)
        return stages

    def _classes(self, job: Job, tiles: Tiles, transform: str, arguments: Mapping[str, Any]) -> Pieces:
        """Return the classes of the tiles' pixels."""

        def one_hot(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
            found: npt.NDArray[np.uint8] = self._transform_masks(labels[np.newaxis], transform, **arguments)[0]
            return found

        facts = {"transform": transform, "arguments": dict(arguments)}
        return kept_classes(tiles, f"featurenet-{transform}", facts, one_hot, Path(job.output) / "work")

    def _loss(self, n_classes: int) -> Any:
        def loss(truth: Any, predicted: Any) -> Any:
            return self._crossentropy(truth, predicted, n_classes=n_classes)

        return loss

    def _infer(self, networks: Sequence[Any], x: npt.NDArray[np.float32], candidates: Sequence[Choice]) -> list[Any]:
        edges = self._call(networks[1], x)[-1]
        if all(choice.get("foreground_threshold") is None for choice in candidates):
            return [(None, edges[n]) for n in range(len(x))]
        foreground = self._call(networks[0], x)[-1][..., _FOREGROUND]
        return [(foreground[n], edges[n]) for n in range(len(x))]

    def _segment(self, raw: Any, choice: Choice, size: tuple[int, int]) -> LabelInstances:
        edges = raw[1][: size[0], : size[1]]
        arguments = {key: choice[key] for key in ("threshold", "min_size") if key in choice}
        masked = edges
        if choice.get("foreground_threshold") is not None:
            masked = edges * (raw[0][: size[0], : size[1], np.newaxis] > choice["foreground_threshold"])
        if choice.get("corners"):
            found = _joined_over_corners(masked[..., _INTERIOR], **arguments)
        else:
            found = self._pixelwise(masked[np.newaxis], **arguments)[0, ..., 0]
        labels = renumbered(found)
        if choice.get("grow"):
            from skimage.segmentation import expand_labels

            # the edges are a class of their own, so that an interior is smaller than its cell
            labels = expand_labels(labels, choice["grow"])
        return LabelInstances(labels, mean_scores(labels, edges[..., _INTERIOR]))


def _options(job: Job) -> dict[str, Any]:
    return {key: job.settings[key] for key in ("receptive_field", "n_skips", "n_conv_filters", "n_dense_filters")}


def _set_trainable(model: Any, trainable: bool) -> None:
    for layer in model.layers:
        layer.trainable = trainable


def _joined_over_corners(
    interior: npt.NDArray[np.float32], threshold: float = 0.2, min_size: int = 50
) -> npt.NDArray[np.int32]:
    from skimage.measure import label
    from skimage.morphology import remove_small_objects

    found: npt.NDArray[np.int32] = remove_small_objects(
        label(interior > threshold), max_size=min_size - 1, connectivity=1
    )
    return found
