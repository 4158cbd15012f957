"""Where a method differs from the study's paper and scripts and from its upstream configuration, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segbench.methods.card import Card
from segbench.methods.recipes import CELLS, STUDY, changes

BOTH = "cells and study"


@dataclass(frozen=True)
class Deviation:
    """One difference."""

    what: str
    here: str
    """What segbench does."""
    there: str
    """What the study's paper and scripts do, or the upstream configuration."""
    why: str
    recipe: str = BOTH
    """Under which recipe it differs."""


_WHY_SETTINGS = {
    "anchor_scale": "cells of 8 pixels have no anchor of 32 to 512",
    "backbone_norm": "frozen statistics of a network that was never trained are no normalisation",
    "batch_size": "the paper's batch fits the devices that the paper tells of; the scripts' is a GPU's, times four",
    "candidates": "windows hold more cells than photographs hold objects",
    "clip_gradients": "a training from random weights diverges without",
    "clip_norm": "a training from random weights diverges without",
    "flow_threshold": "chosen on validation windows: after a short training 0.4 drops nearly every mask",
    "keep_weak": "a threshold of 0.5 cuts the precision-recall curve, and AP with it",
    "learning_rate": "the paper itself says that MS R-CNN did not learn",
    "learning_rate_batch": "see learning_rate",
    "learning_rate_steps": "the scripts' steps are of another number of epochs",
    "max_detections": "windows hold more than 100 cells",
    "normalisation": "windows are 0..1 after preparation, and no photographs",
    "optimize_thresholds": "upstream chooses both thresholds after training; the study left the defaults",
    "postprocessing": "chosen on validation windows, by F1 at IoU 0.5, as StarDist's and Cellpose's thresholds are",
    "precision": "float16 on a GPU; losses are those of float32 but for rounding",
    "prediction_scale": "the scripts train and test at different scales",
    "pretrained": "every method starts alike, and needs no download",
    "proposals": "windows hold more than 1,000 candidates",
    "queries": "a query finds one cell at most, and windows hold more than 100",
    "scale": "what a detector gains by its family is not mixed with what it gains by enlarged windows",
    "scale_divisor": "the published sizes are of photographs of 800 px: most cells would share one level",
    "score_threshold": "most queries are near 0, and take time and memory alone",
}

_IN_PLANES = Deviation(
    "two channels",
    "three planes: nucleus, membrane, zeros",
    "two input channels where the scripts have *2C "
    "configurations (the first convolution then stays random, and frozen)",
    "weights of photographs fit, and nothing random is frozen",
)
_FROZEN = Deviation(
    "frozen parts",
    "none is frozen, batch norms learn",
    "stem and first stage are frozen, batch norms do not learn, where the weights are ImageNet's",
    "cells are no photographs; a frozen random network cannot learn",
)
_FLIPS = Deviation(
    "flips", "left to right and top to bottom", "left to right", "a window has no up; options cannot say so"
)
_JITTER = Deviation(
    "jitter",
    "none",
    "large-scale jitter: resized by 0.1 to 2, then cut to 256 px",
    "not built: cells at a tenth of their size are no cells",
    STUDY,
)
_ONE_SCALE = Deviation(
    "several scales",
    "one scale in training, the middle of the script's",
    "a scale is drawn for every image",
    "windows of one size share a batch, a graph and a kernel",
    STUDY,
)
_NO_SYNC = Deviation(
    "batch norm",
    "over all devices (SyncBN) where there are several",
    "a device's own, or SyncBN by configuration",
    "the result does not depend on how many devices share a batch",
)
_WARM_UP = Deviation(
    "warm-up",
    "at most a tenth of the training",
    "500 or 1,000 steps however short it is",
    "a short training would be nothing but warm-up",
)
_BUDGET = Deviation(
    "epochs", "the paper's", "the scripts' differ by task: see the card's budget note", "one number a method", STUDY
)
_MMDET = (_IN_PLANES, _FROZEN, _FLIPS, _NO_SYNC, _WARM_UP, _BUDGET)
_BGR = Deviation(
    "ImageNet weights of a Caffe ResNet-50",
    "fed the planes as normalised here",
    "resnet50_msra wants BGR and a deviation of 1 (mean 103.53, 116.28, 123.675)",
    "windows have no colours; the study fed them 55.07/67.23 as well",
)
_BATCHES = Deviation(
    "data", "drawn by segbench from the run's seed", "the scripts' own order", "a run can be repeated, and resumed"
)
_DEVICES = Deviation(
    "devices", "one process a device", "one GPU: the script has no strategy", "the paper tells of four"
)
_TEST_ANCHORS = Deviation(
    "anchors",
    "from the labels of training",
    "from the test labels when it predicts (R18)",
    "a method must not see the truth of the test images",
)

_OWN: Mapping[str, Sequence[Deviation]] = {
    "stardist": (
        Deviation(
            "percentiles in prediction",
            "as in training",
            "computed and not used: raw values are predicted on (R14)",
            "a network must be given what it was trained on",
        ),
        Deviation(
            "rates", "0.0003, the library's", "0.0004 and batch 16 are parsed and never used (R23)", "what was run"
        ),
    ),
    "cellpose": (
        Deviation(
            "diameter",
            "windows scaled by the training cells' mean diameter",
            "--diameter 23, which training ignores (R22)",
            "prediction at the scale of training",
        ),
        Deviation("crop", "224 px or the window's", "224 px", "windows may be smaller"),
    ),
    "mesmer": (
        Deviation(
            "smoothing",
            "deep_watershed's own",
            "maxima_model_smooth and interior_model_smooth, which it swallows (R17)",
            "what was run",
        ),
        Deviation("compartments", "one a model", "the released Mesmer has two", "the study trains one task at a time"),
        _DEVICES,
    ),
    "featurenet": (
        Deviation("epochs", "as many for both networks", "25 and 100", "one budget a method: see the card's note"),
        _DEVICES,
    ),
    "retinamask": (_TEST_ANCHORS, _DEVICES),
    "mask-rcnn": (
        *_MMDET,
        _JITTER,
        Deviation(
            "LIVECell's normalisation",
            "as for the others",
            "103.53/116.28/123.675 with deviation 1 for LIVECell alone",
            "one recipe a method",
            STUDY,
        ),
    ),
    "ms-rcnn": (
        *_MMDET,
        _BGR,
        Deviation(
            "task of nuclei from one channel", "its own", "the Slurm file launches the 2-channel one (R02)", "R02"
        ),
    ),
    "mask2former": (*_MMDET, _JITTER),
    "cascade-mask-rcnn-seesaw": (
        *_MMDET,
        _ONE_SCALE,
        Deviation(
            "Seesaw's loss",
            "kept",
            "kept",
            "it weighs classes against each other: with one class it does nothing, and what is left is the objectness "
            "that its classifier has beside the classes",
        ),
    ),
    "swin-s": (
        *_MMDET,
        _ONE_SCALE,
        Deviation(
            "test scales", "one, 2.5 times the window", "eleven, 480 to 800 px, merged", "one pass, as for all", STUDY
        ),
    ),
    "solov2": (*_MMDET, _ONE_SCALE),
    "rf-next": (
        *_MMDET,
        Deviation(
            "structure", "searched on the data, in the same run", "searched on COCO", "not published with the code"
        ),
        Deviation(
            "detector", "Cascade Mask R-CNN with Res2Net-101, as the scripts", "the paper: Mask R-CNN (C22)", "C22"
        ),
    ),
    "hrnet": _MMDET,
    "res2net": (
        *_MMDET,
        Deviation("configuration", "one for all tasks", "two Slurm files launch LIVECell's (R01)", "each task its own"),
    ),
    "resnest": (
        Deviation("network", "timm's ResNeSt-200", "the fork's own", "kept parts; the fork's library is not kept"),
        _IN_PLANES,
        Deviation("evaluation while it trains", "none", "on the test split (R26)", "the test split is for the end"),
    ),
    "centermask2": (
        Deviation("network", "timm's VoVNetV2-99", "the fork's own", "kept parts"),
        _IN_PLANES,
        Deviation(
            "box loss",
            "detectron2's FCOS: the IoU loss of each location counts alike, divided by a running average of "
            "their number",
            "each weighted by its centre-ness, divided by the batch's sum of the weights",
            "kept parts: the fork's FCOS is not maintained",
        ),
        Deviation("evaluation while it trains", "none", "on the test split (R26)", "the test split is for the end"),
    ),
    "segment-anything": (
        Deviation(
            "overlaps", "the script's rule of 70 % and 10,000 px", "the paper: default settings (C24)", "the script"
        ),
    ),
}


def deviations(card: Card) -> list[Deviation]:
    """Return all differences of a method: those of settings from its recipes, then the others.

    Examples
    --------
    >>> from segbench.engine.grid.cards import get_card
    >>> [one.what for one in deviations(get_card("featurenet"))]
    ['batch_size', 'postprocessing', 'epochs', 'devices']
    """
    name = "swin-s" if card.name == "swin-t" else card.name
    return [*_of_settings(card), *_OWN.get(name, ())]


def _of_settings(card: Card) -> Iterator[Deviation]:
    study, cells = changes(STUDY, card.name), changes(CELLS, card.name)
    if study.batch_size not in (None, card.budget.batch_size):
        yield _of("batch_size", card.budget.batch_size, study.batch_size)
    for name in sorted({*study.settings, *cells.settings}):
        default = card.settings[name].default
        here, there = cells.settings.get(name, default), study.settings.get(name, default)
        if json.dumps(here) != json.dumps(there):
            yield _of(name, here, there)


def _of(name: str, here: Any, there: Any) -> Deviation:
    why = _WHY_SETTINGS[name]
    return Deviation(name, _told(here), _told(there), why, CELLS)


def _told(value: Any) -> str:
    return "none" if value == 1e9 else value if isinstance(value, str) else json.dumps(value)
