"""SOLOv2's targets and losses for all windows of a batch at once, from label maps.

Upstream asks the device a dozen times about every cell, and makes each of its masks smaller on the processor. Imported
inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmdet.models.dense_heads import SOLOV2Head
from mmdet.registry import MODELS

from segbench.methods.mmdet._assign import sent
from segbench.methods.mmdet._windows import CellMasks

_STRIDE = 4
"""Pixels of a window for one of the mask features, as published."""


@MODELS.register_module()
class CellSOLOV2Head(SOLOV2Head):  # type: ignore[misc]
    """SOLOv2's head, whose targets are read from the device once a batch."""

    def loss_by_feat(
        self, mlvl_kernel_preds: Any, mlvl_cls_preds: Any, mask_feats: Any, batch_gt_instances: Any,
        batch_img_metas: Any, **options: Any,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        """Return the losses of masks and classes."""
        label_maps = all(isinstance(each.masks, CellMasks) for each in batch_gt_instances)
        if not label_maps or self.mask_stride != _STRIDE or self.dynamic_conv_size != 1 or self.num_classes != 1:
            return dict(
                super().loss_by_feat(
                    mlvl_kernel_preds, mlvl_cls_preds, mask_feats, batch_gt_instances, batch_img_metas, **options
                )
            )
        size = mask_feats.shape[-2:]
        cells, points = self._points(batch_gt_instances, size)
        n_points = sum(n * n for n in self.num_grids)
        counts = [len(each) for each in cells]
        positive = [np.unique(each) for each in points]
        n_positive = sum(map(len, positive))
        here = mask_feats.device
        starts = np.arange(len(points)) * n_points
        which, where, flat = sent(
            [
                torch.from_numpy(np.concatenate(each))
                for each in (cells, points, [one + at for one, at in zip(positive, starts, strict=True)])
            ],
            here,
        )
        labels = torch.full((len(points), n_points), self.num_classes, dtype=torch.long, device=here)
        labels.view(-1).index_fill_(0, flat, 0)
        kernels = torch.cat([level.flatten(2) for level in mlvl_kernel_preds], 2)
        predicted, targets = [], []
        for i, (mine, at) in enumerate(zip(which.split(counts), where.split(counts), strict=True)):
            predicted.append(kernels[i][:, at].t() @ mask_feats[i].flatten(1))
            targets.append(smaller(batch_gt_instances[i].masks)[mine].flatten(1))
        if n_positive:
            dice = self.loss_mask(torch.cat(predicted), torch.cat(targets), reduction_override="none")
            loss_mask = dice.sum() / n_positive
        else:
            loss_mask = mask_feats.sum() * 0
        # upstream has the levels one after the other, each with all windows
        levels = [n * n for n in self.num_grids]
        wanted = torch.cat([level.flatten() for level in labels.split(levels, 1)])
        scores = [level.permute(0, 2, 3, 1).reshape(-1, self.num_classes) for level in mlvl_cls_preds]
        loss_cls = self.loss_cls(torch.cat(scores), wanted, avg_factor=n_positive + 1)
        return {"loss_mask": loss_mask, "loss_cls": loss_cls}

    def _points(
        self, truth: Sequence[Any], size: Sequence[int]
    ) -> tuple[list[npt.NDArray[np.int64]], list[npt.NDArray[np.int64]]]:
        """Return, of each window, the cells and the points of the grids that should find them, as pairs."""
        edges = torch.cat([self._edges(each, size) for each in truth], 1).cpu().numpy()
        counts = np.cumsum([len(each.bboxes) for each in truth])[:-1]
        first = np.cumsum([0, *(n * n for n in self.num_grids)])
        cells, points = [], []
        for mine in np.split(edges, counts, axis=1):
            which, at = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
            for level, (grid, (top, down, left, right, hit)) in enumerate(
                zip(self.num_grids, mine.transpose(0, 2, 1), strict=True)
            ):
                rows, columns = top[:, None] + np.arange(3), left[:, None] + np.arange(3)
                there = (
                    (rows <= down[:, None])[:, :, None]
                    & (columns <= right[:, None])[:, None]
                    & (hit > 0)[:, None, None]
                )
                cell, row, column = there.nonzero()
                which.append(cell)
                at.append(first[level] + rows[cell, row] * grid + columns[cell, column])
            cells.append(np.concatenate(which))
            points.append(np.concatenate(at))
        return cells, points

    def _edges(self, truth: Any, size: Sequence[int]) -> torch.Tensor:
        """Return the (levels, k, 5) first and last rows and columns of the grid for each cell, and if it counts."""
        masks, boxes = truth.masks, truth.bboxes
        sides = (boxes[:, 2:] - boxes[:, :2]).unbind(1)
        areas = torch.sqrt(sides[0] * sides[1])
        width, height = (0.5 * side * self.pos_scale for side in sides)
        middle_y, middle_x = centres(masks)
        found = []
        for (low, high), grid in zip(self.scale_ranges, self.num_grids, strict=True):

            def place(at: torch.Tensor, extent: int, grid: int = grid) -> torch.Tensor:
                return torch.div(at / (extent * _STRIDE), 1.0 / grid, rounding_mode="trunc").long()

            y, x = place(middle_y, size[0]), place(middle_x, size[1])
            top = torch.maximum(place(middle_y - height, size[0]).clamp(min=0), y - 1)
            down = torch.minimum(place(middle_y + height, size[0]).clamp(max=grid - 1), y + 1)
            left = torch.maximum(place(middle_x - width, size[1]).clamp(min=0), x - 1)
            right = torch.minimum(place(middle_x + width, size[1]).clamp(max=grid - 1), x + 1)
            found.append(torch.stack([top, down, left, right, ((areas >= low) & (areas <= high)).long()], 1))
        return torch.stack(found)


def centres(masks: CellMasks) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean row and column (k,) of each cell's pixels."""
    labels = masks.labels.flatten()
    n = torch.arange(len(labels), device=labels.device)
    pixels = masks.pixels().float()
    sums = [
        torch.zeros(masks.count + 1, dtype=torch.long, device=labels.device).index_add_(0, labels, at)[1:]
        for at in (n // masks.width, n % masks.width)
    ]
    return sums[0] / pixels, sums[1] / pixels


def smaller(masks: CellMasks) -> torch.Tensor:
    """Return the masks (k, H / 4, W / 4), 0 and 1, as OpenCV makes them smaller: the inner four pixels of each 4x4."""
    labels = masks.labels
    numbers = torch.arange(1, masks.count + 1, device=labels.device)[:, None, None]
    inner = [labels[y::_STRIDE, x::_STRIDE] == numbers for y in (1, 2) for x in (1, 2)]
    return (sum(one.to(torch.uint8) for one in inner) >= 2).to(torch.uint8)
