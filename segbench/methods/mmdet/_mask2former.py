"""Mask2Former's matching and losses in float32, matched on the processor while the device goes on.

Upstream waits for the device eighty times a step: for the costs of each window in each layer of the decoder. Imported
inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmcv.ops import point_sample
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.models.task_modules.samplers import MaskPseudoSampler
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment

from segbench.methods.mmdet._assign import sent
from segbench.methods.mmdet._windows import CellMasks

_THREADS = 4
"""That match at a time, each the windows of a layer."""

Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@MODELS.register_module()
class Float32Mask2FormerHead(Mask2FormerHead):  # type: ignore[misc]
    """Mask2Former's head with its matching and losses in float32, also under autocast.

    Upstream multiplies the number of masks by 12,544 points in the type of the class scores, which is infinite in half
    precision from six masks on (mmdetection #10909).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for part in self.modules():
            if isinstance(part, torch.nn.MultiheadAttention):
                # upstream takes the weights of all pairs, too, and does nothing with them
                part.forward = functools.partial(part.forward, need_weights=False)

    def preprocess_gt(self, batch_gt_instances: Any, batch_gt_semantic_segs: Any) -> Any:
        """Return classes and masks (k, H, W) of each window."""
        if not all(isinstance(each.masks, CellMasks) for each in batch_gt_instances):
            return super().preprocess_gt(batch_gt_instances, batch_gt_semantic_segs)
        return [
            InstanceData(labels=each.labels, masks=each.masks.to_tensor(torch.bool, each.labels.device))
            for each in batch_gt_instances
        ]

    def loss_by_feat(
        self, all_cls_scores: Any, all_mask_preds: Any, batch_gt_instances: Any, batch_img_metas: Any
    ) -> dict[str, torch.Tensor]:
        """Return the losses of every decoder layer."""
        scores = [each.float() for each in all_cls_scores]
        masks = [each.float() for each in all_mask_preds]
        with torch.autocast(scores[0].device.type, enabled=False):
            if type(self.assigner) is not HungarianAssigner or type(self.sampler) is not MaskPseudoSampler:
                return dict(super().loss_by_feat(scores, masks, batch_gt_instances, batch_img_metas))
            pairs = self._matched(scores, masks, batch_gt_instances)
            found = self._losses(scores, masks, batch_gt_instances, pairs)
        names = [f"d{n}." for n in range(len(found) - 1)] + [""]
        order = [len(found) - 1, *range(len(found) - 1)]
        return {f"{names[n]}{kind}": value for n in order for kind, value in found[n].items()}

    def _matched(self, scores: Sequence[Any], masks: Sequence[Any], truth: Sequence[Any]) -> list[list[Pairs]]:
        """Return the queries and cells that belong together, by layer and window."""
        device, counts = scores[0].device, [len(each.labels) for each in truth]
        shapes = [(scores[0].shape[1], count) for count in counts]
        with ThreadPoolExecutor(_THREADS if device.type == "cuda" else 1) as pool:
            waiting = []
            for layer in zip(scores, masks, strict=True):
                costs = self._costs(*layer, truth)
                arrived = None
                if device.type == "cuda":
                    costs = costs.to("cpu", non_blocking=True)
                    arrived = torch.cuda.Event()
                    arrived.record()
                waiting.append(pool.submit(_match, costs, shapes, arrived))
            return [each.result() for each in waiting]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _costs(self, scores: torch.Tensor, masks: torch.Tensor, truth: Sequence[Any]) -> torch.Tensor:
        """Return what it costs to match each query with each cell, of all windows one after the other."""
        found = [scores.new_zeros(0)]
        for score, mask, cells in zip(scores, masks, truth, strict=True):
            points = torch.rand((1, self.num_points, 2), device=score.device)
            if not len(cells.labels):
                continue
            # the points are those of all queries, so that these can be the channels of one image
            queries = SimpleNamespace(scores=score, masks=point_sample(mask[None], points)[0])
            wanted = SimpleNamespace(labels=cells.labels, masks=point_sample(cells.masks[None].float(), points)[0])
            costs = [cost(pred_instances=queries, gt_instances=wanted) for cost in self.assigner.match_costs]
            found.append(torch.stack(costs).sum(0).flatten())
        return torch.cat(found)

    def _losses(
        self, scores: Sequence[Any], masks: Sequence[Any], truth: Sequence[Any], pairs: Sequence[Sequence[Pairs]]
    ) -> list[dict[str, torch.Tensor]]:
        n_queries, device = scores[0].shape[1], scores[0].device
        starts = np.cumsum([0, *(len(each.labels) for each in truth)])
        rows = [np.concatenate([query + i * n_queries for i, (query, _) in enumerate(layer)]) for layer in pairs]
        cells = [np.concatenate([cell + starts[i] for i, (_, cell) in enumerate(layer)]) for layer in pairs]
        places = sent([torch.from_numpy(each) for each in (*rows, *cells)], device)
        labels, wanted = torch.cat([each.labels for each in truth]), torch.cat([each.masks for each in truth])
        factor = float(sum(max(len(query), 1) for query, _ in pairs[0]))
        return [
            self._layer(score, mask, labels[cell], wanted[cell], row, factor)
            for score, mask, row, cell in zip(scores, masks, places[: len(rows)], places[len(rows) :], strict=True)
        ]

    def _layer(
        self, scores: torch.Tensor, masks: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor, rows: torch.Tensor,
        factor: float,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        """Return a layer's losses, whose queries ``rows`` (n,) should have these labels (n,) and masks (n, H, W)."""
        scores = scores.flatten(0, 1)
        classes = torch.full((len(scores),), self.num_classes, dtype=torch.long, device=scores.device)
        classes[rows] = labels
        weight = scores.new_tensor(self.class_weight)
        loss_cls = self.loss_cls(scores, classes, torch.ones_like(classes), avg_factor=weight[classes].sum())
        n_masks = reduce_mean(scores.new_full((1,), factor)).clamp(min=1)
        masks = masks.flatten(0, 1)[rows]
        if not len(rows):
            return {"loss_cls": loss_cls, "loss_mask": masks.sum(), "loss_dice": masks.sum()}
        with torch.no_grad():
            points = get_uncertain_point_coords_with_randomness(
                masks[:, None], None, self.num_points, self.oversample_ratio, self.importance_sample_ratio
            )
            targets = point_sample(wanted[:, None].float(), points)[:, 0]
        found = point_sample(masks[:, None], points)[:, 0]
        loss_dice = self.loss_dice(found, targets, avg_factor=n_masks)
        loss_mask = self.loss_mask(found.reshape(-1), targets.reshape(-1), avg_factor=n_masks * self.num_points)
        return {"loss_cls": loss_cls, "loss_mask": loss_mask, "loss_dice": loss_dice}


@MODELS.register_module()
class CellFusionHead(MaskFormerFusionHead):  # type: ignore[misc]
    """What makes instances of queries; upstream's asks the device about every mask, for a box that nobody needs."""

    def instance_postprocess(self, mask_cls: torch.Tensor, mask_pred: torch.Tensor) -> InstanceData:
        """Return classes, scores and masks (k, H, W) of the best queries of a window."""
        if self.num_classes != 1 or self.num_things_classes != 1:
            return super().instance_postprocess(mask_cls, mask_pred)
        scores, queries = mask_cls.softmax(-1)[:, 0].topk(self.test_cfg.get("max_per_image", 100), sorted=False)
        mask_pred = mask_pred[queries]
        masks = mask_pred > 0
        inside = (mask_pred.sigmoid() * masks).flatten(1).sum(1) / (masks.float().flatten(1).sum(1) + 1e-6)
        labels = torch.zeros_like(queries)
        return InstanceData(
            bboxes=scores.new_zeros((len(scores), 4)), labels=labels, scores=scores * inside, masks=masks
        )


def _match(costs: torch.Tensor, shapes: Sequence[tuple[int, int]], arrived: Any) -> list[Pairs]:
    """Return the best pairs of each window's queries and cells, by query."""
    if arrived is not None:
        arrived.synchronize()
    parts = costs.split([queries * cells for queries, cells in shapes])
    return [linear_sum_assignment(part.view(shape).numpy()) for part, shape in zip(parts, shapes, strict=True)]
