"""CenterMask2 on detectron2's FCOS: a mask for each box, guided by spatial attention.

Lee and Park, "CenterMask: Real-Time Anchor-Free Instance Segmentation", CVPR 2020, arXiv:1911.06667 (CM below). Numbers
that the paper leaves open are those of youngwanLEE/centermask2; no line is copied from there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.layers import Conv2d, ConvTranspose2d
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.modeling.poolers import ROIPooler, convert_boxes_to_pooler_format
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torchvision.ops import nms

from segbench.methods.detectron2._backbones import TimmBackbone
from segbench.methods.detectron2._side_by_side import side_by_side
from segbench.methods.planes import Normalisation

STAGES = ("res3", "res4", "res5")
LEVELS = ("p3", "p4", "p5", "p6", "p7")
MASK_LEVELS = ("p3", "p4", "p5")
_MASKS_TOGETHER = {"cpu": 256, "cuda": 2048}
_POOLED = 14  # pixels of a side; a mask has twice as many


def build(settings: Mapping[str, Any], normalisation: Normalisation) -> CenterMask:
    """Return the untrained detector: VoVNetV2 (CM section 3.4), FPN P3 to P7, FCOS, and the two mask branches."""
    width = settings["width"]
    body = TimmBackbone(
        settings["backbone"], STAGES, settings["pretrained"], frozen_norm=settings["backbone_norm"] == "frozen"
    )
    backbone = FPN(body, list(STAGES), width, top_block=LastLevelP6P7(width, width, "p5"))
    head = FCOSHead(
        input_shape=[backbone.output_shape()[level] for level in LEVELS], conv_dims=[width] * settings["tower"],
        num_classes=1, norm=OnePixelGroupNorm,
    )  # fmt: skip
    return CenterMask(
        mask_head=SpatialAttentionMaskHead(width, settings["mask_convolutions"]),
        mask_iou_head=MaskIoUHead(width) if settings["mask_iou"] else None,
        limits={
            True: Limits(settings["candidates_train"], settings["proposals_train"]),
            False: Limits(settings["candidates_test"], settings["detections"]),
        },
        roi_batch=settings["roi_batch"],
        backbone=backbone,
        head=head,
        head_in_features=list(LEVELS),
        num_classes=1,
        test_score_thresh=settings["score_threshold"],
        test_nms_thresh=settings["nms_threshold"],
        pixel_mean=normalisation.mean,
        pixel_std=normalisation.std,
    )


class OnePixelGroupNorm(nn.GroupNorm):  # type: ignore[misc]
    """detectron2's group norm (32 groups), which also takes one window whose highest level is a single pixel.

    PyTorch refuses groups of one value, though their result, the bias, is the one that they have in any larger batch.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised features; x (N, C, H, W)."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Limits:
    """How many boxes of an image go on."""

    candidates: int
    """Of each level, before non-maximum suppression."""
    boxes: int
    """After it."""


class SpatialAttention(nn.Module):  # type: ignore[misc]
    """Tells a region's informative pixels (CM equation 3): x * sigmoid(conv3x3([mean; maximum over channels]))."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv2d(2, 1, kernel_size=3, padding=1, bias=False)
        weight_init.c2_msra_fill(self.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the weighted features; x (N, C, H, W)."""
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.conv(pooled))


class SpatialAttentionMaskHead(nn.Sequential):  # type: ignore[misc]
    """The SAG-Mask head of CM section 3.3: four convolutions, spatial attention, upsampling by two, mask logits.

    Takes (N, C, 14, 14), gives (N, 1, 28, 28).
    """

    def __init__(self, width: int, convolutions: int = 4) -> None:
        layers = [Conv2d(width, width, 3, padding=1, activation=nn.ReLU()) for _ in range(convolutions)]
        deconvolution = ConvTranspose2d(width, width, 2, stride=2)
        predictor = Conv2d(width, 1, 1)
        for layer in (*layers, deconvolution):
            weight_init.c2_msra_fill(layer)
        nn.init.normal_(predictor.weight, std=0.001)
        nn.init.zeros_(predictor.bias)
        super().__init__(*layers, SpatialAttention(), deconvolution, nn.ReLU(), predictor)


class MaskIoUHead(nn.Module):  # type: ignore[misc]
    """Predicts the IoU of a predicted mask with the truth (Huang et al., CVPR 2019, figure 3; CM section 3.3).

    The pooled features and the mask, pooled to their size, go through four convolutions, the last of
    stride 2, and three fully connected layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for n in range(4):
            convolution = nn.Conv2d(width + (n == 0), width, 3, stride=2 if n == 3 else 1, padding=1)
            convolutions += [convolution, nn.ReLU()]
        side = _POOLED // 2
        layers = [nn.Linear(width * side * side, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU()]
        iou = nn.Linear(1024, 1)
        for layer in (*convolutions[::2], *layers[::2]):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(iou.weight, std=0.01)
        nn.init.zeros_(iou.bias)
        self.layers = nn.Sequential(*convolutions, nn.Flatten(), *layers, iou)

    def forward(self, pooled: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Return the (N,) predicted IoUs; pooled (N, C, 14, 14), masks (N, 1, 28, 28) as probabilities."""
        predicted: torch.Tensor = self.layers(torch.cat([pooled, F.max_pool2d(masks, 2)], dim=1))
        return predicted[:, 0]


def assign_levels(box_areas: torch.Tensor, image_areas: torch.Tensor, lowest: int, highest: int) -> torch.Tensor:
    """Return the pyramid level of each box by its share of the image: CM equation 2.

    k = ceil(k_max - log2(A_input / A_RoI)), held between ``lowest`` and ``highest`` (k_max).

    Parameters
    ----------
    box_areas, image_areas
        (N,), in pixels of the resized image; the second without padding.
    """
    levels = torch.ceil(highest - torch.log2(image_areas / box_areas.clamp(min=1e-6)))
    return levels.clamp(lowest, highest).long()


class RatioPooler(ROIPooler):  # type: ignore[misc]
    """detectron2's RoIAlign over a pyramid, with the levels that :func:`assign_levels` chooses."""

    def forward(
        self, features: Sequence[torch.Tensor], boxes: Sequence[Boxes], image_sizes: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        """Return (N, C, 14, 14) for the N boxes of all images, image after image."""
        regions = convert_boxes_to_pooler_format(list(boxes))
        return self.pool(features, regions, areas_of_images(boxes, image_sizes))

    def pool(self, features: Sequence[torch.Tensor], regions: torch.Tensor, image_areas: torch.Tensor) -> torch.Tensor:
        """Return (N, C, 14, 14) for regions (N, 5), an image's number and a box, in images of these areas (N,)."""
        box_areas = (regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2])
        levels = assign_levels(box_areas, image_areas, self.min_level, self.max_level)
        pooled = features[0].new_zeros((len(regions), features[0].shape[1], *self.output_size))
        for level, (feature, align) in enumerate(zip(features, self.level_poolers, strict=True), start=self.min_level):
            here = torch.nonzero(levels == level)[:, 0]
            # in float32: detectron2 rounds boxes to the features' type, in bfloat16 to whole pixels from 128 on
            pooled = pooled.index_put((here,), align(feature.float(), regions[here]).to(pooled.dtype))
        return pooled


def areas_of_images(boxes: Sequence[Boxes], image_sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return the area of each box's image, (N,), image after image."""
    return torch.cat(
        [one.tensor.new_full((len(one),), math.prod(size)) for one, size in zip(boxes, image_sizes, strict=True)]
    )


class CenterMask(FCOS):  # type: ignore[misc]
    """FCOS, and for each of its boxes a mask and that mask's expected IoU.

    An instance's score is sqrt(classification x centre-ness) x predicted mask IoU, as centermask2's code has it
    (``fcos_outputs.py``, ``maskiou_head.py``); without the mask-IoU head the first factor alone.
    """

    def __init__(
        self, *, mask_head: nn.Module, mask_iou_head: nn.Module | None, limits: Mapping[bool, Limits], roi_batch: int,
        **fcos: Any,
    ) -> None:  # fmt: skip
        super().__init__(**fcos)
        self.mask_pooler = RatioPooler(_POOLED, [1 / 2 ** int(level[1:]) for level in MASK_LEVELS], 0, "ROIAlignV2")
        self.mask_head, self.mask_iou_head = mask_head, mask_iou_head
        self._limits, self._roi_batch = limits, roi_batch
        self._matcher = Matcher([0.5], [0, 1], allow_low_quality_matches=False)

    def forward_training(
        self, images: Any, features: list[torch.Tensor], predictions: Any, gt_instances: list[Instances]
    ) -> dict[str, torch.Tensor]:
        """Return FCOS's three losses and those of the masks and of their IoUs."""
        losses: dict[str, torch.Tensor] = super().forward_training(images, features, predictions, gt_instances)
        with torch.no_grad():
            # boxes are decoded in float32: half precision knows whole pixels only from 1,024 on, and halves from 512
            copies = [[level.detach().float() for level in kind] for kind in predictions]
            proposals = self._boxes(images, features, copies)
            regions = self._regions(proposals, gt_instances)
        pooled = self._pool(features, [r.proposal_boxes for r in regions], images.image_sizes)
        logits = self.mask_head(pooled)[:, 0].float()
        truth = torch.cat([r.gt_masks.crop_and_resize(r.proposal_boxes.tensor, 2 * _POOLED) for r in regions])
        losses["loss_mask"] = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))
        if self.mask_iou_head is not None:
            predicted = self.mask_iou_head(pooled, logits.sigmoid()[:, None].to(pooled.dtype)).float()
            target = mask_iou_targets(logits.detach() > 0, truth, regions)
            errors = (predicted - target)[target > 0]
            # half the squared error, as upstream has it; no overlap at all teaches nothing
            losses["loss_mask_iou"] = 0.5 * errors.square().mean() if len(errors) else predicted.sum() * 0
        return losses

    def losses(
        self,
        anchors: Any,
        pred_logits: Any,
        gt_labels: Any,
        pred_anchor_deltas: Any,
        gt_boxes: Any,
        pred_centerness: Any,
    ) -> dict[str, torch.Tensor]:
        """Return FCOS's three losses, in float32 also under autocast.

        In half precision detectron2's ``Box2BoxTransformLinear.apply_deltas`` makes half boxes, into which fvcore's
        ``giou_loss`` cannot write.
        """
        logits, deltas, centerness = (
            [level.float() for level in kind] for kind in (pred_logits, pred_anchor_deltas, pred_centerness)
        )
        with torch.autocast(logits[0].device.type, enabled=False):
            losses: dict[str, torch.Tensor] = super().losses(anchors, logits, gt_labels, deltas, gt_boxes, centerness)
        return losses

    def inference(self, batched_inputs: list[dict[str, Any]], *, do_postprocess: bool = True) -> list[Any]:
        """Return what is found, as ``GeneralizedRCNN.inference`` does: without postprocessing, masks of their boxes."""
        if do_postprocess:
            found: list[Any] = self(batched_inputs)
            return found
        images = self.preprocess_image(batched_inputs)
        levels = self.backbone(images.tensor)
        features = [levels[name] for name in self.head_in_features]
        return self.forward_inference(images, features, self.head(features))

    def forward_inference(self, images: Any, features: list[torch.Tensor], predictions: Any) -> list[Instances]:
        """Return FCOS's boxes with ``pred_masks`` (N, 1, 28, 28) and the scores of the class."""
        in_float32 = [[level.float() for level in kind] for kind in predictions]
        found = self._boxes(images, features, in_float32)
        boxes, sizes = [instances.pred_boxes for instances in found], images.image_sizes
        regions, image_areas = convert_boxes_to_pooler_format(boxes), areas_of_images(boxes, sizes)
        scores = torch.cat([instances.scores for instances in found])
        masks, shares = [features[0].new_zeros((0, 1, 2 * _POOLED, 2 * _POOLED))], [scores[:0]]
        together = _MASKS_TOGETHER[scores.device.type]
        for first in range(0, len(scores), together):
            these = slice(first, first + together)
            pooled = self.mask_pooler.pool(features[: len(MASK_LEVELS)], regions[these], image_areas[these])
            masks.append(self.mask_head(pooled).sigmoid())
            if self.mask_iou_head is not None:
                shares.append(self.mask_iou_head(pooled, masks[-1]).clamp(0, 1))
        if self.mask_iou_head is not None:
            scores = scores * torch.cat(shares)
        counts = [len(instances) for instances in found]
        for instances, mine, score in zip(found, torch.cat(masks).split(counts), scores.split(counts), strict=True):
            instances.pred_masks, instances.scores = mine, score
        return found

    def _boxes(self, images: Any, features: list[torch.Tensor], predictions: Any) -> list[Instances]:
        """Return FCOS's boxes of each image, best first, as many as training or prediction wants.

        They are those of detectron2's ``inference_single_image``, found for all images at once.
        """
        limits = self._limits[self.training]
        logits, deltas, centerness = self._transpose_dense_predictions(predictions, [1, 4, 1])
        boxes, scores = [], []
        for anchors, logit, delta, centred in zip(
            self.anchor_generator(features), logits, deltas, centerness, strict=True
        ):
            level = torch.sqrt(logit.sigmoid() * centred.sigmoid())[:, :, 0]
            best = level.topk(min(limits.candidates, level.shape[1]), dim=1)
            chosen = delta.gather(1, best.indices[:, :, None].expand(-1, -1, 4)).reshape(-1, 4)
            decoded = self.box2box_transform.apply_deltas(chosen, anchors.tensor[best.indices.flatten()])
            boxes.append(decoded.reshape(len(level), -1, 4))
            scores.append(best.values)
        found, places = torch.cat(scores, dim=1), torch.cat(boxes, dim=1)
        likely = found > self.test_score_thresh
        counts = likely.sum(dim=1).tolist()
        best = torch.where(likely, found, -1.0).topk(max(counts), dim=1)
        places = places.gather(1, best.indices[:, :, None].expand(-1, -1, 4))
        each = [(places[n, :count], best.values[n, :count]) for n, count in enumerate(counts)]
        kept = side_by_side([functools.partial(nms, *one, self.test_nms_thresh) for one in each], found.device)
        instances = []
        for size, (place, score), mine in zip(images.image_sizes, each, kept, strict=True):
            chosen = mine[: limits.boxes]
            classes = torch.zeros_like(chosen)
            one = Instances(size, pred_boxes=Boxes(place[chosen]), scores=score[chosen], pred_classes=classes)
            instances.append(one)
        return instances

    def get_extra_state(self) -> dict[str, float]:
        """Return the running number of positive locations that FCOS divides its losses by: checkpoints need it."""
        return {"loss_normalizer": float(getattr(self, "loss_normalizer", 300))}

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Take up what ``get_extra_state`` returned."""
        self.loss_normalizer = state["loss_normalizer"]

    def _pool(self, features: list[torch.Tensor], boxes: list[Boxes], sizes: Sequence[tuple[int, int]]) -> torch.Tensor:
        pooled: torch.Tensor = self.mask_pooler(features[: len(MASK_LEVELS)], boxes, sizes)
        return pooled

    def _regions(self, proposals: list[Instances], truth: list[Instances]) -> list[Instances]:
        """Return the boxes that overlap a cell by half or more, true boxes among them, with the cell's ``gt_masks``.

        At most a quarter of ``roi_batch`` an image, as detectron2 samples them.
        """
        for found in proposals:
            found.proposal_boxes, found.objectness_logits = found.pred_boxes, found.scores
            for field in ("pred_boxes", "scores", "pred_classes"):
                found.remove(field)
        chosen = []
        for boxes, cells in zip(add_ground_truth_to_proposals(truth, proposals), truth, strict=True):
            cell, is_cell = self._matcher(pairwise_iou(cells.gt_boxes, boxes.proposal_boxes))
            positive, _ = subsample_labels(1 - is_cell.long(), self._roi_batch, 0.25, 1)
            region = boxes[positive]
            region.gt_masks = cells.gt_masks[cell[positive]]
            chosen.append(region)
        return chosen


def mask_iou_targets(predicted: torch.Tensor, truth: torch.Tensor, regions: Sequence[Instances]) -> torch.Tensor:
    """Return the IoU of each predicted mask with its whole cell, of which a box may hold a part only.

    The cell's area at the mask's resolution is what the box shows of it, divided by the share that the box
    shows (Huang et al., CVPR 2019, section 3.2).

    Parameters
    ----------
    predicted, truth
        (N, 28, 28), boolean.
    regions
        With ``proposal_boxes`` and ``gt_masks``, N over all of them.
    """
    shares = [r.gt_masks.areas_within(r.proposal_boxes.tensor) / r.gt_masks.areas() for r in regions]
    whole = truth.sum((1, 2)) / torch.cat(shares).clamp(1e-6, 1)
    both = (predicted & truth).sum((1, 2))
    return both / (predicted.sum((1, 2)) + whole - both).clamp(min=1)
