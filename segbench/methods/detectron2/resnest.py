"""ResNeSt: Cascade Mask R-CNN with a split-attention backbone, the study's most accurate method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segbench.methods.card import Budget, Card, Resources
from segbench.methods.detectron2.base import (
    CHECK_SETTINGS,
    LIBRARIES,
    SETTINGS,
    Detectron2Method,
    check_detections,
)
from segbench.methods.planes import Normalisation
from segbench.methods.published import SCRIPTS, usability


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
        usability=usability(0.17),
        libraries=LIBRARIES,
        settings={
            **SETTINGS,
            "milestones": (0.5, 0.8),  # shares of the budget
            "backbone": "resnest200e",  # any network of timm with stages of strides 4 to 32
            "deformable_groups": 2,  # of the 3 x 3 convolutions in stages 2 to 4; 0 for plain ones
            "width": 256,  # channels of the pyramid and of the heads
            "anchor_sizes": (4, 9, 17, 31, 64, 127),  # pixels of the resized window: two on p2, one each on p3 to p6
            "anchor_ratios": (0.25, 0.5, 1.0, 2.0, 4.0),
            "box_convolutions": 4,
            "box_units": 1024,
            "mask_convolutions": 8,
            "rpn_batch": 256,  # anchors of an image in one step's loss
            "roi_batch": 512,  # proposals of an image in one step's loss
            "candidates_train": 12_000,  # of each level, before non-maximum suppression
            "candidates_test": 6_000,
            "proposals_train": 3_000,  # after it
            "proposals_test": 3_000,
            "proposals_nms": 0.7,
            "score_threshold": 0.05,
            "nms_threshold": 0.5,
            "detections": 3_000,
        },
        check_settings={**CHECK_SETTINGS, "roi_batch": 32, "proposals_nms": 0.3},
        score_rule="mean over the cascade's three stages of the probability that the box holds a cell",
        data_parallel="torchrun",
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
