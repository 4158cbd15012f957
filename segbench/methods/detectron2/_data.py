"""Windows as detectron2 wants them, straight from the job's arrays; imported only where detectron2 is."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.data import build_detection_train_loader
from detectron2.data import transforms as T  # noqa: N812 - as upstream's own documentation names it
from detectron2.data.samplers import TrainingSampler
from detectron2.layers import ROIAlign
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from segbench.methods.base import ImageStack
from segbench.methods.planes import three_planes

_MASKS_TOGETHER = 32


class CellMasks:
    """The masks of one image's cells as one label map, with the part of ``BitMasks`` that training needs.

    Hundreds of cells as bitmaps of their own, and again as floating point when they are cropped, take gigabytes; what
    is returned equals what ``detectron2.structures.BitMasks`` returns.

    Parameters
    ----------
    labels
        (H, W), integers.
    ids
        (N,), the label of each mask; a label may come more than once.
    """

    def __init__(self, labels: torch.Tensor, ids: torch.Tensor) -> None:
        self.labels, self.ids = labels, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: Any) -> CellMasks:
        return CellMasks(self.labels, torch.atleast_1d(self.ids[item]))

    def to(self, *args: Any, **kwargs: Any) -> CellMasks:
        """Move to a device."""
        return CellMasks(self.labels.to(*args, **kwargs), self.ids.to(*args, **kwargs))

    def areas(self) -> torch.Tensor:
        """Return the (N,) areas in pixels."""
        return torch.bincount(self.labels.flatten().long(), minlength=int(self.labels.max()) + 1)[self.ids].float()

    def areas_within(self, boxes: torch.Tensor) -> torch.Tensor:
        """Return how many pixels of each mask have their centre in its box; boxes (N, 4) as x0, y0, x1, y1."""
        height, width = self.labels.shape
        y, x = (torch.arange(n, device=self.labels.device) + 0.5 for n in (height, width))
        areas = [boxes.new_zeros(0)]
        for part, box in self._parts(boxes):
            rows = (y >= box[:, 1:2]) & (y < box[:, 3:4])
            columns = (x >= box[:, 0:1]) & (x < box[:, 2:3])
            areas.append(torch.einsum("nyx,ny,nx->n", part, rows.float(), columns.float()))
        return torch.cat(areas)

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """Return the (N, mask_size, mask_size) boolean masks within their boxes (N, 4), as ``BitMasks`` does."""
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        crops = [torch.zeros((0, mask_size, mask_size), dtype=torch.bool, device=boxes.device)]
        for part, box in self._parts(boxes):
            numbers = torch.arange(len(box), device=box.device, dtype=box.dtype)
            crops.append(align(part[:, None], torch.cat([numbers[:, None], box], dim=1))[:, 0] >= 0.5)
        return torch.cat(crops)

    def _parts(self, boxes: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for first in range(0, len(self), _MASKS_TOGETHER):
            these = slice(first, first + _MASKS_TOGETHER)
            yield (self.labels == self.ids[these, None, None]).float(), boxes[these].float()


class TrainingMapper:
    """Makes a training sample of a window's number: resized, mirrored, with its cells as ``Instances``."""

    def __init__(self, stack: ImageStack, settings: Mapping[str, Any]) -> None:
        sides = [side_of(stack.size, scale) for scale in settings["train_scales"]]
        self._stack = stack
        self._augment = T.AugmentationList(
            [T.ResizeShortestEdge(sides, sys.maxsize, "choice"), T.RandomFlip(settings["flip"])]
        )

    def __call__(self, window: int) -> dict[str, Any] | None:
        """Return the sample, or None where no cell outlasts the resizing (detectron2 then draws another)."""
        # float: torch resizes no integers
        seen = T.AugInput(
            _height_width_planes(self._stack[window]), sem_seg=self._stack.labels(window).astype(np.float32)
        )
        self._augment(seen)
        instances = instances_of(np.ascontiguousarray(seen.sem_seg).astype(np.int32))
        return {"image": _planes(seen.image), "instances": instances} if len(instances) else None


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
    """Return detectron2's endless loader of batches, after ``done`` steps; each process gets its share of a batch."""
    sampler = ResumedSampler(len(windows), seed, done * (batch_size // comm.get_world_size()))
    return build_detection_train_loader(
        list(windows), mapper=TrainingMapper(stack, settings), sampler=sampler, total_batch_size=batch_size,
        aspect_ratio_grouping=False, num_workers=workers, pin_memory=pinned,
    )  # fmt: skip


def test_input(image: npt.NDArray[np.float32], scale: float) -> dict[str, Any]:
    """Return a window (C, H, W), resized by ``scale``, as detectron2's models take it; masks come at H x W."""
    height, width = image.shape[1:]
    seen = T.AugInput(_height_width_planes(image))
    T.ResizeShortestEdge([side_of((height, width), scale)] * 2, sys.maxsize)(seen)
    return {"image": _planes(seen.image), "height": height, "width": width}


def instances_of(labels: npt.NDArray[np.int32]) -> Instances:
    """Return the cells of a label map (H, W) with ``gt_boxes``, ``gt_classes`` (all 0) and ``gt_masks``."""
    ys, xs = np.nonzero(labels)
    ids, cell = np.unique(labels[ys, xs], return_inverse=True)
    boxes = np.zeros((len(ids), 4), np.float32)
    boxes[:, :2] = np.inf
    for column, ends, reduce in (
        (0, xs, np.minimum),
        (1, ys, np.minimum),
        (2, xs + 1, np.maximum),
        (3, ys + 1, np.maximum),
    ):
        reduce.at(boxes[:, column], cell, ends.astype(np.float32))
    instances = Instances(labels.shape)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes))
    instances.gt_classes = torch.zeros(len(ids), dtype=torch.int64)
    instances.gt_masks = CellMasks(torch.from_numpy(labels), torch.from_numpy(ids.astype(np.int64)))
    return instances


def side_of(size: tuple[int, int], scale: float) -> int:
    """Return the short side in pixels of a window of ``size`` after resizing."""
    return max(1, round(scale * min(size)))


def _height_width_planes(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.moveaxis(three_planes(image), 0, -1))


def _planes(image: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0)))
