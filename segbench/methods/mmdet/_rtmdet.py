"""RTMDet-Ins's head for windows of many cells, and the average of its weights that is kept.

Imported inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import RTMDetInsSepBNHead
from mmdet.models.layers import ExpMomentumEMA
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from torch.nn import functional

_MASKS_TOGETHER = 256
"""Masks that are drawn at a time: as floats of a whole window they take a gigabyte for 4000 of 256 pixels."""


@MODELS.register_module()
class CellRTMDetInsHead(RTMDetInsSepBNHead):  # type: ignore[misc]
    """RTMDet-Ins's head, with losses in float32 and masks that are drawn some at a time."""

    def loss_by_feat(
        self, cls_scores: Any, bbox_preds: Any, kernel_preds: Any, mask_feat: Any, *truth: Any, **options: Any
    ) -> dict[str, Any]:
        """Return the losses of classes, boxes and masks: sums over masks have no room in float16."""
        with torch.autocast(mask_feat.device.type, enabled=False):
            levels = [[each.float() for each in part] for part in (cls_scores, bbox_preds, kernel_preds)]
            return dict(super().loss_by_feat(*levels, mask_feat.float(), *truth, **options))

    def _bbox_mask_post_process(
        self, results: InstanceData, mask_feat: torch.Tensor, cfg: Any, rescale: bool = False, with_nms: bool = True,
        img_meta: Any = None,
    ) -> InstanceData:  # fmt: skip
        """Return the instances that upstream's gives for a window that was not resized."""
        if rescale and tuple(img_meta["scale_factor"]) != (1.0, 1.0):
            return super()._bbox_mask_post_process(results, mask_feat, cfg, rescale, with_nms, img_meta)
        # boxes first, without the masks of those that go
        kernels, priors = results.pop("kernels"), results.pop("priors")
        results.number = torch.arange(len(results.scores), device=results.scores.device)
        width, height = results.bboxes[:, 2] - results.bboxes[:, 0], results.bboxes[:, 3] - results.bboxes[:, 1]
        results = results[(width > cfg.min_bbox_size) & (height > cfg.min_bbox_size)]
        if len(results):
            kept = _suppressed(results, cfg)
            results = results[kept]
        size, stride = img_meta["ori_shape"][:2], self.prior_generator.strides[0][0]
        masks = [torch.zeros((0, *size), dtype=torch.bool, device=mask_feat.device)]
        for numbers in results.number.split(_MASKS_TOGETHER):
            if len(numbers):
                logits = self._mask_predict_by_feat_single(mask_feat, kernels[numbers], priors[numbers])
                large = functional.interpolate(logits[None], scale_factor=stride, mode="bilinear")[0]
                masks.append(large[:, : size[0], : size[1]].sigmoid() > cfg.mask_thr_binary)
        results.masks = torch.cat(masks)
        results.pop("number")
        return results


def _suppressed(results: InstanceData, cfg: Any) -> torch.Tensor:
    from mmcv.ops import batched_nms

    _, kept = batched_nms(results.bboxes, results.scores, results.labels, dict(cfg.nms))
    numbers: torch.Tensor = kept[: cfg.max_per_img]
    return numbers


class AverageHook(Hook):  # type: ignore[misc]
    """Keeps the running average of weights and batch statistics that upstream's configuration evaluates.

    Parameters
    ----------
    model
        On its device.
    momentum
        Share that the newest weights have in the average, in the long run.
    """

    priority = "NORMAL"

    def __init__(self, model: Any, momentum: float) -> None:
        self._model = model
        self._average = ExpMomentumEMA(model, momentum=momentum, update_buffers=True)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Take a step's weights into the average."""
        self._average.update_parameters(self._model)

    def state(self) -> dict[str, Any]:
        """Return what goes on in another process."""
        return dict(self._average.state_dict())

    def take(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self._average.load_state_dict(state)

    def impose(self) -> None:
        """Give the model the average."""
        self._model.load_state_dict(self._average.module.state_dict())
