"""RetinaMask: a RetinaNet that finds boxes of cells, with a head that draws a mask into each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from segbench.methods.base import Progress
from segbench.methods.card import Budget
from segbench.methods.deepcell.base import NO_SLURM, Choice, DeepcellMethod, Stage, card, renumbered
from segbench.methods.deepcell.batches import Batches, flow_lazily, kept_tiles
from segbench.methods.deepcell.boxes import BoxTargets, box_properties, expand_masks
from segbench.methods.deepcell.windows import Tiles
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances, MaskInstances, run_lengths
from segbench.methods.published import SCRIPTS
from segbench.methods.setting import Setting
from segbench.methods.tensorflow_devices import data_threads

_CHUNK = 64
"""Boxes that the mask head takes at once: about 0.8 MB a box and layer."""


@dataclass(frozen=True)
class Detections:
    """What the network says of one image; the best first."""

    boxes: npt.NDArray[np.float32]
    """(k, 4): left, top, right, bottom."""
    scores: npt.NDArray[np.float32]
    """(k,)."""
    masks: npt.NDArray[np.float32]
    """(k, 28, 28), probabilities within the box."""
    side: int
    """Pixels of the image's side."""

    def select(self, chosen: Any) -> Detections:
        """Return some of them."""
        return Detections(self.boxes[chosen], self.scores[chosen], self.masks[chosen], self.side)


class RetinaMask(DeepcellMethod):
    """RetinaMask on a ResNet-50, whose pyramid levels and anchors are fitted to the training cells."""

    prediction_kind = "masks"
    card = card(
        "retinamask",
        "RetinaMask",
        ("deepcell-retinamask", "deepcell", "deepcell-toolbox"),
        ("upstream", "published", "detections"),
        {
            "learning_rate": Setting(5e-4, "of Adam, in the first epoch", above=0),
            "clipnorm": Setting(1e-3, "largest norm of one parameter's gradient", above=0),
            "shuffle": Setting(
                True, "draw the images in random order: this generator's default, unlike the others', is their own"
            ),
            "keep_weak": Setting(
                False,
                "after tuning, keep every detection of a score above 0.05 as a mask of its own, as others do",
                prediction=True,
                neutral_default=True,
            ),
            "max_detections": Setting(
                3000, "most boxes of an image: upstream's default is 300", unit="boxes", minimum=1, prediction=True
            ),
        },
        budget=Budget(
            batch_size=8,
            epochs=100,
            note=f"paper: 100 epochs, batch not stated; {SCRIPTS}: batch 8, 100 epochs. {NO_SLURM}",
        ),
        score_rule="the score of the detection that the instance was drawn from",
        paper="Fu, Shvets and Berg, arXiv:1901.03353 (2019)",
        url="https://github.com/vanvalenlab/deepcell-retinamask",
    )
    min_objects = 3
    choices: ClassVar[Mapping[str, Choice]] = {
        # deepcell_retinamask's retinamask_postprocess with its own defaults: one label map, no overlaps
        "upstream": {},
        # the study's scripts: the same, after at most 300 detections
        "published": {"max_detections": 300},
        # every detection of the network as a mask of its own, overlaps and all, as two-stage detectors are scored
        "detections": {"overlaps": True, "score_threshold": 0.05},
    }
    grid: ClassVar[Sequence[Choice]] = [
        {"score_threshold": score, "binarize_threshold": binarize, "multi_iou_threshold": overlap}
        for score in (0.5, 0.4, 0.3, 0.2, 0.6)
        for binarize in (0.5, 0.4)
        for overlap in (0.25, 0.5)
    ]
    argument_names = frozenset({
        "score_threshold", "multi_iou_threshold", "binarize_threshold", "small_objects_threshold", "max_detections",
        "overlaps",
    })  # fmt: skip

    def _import_deepcell(self) -> None:
        import deepcell_retinamask.model_zoo.retinamask as networks
        from deepcell_retinamask.image_generators import RetinaNetGenerator
        from deepcell_retinamask.losses import RetinaNetLosses
        from deepcell_retinamask.utils import anchor_utils
        from deepcell_retinamask.utils.postprocessing_utils import retinamask_postprocess

        self._zoo, self._generator, self._losses = networks, RetinaNetGenerator, RetinaNetLosses
        self._anchor_utils: Any = anchor_utils
        self._anchor_parameters = anchor_utils.AnchorParameters
        self._postprocess = retinamask_postprocess
        self._heads: dict[int, tuple[Any, Any]] = {}
        self._max_detections = 3000

    def load(self, job: Job, train: Any, val: Any) -> None:
        """See the base."""
        self._max_detections = int(job.settings["max_detections"])
        super().load(job, train, val)

    def restore(self, job: Job, folder: Any) -> None:
        """See the base."""
        self._max_detections = int(job.settings["max_detections"])
        super().restore(job, folder)
        self._keep_weak(job)

    def calibrate(self, job: Job, progress: Progress) -> None:
        """See the base; what was tuned is how masks are drawn where weak detections are kept."""
        super().calibrate(job, progress)
        self._keep_weak(job)

    def _candidates(self, job: Job) -> Sequence[Choice]:
        if job.settings["keep_weak"]:  # scores and overlaps are left as they are: how masks are drawn is all there is
            return [{"binarize_threshold": threshold} for threshold in (0.5, 0.4, 0.3, 0.6)]
        return self.grid

    def _keep_weak(self, job: Job) -> None:
        if job.settings["keep_weak"] and job.settings["postprocessing"] == "tuned":
            drawn = {key: value for key, value in self._choice.items() if key == "binarize_threshold"}
            self._choice = {**self.choices["detections"], **drawn, **job.settings["postprocessing_arguments"]}

    def _prepare(self, tiles: Tiles) -> None:
        # from the labels of training; the study's scripts take them from the test labels when they predict.
        # Upstream asks for nothing but the cells' boxes
        self._anchor_utils.regionprops = box_properties
        _, levels, anchors = self._anchor_utils.get_anchor_parameters(tiles.y)
        if not levels:
            raise ValueError("the cells are too small for RetinaMask's anchors: nearly all are below 8 pixels")
        self._levels, self._anchors = list(levels), anchors

    def _facts(self) -> dict[str, Any]:
        anchors = self._anchors
        names = ("sizes", "strides", "ratios", "scales")
        return {"levels": self._levels, **{n: [float(v) for v in getattr(anchors, n)] for n in names}}

    def _take_facts(self, facts: Mapping[str, Any]) -> None:
        self._levels = list(facts["levels"])
        names = ("sizes", "strides", "ratios", "scales")
        self._anchors = self._anchor_parameters(*(np.asarray(facts[name]) for name in names))

    def _build(self, side: int) -> list[Any]:
        return [
            self._zoo.RetinaMask(
                backbone="resnet50", num_classes=1, input_shape=(side, side, self._channels),
                backbone_levels=[f"C{level[1:]}" for level in self._levels], pyramid_levels=self._levels,
                anchor_params=self._anchors, class_specific_filter=False, mask_size=(28, 28), use_imagenet=False,
            )
        ]  # fmt: skip

    def _build_stages(self, job: Job, side: int, tiles: Tiles, val: Tiles | None) -> list[Stage]:
        (model,) = self._build(side)
        self._set_momentum(model, job)
        losses = self._losses(sigma=3.0, alpha=0.25, gamma=2.0, iou_threshold=0.5, mask_size=(28, 28))
        model.compile(
            optimizer=self._tf.keras.optimizers.Adam(
                learning_rate=job.settings["learning_rate"], clipnorm=job.settings["clipnorm"]
            ),
            loss={
                "regression": losses.regress_loss,
                "classification": losses.classification_loss,
                "masks": lambda truth, predicted: losses.mask_loss(expand_masks(self._tf, truth, side), predicted),
            },
        )
        augmented = self._generator(
            rotation_range=180, zoom_range=(0.7, 1 / 0.7), horizontal_flip=True, vertical_flip=True
        )
        flow = {
            "batch_size": job.budget.batch_size, "include_bbox": True, "include_masks": True,
            "pyramid_levels": self._levels, "anchor_params": self._anchors,
        }  # fmt: skip
        train = flow_lazily(
            augmented.flow, tiles, seed=job.seed % 2**31, shuffle=job.settings["shuffle"], min_objects=self.min_objects,
            **flow,
        )  # fmt: skip
        make, workers = BoxTargets(self._anchors_for(side)), data_threads(job, self._gpus)
        held = None if val is None else kept_tiles(val, 1)
        if not held:
            return [Stage(model, Batches(train, workers, make), None)]
        plain = flow_lazily(self._generator().flow, held, shuffle=False, min_objects=1, **flow)
        return [Stage(model, Batches(train, workers, make), Batches(plain, workers, make))]

    def _anchors_for(self, side: int) -> npt.NDArray[np.float64]:
        levels = [int(level[1:]) for level in self._levels]
        found: npt.NDArray[np.float64] = self._anchor_utils.anchors_for_shape(
            (side, side, self._channels), pyramid_levels=levels, anchor_params=self._anchors
        )
        return found

    def _variable_axes(self, name: str) -> int:
        return {"boxes_input": 1, "masks": 1}.get(name, 0)

    def _infer(
        self, networks: Sequence[Any], x: npt.NDArray[np.float32], candidates: Sequence[Choice]
    ) -> list[Detections]:
        """Find boxes in all images and draw the masks of those alone whose score one of the post-processings asks for.

        The layers are those of upstream's ``retinamask_bbox``, which draws a mask for every one of its
        ``max_detections`` places, filled or not; here its graph is run in two parts with a filter in between.
        """
        lowest = min(float(choice.get("score_threshold", 0.5)) for choice in candidates)
        side = x.shape[1]
        if side not in self._heads:
            self._heads[side] = self._two_parts(networks[-1])
        detector, head = self._heads[side]
        all_boxes, all_scores, features = self._call(detector, x)
        found = []
        for boxes, scores, feature in zip(all_boxes, all_scores, features, strict=True):
            kept = np.flatnonzero((scores > lowest) & has_area(boxes))
            masks = [
                head(feature[np.newaxis], boxes[np.newaxis, kept[first : first + _CHUNK]]).numpy()[0, ..., -1]
                for first in range(0, kept.size, _CHUNK)
            ]
            drawn = np.concatenate(masks) if masks else np.zeros((0, 28, 28), np.float32)
            found.append(Detections(boxes[kept], scores[kept], drawn, side))
        return found

    def _two_parts(self, model: Any) -> tuple[Any, Any]:
        tf = self._tf
        whole = self._zoo.retinamask_bbox(
            model, nms=True, class_specific_filter=False, anchor_params=self._anchors,
            max_detections=self._max_detections,
        ).get_layer("retinanet-bbox")  # fmt: skip
        align = next(layer for layer in whole.layers if type(layer).__name__ == "RoiAlign")
        masks = whole.get_layer("mask_submodel")
        boxes, scores = whole.outputs[:2]
        detector = tf.keras.Model(whole.inputs[0], [boxes, scores, align.input[1]])
        features = tf.TensorSpec((1, None, None, 256), tf.float32)
        head = tf.function(
            lambda feature, chosen: masks(align([chosen, feature])),
            input_signature=[features, tf.TensorSpec((1, None, 4), tf.float32)],
        )
        return detector, head

    def _segment(self, raw: Detections, choice: Choice, size: tuple[int, int]) -> MaskInstances:
        if choice.get("overlaps"):
            chosen = self._chosen(raw, choice)
            masks = [drawn[: size[0], : size[1]] for drawn in draw(chosen, choice.get("binarize_threshold", 0.5))]
            shown = [n for n, mask in enumerate(masks) if mask.any()]
            return MaskInstances([run_lengths(masks[n]) for n in shown], chosen.scores[shown].astype(np.float64))
        labelled = self._label_map(raw, choice, size)
        numbers = range(1, int(labelled.labels.max()) + 1)
        return MaskInstances([run_lengths(labelled.labels == number) for number in numbers], labelled.scores)

    def _labels(self, raw: Detections, choice: Choice, size: tuple[int, int]) -> npt.NDArray[np.int32]:
        return self._label_map(raw, choice, size).labels

    def _label_map(self, raw: Detections, choice: Choice, size: tuple[int, int]) -> LabelInstances:
        """Return upstream's label map; an instance has the score of the detection with the mask of best IoU."""
        chosen = self._chosen(raw, choice)
        if not chosen.scores.size:
            return LabelInstances(np.zeros(size, np.int32), np.zeros(0))
        arguments = {key: value for key, value in choice.items() if key not in {"max_detections", "overlaps"}}
        outputs = [chosen.boxes, chosen.scores, np.zeros(chosen.scores.size, np.int32), chosen.masks[..., np.newaxis]]
        shape = (raw.side, raw.side)
        whole = self._postprocess([output[np.newaxis] for output in outputs], shape, **arguments)[0]
        labels = renumbered(whole.astype(np.int32)[: size[0], : size[1]])
        masks = draw(chosen, arguments.get("binarize_threshold", 0.5))[:, : size[0], : size[1]]
        overlaps = np.stack([np.bincount(labels[mask], minlength=int(labels.max()) + 1) for mask in masks])[:, 1:]
        areas = np.bincount(labels.ravel(), minlength=int(labels.max()) + 1)[1:]
        iou = overlaps / (masks.sum((1, 2))[:, np.newaxis] + areas - overlaps).clip(1)
        return LabelInstances(labels, chosen.scores[iou.argmax(0)].astype(np.float64))

    @staticmethod
    def _chosen(raw: Detections, choice: Choice) -> Detections:
        best = raw.select(slice(choice.get("max_detections")))
        return best.select(best.scores > choice.get("score_threshold", 0.5))


def has_area(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return which (k, 4) boxes hold a pixel once cut to whole numbers.

    The others end upstream's post-processing with an error: it resizes their masks to nothing
    (deepcell_retinamask/utils/postprocessing_utils.py:73). Places that the detector did not fill are among them.
    """
    left, top, right, bottom = boxes.astype(int).T
    shown: npt.NDArray[np.bool_] = (right > left) & (bottom > top)
    return shown


def draw(found: Detections, threshold: float) -> npt.NDArray[np.bool_]:
    """Return (k, S, S) masks, drawn into their boxes as upstream does (postprocessing_utils.py:70-75)."""
    from skimage.transform import resize

    canvas = np.zeros((found.scores.size, found.side, found.side), dtype=bool)
    for n, (left, top, right, bottom) in enumerate(found.boxes.astype(int)):
        canvas[n, top:bottom, left:right] = resize(found.masks[n], (bottom - top, right - left)) > threshold
    return canvas
