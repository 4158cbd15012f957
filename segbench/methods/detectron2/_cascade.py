"""Cascade Mask R-CNN on a ResNeSt backbone, put together from detectron2's parts; imported only where detectron2 is."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
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
from detectron2.structures import Boxes, Instances
from torchvision.ops import boxes as box_ops

from segbench.methods.detectron2._backbones import TimmBackbone, deform
from segbench.methods.detectron2._side_by_side import side_by_side
from segbench.methods.planes import Normalisation

STAGES = ("res2", "res3", "res4", "res5")
_RPN_LEVELS = (("p2", 4), ("p2", 4), ("p3", 8), ("p4", 16), ("p5", 32), ("p6", 64))
_POOLED = {"p2": 4, "p3": 8, "p4": 16, "p5": 32}
_CASCADE = ((0.5, (10, 10, 5, 5)), (0.6, (20, 20, 10, 10)), (0.7, (30, 30, 15, 15)))
"""IoU that makes a proposal a cell, and the weights of the box regression, stage by stage (Cascade R-CNN, table 4)."""


class SideBySideRPN(RPN):  # type: ignore[misc]
    """detectron2's region proposals, whose boxes of all images and levels are thinned out at the same time on a GPU."""

    def predict_proposals(
        self, anchors: Any, pred_objectness_logits: Any, pred_anchor_deltas: Any, image_sizes: Any
    ) -> list[Instances]:
        """Return upstream's proposals: boxes with their scores, best first."""
        if anchors[0].tensor.device.type != "cuda":
            found: list[Instances] = super().predict_proposals(
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
            return found
        with torch.no_grad():
            return top_proposals(
                self._decode_proposals(anchors, pred_anchor_deltas), pred_objectness_logits, image_sizes,
                nms=self.nms_thresh, before=self.pre_nms_topk[self.training], after=self.post_nms_topk[self.training],
                training=self.training,
            )  # fmt: skip


def top_proposals(
    boxes: Sequence[torch.Tensor], scores: Sequence[torch.Tensor], sizes: Sequence[tuple[int, int]], *, nms: float,
    before: int, after: int, training: bool,
) -> list[Instances]:  # fmt: skip
    """Return the best boxes of each image, as detectron2's ``find_top_rpn_proposals`` does.

    Parameters
    ----------
    boxes, scores
        Of each level (N, R, 4) and (N, R).
    sizes
        (H, W) of the N images without padding.
    nms
        Of two boxes of a level that overlap more the weaker goes.
    before, after
        Most boxes of a level before that, and of an image after it.

    Raises
    ------
    FloatingPointError
        In training, where a box or score is not finite.
    """
    device = scores[0].device
    tops = [level.topk(min(before, level.shape[1]), dim=1) for level in scores]
    best = torch.cat([top.values for top in tops], dim=1)
    places = torch.cat(
        [level.gather(1, top.indices[:, :, None].expand(-1, -1, 4)) for level, top in zip(boxes, tops, strict=True)],
        dim=1,
    )
    finite = places.isfinite().all(dim=2) & best.isfinite()
    limits = torch.tensor([[width, height, width, height] for height, width in sizes], dtype=places.dtype)
    if device.type == "cuda":
        limits = limits.pin_memory().to(device, non_blocking=True)
    places = places.clamp(min=0).minimum(limits[:, None])
    solid = finite & (places[:, :, 2] > places[:, :, 0]) & (places[:, :, 3] > places[:, :, 1])
    # boxes that do not count come last, where they take no other's place
    ranks = torch.where(solid, best, -torch.inf)
    cuts = list(itertools.accumulate((top.values.shape[1] for top in tops), initial=0))
    parts = [(n, slice(*ends)) for n in range(len(sizes)) for ends in itertools.pairwise(cuts)]
    kept = side_by_side([functools.partial(_kept, places[n, part], ranks[n, part], nms) for n, part in parts], device)
    order = []
    for n in range(len(sizes)):
        mine = torch.cat([one + part.start for one, (image, part) in zip(kept, parts, strict=True) if image == n])
        order.append(mine[ranks[n, mine].sort(descending=True).indices[:after]])
    counts = torch.stack([*(ranks[n, mine].isfinite().sum() for n, mine in enumerate(order)), (~finite).sum()]).tolist()
    if training and counts[-1]:
        raise FloatingPointError("Predicted boxes or scores are not finite: training has diverged.")
    found = []
    for n, (mine, count) in enumerate(zip(order, counts[:-1], strict=True)):
        instances = Instances(sizes[n])
        instances.proposal_boxes = Boxes(places[n, mine[:count]])
        instances.objectness_logits = best[n, mine[:count]]
        found.append(instances)
    return found


def _kept(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    kept: torch.Tensor = box_ops.nms(boxes.float(), scores.float(), threshold)
    return kept


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


def _proposals(settings: Mapping[str, Any]) -> SideBySideRPN:
    anchors = DefaultAnchorGenerator(
        sizes=[[size] for size in settings["anchor_sizes"]],
        aspect_ratios=list(settings["anchor_ratios"]),
        strides=[stride for _, stride in _RPN_LEVELS],
    )
    return SideBySideRPN(
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
