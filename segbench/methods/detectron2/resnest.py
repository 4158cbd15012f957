"""ResNeSt: Cascade Mask R-CNN with a split-attention backbone, the study's most accurate method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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


class ResNeSt(Detectron2Method):
    """timm's ResNeSt-200 under detectron2's feature pyramid and cascade of three box heads, with a mask head."""

    card = Card(
        name="resnest",
        title="ResNeSt",
        family="detectron2",
        environment="torch",
        category="multi-stage",
        trained=True,
        attention=True,
        budget=Budget(
            batch_size=4,
            iterations=50_000,
            note=f"paper: batch 4, 50,000 iterations; {SCRIPTS}: 100,000 configured and 80,000 tested for LIVECell. "
            "paper and Slurm files: 4 GPUs",
        ),
        resources=Resources(num_gpus=4, memory_gb=8),
        libraries=LIBRARIES,
        start=Start("pretrained", "none", backbone="imagenet"),
        settings={
            **SETTINGS,
            "milestones": replace(MILESTONES, default=(0.5, 0.8)),
            "backbone": Setting("resnest200e", "any network of timm with stages of strides 4 to 32"),
            "deformable_groups": Setting(
                2, "of the 3 x 3 convolutions in stages 2 to 4: 0 for plain ones", unit="groups", minimum=0
            ),
            "width": WIDTH,
            "anchor_sizes": Setting(
                (4, 9, 17, 31, 64, 127),
                "sides of anchors in the resized window: two on p2, one each on p3 to p6",
                unit="pixels",
                type=float,
                above=0,
                length=6,
            ),
            "anchor_ratios": Setting(
                (0.25, 0.5, 1.0, 2.0, 4.0), "heights of anchors over their widths", unit="factor", above=0
            ),
            "box_convolutions": replace(CONVOLUTIONS, doc="of each box head"),
            "box_units": Setting(1024, "of each box head's layer after them", unit="channels", minimum=1),
            "mask_convolutions": replace(CONVOLUTIONS, default=8, doc="of the mask head"),
            "rpn_batch": Setting(256, "anchors of an image in one step's loss", unit="anchors", minimum=1),
            "roi_batch": Setting(512, "proposals of an image in one step's loss", unit="boxes", minimum=1),
            "candidates_train": replace(BOXES, default=12_000),
            "candidates_test": replace(BOXES, default=6_000, minimum=DETECTIONS),
            "proposals_train": replace(BOXES, doc="most boxes, after non-maximum suppression"),
            "proposals_test": replace(BOXES, doc="most boxes, after non-maximum suppression", minimum=DETECTIONS),
            "proposals_nms": replace(NMS_THRESHOLD, default=0.7, doc=f"among proposals: {NMS_THRESHOLD.doc}"),
            "score_threshold": SCORE_THRESHOLD,
            "nms_threshold": NMS_THRESHOLD,
            "detections": replace(BOXES, doc="most instances of an image", unit="instances", minimum=DETECTIONS),
        },
        check_settings={**CHECK_SETTINGS, "roi_batch": 16, "proposals_nms": 0.1},
        score_rule="mean over the cascade's three stages of the probability that the box holds a cell",
        data_parallel="torchrun",
        precisions=PRECISIONS,
        resumable=True,
        may_halve_batch=True,
        paper="Zhang et al., arXiv:2004.08955 (2020)",
        url="https://github.com/chongruo/detectron2-ResNeSt",
        licence="Apache-2.0",
    )

    def build(self, settings: Mapping[str, Any], normalisation: Normalisation) -> Any:
        """Return the detector that ``_cascade`` puts together."""
        check_detections(settings, "detections", "proposals_test", "candidates_test")
        from segbench.methods.detectron2 import _cascade

        return _cascade.build(settings, normalisation)
