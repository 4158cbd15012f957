"""CenterMask2: anchor-free boxes of FCOS on VoVNetV2, with a spatial-attention-guided mask for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segbench.errors import SegbenchError
from segbench.methods.card import PRECISIONS, Budget, Card, Resources
from segbench.methods.detectron2.base import (
    BOXES,
    CHECK_SETTINGS,
    CONVOLUTIONS,
    DETECTIONS,
    LIBRARIES,
    MILESTONES,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
    SETTINGS,
    WIDTH,
    Detectron2Method,
    check_detections,
)
from segbench.methods.planes import Normalisation
from segbench.methods.published import SCRIPTS
from segbench.methods.setting import Setting
from segbench.methods.start import Start


class CenterMask2(Detectron2Method):
    """CenterMask2 from kept parts: timm's VoVNetV2, detectron2's pyramid and FCOS, and the paper's mask branches."""

    card = Card(
        name="centermask2",
        title="CenterMask2",
        family="detectron2",
        environment="torch",
        category="one-stage",
        trained=True,
        attention=True,
        budget=Budget(
            batch_size=32,
            iterations=100_000,
            note=f"paper: batch 32, 100,000 iterations; {SCRIPTS}: batch 4 for both 2-channel tasks, 200,000 "
            "iterations for LIVECell, checkpoints tested at 40,000 to 100,000. paper and Slurm files: 4 GPUs",
        ),
        resources=Resources(num_gpus=4, memory_gb=8),
        libraries=LIBRARIES,
        start=Start("pretrained", "none"),
        settings={
            **SETTINGS,
            "milestones": MILESTONES,
            "backbone": Setting("ese_vovnet99b", "any network of timm with stages of strides 8 to 32"),
            "backbone_norm": Setting(
                "batch",
                "frozen is the study's, which without pretrained weights is no norm at all",
                choices=("batch", "frozen"),
            ),
            "width": WIDTH,
            "tower": Setting(4, "convolutions before FCOS's classes and before its boxes", minimum=1),
            "mask_convolutions": replace(CONVOLUTIONS, doc="of the mask head", minimum=1),
            "mask_iou": Setting(True, "predict the masks' IoU: the study's 2-channel models go without"),
            "roi_batch": Setting(
                3_000, "a quarter of it is the most boxes of an image in one step's mask loss", unit="boxes", minimum=4
            ),
            "candidates_train": replace(BOXES, default=2_000),
            "candidates_test": replace(BOXES, default=4_000, minimum=DETECTIONS),
            "proposals_train": replace(BOXES, default=15_000, doc="most boxes, after non-maximum suppression"),
            "score_threshold": SCORE_THRESHOLD,
            "nms_threshold": replace(NMS_THRESHOLD, default=0.6),
            "detections": replace(BOXES, doc="most instances of an image", unit="instances", minimum=DETECTIONS),
        },
        check_settings=CHECK_SETTINGS,
        score_rule="square root of class probability x centre-ness, times the mask's predicted IoU",
        data_parallel="torchrun",
        precisions=PRECISIONS,
        resumable=True,
        may_halve_batch=True,
        paper="Lee and Park, CVPR 2020, arXiv:1911.06667",
        url="https://github.com/youngwanLEE/centermask2",
        licence="Apache-2.0",
    )

    def build(self, settings: Mapping[str, Any], normalisation: Normalisation) -> Any:
        """Return the detector that ``_center_mask`` puts together."""
        check_detections(settings, "detections", "candidates_test")
        if settings["backbone_norm"] not in ("batch", "frozen"):
            raise SegbenchError(f"setting backbone_norm is {settings['backbone_norm']!r}; it is batch or frozen")
        from segbench.methods.detectron2 import _center_mask

        return _center_mask.build(settings, normalisation)
