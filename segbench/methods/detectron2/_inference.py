"""Prediction of many windows: scaled, pasted and encoded where the model is; imported only where detectron2 is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances

from segbench.methods.base import ImageStack
from segbench.methods.detectron2._data import test_inputs
from segbench.methods.mask_encoding import encode
from segbench.methods.predictions import MaskInstances

_PASTED = 1 << 26
"""Pixels of masks that are pasted together on a GPU: sampling takes some twelve bytes for each."""


def predict(model: Any, images: ImageStack, scale: float, together: int, device: Any) -> Iterator[MaskInstances]:
    """Yield each window's masks at its own resolution, with their scores.

    On a GPU the next windows are predicted while those before them are written.

    Parameters
    ----------
    model
        A detector of detectron2 with ``inference(inputs, do_postprocess=False)``.
    scale
        By which windows are enlarged.
    together
        Windows that go through the network at once.
    """
    model.eval()
    firsts = range(0, len(images), together)

    def found(first: int) -> list[MaskInstances]:
        with torch.inference_mode():
            return _predicted(model, images[first : first + together], scale, device)

    for some in _ahead(found, firsts, device) if device.type == "cuda" else map(found, firsts):
        yield from some


def _ahead(work: Callable[[int], list[MaskInstances]], firsts: range, device: Any) -> Iterator[list[MaskInstances]]:
    """Yield what ``work`` returns, while a thread works on what comes next."""

    def here(first: int) -> list[MaskInstances]:
        with torch.cuda.device(device):
            return work(first)

    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for first in firsts:
            following = thread.submit(here, first)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _predicted(model: Any, images: Sequence[Any], scale: float, device: Any) -> list[MaskInstances]:
    size = images[0].shape[1:]
    found: list[Instances] = model.inference(test_inputs(images, scale, device), do_postprocess=False)
    scores = torch.cat([one.scores for one in found])
    boxes = torch.cat([one.pred_boxes.tensor for one in found])
    masks = torch.cat([one.pred_masks[:, 0] for one in found])
    windows = np.repeat(np.arange(len(found)), [len(one) for one in found])
    # as detector_postprocess does, for all windows at once
    at_size = Boxes(boxes)
    at_size.scale(size[1] / found[0].image_size[1], size[0] / found[0].image_size[0])
    at_size.clip(size)
    some = at_size.nonempty()
    runs = []
    pasted = max(1, _PASTED // (size[0] * size[1]))
    kept = torch.nonzero(some)[:, 0]
    for first in range(0, len(kept), pasted):
        these = kept[first : first + pasted]
        runs += encode(paste_masks_in_image(masks[these], at_size.tensor[these], size, 0.5))
    windows = windows[kept.cpu().numpy()]
    numbers = scores[kept].cpu().numpy().astype(np.float64)
    seen = np.array([len(one) > 1 for one in runs], dtype=bool)  # others have no pixel
    return [_instances(runs, numbers, np.flatnonzero(seen & (windows == n))) for n in range(len(found))]


def _instances(runs: Sequence[Any], scores: Any, chosen: Any) -> MaskInstances:
    return MaskInstances([runs[n] for n in chosen], scores[chosen])
