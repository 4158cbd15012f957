"""What the tests of Cellpose do in its environment: ``python cellpose_parts.py FOLDER``; prints JSON last.

Our training and our masks, which are made for GPUs, beside upstream's own, on a processor.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from segbench.methods.base import ImageStack
from segbench.methods.card import Budget
from segbench.methods.cellpose import Cellpose, plan_epochs
from segbench.methods.job import Job

sys.path.insert(0, str(Path(__file__).parent))  # a method's environment does not look beside a script

from load_parts import job_of, windows

SMALL = {"min_train_masks": 0, "crop": 32, "diam_mean": 12.0}


def trained(job: Job, stack: ImageStack, val: ImageStack | None) -> tuple[Cellpose, list[dict[str, Any]]]:
    """Return our method after training from the seed's weights, and what it told."""
    method = Cellpose()
    method.import_library(job)
    method.load(job, stack, val)
    told: list[dict[str, Any]] = []
    method.train(job, SimpleNamespace(train=lambda **point: told.append(point)), None)  # type: ignore[arg-type]
    return method, told


def upstream(job: Job, stack: ImageStack, val: ImageStack | None) -> tuple[Any, list[Any], list[Any]]:
    """Return the network that ``train_seg`` trains on lists, and the losses of its steps and its validations."""
    method = Cellpose()
    method.import_library(job)
    method.load(job, stack, val)
    import cellpose.train as trainer

    net, used = method._model.net, method._used
    plan = plan_epochs(len(used), job.budget.batch_size, job.budget.epochs or 1)
    loss, losses = trainer._loss_fn_seg, ([], [])

    def noted(*given: Any) -> Any:
        found = loss(*given)
        losses[0 if method._torch.is_grad_enabled() else 1].append(float(found.detach()))
        return found

    trainer._loss_fn_seg = noted
    test: dict[str, Any] = {}
    if val is not None:
        chosen = [n for n in range(len(val)) if val.labels(n).any()]
        flows = method._cellpose.dynamics.labels_to_flows([val.labels(n) for n in chosen], device=method._device)
        test = {
            "test_data": [val[n] for n in chosen],
            "test_labels": flows,
            "nimg_test_per_epoch": min(len(chosen), plan.val_windows),
        }
        # our validation windows are not normalised, as they never were
        reshape = trainer._reshape_norm
        trainer._reshape_norm = lambda data, **how: data if data is test["test_data"] else reshape(data, **how)
    trainer.train_seg(
        net, train_data=[stack[n] for n in used], train_labels=[stack.labels(n) for n in used], **test,
        batch_size=job.budget.batch_size, learning_rate=job.settings["learning_rate"], n_epochs=plan.epochs,
        SGD=job.settings["optimizer"] == "sgd", nimg_per_epoch=plan.windows_per_epoch, scale_range=0.5, bsize=32,
        min_train_masks=0, save_path=Path(job.output),
    )  # fmt: skip
    trainer._loss_fn_seg = loss
    return net, *losses


def equal(one: Any, other: Any) -> bool:
    """Return whether two networks have the same state, bit by bit."""
    mine, theirs = one.state_dict(), other.state_dict()
    return all(bool((mine[name] == theirs[name]).all()) for name in theirs)


def training(folder: Path) -> dict[str, Any]:
    """Train as we do and as upstream does, with and without other processes, and keep the best weights once."""
    stack = windows(folder)
    (folder / "out").mkdir()

    def job(**settings: Any) -> Job:
        known = job_of(folder, {**Cellpose.card.defaults, **SMALL, **settings})
        return dataclasses.replace(known, budget=Budget(batch_size=2, epochs=4))

    found: dict[str, Any] = {}
    cases: dict[str, tuple[Job, ImageStack | None]] = {
        "sgd": (job(learning_rate=0.02), stack),
        "adamw": (job(optimizer="adamw", learning_rate=1e-3, workers=2), None),
    }
    for name, (one, val) in cases.items():
        ours, told = trained(one, stack, val)
        net, losses, val_losses = upstream(one, stack, val)
        found[name] = {
            "weights": equal(ours._model.net, net),
            "diameter": float(ours._model.diam_labels) == net.diam_labels.item(),
            "losses": [point["loss"] for point in told] == losses,
            "val_losses": [point["val_loss"] for point in told if point["val_loss"] is not None] == val_losses,
            "steps": len(losses),
            "validations": len(val_losses),
        }
    found["kept"] = sorted(path.name.rpartition("-")[0] for path in (folder / "derived").iterdir())
    return found


def kept_weights(folder: Path) -> dict[str, Any]:
    """Train at a rate that makes the network worse: the best weights are not the last ones."""
    stack = windows(folder)
    found = {}
    for name, keep in (("best", True), ("last", False)):
        settings = {**Cellpose.card.defaults, **SMALL, "keep_best": keep, "learning_rate": 3.0}
        job = dataclasses.replace(job_of(folder, settings), budget=Budget(batch_size=5, epochs=3))
        method, _ = trained(job, stack, stack)
        images, flows = method._val or ([], [])
        with method._torch.no_grad():
            method._model.net.eval()
            outputs = method._model.net(method._torch.from_numpy(np.stack([image[:, :48, :48] for image in images])))[0]
        wanted = method._torch.from_numpy(np.stack(flows)[:, 1:])
        from segbench.methods.cellpose._training import flow_loss

        found[name] = float(flow_loss(outputs, wanted))
    return found


def masks(_: Path) -> dict[str, Any]:
    """Compare the masks of several windows at once with those of upstream's functions for GPUs, a window at a time."""
    import cellpose.dynamics as dynamics
    import torch

    from segbench.methods.cellpose import _masks

    rng = np.random.default_rng(0)
    device, side = torch.device("cpu"), 96
    labels = np.zeros((4, side, side), np.int32)
    for n, cells in enumerate((9, 30, 3)):
        for cell in range(1, cells + 1):
            y, x, radius = *rng.integers(6, side - 6, 2), rng.integers(4, 9 if n < 2 else 20)
            rows, columns = np.ogrid[:side, :side]
            labels[n][(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = cell
    noise = gaussian_filter(rng.normal(size=(4, 3, side, side)), (0, 0, 2, 2)) * 4
    true = np.stack(dynamics.labels_to_flows(list(labels), device=device))
    flows = (5 * true[:, 2:] + noise[:, :2]).astype(np.float32)
    logits = (gaussian_filter(8.0 * (labels > 0) - 4, (0, 1, 1)) + noise[:, 2]).astype(np.float32)
    logits[3] = -5
    # upstream's branches for GPUs, on the processor
    names = dict(vars(dynamics))
    for function in (dynamics.steps_interp, dynamics.masks_to_flows):
        exec(inspect.getsource(function).replace('device.type == "cuda"', "True"), names)
        setattr(dynamics, function.__name__, names[function.__name__])
    found = _masks.find(torch.from_numpy(flows), torch.from_numpy(logits), 90, 0.0)
    same, cells = [], []
    for threshold in (0.0, 0.4):
        ours = found.within(threshold).numpy()
        for n in range(4):
            theirs = dynamics.compute_masks(flows[n], logits[n], niter=90, flow_threshold=threshold, device=device)
            same.append(bool(np.array_equal(ours[n], theirs)))
            cells.append(int(theirs.max()))
    kept = [int(np.unique(one).size - 1) for one in found.within(0.4).numpy()]
    return {"same": same, "cells": cells, "kept": kept}


def prediction(folder: Path) -> dict[str, Any]:
    """Compare the network's outputs over all tiles at once, and instances in batches, with upstream's way."""
    stack = windows(folder)
    job = job_of(folder, {**Cellpose.card.defaults, **SMALL, "diam_mean": 60.0})
    method = Cellpose()
    method.import_library(job)
    method.load(job, stack, None)
    method._model.diam_labels = 10.0  # windows are enlarged to several tiles
    images = list(stack)
    apart = method._outputs(images)
    from segbench.methods.cellpose import _network

    scaled = method._torch.from_numpy(np.moveaxis(method._scaled(images), -1, 1).copy())
    flows, logits = _network.outputs(method._model.net, scaled, stack.size, 5, method._cellpose.transforms)
    near = [
        float(np.abs(flows[n].numpy() - one[0]).max() + np.abs(logits[n].numpy() - one[1]).max())
        for n, one in enumerate(apart)
    ]
    method._batched, method.most_at_once = True, 2
    return {"off": max(near), "range": float(np.ptp(logits)), "yielded": len(list(method.predict(job, stack)))}


if __name__ == "__main__":
    parts = {}
    for part in (training, kept_weights, masks, prediction):
        folder = Path(sys.argv[1], part.__name__)
        folder.mkdir()
        parts[part.__name__] = part(folder)
    sys.stdout.write(json.dumps(parts) + "\n")
