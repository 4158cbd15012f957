"""Boxes of all windows of a batch at once: decoded without constants from the processor, suppressed in parallel.

Imported inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torchvision
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import TASK_UTILS

_PAIRS_TOGETHER = 1 << 25
"""Of boxes whose overlap is known at a time: 128 MB."""

_UNTIL_ASKED = 8
"""Rounds of a suppression before the device is asked whether it is through."""


@TASK_UTILS.register_module()
class CellBoxCoder(DeltaXYWHBBoxCoder):  # type: ignore[misc]
    """MMDetection's coder of boxes with constants that stay on the device: to send them is to wait for it."""

    def _constants(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        known: dict[Any, Any] = self.__dict__.setdefault("_kept", {})
        key = (like.device, like.dtype)
        if key not in known:
            known[key] = like.new_tensor(self.means)[None], like.new_tensor(self.stds)[None]
        found: tuple[torch.Tensor, torch.Tensor] = known[key]
        return found

    def encode(self, bboxes: Any, gt_bboxes: Any) -> torch.Tensor:
        """Return what moves boxes (n, 4) to those of their cells (n, 4)."""
        (start, end), (start_to, end_to) = (box.float().split(2, -1) for box in (bboxes, gt_bboxes))
        size, size_to = end - start, end_to - start_to
        moved = ((start_to + end_to) * 0.5 - (start + end) * 0.5) / size
        means, stds = self._constants(moved)
        return torch.cat([moved, torch.log(size_to / size)], -1).sub_(means).div_(stds)

    def decode(self, bboxes: Any, pred_bboxes: Any, max_shape: Any = None, wh_ratio_clip: float = 16 / 1000) -> Any:
        """Return boxes (n, 4), moved."""
        plain = pred_bboxes.ndim == 2 and pred_bboxes.shape[1] == 4 and len(pred_bboxes) and not self.add_ctr_clamp
        if not plain or not (max_shape is None or isinstance(max_shape[0], int)):
            return super().decode(bboxes, pred_bboxes, max_shape, wh_ratio_clip)
        means, stds = self._constants(pred_bboxes)
        moved, grown = (pred_bboxes * stds + means).split(2, -1)
        start, end = bboxes.split(2, -1)
        middle, size = (start + end) * 0.5, end - start
        most = float(np.abs(np.log(wh_ratio_clip)))
        middle = middle + size * moved
        half = size * grown.clamp(min=-most, max=most).exp() * 0.5
        boxes = torch.cat([middle - half, middle + half], -1)
        if self.clip_border and max_shape is not None:
            boxes[..., 0::2].clamp_(min=0, max=max_shape[1])
            boxes[..., 1::2].clamp_(min=0, max=max_shape[0])
        return boxes


def suppress(boxes: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return which boxes remain when each that remains has removed those after it that overlap it by more.

    Parameters
    ----------
    boxes
        (B, n, 4), the best first.
    valid
        (B, n): whether a box counts.
    threshold
        IoU.

    Returns
    -------
    (B, n), as ``torchvision.ops.nms`` has it, box after box. On a GPU all boxes are decided at once, over and over
    until nothing changes: the first is right at once, and each round at least those that depend on what was right.
    """
    if not boxes.is_cuda:
        return torch.stack([_one_by_one(*each, threshold) for each in zip(boxes, valid, strict=True)])
    step = max(1, _PAIRS_TOGETHER // max(1, boxes.shape[1] ** 2))
    parts = zip(boxes.split(step), valid.split(step), strict=True)
    return torch.cat([_in_rounds(*part, threshold) for part in parts])


def _one_by_one(boxes: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    places = valid.nonzero()[:, 0]
    order = torch.arange(len(places), 0, -1, dtype=torch.float32)
    kept = torchvision.ops.nms(boxes[places].float(), order, threshold)
    return torch.zeros_like(valid).index_fill_(0, places[kept], True)


def _in_rounds(boxes: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    x1, y1, x2, y2 = boxes.float().unbind(-1)
    area = (x2 - x1) * (y2 - y1)
    over = (torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])).clamp_(min=0)
    over *= (torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])).clamp_(min=0)
    over /= (area[:, :, None] + area[:, None]).sub_(over)
    # what each box removes, if it remains: those after it; in half precision, where a sum of thousands is above 0
    removes = (over > threshold).triu_(1).to(torch.float16 if boxes.is_cuda else torch.float32)
    kept = valid
    while True:
        for _ in range(_UNTIL_ASKED):
            before = kept
            kept = valid & (torch.bmm(before[:, None].to(removes.dtype), removes)[:, 0] == 0)
        if torch.equal(kept, before):
            return kept
