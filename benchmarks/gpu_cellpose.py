"""What bench_gpu.py asks of Cellpose: the network's own limit, and upstream's own prediction and training."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segbench.methods.base import ImageStack

_MOST_WINDOWS = 64
"""Upstream computes the flows of all its windows before the first step, which is not measured."""


def model_only(method: Any, job: Any, steps: int) -> float:
    """Return windows a second of training steps on one real batch that is on the device already."""
    torch, settings = method._torch, job.settings
    net = copy.deepcopy(method._model.net)
    if settings["precision"] == "bfloat16":  # the copy's forward is still the one of the original
        net.forward = method._in_half_precision(type(net).forward.__get__(net))
    together = job.budget.batch_size
    windows = [n % len(method._windows[0]) for n in range(together)]
    images, targets = [method._windows[0][n] for n in windows], [method._windows[1][n][1:] for n in windows]
    side = settings["crop"]
    made = method._cellpose.transforms.random_rotate_and_resize(
        images, Y=targets, rescale=np.ones(together), scale_range=settings["scale_range"], xy=(side, side)
    )
    batch, wanted = (torch.from_numpy(each).to(method._device) for each in made[:2])
    options: dict[str, Any] = {"lr": 1e-4, "weight_decay": settings["weight_decay"]}
    if settings["optimizer"] == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), momentum=settings["momentum"], **options)
    else:
        optimizer = torch.optim.AdamW(net.parameters(), **options)
    flows, cells = 5.0 * wanted[:, 1:], (wanted[:, 0] > 0.5).float()
    net.train()

    def step() -> None:
        found = net(batch)[0]
        loss = torch.nn.functional.mse_loss(found[:, :2], flows) / 2
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(found[:, 2], cells)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with _searching_kernels(method):
        took = []
        for n in range(steps + max(1, min(10, steps // 2))):
            began = time.perf_counter()
            step()
            _wait(method)
            if n >= max(1, min(10, steps // 2)):
                took.append(time.perf_counter() - began)
    return together / float(np.median(took))


def upstream_prediction(method: Any, job: Any, images: Sequence[Any]) -> float:
    """Return windows a second of ``CellposeModel.eval`` on a list of images with the same weights."""
    if job.settings["precision"] != "float32":
        raise NotImplementedError("cellpose 3.1.1.3 predicts in float32 alone")
    model = _upstream_model(method)
    known = [np.moveaxis(np.asarray(image), 0, -1).squeeze() for image in images]
    channels = [0, 0] if known[0].ndim == 2 else [1, 2]

    def predict(some: list[Any]) -> None:
        model.eval(
            some, batch_size=8, channels=channels, flow_threshold=method._flow_threshold,
            cellprob_threshold=job.settings["cellprob_threshold"], min_size=job.settings["min_size"],
        )  # fmt: skip

    predict(known[:2])
    _wait(method)
    began = time.perf_counter()
    predict(known)
    _wait(method)
    return len(known) / (time.perf_counter() - began)


def upstream_training(method: Any, job: Any, steps: int, folder: Path) -> float:
    """Return windows a second of ``train_seg`` on lists of images and labels in memory, as it is meant to be called."""
    if job.settings["precision"] != "float32":
        raise NotImplementedError("cellpose 3.1.1.3 trains in float32 alone")
    import cellpose.train as trainer

    settings, together = job.settings, job.budget.batch_size
    stack = ImageStack(job.train)
    used = method.used_windows()[:_MOST_WINDOWS]
    options = {"diam_mean": settings["diam_mean"], "device": method._device, "mkldnn": False}
    net = method._cellpose.models.CellposeModel(nchan=stack.n_channels, **options).net
    times: list[float] = []
    loss = trainer._loss_fn_seg

    def timed(*given: Any) -> Any:
        times.append(time.perf_counter())  # the step before has ended: upstream has read its loss
        return loss(*given)

    Path(folder).mkdir(parents=True, exist_ok=True)
    trainer._loss_fn_seg = timed
    try:
        trainer.train_seg(
            net, train_data=[stack[n] for n in used], train_labels=[stack.labels(n) for n in used],
            batch_size=together, learning_rate=1e-4, n_epochs=2, weight_decay=settings["weight_decay"],
            momentum=settings["momentum"], SGD=settings["optimizer"] == "sgd", min_train_masks=0,
            nimg_per_epoch=max(2, steps // 2) * together, scale_range=settings["scale_range"], bsize=settings["crop"],
            save_path=Path(folder), save_every=3, model_name="upstream",
        )  # fmt: skip
    finally:
        trainer._loss_fn_seg = loss
    steady = np.diff(times)[min(10, len(times) // 3) :]
    return together / float(np.mean(steady))


def _upstream_model(method: Any) -> Any:
    """Return a model of two channels, the fewest whose images ``eval`` can scale, that finds the same in one."""
    torch, ours = method._torch, method._model
    options = {"diam_mean": float(ours.diam_mean), "device": method._device, "mkldnn": False}
    model = method._cellpose.models.CellposeModel(nchan=max(2, ours.nchan), **options)
    known, weights = ours.net.state_dict(), model.net.state_dict()
    for name, value in weights.items():
        if value.shape == known[name].shape:
            value.copy_(known[name])
            continue
        axis = 0 if value.ndim == 1 else 1  # a norm of, or a convolution on, the input
        value.zero_()
        value.narrow(axis, 0, ours.nchan).copy_(known[name])
        if name.endswith("running_var"):
            value.narrow(axis, ours.nchan, value.shape[axis] - ours.nchan).fill_(1)
    with torch.no_grad():
        model.net.load_state_dict(weights)
    model.diam_labels = float(ours.diam_labels)
    return model


def _wait(method: Any) -> None:
    if method._device.type == "cuda":
        method._torch.cuda.synchronize(method._device)


@contextlib.contextmanager
def _searching_kernels(method: Any) -> Iterator[None]:
    """Let cuDNN choose its fastest kernels, as training does."""
    cudnn = method._torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.benchmark = before
