"""Mesmer: a PanopticNet for each pixel's nearness to its cell's centre and its class, and a watershed on both."""

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
from segbench.methods.deepcell.batches import Batches, Targets, flow_lazily, kept_tiles
from segbench.methods.deepcell.targets import kept_classes, kept_values
from segbench.methods.deepcell.windows import Pieces, Tiles
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances
from segbench.methods.published import SCRIPTS
from segbench.methods.setting import Setting
from segbench.methods.tensorflow_devices import data_threads

_TRANSFORMS: dict[str, dict[str, Any]] = {
    "inner-distance": {"erosion_width": 1, "alpha": "auto"},
    "pixelwise": {"dilation_radius": 1},
}
_APPLICATION = {
    "interior_threshold": 0.2,
    "interior_smooth": 2,
    "small_objects_threshold": 15,
    "fill_holes_threshold": 15,
}


class Mesmer(DeepcellMethod):
    """Mesmer's network (PanopticNet, ResNet-50) for one compartment, trained from scratch."""

    card = card(
        "mesmer",
        "Mesmer",
        ("deepcell", "deepcell-toolbox"),
        ("upstream", "application-nuclear", "application-whole-cell", "published"),
        {
            "learning_rate": Setting(4e-4, "of Adam, in the first epoch", above=0),
            "clipnorm": Setting(1e-3, "largest norm of one parameter's gradient", above=0),
            "pixelwise_weight": Setting(
                0.01, "of the pixel classes' loss beside the inner distance's", unit="factor", minimum=0
            ),
        },
        budget=Budget(
            batch_size=8,
            epochs=200,
            note=f"paper: batch 8, 200 epochs; {SCRIPTS} agree (batch 1 until January 2024). {NO_SLURM}",
        ),
        score_rule="the mean predicted probability of a cell's interior over the instance's pixels",
        paper="Greenwald et al., Nature Biotechnology 40 (2022), doi:10.1038/s41587-021-01094-0",
        url="https://github.com/vanvalenlab/deepcell-tf",
    )
    min_objects = 1
    choices: ClassVar[Mapping[str, Choice]] = {
        # deepcell_toolbox.deep_watershed's own defaults
        "upstream": {},
        # deepcell.applications.Mesmer's for nuclei and for whole cells (deepcell/applications/mesmer.py:303-322)
        "application-nuclear": {**_APPLICATION, "maxima_threshold": 0.1, "radius": 2},
        "application-whole-cell": {**_APPLICATION, "maxima_threshold": 0.075, "radius": 2},
        # the study's scripts, without the two names that deep_watershed swallows unused
        "published": {
            "rescale": True, "maxima_threshold": 0.3, "interior_threshold": 0.3, "radius": 3,
            "small_objects_threshold": 10, "fill_holes_threshold": 10, "pixel_expansion": 3,
        },
    }  # fmt: skip
    grid: ClassVar[Sequence[Choice]] = [
        {"radius": radius, "maxima_threshold": maxima, "interior_threshold": interior}
        for radius in (10, 2)
        for maxima in (0.1, 0.05, 0.2)
        for interior in (0.01, 0.1, 0.2, 0.3, 0.5)
    ]
    argument_names = frozenset({
        "radius", "maxima_threshold", "interior_threshold", "maxima_smooth", "interior_smooth", "label_erosion",
        "small_objects_threshold", "fill_holes_threshold", "pixel_expansion", "maxima_algorithm", "rescale",
    })  # fmt: skip

    def _import_deepcell(self) -> None:
        from deepcell.image_generators import CroppingDataGenerator, _transform_masks
        from deepcell.losses import weighted_categorical_crossentropy
        from deepcell.model_zoo.panopticnet import PanopticNet
        from deepcell_toolbox.deep_watershed import deep_watershed

        self._generator, self._crossentropy = CroppingDataGenerator, weighted_categorical_crossentropy
        self._panoptic_net, self._deep_watershed = PanopticNet, deep_watershed
        self._transform_masks = _transform_masks

    def _build(self, side: int) -> list[Any]:
        return [
            self._panoptic_net(
                backbone="resnet50", input_shape=(side, side, self._channels), norm_method=None,
                num_semantic_classes=[1, 3], location=True, include_top=True, use_imagenet=False,
            )
        ]  # fmt: skip

    def _build_stages(self, job: Job, side: int, tiles: Tiles, val: Tiles | None) -> list[Stage]:
        (model,) = self._build(side)
        self._set_momentum(model, job)
        optimizer = self._tf.keras.optimizers.Adam(
            learning_rate=job.settings["learning_rate"], clipnorm=job.settings["clipnorm"]
        )
        heads = [layer for layer in model.layers if layer.name.startswith("semantic_")]
        model.compile(
            optimizer=optimizer,
            loss={head.name: self._loss(head.output_shape[-1], job.settings["pixelwise_weight"]) for head in heads},
        )
        augmented = self._generator(
            rotation_range=180, zoom_range=(0.7, 1 / 0.7), horizontal_flip=True, vertical_flip=True
        )
        flow = {
            "batch_size": job.budget.batch_size, "transforms": list(_TRANSFORMS), "transforms_kwargs": _TRANSFORMS,
            "min_objects": self.min_objects,
        }  # fmt: skip
        workers, spare = data_threads(job, self._gpus), Path(job.output) / "work"
        train = self._flow(augmented, tiles, spare, seed=job.seed % 2**31, shuffle=True, **flow)
        held = None if val is None else kept_tiles(val, self.min_objects)
        if not held:
            return [Stage(model, Batches(train, workers), None)]
        plain = self._flow(self._generator(), held, spare, shuffle=False, **flow)
        return [Stage(model, Batches(train, workers), Batches(plain, workers))]

    def _flow(self, generator: Any, tiles: Tiles, spare: Path, **options: Any) -> Any:
        """Return upstream's iterator with the targets that it would compute before it turns and scales them."""
        iterator = flow_lazily(generator.flow, tiles, **options)
        kept = kept_tiles(tiles, self.min_objects)

        def made(transform: str, keep: Any) -> Pieces:
            arguments: dict[str, Any] = _TRANSFORMS[transform]

            def one(labels: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
                found: npt.NDArray[Any] = self._transform_masks(labels[np.newaxis], transform, **arguments)[0]
                return found

            pieces: Pieces = keep(kept, f"mesmer-{transform}", {"arguments": arguments}, one, spare)
            return pieces

        iterator.y = Targets([made("inner-distance", kept_values), made("pixelwise", kept_classes)])
        iterator._transform_labels = lambda targets: targets
        return iterator

    def _loss(self, n_classes: int, weight: float) -> Any:
        """Return upstream's loss of a head: squared error for the distance, weighted cross-entropy for the classes."""

        def loss(truth: Any, predicted: Any) -> Any:
            if n_classes > 1:
                return weight * self._crossentropy(truth, predicted, n_classes=n_classes)
            return self._tf.keras.losses.MSE(truth, predicted)

        return loss

    def _infer(
        self,
        networks: Sequence[Any],
        x: npt.NDArray[np.float32],
        candidates: Sequence[Choice],  # noqa: ARG002
    ) -> list[Any]:
        inner, pixelwise = self._call(networks[-1], x)
        return [(inner[n], pixelwise[n, ..., 1:2]) for n in range(len(x))]

    def _segment(self, raw: Any, choice: Choice, size: tuple[int, int]) -> LabelInstances:
        inner, interior = (output[: size[0], : size[1]] for output in raw)
        arguments = dict(choice)
        maxima, mask = (inner, interior) if not arguments.pop("rescale", False) else map(_min_max, (inner, interior))
        found = self._deep_watershed([maxima[np.newaxis], mask[np.newaxis]], **arguments)
        labels = renumbered(found[0, ..., 0])
        return LabelInstances(labels, mean_scores(labels, interior[..., 0]))


def _min_max(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    low, high = image.min(), image.max()
    scaled: npt.NDArray[np.float32] = (image - low) / max(high - low, np.finfo(np.float32).tiny)
    return scaled
