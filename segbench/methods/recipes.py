"""The recipes of the methods: what ``recipe: study`` and ``recipe: cells`` make of a card's settings and batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STUDY, CELLS, CARDS = "study", "cells", "cards"
RECIPES = (CELLS, STUDY, CARDS)
"""``cells``: what finds cells best. ``study``: the paper and its scripts to the letter, as far as settings go.
``cards``: the cards as they are, as segbench 0.1 ran them."""


@dataclass(frozen=True)
class Changes:
    """What a recipe makes of a card.

    Examples
    --------
    >>> changes("study", "swin-t").settings["scale"], changes("cells", "watershed").settings
    (2.5, {})
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the card's."""
    batch_size: int | None = None
    """Images a training step over all devices, where it is another than the card's."""


_NO_CLIP = 1e9
"""A norm that no gradient has: the scripts do not clip."""
_BOXES = {"anchor_scale": 8, "proposals": 1000, "max_detections": 100}
_DETECTOR = {"pretrained": "imagenet", "normalisation": "study", "precision": "float32", "clip_norm": _NO_CLIP}
_SWIN = {
    **_BOXES,
    "pretrained": "imagenet",
    "normalisation": "imagenet",
    "precision": "float32",
    "scale": 2.5,
}
_DETECTRON = {"normalisation": "livecell", "precision": "float32", "clip_gradients": 0.0}

_STUDY: Mapping[str, Changes] = {
    "stardist": Changes({"optimize_thresholds": False}, batch_size=4),
    "cellpose": Changes({"flow_threshold": 0.4}),
    "mesmer": Changes({"postprocessing": "published"}),
    "featurenet": Changes({"postprocessing": "published"}, batch_size=1),
    "retinamask": Changes({"postprocessing": "published", "max_detections": 300}),
    "mask-rcnn": Changes({**_BOXES, **_DETECTOR, "pretrained": "none"}, batch_size=96),
    "ms-rcnn": Changes(
        {
            **_BOXES,
            **_DETECTOR,
            "learning_rate": 0.001,
            "learning_rate_batch": 192,
            "learning_rate_steps": [0.32, 0.44],
        },
        batch_size=192,
    ),
    "mask2former": Changes(
        {
            "pretrained": "imagenet",
            "normalisation": "study",
            "precision": "float32",
            "queries": 100,
            "score_threshold": 0.0,
        },
        batch_size=144,
    ),
    "cascade-mask-rcnn-seesaw": Changes(
        {**_SWIN, "max_detections": 300, "scale": 2.8125, "prediction_scale": 1.875}, batch_size=32
    ),
    "swin-s": Changes(_SWIN, batch_size=32),
    "swin-t": Changes(_SWIN, batch_size=32),
    "solov2": Changes(
        {
            "pretrained": "imagenet",
            "normalisation": "imagenet",
            "precision": "float32",
            "scale": 2.8125,
            "prediction_scale": 1.0,
            "max_detections": 100,
            "candidates": 500,
            "scale_divisor": 1,
        },
        batch_size=32,
    ),
    "rf-next": Changes({**_BOXES, **_DETECTOR, "learning_rate_steps": [0.5, 0.8]}, batch_size=32),
    "hrnet": Changes({**_BOXES, **_DETECTOR}, batch_size=96),
    "res2net": Changes({**_BOXES, **_DETECTOR}, batch_size=32),
    "resnest": Changes(_DETECTRON),
    "centermask2": Changes({**_DETECTRON, "backbone_norm": "frozen"}),
}

_CELLS: Mapping[str, Changes] = {
    "mesmer": Changes({"postprocessing": "tuned"}),
    "featurenet": Changes({"postprocessing": "tuned"}),
    "retinamask": Changes({"postprocessing": "tuned", "keep_weak": True}),
}


def changes(recipe: str, method: str) -> Changes:
    """Return what a recipe makes of a method's card; nothing of a card that it says nothing of."""
    known: Mapping[str, Mapping[str, Changes]] = {STUDY: _STUDY, CELLS: _CELLS, CARDS: {}}
    return known[recipe].get(method, Changes())
