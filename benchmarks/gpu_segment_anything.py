"""What ``bench_gpu.py`` sets beside Segment Anything: upstream's own generator, a window at a time."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from segbench.methods.segment_anything import picture

_OPTIONS = (
    "points_per_side", "points_per_batch", "pred_iou_thresh", "stability_score_thresh", "stability_score_offset",
    "box_nms_thresh", "crop_n_layers", "min_mask_region_area",
)  # fmt: skip


def model_only(method: Any, job: Any, steps: int) -> float:
    """Raise NotImplementedError: there is no training step."""
    raise NotImplementedError("is not trained")


def upstream_prediction(method: Any, job: Any, images: Any) -> float:
    """Return the windows a second of ``SamAutomaticMaskGenerator``, up to its own masks on the processor."""
    from segment_anything import SamAutomaticMaskGenerator

    generator = SamAutomaticMaskGenerator(method._model, **{name: job.settings[name] for name in _OPTIONS})
    pictures = [picture(image, job.task.channels) for image in images]
    generator.generate(pictures[0])
    if method._device.type == "cuda":
        torch.cuda.synchronize(method._device)
    start = time.perf_counter()
    for each in pictures:
        generator.generate(each)
    return len(pictures) / (time.perf_counter() - start)


def upstream_training(method: Any, job: Any, steps: int, folder: Path) -> float:
    """Raise NotImplementedError: upstream has no training either."""
    raise NotImplementedError("is not trained")
