"""Windows as detectron2 wants them, straight from the job's arrays; imported only where detectron2 is.

Processes that read windows send them as they are, with what was drawn for each; where the model is they are scaled and
mirrored. The pixels, boxes and masks are those of detectron2's ``ResizeShortestEdge`` and ``RandomFlip``.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from segbench.methods.base import ImageStack
from segbench.methods.planes import three_planes

_MASK_BYTES = {"cpu": 1 << 26, "cuda": 1 << 28}
"""Most memory for cells' masks as floating point, on a processor and on a GPU."""


class CellMasks:
    """The masks of one image's cells as one label map, with the part of ``BitMasks`` that training needs.

    Hundreds of cells as bitmaps of their own, and again as floating point when they are cropped, take gigabytes; what
    is returned equals what ``detectron2.structures.BitMasks`` returns.

    Parameters
    ----------
    labels
        (H, W), integers.
    cells
        (K,), the labels of the cells.
    chosen
        (N,), which of the cells each mask is, a cell may come more than once; None for every cell once.
    areas
        (K,), the cells' areas in pixels; None to count them.
    """

    def __init__(
        self,
        labels: torch.Tensor,
        cells: torch.Tensor,
        chosen: torch.Tensor | None = None,
        areas: torch.Tensor | None = None,
    ) -> None:
        self.labels, self.cells = labels, cells
        self.chosen = torch.arange(len(cells), device=cells.device) if chosen is None else chosen
        self._areas = areas

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, item: Any) -> CellMasks:
        return CellMasks(self.labels, self.cells, torch.atleast_1d(self.chosen[item]), self._areas)

    @property
    def ids(self) -> torch.Tensor:
        """The label of each mask, (N,)."""
        return self.cells[self.chosen]

    def to(self, *args: Any, **kwargs: Any) -> CellMasks:
        """Move to a device."""
        labels, cells, chosen = (each.to(*args, **kwargs) for each in (self.labels, self.cells, self.chosen))
        return CellMasks(labels, cells, chosen, None if self._areas is None else self._areas.to(*args, **kwargs))

    def areas(self) -> torch.Tensor:
        """Return the (N,) areas in pixels."""
        if self._areas is None:
            self._areas = torch.stack([(self.labels == cell).sum() for cell in self.cells]).float()
        return self._areas[self.chosen]

    def areas_within(self, boxes: torch.Tensor) -> torch.Tensor:
        """Return how many pixels of each mask have their centre in its box; boxes (N, 4) as x0, y0, x1, y1."""
        height, width = self.labels.shape
        x = torch.arange(width, device=self.labels.device) + 0.5
        areas = [boxes.new_zeros(0)]
        for masks, mine, box in self._parts(boxes):
            # how many of a column's pixels lie above each row, for a mask's pixels between two rows
            above = F.pad(masks.cumsum(1), (0, 0, 1, 0))
            rows = torch.ceil(box[:, 1::2] - 0.5).clamp(0, height).long()
            between = above[mine, rows[:, 1]] - above[mine, rows[:, 0]]
            columns = (x >= box[:, 0:1]) & (x < box[:, 2:3])
            areas.append((between.clamp(min=0) * columns).sum(1))
        return torch.cat(areas)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Return the (N, mask_size, mask_size) boolean masks within their boxes (N, 4), as ``BitMasks`` does."""
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        crops = [torch.zeros((0, mask_size, mask_size), dtype=torch.bool, device=boxes.device)]
        for masks, mine, box in self._parts(boxes):
            crops.append(align(masks[:, None], torch.cat([mine[:, None].to(box.dtype), box], dim=1))[:, 0] >= 0.5)
        return torch.cat(crops)

    def _parts(self, boxes: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield masks (K, H, W), which of them each box is for, and those boxes, as much as memory is meant to hold."""
        together = max(1, _MASK_BYTES[self.labels.device.type] // (4 * self.labels.numel()))
        if len(self.cells) <= min(together, len(self)):
            yield (self.labels == self.cells[:, None, None]).float(), self.chosen, boxes.float()
            return
        for first in range(0, len(self), together):
            these = slice(first, first + together)
            masks = (self.labels == self.ids[these, None, None]).float()
            yield masks, torch.arange(len(masks), device=boxes.device), boxes[these].float()


class TrainingMapper:
    """Reads a window by its number, draws how it is scaled and mirrored, and finds its cells' boxes after that."""

    def __init__(self, stack: ImageStack, settings: Mapping[str, Any]) -> None:
        self._stack, self._flip = stack, settings["flip"]
        self._sides = [side_of(stack.size, scale) for scale in settings["train_scales"]]

    def __call__(self, window: int) -> dict[str, Any] | None:
        """Return the sample, or None where no cell outlasts the resizing (detectron2 then draws another)."""
        # as ResizeShortestEdge and RandomFlip draw
        size = scaled_size(self._stack.size, int(np.random.choice(self._sides)))
        mirrored = bool(np.random.uniform() < self._flip)
        labels = self._stack.labels(window)
        cells, boxes, areas = scaled_cells(labels, size)
        if mirrored:
            boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
        if not len(cells):
            return None
        found = {"image": self._stack[window], "labels": labels, "cells": cells, "boxes": boxes, "areas": areas}
        return {"size": size, "mirrored": mirrored, **{name: torch.from_numpy(one) for name, one in found.items()}}


def packed(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return samples of :class:`TrainingMapper` as few large tensors, which go from process to process quickly."""
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in ("image", "labels")}
    batch |= {name: torch.cat([sample[name] for sample in samples]) for name in ("cells", "boxes", "areas")}
    return {
        **batch,
        "sizes": [sample["size"] for sample in samples],
        "mirrored": [sample["mirrored"] for sample in samples],
        "counts": [len(sample["cells"]) for sample in samples],
    }


def training_inputs(batch: Mapping[str, Any], device: Any) -> list[dict[str, Any]]:
    """Return what :func:`packed` returned as detectron2's models take it, scaled and mirrored on ``device``."""
    here = {name: value.to(device, non_blocking=True) for name, value in batch.items() if torch.is_tensor(value)}
    cells = zip(*(here[name].split(batch["counts"]) for name in ("cells", "boxes", "areas")), strict=True)
    inputs = []
    for n, (ids, boxes, areas) in enumerate(cells):
        size, mirrored = tuple(batch["sizes"][n]), batch["mirrored"][n]
        image, labels = enlarged(here["image"][n : n + 1], size)[0], here["labels"][n]
        rows, columns = (nearest_places(*sides, device) for sides in zip(labels.shape, size, strict=True))
        instances = Instances(size)
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.zeros(len(ids), dtype=torch.int64, device=device)
        seen = labels[rows[:, None], columns.flip(0) if mirrored else columns]
        instances.gt_masks = CellMasks(seen, ids, areas=areas)
        inputs.append({"image": image.flip(-1) if mirrored else image, "instances": instances})
    return inputs


class ResumedSampler(torch.utils.data.Sampler):  # type: ignore[misc]
    """detectron2's endless shuffle, without the windows that this process has seen before a checkpoint."""

    def __init__(self, size: int, seed: int, seen: int) -> None:
        self._all, self._seen = TrainingSampler(size, seed=seed), seen

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(iter(self._all), self._seen, None)


def train_loader(
    stack: ImageStack, windows: Sequence[int], settings: Mapping[str, Any], *, batch_size: int, seed: int, done: int,
    workers: int, pinned: bool = False,
) -> Any:  # fmt: skip
    """Return detectron2's endless loader of :func:`packed` batches, after ``done`` steps.

    Each process gets its share of a batch.
    """
    sampler = ResumedSampler(len(windows), seed, done * (batch_size // comm.get_world_size()))
    return build_detection_train_loader(
        list(windows), mapper=TrainingMapper(stack, settings), sampler=sampler, total_batch_size=batch_size,
        aspect_ratio_grouping=False, num_workers=workers, pin_memory=pinned, collate_fn=packed,
    )  # fmt: skip


def test_inputs(images: Sequence[npt.NDArray[np.float32]], scale: float, device: Any) -> list[dict[str, Any]]:
    """Return windows (C, H, W) of one size, resized by ``scale``, as detectron2's models take them.

    Their masks are asked for at H x W.
    """
    height, width = images[0].shape[1:]
    planes = torch.from_numpy(np.stack(images))
    if device.type == "cuda":
        planes = planes.pin_memory().to(device, non_blocking=True)
    resized = enlarged(planes, scaled_size((height, width), side_of((height, width), scale)))
    return [{"image": image, "height": height, "width": width} for image in resized]


def enlarged(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return images (N, C, H, W) as three planes of another size, as ``ResizeTransform`` makes floating point ones."""
    resized = F.interpolate(images, size, mode="bilinear", align_corners=False)
    # planes that are copies, or empty, are so after the resizing, too: which channel is each, from 1
    planes = three_planes(np.arange(1, images.shape[1] + 1, dtype=np.float32)[:, None, None]).ravel().astype(int)
    return torch.stack([resized[:, n - 1] if n else torch.zeros_like(resized[:, 0]) for n in planes.tolist()], dim=1)


def scaled_cells(
    labels: npt.NDArray[np.int32], size: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the cells of a label map (H, W) that is resized to ``size`` by nearest neighbours.

    Returns
    -------
    tuple
        Their labels (K,), ascending; boxes (K, 4) as x0, y0, x1, y1; and areas in pixels (K,).
    """
    rows, columns = (nearest_places(*sides) for sides in zip(labels.shape, size, strict=True))
    if size[0] < labels.shape[0] or size[1] < labels.shape[1]:  # rows are left out, and ends of cells with them
        labels = labels[rows[:, None], columns]
        rows, columns = map(np.arange, size)
    places = np.flatnonzero(labels)
    order = np.argsort(labels.ravel()[places], kind="stable")
    ys, xs = np.divmod(places[order], labels.shape[1])
    ids = labels[ys, xs]
    first = np.flatnonzero(np.diff(ids, prepend=0))
    if not len(first):
        return np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    left, right = np.minimum.reduceat(xs, first), np.maximum.reduceat(xs, first) + 1
    top, bottom = ys[first], ys[np.append(first[1:], len(ys)) - 1] + 1
    ends = [np.searchsorted(*each) for each in ((columns, left), (rows, top), (columns, right), (rows, bottom))]
    copies = np.bincount(rows, minlength=labels.shape[0])[ys] * np.bincount(columns, minlength=labels.shape[1])[xs]
    areas = np.add.reduceat(copies, first)
    return ids[first].astype(np.int64), np.stack(ends, axis=1).astype(np.float32), areas.astype(np.float32)


@functools.lru_cache(maxsize=256)
def nearest_places(before: int, after: int, device: Any = None) -> Any:
    """Return which of ``before`` pixels in a row each of ``after`` is, as PyTorch's interpolation has it.

    An array, and on a device a tensor.
    """
    places = torch.arange(before, dtype=torch.float32)[None, None]
    found = F.interpolate(places, after, mode="nearest")[0, 0].long()
    return found.numpy() if device is None else found.to(device)


def instances_of(labels: npt.NDArray[np.int32]) -> Instances:
    """Return the cells of a label map (H, W) with ``gt_boxes``, ``gt_classes`` (all 0) and ``gt_masks``."""
    cells, boxes, areas = map(torch.from_numpy, scaled_cells(labels, labels.shape))
    instances = Instances(labels.shape)
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.zeros(len(cells), dtype=torch.int64)
    instances.gt_masks = CellMasks(torch.from_numpy(labels), cells, areas=areas)
    return instances


def scaled_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (H, W) of a window of ``size`` whose shorter side becomes ``side`` pixels, as detectron2 rounds them."""
    height, width = ResizeShortestEdge.get_output_shape(*size, side, sys.maxsize)
    return int(height), int(width)


def side_of(size: tuple[int, int], scale: float) -> int:
    """Return the short side in pixels of a window of ``size`` after resizing."""
    return max(1, round(scale * min(size)))
