"""The peers of the family of MMDetection in ``bench_gpu.py``: the model alone, and upstream's own loops.

Imported in a process of the methods' environment only. All three take any of the family's ten methods, on a GPU or not.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from segbench.methods import torch_devices
from segbench.methods.base import ImageStack
from segbench.methods.mmdet.config import OWN_TYPES, Training, build_config
from segbench.methods.planes import Normalisation, three_planes

_CLASSES = ("cell",)


def model_only(method: Any, job: Any, steps: int) -> float:
    """Return the windows a second of the training step on one batch that is on the device already."""
    from mmengine.optim import build_optim_wrapper

    modules, batch = method._modules, job.budget.batch_size
    kept = {key: value.clone() for key, value in method._model.state_dict().items()}
    precision = torch_devices.precision_of(job, method._device)
    config = build_config(
        method.recipe, job.settings, method._normalisation, Training(1, steps, batch),
        precision=precision, fused=method._device.type == "cuda",
    )  # fmt: skip
    method._arrange(job, ImageStack(job.train).size)
    model = method._model.to(method._device).train()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    windows = modules.CellWindows(**method._windows(job))
    drawn = iter(modules.CellSampler(windows, batch, job.seed, job.settings["flips"]))
    samples = [windows[n] for n in itertools.islice(drawn, batch)]
    data = model.data_preprocessor(modules.collate(samples), True)
    times = []
    for _ in range(_warm_up(steps) + steps):
        started = _now(method._device)
        with wrapper.optim_context(model):
            losses = model(**data, mode="loss")
        loss, _ = model.parse_losses(losses)
        wrapper.update_params(loss)
        times.append(_now(method._device) - started)
    model.load_state_dict(kept)
    if method._graphed:
        method._graphs.launch_one_by_one(model)
    return float(batch / statistics.median(times[_warm_up(steps) :]))


def upstream_prediction(method: Any, job: Any, images: Any) -> float:
    """Return the windows a second of ``mmdet.apis.inference_detector``, up to its masks on the processor."""
    _import_the_rest_of_mmdet()
    from mmdet.apis import inference_detector
    from mmdet.registry import MODELS
    from mmengine.config import Config

    pictures = [_picture(image) for image in images]
    model = MODELS.build(_model_config(method, job))
    if method.recipe.searches_dilations:
        from segbench.methods.mmdet import receptive

        receptive.widen(model, 0, 0)
        receptive.impose(model, method._extra_state()["dilations"])
    model.load_state_dict(method._model.state_dict())
    model.to(method._device).eval()
    pipeline = [{"type": "mmdet.LoadImageFromNDArray"}, _resize(pictures[0].shape), {"type": "mmdet.PackDetInputs"}]
    pipeline[-1]["meta_keys"] = ("img_id", "ori_shape", "img_shape", "scale_factor")
    model.cfg = Config({"test_dataloader": {"dataset": {"pipeline": pipeline}}})

    def predict(picture: Any) -> None:
        found = inference_detector(model, picture).pred_instances
        found.masks.cpu().numpy(), found.scores.cpu().numpy()

    for picture in pictures[: min(3, len(pictures))]:
        predict(picture)
    started = _now(method._device)
    for picture in pictures:
        predict(picture)
    return float(len(pictures) / (_now(method._device) - started))


def upstream_training(method: Any, job: Any, steps: int, folder: Path) -> float:
    """Return the windows a second of MMEngine's Runner with MMDetection's CocoDataset and pipeline.

    The pipeline is the shortest of upstream's (``_base_/datasets/coco_instance.py``: load, masks of COCO's run
    lengths, resize, flip), at the windows' size; those of some methods also jitter the scale and crop.
    """
    _import_the_rest_of_mmdet()
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    height, width = _write_coco(ImageStack(job.train), method._used, Path(folder))
    device, batch = method._device, job.budget.batch_size
    marks: list[float] = []

    class Clock(Hook):  # type: ignore[misc]
        def after_train_iter(self, runner: Any, *_: Any, **__: Any) -> None:
            if runner.iter + 1 in (_warm_up(steps), _warm_up(steps) + steps):
                marks.append(_now(device))

    workers = torch_devices.data_workers(job, device)
    config = _model_config(method, job)
    runner = Runner(
        model=config,
        work_dir=str(Path(folder) / "work"),
        train_dataloader={
            "batch_size": batch,
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": device.type == "cuda",
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {
                "type": "CocoDataset",
                "data_root": str(folder),
                "ann_file": "coco.json",
                "data_prefix": {"img": "images/"},
                "metainfo": {"classes": _CLASSES},
                "filter_cfg": {"filter_empty_gt": True, "min_size": 1},
                "pipeline": [
                    {"type": "LoadImageFromFile"},
                    {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
                    _resize((height, width)),
                    {"type": "RandomFlip", "prob": 0.5},
                    {"type": "PackDetInputs"},
                ],
            },
        },
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": _warm_up(steps) + steps},
        optim_wrapper=_upstream_wrapper(method, job, _warm_up(steps) + steps, "panoptic_head" in config),
        default_hooks={"logger": {"type": "LoggerHook", "interval": 50}, "checkpoint": None},
        custom_hooks=[Clock()],
        env_cfg={"mp_cfg": {"mp_start_method": "fork", "opencv_num_threads": 0}},
        log_level="WARNING",
        default_scope="mmdet",
        experiment_name=f"upstream-{time.time_ns()}",
    )
    runner.train()
    return float(steps * batch / (marks[1] - marks[0]))


def _warm_up(steps: int) -> int:
    return max(1, min(10, steps // 3))


def _now(device: Any) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _model_config(method: Any, job: Any) -> Any:
    """Return the run's configuration of the model with upstream's parts where segbench has its own, for 8-bit files."""
    seen = method._normalisation
    bytes_seen = Normalisation(tuple(255 * m for m in seen.mean), tuple(255 * s for s in seen.std))
    model = build_config(method.recipe, job.settings, bytes_seen).model
    upstream = {own: theirs for theirs, own in OWN_TYPES.items()}
    for part in _parts(model):
        if part.get("type") in upstream:
            part["type"] = upstream[part["type"]]
    model.data_preprocessor.type = "DetDataPreprocessor"
    return model


def _upstream_wrapper(method: Any, job: Any, steps: int, of_queries: bool) -> dict[str, Any]:
    """Return the optimiser's part of a configuration for MMEngine's own wrappers and groups of parameters."""
    training = Training(1, steps, job.budget.batch_size)
    wrapper = dict(build_config(method.recipe, job.settings, method._normalisation, training).optim_wrapper)
    for own in ("type", "constructor", "precision"):
        del wrapper[own]
    del wrapper["optimizer"]["fused"]
    precision = torch_devices.precision_of(job, method._device)
    # Mask2Former's losses upstream are not finite in float16, which ends it; MMEngine's half precision is for GPUs
    if precision == "float32" or method._device.type != "cuda" or (of_queries and precision == "float16"):
        return wrapper
    return {**wrapper, "type": "AmpOptimWrapper", "dtype": precision, "loss_scale": 512.0}


def _parts(config: Any) -> Iterator[Any]:
    if isinstance(config, dict):
        yield config
    for each in config.values() if isinstance(config, dict) else config if isinstance(config, list | tuple) else ():
        yield from _parts(each)


def _resize(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"type": "mmdet.Resize", "scale": (shape[1], shape[0]), "keep_ratio": True}


def _picture(image: Any) -> Any:
    """Return a window (C, H, W) of 0..1 as a picture (H, W, 3) of bytes."""
    return np.ascontiguousarray(np.moveaxis(np.rint(255 * three_planes(image).clip(0, 1)), 0, -1).astype(np.uint8))


def _write_coco(stack: ImageStack, windows: list[int], folder: Path) -> tuple[int, int]:
    """Write PNG files and ``coco.json`` of the windows; returns their height and width."""
    import cv2
    from pycocotools import mask as coco_masks

    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = stack.size
    for window in windows:
        cv2.imwrite(str(folder / "images" / f"{window}.png"), _picture(stack[window]))
        images.append({"id": window, "file_name": f"{window}.png", "height": height, "width": width})
        labels = stack.labels(window)
        for cell in np.unique(labels[labels > 0]):
            coded = coco_masks.encode(np.asfortranarray(labels == cell, dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": window,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": float(coco_masks.area(coded)),
                    "bbox": coco_masks.toBbox(coded).tolist(),
                    "segmentation": {"size": coded["size"], "counts": coded["counts"].decode()},
                }
            )
    categories = [{"id": 1, "name": _CLASSES[0]}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(content))
    return height, width


def _import_the_rest_of_mmdet() -> None:
    # imgaug is for lane detection alone, and in no environment of segbench
    for part in ("", ".augmenters", ".augmentables", ".augmentables.lines", ".augmentables.segmaps"):
        sys.modules.setdefault(f"imgaug{part}", MagicMock())
    import mmdet.apis
    import mmdet.datasets  # noqa: F401 - registers what upstream's configurations name
