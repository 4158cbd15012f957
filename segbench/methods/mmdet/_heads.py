"""Parts of MMDetection's models that are right in half precision and ask the device for no number more than needed.

Imported inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss, SeesawLoss, accuracy
from mmdet.models.losses.cross_entropy_loss import cross_entropy
from mmdet.models.roi_heads import CascadeRoIHead, MaskScoringRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead, MaskIoUHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch.nn.modules.utils import _pair
from torch.nn.utils.rnn import pad_sequence

from segbench.methods.mmdet._assign import Together, assign, choose, is_known, sample, sent
from segbench.methods.mmdet._boxes import suppress
from segbench.methods.mmdet._windows import CellMasks

_MASKS_TOGETHER = 256
"""Masks that are pasted into an image at a time, on a GPU."""

_ROIS_TOGETHER = 2048
"""Boxes whose masks are predicted at a time: 1.6 GB for their last features."""

_SPLIT = 10000
"""Boxes from which on upstream suppresses those of each level apart."""


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    """MMDetection's RoI extractor in float32, also under autocast, which asks once how many boxes each level has.

    Upstream rounds the boxes to the features' type: in a window of 256 pixels to whole pixels in bfloat16.
    """

    def forward(
        self, feats: tuple[torch.Tensor, ...], rois: torch.Tensor, roi_scale_factor: Any = None
    ) -> torch.Tensor:
        """Return the features of boxes."""
        feats = tuple(level.to(torch.float32, memory_format=torch.contiguous_format) for level in feats)
        if roi_scale_factor is not None or len(feats) == 1 or len(rois) == 0:
            pooled: torch.Tensor = super().forward(feats, rois, roi_scale_factor)
            return pooled
        rois = rois.type_as(feats[0])
        # a box that is no box has no level, and zeros for features
        level = self.map_roi_levels(rois, len(feats)).clamp(min=-1)
        order = level.argsort(stable=True)
        none, *counts = torch.bincount(level + 1, minlength=len(feats) + 1).tolist()
        single = max(counts) == len(rois)  # then the order is that of the boxes
        parts = (rois if single else rois[order[none:]]).split(counts)
        found = [
            torchvision.ops.roi_align(
                feature, mine, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
            )
            for feature, mine, layer in zip(feats, parts, self.roi_layers, strict=True)
            if len(mine)
        ]
        shape = (len(rois), self.out_channels, *self.roi_layers[0].output_size)
        pooled = found[0] if single else feats[0].new_zeros(shape)
        if found and not single:
            pooled = pooled.index_copy(0, order[none:], torch.cat(found))
        if torch.is_grad_enabled():  # levels without boxes have a gradient, of zero
            rest = (
                feature for feature, mine in zip(feats, parts, strict=True) if not len(mine) and feature.requires_grad
            )
            pooled = pooled + sum(feature.sum() * 0.0 for feature in rest)
        return pooled


@MODELS.register_module()
class CellRPNHead(RPNHead):  # type: ignore[misc]
    """The first stage with the targets and proposals of all windows of a batch at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._anchors: dict[Any, Any] = {}

    def get_anchors(self, featmap_sizes: Any, batch_img_metas: Any, device: Any = "cuda") -> Any:
        """Return the anchors of each window, and which of them count; computed once a size."""
        key = ("anchors", tuple(map(tuple, featmap_sizes)), batch_img_metas[0]["pad_shape"], str(device))
        if not _alike(batch_img_metas):
            return super().get_anchors(featmap_sizes, batch_img_metas, device)
        if key not in self._anchors:
            anchors, flags = super().get_anchors(featmap_sizes, batch_img_metas[:1], device)
            self._anchors[key] = anchors[0], flags[0]
        anchors, flags = self._anchors[key]
        return [anchors] * len(batch_img_metas), [flags] * len(batch_img_metas)

    def _inside(self, anchors: Any, flags: Any, meta: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return all anchors (A, 4), those within the window (n, 4), and the places of these, on the processor."""
        key = ("inside", tuple(map(len, anchors)), meta["img_shape"], meta["pad_shape"], str(anchors[0].device))
        if key not in self._anchors:
            flat = torch.cat(list(anchors))
            border = self.train_cfg["allowed_border"]
            inside = anchor_inside_flags(flat, torch.cat(list(flags)), meta["img_shape"][:2], border).nonzero()[:, 0]
            if not len(inside):
                raise ValueError(
                    "no anchor lies within the window: set the option model.train_cfg.rpn.allowed_border to -1"
                )
            self._anchors[key] = flat, flat[inside], inside.cpu()
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self._anchors[key]
        return found

    def loss_by_feat(
        self, cls_scores: Any, bbox_preds: Any, batch_gt_instances: Any, batch_img_metas: Any,
        batch_gt_instances_ignore: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the losses of classes and boxes, which only the anchors that were drawn have a part in."""
        plain = type(self.loss_cls) is CrossEntropyLoss and self.use_sigmoid_cls and not self.reg_decoded_bbox
        if not (plain and _alike(batch_img_metas) and is_known(self.assigner, self.sampler)):
            return dict(
                super().loss_by_feat(
                    cls_scores, bbox_preds, batch_gt_instances, batch_img_metas, batch_gt_instances_ignore
                )
            )
        sizes = [scores.shape[-2:] for scores in cls_scores]
        anchors, flags = (each[0] for each in self.get_anchors(sizes, batch_img_metas, cls_scores[0].device))
        flat, within, places = self._inside(anchors, flags, batch_img_metas[0])
        boxes = [each.bboxes for each in batch_gt_instances]
        numbers = assign(self.assigner, boxes, [within]).cpu()
        cells: list[torch.Tensor] = []
        ground: list[torch.Tensor] = []
        truth: list[torch.Tensor] = []
        before, factor = 0, 0
        for row, mine in zip(numbers.unbind(), boxes, strict=True):
            pos, neg = choose(self.sampler, row)
            cells.append(places[pos])
            ground.append(places[neg] + len(ground) * len(flat))
            truth.append(row[pos] - 1 + before)
            before += len(mine)
            factor += max(len(pos), 1) + max(len(neg), 1)
        rows = torch.cat([one + i * len(flat) for i, one in enumerate(cells)])
        on_cell, rows, drawn, wanted = sent(
            [torch.cat(cells), rows, torch.cat([rows, *ground]), torch.cat(truth)], flat.device
        )
        scores = torch.cat([each.permute(0, 2, 3, 1).flatten(1) for each in cls_scores], 1).view(-1)[drawn][:, None]
        deltas = torch.cat([each.permute(0, 2, 3, 1).flatten(1).view(len(boxes), -1, 4) for each in bbox_preds], 1)
        is_cell = torch.zeros_like(scores, dtype=torch.long)
        is_cell[: len(rows)] = 1
        weights = torch.ones_like(scores, dtype=torch.float32)
        if self.train_cfg["pos_weight"] > 0:
            weights[: len(rows)] = self.train_cfg["pos_weight"]
        targets = self.bbox_coder.encode(flat[on_cell], torch.cat(boxes)[wanted])
        return {
            "loss_rpn_cls": self.loss_cls(scores, is_cell, weights, avg_factor=factor),
            "loss_rpn_bbox": self.loss_bbox(deltas.view(-1, 4)[rows], targets, avg_factor=factor),
        }

    def predict_by_feat(
        self, cls_scores: Any, bbox_preds: Any, score_factors: Any = None, batch_img_metas: Any = None, cfg: Any = None,
        rescale: bool = False, with_nms: bool = True,
    ) -> Any:  # fmt: skip
        """Return the proposals of each window, in float32."""
        cfg = self.test_cfg if cfg is None else cfg
        boxes_of = sum(min(scores[0].numel(), cfg.get("nms_pre", -1)) for scores in cls_scores)
        plain = cfg.nms.get("type", "nms") == "nms" and set(cfg.nms) <= {"type", "iou_threshold"} and with_nms
        if rescale or not plain or not 0 < boxes_of < _SPLIT or not self.use_sigmoid_cls or not _alike(batch_img_metas):
            return super().predict_by_feat(
                cls_scores, bbox_preds, score_factors, batch_img_metas, cfg, rescale, with_nms
            )
        return self._proposals(cls_scores, bbox_preds, batch_img_metas, cfg)

    def _proposals(self, cls_scores: Any, bbox_preds: Any, metas: Any, cfg: Any) -> list[InstanceData]:
        (levels, *_), _ = self.get_anchors([each.shape[-2:] for each in cls_scores], metas, cls_scores[0].device)
        smallest = cfg.get("min_bbox_size", -1)
        found: list[Any] = []
        for scores, deltas, priors in zip(cls_scores, bbox_preds, levels, strict=True):
            score = scores.detach().permute(0, 2, 3, 1).flatten(1).float().sigmoid()
            moved = deltas.detach().permute(0, 2, 3, 1).reshape(len(score), -1, 4).float()
            score, rank = score.sort(dim=1, descending=True, stable=True)
            most = cfg.nms_pre if cfg.nms_pre > 0 else score.shape[1]
            score, rank = score[:, :most], rank[:, :most]
            moved = moved.gather(1, rank[..., None].expand(-1, -1, 4))
            box = self.bbox_coder.decode(
                priors[rank].flatten(0, 1), moved.flatten(0, 1), max_shape=metas[0]["img_shape"]
            ).view_as(moved)
            valid = (box[..., 2:] - box[..., :2] > smallest).all(-1) if smallest >= 0 else torch.ones_like(rank).bool()
            found.append((box, score, suppress(box, valid, cfg.nms.iou_threshold)))
        box, score, kept = (torch.cat(each, 1) for each in zip(*found, strict=True))
        return best(box, score, kept, cfg.max_per_img)


def best(boxes: Any, scores: Any, kept: Any, most: int) -> list[InstanceData]:
    """Return the best ``most`` of the boxes (B, n, 4) that are ``kept`` (B, n) of each window, best first."""
    scores, order = scores.masked_fill(~kept, -1).sort(dim=1, descending=True, stable=True)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    labels = torch.zeros_like(order)
    counts = [min(count, most) for count in kept.sum(1).tolist()]
    return [
        InstanceData(bboxes=box[:count], scores=score[:count], labels=label[:count])
        for box, score, label, count in zip(boxes, scores, labels, counts, strict=True)
    ]


def _alike(metas: Any) -> bool:
    first = metas[0]
    return all(each["img_shape"] == first["img_shape"] and each["pad_shape"] == first["pad_shape"] for each in metas)


class _SampledTogether:
    """Draws the boxes of all windows of a batch at once."""

    def _sampled(self, assigner: Any, sampler: Any, results_list: Any, truth: Any, heads: Any) -> Any:
        proposals = []
        for results in results_list:
            results.priors = results.pop("bboxes")
            proposals.append(results.priors)
        found, together = sample(assigner, sampler, proposals, truth)
        heads.together = together
        return found


class _StandardLoss(_SampledTogether):
    def loss(self: Any, x: Any, rpn_results_list: Any, batch_data_samples: Any) -> dict[str, Any]:
        """Return the losses of the second stage."""
        if not is_known(self.bbox_assigner, self.bbox_sampler):
            return dict(super().loss(x, rpn_results_list, batch_data_samples))  # type: ignore[misc]
        truth, _, _ = unpack_gt_instances(batch_data_samples)
        sampled = self._sampled(self.bbox_assigner, self.bbox_sampler, rpn_results_list, truth, self.bbox_head)
        boxes = self.bbox_loss(x, sampled)
        masks = self.mask_loss(x, sampled, boxes["bbox_feats"], truth)
        return {**boxes["loss_bbox"], **masks["loss_mask"]}


@MODELS.register_module()
class CellStandardRoIHead(_StandardLoss, StandardRoIHead):  # type: ignore[misc]
    """The second stage with the boxes of all windows drawn at once."""

    def _mask_forward(self, x: Any, rois: Any = None, pos_inds: Any = None, bbox_feats: Any = None) -> dict[str, Any]:
        if self.training or rois is None:
            return dict(super()._mask_forward(x, rois, pos_inds, bbox_feats))
        parts = [super(CellStandardRoIHead, self)._mask_forward(x, part) for part in rois.split(_ROIS_TOGETHER)]
        return {"mask_preds": torch.cat([part["mask_preds"] for part in parts])}


@MODELS.register_module()
class CellMaskScoringRoIHead(_StandardLoss, MaskScoringRoIHead):  # type: ignore[misc]
    """The second stage of Mask Scoring R-CNN with the boxes of all windows drawn at once."""

    def predict_mask(self, x: Any, batch_img_metas: Any, results_list: Any, rescale: bool = False) -> Any:
        """Return the masks and scores of each window, a window at a time where there are many boxes."""
        if sum(map(len, results_list)) <= _ROIS_TOGETHER:
            return super().predict_mask(x, batch_img_metas, results_list, rescale)
        found = []
        for i, each in enumerate(zip(batch_img_metas, results_list, strict=True)):
            level = tuple(feature[i : i + 1] for feature in x)
            found += super().predict_mask(level, [each[0]], [each[1]], rescale)
        return found


@MODELS.register_module()
class CellCascadeRoIHead(_SampledTogether, CascadeRoIHead):  # type: ignore[misc]
    """The later stages of Cascade R-CNN with the boxes of all windows drawn at once."""

    def _mask_forward(self, stage: int, x: Any, rois: Any) -> dict[str, Any]:
        if self.training:
            return dict(super()._mask_forward(stage, x, rois))
        parts = [super(CellCascadeRoIHead, self)._mask_forward(stage, x, part) for part in rois.split(_ROIS_TOGETHER)]
        return {"mask_preds": torch.cat([part["mask_preds"] for part in parts])}

    def loss(self, x: Any, rpn_results_list: Any, batch_data_samples: Any) -> dict[str, Any]:
        """Return the losses of all stages."""
        if not all(map(is_known, self.bbox_assigner, self.bbox_sampler)):
            return dict(super().loss(x, rpn_results_list, batch_data_samples))
        truth, _, metas = unpack_gt_instances(batch_data_samples)
        losses: dict[str, Any] = {}
        results = rpn_results_list
        for stage, weight in enumerate(self.stage_loss_weights):
            self.current_stage = stage
            head = self.bbox_head[stage]
            sampled = self._sampled(self.bbox_assigner[stage], self.bbox_sampler[stage], results, truth, head)
            boxes = self.bbox_loss(stage, x, sampled)
            masks = self.mask_loss(stage, x, sampled, truth)
            for name, value in {**boxes["loss_bbox"], **masks["loss_mask"]}.items():
                losses[f"s{stage}.{name}"] = value * weight if "loss" in name else value
            if stage < self.num_stages - 1:
                with torch.no_grad():
                    results = head.refine_bboxes(sampled, boxes, metas)
        return losses


class _BoxTargets:
    """Targets and losses of the boxes that :class:`_SampledTogether` has drawn, whose numbers are known."""

    together: Together | None = None

    def get_targets(self: Any, sampling_results: Any, rcnn_train_cfg: Any, concat: bool = True) -> Any:
        """Return classes and boxes that the head should find, with their weights."""
        drawn: Together | None = self.together
        if drawn is None or not concat:
            return super().get_targets(sampling_results, rcnn_train_cfg, concat)  # type: ignore[misc]
        n, priors = sum(drawn.drawn), drawn.pos_priors
        wanted = drawn.pos_gt_bboxes if self.reg_decoded_bbox else self.bbox_coder.encode(priors, drawn.pos_gt_bboxes)
        labels = torch.full((n,), self.num_classes, dtype=torch.long, device=priors.device)
        labels[drawn.pos_rows] = drawn.pos_gt_labels
        label_weights = priors.new_ones(n)
        if rcnn_train_cfg.pos_weight > 0:
            label_weights.index_fill_(0, drawn.pos_rows, rcnn_train_cfg.pos_weight)
        targets, weights = (priors.new_zeros((n, wanted.shape[-1])) for _ in range(2))
        targets[drawn.pos_rows] = wanted.to(targets.dtype)
        return labels, label_weights, targets, weights.index_fill_(0, drawn.pos_rows, 1.0)

    def loss(
        self: Any, cls_score: Any, bbox_pred: Any, rois: Any, labels: Any, label_weights: Any, bbox_targets: Any,
        bbox_weights: Any, reduction_override: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return the losses of classes and boxes."""
        drawn: Together | None = self.together
        if drawn is None or (not self.reg_class_agnostic and self.num_classes > 1) or not len(labels):
            return dict(
                super().loss(  # type: ignore[misc]
                    cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, reduction_override
                )
            )
        losses: dict[str, Any] = {}
        found = self.loss_cls(
            cls_score, labels, label_weights, avg_factor=float(len(labels)), reduction_override=reduction_override
        )
        losses.update(found if isinstance(found, dict) else {"loss_cls": found})
        if self.custom_activation:
            losses.update(self.loss_cls.get_accuracy(cls_score, labels))
        else:
            losses["acc"] = accuracy(cls_score, labels)
        rows = drawn.pos_rows
        if not len(rows):
            losses["loss_bbox"] = bbox_pred[rows].sum()
            return losses
        if self.reg_decoded_bbox:
            bbox_pred = self.bbox_coder.decode(rois[:, 1:], bbox_pred)
        losses["loss_bbox"] = self.loss_bbox(
            bbox_pred.view(len(labels), -1)[rows],
            bbox_targets[rows],
            avg_factor=len(labels),
            reduction_override=reduction_override,
        )
        return losses

    def predict_by_feat(
        self: Any, rois: Any, cls_scores: Any, bbox_preds: Any, batch_img_metas: Any, rcnn_test_cfg: Any = None,
        rescale: bool = False,
    ) -> Any:  # fmt: skip
        """Return the boxes of each window that remain."""
        cfg, meta = rcnn_test_cfg, batch_img_metas[0]
        counts = [len(each) for each in rois]
        plain = cfg is not None and set(cfg.nms) <= {"type", "iou_threshold"} and cfg.nms.get("type", "nms") == "nms"
        same = _alike(batch_img_metas) and tuple(meta["scale_factor"]) == (1.0, 1.0)
        if not (plain and same and self.num_classes == 1 and sum(counts) and cfg.max_per_img > 0):
            return super().predict_by_feat(  # type: ignore[misc]
                rois, cls_scores, bbox_preds, batch_img_metas, rcnn_test_cfg=cfg, rescale=rescale
            )
        score = torch.cat(list(cls_scores))
        score = self.loss_cls.get_activation(score) if self.custom_cls_channels else score.softmax(-1)
        moves = torch.cat(list(bbox_preds)).view(-1, 4)
        box = self.bbox_coder.decode(torch.cat(list(rois))[:, 1:], moves, max_shape=meta["img_shape"])
        boxes = pad_sequence(list(box.split(counts)), True)
        scores = pad_sequence(list(score[:, 0].split(counts)), True, -1.0)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return best(boxes, scores, suppress(boxes, scores > cfg.score_thr, cfg.nms.iou_threshold), cfg.max_per_img)

    def refine_bboxes(self: Any, sampling_results: Any, bbox_results: Any, batch_img_metas: Any) -> Any:
        """Return the boxes that this stage makes of those it was given, without the cells' own."""
        drawn: Together | None = self.together
        scores = bbox_results["cls_score"]
        if drawn is None or not _alike(batch_img_metas) or not scores.numel():
            return super().refine_bboxes(sampling_results, bbox_results, batch_img_metas)  # type: ignore[misc]
        if self.custom_activation:
            scores = self.loss_cls.get_activation(scores)
        if scores.shape[-1] == self.num_classes + 1:
            scores = scores[:, :-1]
        labels = bbox_results["bbox_targets"][0]
        labels = torch.where(labels == self.num_classes, scores.argmax(1), labels)
        boxes = self.regress_by_class(
            bbox_results["rois"][:, 1:], labels, bbox_results["bbox_pred"], batch_img_metas[0]
        )
        return [InstanceData(bboxes=each) for each in boxes[drawn.kept_rows].split(drawn.kept)]


@MODELS.register_module()
class CellShared2FCBBoxHead(_BoxTargets, Shared2FCBBoxHead):  # type: ignore[misc]
    """MMDetection's head of two fully connected layers."""


@MODELS.register_module()
class CellShared4Conv1FCBBoxHead(_BoxTargets, Shared4Conv1FCBBoxHead):  # type: ignore[misc]
    """MMDetection's head of four convolutions and a fully connected layer."""


@MODELS.register_module()
class CellSeesawLoss(SeesawLoss):  # type: ignore[misc]
    """Seesaw loss of one class: of its class there is nothing to say, and the device need not be asked."""

    def forward(
        self, cls_score: Any, labels: Any, label_weights: Any = None, avg_factor: Any = None,
        reduction_override: Any = None,
    ) -> Any:  # fmt: skip
        """Return the losses of objectness and class, the latter being the cross-entropy of one class: 0."""
        if self.num_classes != 1 or not self.return_dict or label_weights is None:
            return super().forward(cls_score, labels, label_weights, avg_factor, reduction_override)
        ground = labels == self.num_classes
        self.cum_samples += torch.stack([(~ground).sum(), ground.sum()])
        classes, objectness = self._split_cls_score(cls_score)
        loss = cross_entropy(
            objectness, ground.long(), label_weights.float(), reduction_override or self.reduction, avg_factor
        )
        return {"loss_cls_objectness": self.loss_weight * loss, "loss_cls_classes": classes.sum() * 0}

    def get_accuracy(self, cls_score: Any, labels: Any) -> dict[str, Any]:
        """Return the share of right answers, in percent; of one class all are right."""
        if self.num_classes != 1:
            return dict(super().get_accuracy(cls_score, labels))
        _, objectness = self._split_cls_score(cls_score)
        right = accuracy(objectness, (labels == self.num_classes).long())
        return {"acc_objectness": right, "acc_classes": torch.full_like(right, 100)}


@MODELS.register_module()
class CellMaskHead(FCNMaskHead):  # type: ignore[misc]
    """The mask head whose targets are cut out of label maps where these lie, and whose masks are pasted in parts."""

    def get_targets(self, sampling_results: Any, batch_gt_instances: Any, rcnn_train_cfg: Any) -> torch.Tensor:
        """Return the masks (n, h, w) within the boxes on cells."""
        masks: Sequence[Any] = [each.masks for each in batch_gt_instances]
        if rcnn_train_cfg.get("soft_mask_target", False) or not all(isinstance(each, CellMasks) for each in masks):
            found: torch.Tensor = super().get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
            return found
        size = _pair(rcnn_train_cfg.mask_size)
        return torch.cat(
            [
                mine.targets(result.pos_priors.float(), result.pos_assigned_gt_inds, size)
                for mine, result in zip(masks, sampling_results, strict=True)
            ]
        )

    def _predict_by_feat_single(
        self, mask_preds: Any, bboxes: Any, labels: Any, img_meta: Any, rcnn_test_cfg: Any, rescale: bool = False,
        activate_map: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """Return the masks (n, H, W) of one window, as upstream does, without asking the device anything."""
        same = tuple(img_meta["scale_factor"]) == (1.0, 1.0)
        threshold = rcnn_test_cfg.mask_thr_binary
        if not mask_preds.is_cuda or not same or threshold < 0:
            found: torch.Tensor = super()._predict_by_feat_single(
                mask_preds, bboxes, labels, img_meta, rcnn_test_cfg, rescale, activate_map
            )
            return found
        which = labels if not self.class_agnostic else torch.zeros_like(labels)
        chosen = mask_preds[torch.arange(len(which), device=which.device), which][:, None].float()
        chosen = chosen if activate_map else chosen.sigmoid()
        parts = zip(chosen.split(_MASKS_TOGETHER), bboxes.split(_MASKS_TOGETHER), strict=True)
        return torch.cat([paste(part, boxes, img_meta["ori_shape"]) >= threshold for part, boxes in parts])


def paste(masks: torch.Tensor, boxes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Return masks (n, 1, h, w) within their boxes (n, 4) of an image of ``shape``, elsewhere 0: (n, H, W)."""
    ends = boxes[:, :, None].unbind(1)
    grids = []
    for first, last, side in ((ends[0], ends[2], shape[1]), (ends[1], ends[3], shape[0])):
        middle = torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5
        place = (middle - first) / (last - first) * 2 - 1
        grids.append(torch.where(place.isinf(), 0.0, place))
    size = (len(boxes), *shape)
    grid = torch.stack([grids[0][:, None, :].expand(size), grids[1][:, :, None].expand(size)], 3)
    return torch.nn.functional.grid_sample(masks, grid, align_corners=False)[:, 0]


@MODELS.register_module()
class CellMaskIoUHead(MaskIoUHead):  # type: ignore[misc]
    """Mask Scoring R-CNN's third head, which counts pixels where the label maps lie."""

    def _get_area_ratio(self, pos_proposals: Any, pos_assigned_gt_inds: Any, gt_masks: Any) -> torch.Tensor:
        """Return the share (n,) of each cell that lies in its box."""
        if not isinstance(gt_masks, CellMasks) or not len(pos_proposals):
            found: torch.Tensor = super()._get_area_ratio(pos_proposals, pos_assigned_gt_inds, gt_masks)
            return found
        inside = gt_masks.within(pos_proposals.float(), pos_assigned_gt_inds).double()
        return (inside / (gt_masks.pixels()[pos_assigned_gt_inds].double() + 1e-7)).float()
