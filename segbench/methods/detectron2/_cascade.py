"""Cascade Mask R-CNN on a ResNeSt backbone, put together from detectron2's parts; imported only where detectron2 is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import FPN, GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
)

from segbench.methods.detectron2._backbones import TimmBackbone, deform
from segbench.methods.planes import Normalisation

STAGES = ("res2", "res3", "res4", "res5")
_RPN_LEVELS = (("p2", 4), ("p2", 4), ("p3", 8), ("p4", 16), ("p5", 32), ("p6", 64))
_POOLED = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
_CASCADE = ((0.5, (10, 10, 5, 5)), (0.6, (20, 20, 10, 10)), (0.7, (30, 30, 15, 15)))
"""IoU that makes a proposal a cell, and the weights of the box regression, stage by stage (Cascade R-CNN, table 4)."""


class Float32Pooler(ROIPooler):  # type: ignore[misc]
    """detectron2's RoIAlign in float32, also under autocast.

    Upstream rounds the boxes to the features' type: in bfloat16 to whole pixels from 128 on.
    """

    def forward(self, x: Sequence[Any], box_lists: Sequence[Any]) -> Any:
        """Return the features of all boxes."""
        return super().forward([level.float() for level in x], box_lists)


def build(settings: Mapping[str, Any], normalisation: Normalisation) -> Any:
    """Return the untrained detector; every number that is not in ``settings`` is upstream's default.

    The arrangement is that of ``cascade_rcnn.py`` and ``mask_rcnn_fpn.py`` in detectron2's ``model_zoo``; what the
    study changed there (anchors, batch norm in all heads, four convolutions before the box head's layer, eight
    before the mask's) comes with the settings.
    """
    width = settings["width"]
    body = TimmBackbone(settings["backbone"], STAGES, settings["pretrained"])
    if settings["deformable_groups"]:
        deform(body, settings["deformable_groups"])
    backbone = FPN(body, list(STAGES), width, norm="BN", top_block=LastLevelMaxPool())
    return GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=_proposals(settings),
        roi_heads=_heads(settings),
        pixel_mean=normalisation.mean,
        pixel_std=normalisation.std,
    )


def _proposals(settings: Mapping[str, Any]) -> RPN:
    anchors = DefaultAnchorGenerator(
        sizes=[[size] for size in settings["anchor_sizes"]],
        aspect_ratios=list(settings["anchor_ratios"]),
        strides=[stride for _, stride in _RPN_LEVELS],
    )
    return RPN(
        in_features=[level for level, _ in _RPN_LEVELS],
        head=StandardRPNHead(in_channels=settings["width"], num_anchors=anchors.num_anchors[0]),
        anchor_generator=anchors,
        anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=settings["rpn_batch"],
        positive_fraction=0.5,
        pre_nms_topk=(settings["candidates_train"], settings["candidates_test"]),
        post_nms_topk=(settings["proposals_train"], settings["proposals_test"]),
        nms_thresh=settings["proposals_nms"],
    )


def _heads(settings: Mapping[str, Any]) -> CascadeROIHeads:
    width, levels = settings["width"], list(_POOLED)
    scales = [1 / stride for stride in _POOLED.values()]
    box_shape, mask_shape = (ShapeSpec(channels=width, height=side, width=side) for side in (7, 14))

    def box_head() -> FastRCNNConvFCHead:
        convolutions = [width] * settings["box_convolutions"]
        return FastRCNNConvFCHead(box_shape, conv_dims=convolutions, fc_dims=[settings["box_units"]], conv_norm="BN")

    def box_predictor(weights: tuple[int, ...]) -> FastRCNNOutputLayers:
        return FastRCNNOutputLayers(
            ShapeSpec(channels=settings["box_units"]), box2box_transform=Box2BoxTransform(weights), num_classes=1,
            test_score_thresh=settings["score_threshold"], test_nms_thresh=settings["nms_threshold"],
            test_topk_per_image=settings["detections"], cls_agnostic_bbox_reg=True,
        )  # fmt: skip

    return CascadeROIHeads(
        num_classes=1,
        batch_size_per_image=settings["roi_batch"],
        positive_fraction=0.25,
        box_in_features=levels,
        box_pooler=Float32Pooler(7, scales, 0, "ROIAlignV2"),
        box_heads=[box_head() for _ in _CASCADE],
        box_predictors=[box_predictor(weights) for _, weights in _CASCADE],
        proposal_matchers=[Matcher([iou], [0, 1], allow_low_quality_matches=False) for iou, _ in _CASCADE],
        mask_in_features=levels,
        mask_pooler=Float32Pooler(14, scales, 0, "ROIAlignV2"),
        mask_head=MaskRCNNConvUpsampleHead(
            mask_shape, num_classes=1, conv_dims=[width] * (settings["mask_convolutions"] + 1), conv_norm="BN"
        ),
    )
