"""What ``bench_gpu.py`` sets beside ResNeSt and CenterMask2: the model's own limit, and detectron2's own loops."""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import (
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T  # noqa: N812 - as upstream's own documentation names it
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, hooks
from detectron2.modeling.proposal_generator import RPN
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage
from PIL import Image
from pycocotools import mask as coco_masks

from segbench.methods.base import ImageStack
from segbench.methods.detectron2._data import side_of, train_loader, training_inputs
from segbench.methods.detectron2._training import solver
from segbench.methods.planes import three_planes
from segbench.methods.torch_devices import data_workers, precision_of

_BYTES = 255.0  # upstream reads pictures of 8 bits; our windows are 0..1


def model_only(method: Any, job: Any, steps: int) -> float:
    """Return the windows a second of the training step on one real batch that is on the device already.

    Forward, losses, backward and the optimiser's step with clipped gradients, in the run's precision, without a
    trainer: the median over ``steps`` after a fifth as many, at least two.
    """
    device, batch_size = method._device, job.budget.batch_size
    model = copy.deepcopy(method._model).train()  # the trained weights are predicted with afterwards
    optimizer = build_optimizer(solver(job.settings, 100), model)
    precision = precision_of(job, device)
    scaler = torch.amp.GradScaler(device.type, 512.0, enabled=precision == "float16")
    kind = torch.float32 if precision == "float32" else getattr(torch, precision)
    batch = _batch_on_device(method, job)
    seconds = []
    for _ in range(_warm_up(steps) + steps):
        _wait(device)
        start = time.perf_counter()
        with EventStorage(0), torch.autocast(device.type, dtype=kind, enabled=precision != "float32"):
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return float(batch_size / statistics.median(seconds[_warm_up(steps) :]))


def upstream_prediction(method: Any, job: Any, images: Any) -> float:
    """Return the windows a second of the steps of detectron2's ``DefaultPredictor``, one window at a time.

    Pictures of 8 bits are resized on the processor, go through the same network, and their masks come back.
    """
    model = _upstreams(copy.deepcopy(method._model)).eval()
    pictures = [_picture(image) for image in images]
    side = side_of(pictures[0].shape[:2], job.settings["test_scale"])
    resize = T.ResizeShortestEdge([side, side], sys.maxsize)

    def predict(picture: Any) -> None:
        with torch.no_grad():
            height, width = picture.shape[:2]
            image = resize.get_transform(picture).apply_image(picture)
            image = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
            model([{"image": image, "height": height, "width": width}])[0]["instances"].to("cpu")

    for picture in pictures[: max(1, len(pictures) // 5)]:
        predict(picture)
    _wait(method._device)
    start = time.perf_counter()
    for picture in pictures:
        predict(picture)
    return len(pictures) / (time.perf_counter() - start)


def upstream_training(method: Any, job: Any, steps: int, folder: Path) -> float:
    """Return the windows a second of detectron2's own training, its data pipeline and its trainer, after a warm-up.

    PNG files and COCO's JSON are read by ``DatasetMapper`` in as many processes as ours, resized and mirrored as in the
    method's configuration; masks are polygons, upstream's default, for ResNeSt, and bitmaps for CenterMask2, whose
    losses ask them for their areas.
    """
    device, settings, batch_size = method._device, job.settings, job.budget.batch_size
    polygons = method.card.name == "resnest"
    name = _register(ImageStack(job.train), Path(folder), polygons)
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[
            T.ResizeShortestEdge(_sides(job), sys.maxsize, "choice"),
            T.RandomFlip(settings["flip"]),
        ],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="polygon" if polygons else "bitmask",
    )
    loader = build_detection_train_loader(
        get_detection_dataset_dicts([name]),
        mapper=mapper if polygons else _WithAreas(mapper),
        total_batch_size=batch_size,
        num_workers=data_workers(job, device),
    )
    model = _upstreams(method.build({**settings, "pretrained": "none"}, method._normalisation)).to(device)
    warm_up = _warm_up(steps)
    cfg = solver(settings, warm_up + steps)
    optimizer = build_optimizer(cfg, model)
    precision = precision_of(job, device)
    if precision == "float32" or device.type != "cuda":
        trainer: Any = SimpleTrainer(model, loader, optimizer)
    else:
        scaler = torch.amp.GradScaler("cuda", enabled=precision == "float16")
        trainer = AMPTrainer(model, loader, optimizer, grad_scaler=scaler, precision=getattr(torch, precision))
    clock = _Clock(device, warm_up)
    trainer.register_hooks([hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer)), clock])
    trainer.train(0, warm_up + steps)
    return float(steps * batch_size / (clock.end - clock.start))


class _Clock(HookBase):  # type: ignore[misc]
    """Reads the time after the warm-up and at the end, when the device has done what it was asked for."""

    def __init__(self, device: Any, warm_up: int) -> None:
        self._device, self._warm_up = device, warm_up
        self.start = self.end = 0.0

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done in (self._warm_up, self.trainer.max_iter):
            _wait(self._device)
            self.start, self.end = (time.perf_counter(), 0.0) if done == self._warm_up else (self.start, _now())


class _BitMasksWithAreas(BitMasks):  # type: ignore[misc]
    """Upstream's bitmaps, with the areas that CenterMask2's mask-IoU targets need."""

    def areas(self) -> torch.Tensor:
        return self.tensor.sum((1, 2)).float()

    def areas_within(self, boxes: torch.Tensor) -> torch.Tensor:
        y, x = (torch.arange(n, device=boxes.device) + 0.5 for n in self.image_size)
        rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
        columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
        return torch.einsum("nyx,ny,nx->n", self.tensor.float(), rows.float(), columns.float())

    def to(self, *args: Any, **kwargs: Any) -> _BitMasksWithAreas:
        return _BitMasksWithAreas(self.tensor.to(*args, **kwargs))

    def __getitem__(self, item: Any) -> _BitMasksWithAreas:
        return _BitMasksWithAreas(super().__getitem__(item).tensor)


class _WithAreas:
    """Upstream's mapper, its bitmaps exchanged for those with areas."""

    def __init__(self, mapper: DatasetMapper) -> None:
        self._mapper = mapper

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        mapped: dict[str, Any] = self._mapper(sample)
        instances = mapped["instances"]
        instances.gt_masks = _BitMasksWithAreas(instances.gt_masks.tensor)
        return mapped


def _batch_on_device(method: Any, job: Any) -> Any:
    stack = ImageStack(job.train)
    windows = [n for n in range(len(stack)) if stack.labels(n).any()]
    loader = train_loader(
        stack, windows, job.settings, batch_size=job.budget.batch_size, seed=job.seed, done=0, workers=0
    )
    return training_inputs(next(iter(loader)), method._device)


def _register(stack: ImageStack, folder: Path, polygons: bool) -> str:
    """Write the windows as PNG files and COCO's JSON, and return the name under which detectron2 knows them."""
    images: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    height, width = stack.size
    for n in range(len(stack)):
        Image.fromarray(_picture(stack[n])).save(folder / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "height": height, "width": width})
        labels = stack.labels(n)
        for label in np.unique(labels[labels > 0]):
            mask = labels == label
            shape = _polygons(mask) if polygons else _run_lengths(mask)
            if not shape:
                continue
            ys, xs = np.nonzero(mask)
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            cells.append(
                {
                    "id": len(cells) + 1, "image_id": n, "category_id": 1, "iscrowd": 0, "bbox": box,
                    "area": int(mask.sum()), "segmentation": shape,
                }
            )  # fmt: skip
    file = folder / "cells.json"
    file.write_text(json.dumps({"images": images, "annotations": cells, "categories": [{"id": 1, "name": "cell"}]}))
    name = f"segbench-{folder.resolve()}"
    register_coco_instances(name, {}, str(file), str(folder))
    return name


def _polygons(mask: Any) -> list[list[float]]:
    import cv2

    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(outline.ravel() + 0.5).tolist() for outline in outlines if len(outline) >= 3]


def _run_lengths(mask: Any) -> dict[str, Any]:
    found = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def _picture(image: Any) -> Any:
    return np.moveaxis(np.rint(three_planes(image).clip(0, 1) * _BYTES), 0, -1).astype(np.uint8)


def _upstreams(model: Any) -> Any:
    """Let a model for planes of 0..1 take those of 0..255, and find proposals by upstream's own code."""
    if hasattr(model, "proposal_generator"):
        model.proposal_generator.__class__ = RPN
    model.pixel_mean = model.pixel_mean * _BYTES
    model.pixel_std = model.pixel_std * _BYTES
    return model


def _sides(job: Any) -> list[int]:
    size = ImageStack(job.train).size
    return [side_of(size, scale) for scale in job.settings["train_scales"]]


def _warm_up(steps: int) -> int:
    return max(2, steps // 5)


def _now() -> float:
    return time.perf_counter()


def _wait(device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
