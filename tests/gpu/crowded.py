"""Methods that run out of a GPU's memory where a test wants it; found by a job's process as ``crowded``."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from typing import Any

from segbench.methods.base import ImageStack
from segbench.methods.detectron2 import CenterMask2, ResNeSt
from segbench.methods.mmdet import MaskRCNN


def leave_room_for_one(predict: Any, images: ImageStack) -> None:
    """Hold this process to as much memory as lies between what one window needs and what all of them need."""
    import torch

    peaks = []
    for n in (1, len(images)):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        list(predict(ImageStack(dataclasses.replace(images.arrays, rows=tuple(range(n))))))
        peaks.append(torch.cuda.max_memory_reserved())
    gc.collect()
    torch.cuda.empty_cache()
    one, all_of_them = peaks
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((0.6 * one + 0.4 * all_of_them) / total)


class _Crowded:
    """Predicts with a memory that the first batch does not fit in."""

    _left = False

    def predict(self, job: Any, images: ImageStack) -> Iterator[Any]:
        if not self._left:
            self._left = True
            predict = super().predict  # type: ignore[misc]
            leave_room_for_one(lambda few: predict(job, few), images)
        yield from super().predict(job, images)  # type: ignore[misc]


class CrowdedMaskRCNN(_Crowded, MaskRCNN):
    """Of the family of MMDetection."""


class CrowdedResNeSt(_Crowded, ResNeSt):
    """Of the family of detectron2."""


class CrowdedCenterMask2(_Crowded, CenterMask2):
    """Of the family of detectron2, with no second stage of boxes."""


class Greedy(MaskRCNN):
    """Takes all the memory that it is given, in pieces of 64 MiB, and tells as ``n_parameters`` how many it got."""

    def train(self, job: Any, progress: Any, checkpoints: Any) -> None:  # noqa: ARG002
        import torch

        self._pieces: list[Any] = []
        while True:
            self._pieces.append(torch.empty(2**26, dtype=torch.uint8, device=self._device))
