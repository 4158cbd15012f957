"""Training by detectron2's trainer, solver and hooks; imported only where detectron2 is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer

from segbench.methods.base import DivergedError, ImageStack, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.detectron2._data import train_loader
from segbench.methods.job import Job
from segbench.methods.scaling import FIRST_SCALE, SkippedSteps
from segbench.methods.torch_devices import data_workers, precision_of

_REPORT_S = 2.0
_MOST_REPORTS = 200


def fit(
    model: Any, stack: ImageStack, windows: Sequence[int], job: Job, device: Any, progress: Progress,
    checkpoints: Checkpoints,
) -> None:  # fmt: skip
    """Train ``model`` in place for the budget's iterations; raises DivergedError where a loss is not finite."""
    settings, iterations = job.settings, job.budget.iterations or 1
    cfg = solver(settings, iterations)
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    found = checkpoints.latest()
    state = None if found is None else torch.load(found / "state.pth", map_location="cpu", weights_only=True)
    done = 0 if state is None else int(state["trainer"]["iteration"]) + 1
    loader = train_loader(
        stack, windows, settings, batch_size=job.budget.batch_size, seed=job.seed, done=done,
        workers=data_workers(job, device), pinned=device.type == "cuda",
    )  # fmt: skip
    _seed(job.seed + 1000 * job.rank() + done)
    batches = iter(loader)  # draws a number, so before the generators are restored
    model.train()
    wrapped = model
    if job.devices.processes > 1:
        here = [device.index] if device.type == "cuda" else None
        wrapped = torch.nn.parallel.DistributedDataParallel(model, device_ids=here, broadcast_buffers=False)
    precision = precision_of(job, device)
    if precision == "float32":
        trainer: Any = SimpleTrainer(wrapped, batches, optimizer)
    else:
        trainer = AutocastTrainer(wrapped, batches, optimizer, precision, device.type)
    trainer.register_hooks([hooks.LRScheduler(optimizer, scheduler)])
    if state is not None:
        model.load_state_dict(state["model"])
        trainer.load_state_dict(state["trainer"])
        if job.devices.processes == 1:
            restore_random(state["random"])
    trainer.register_hooks([_Report(model, progress, checkpoints, first=job.rank() == 0)])
    try:
        trainer.train(done, iterations)
    except FloatingPointError as error:
        raise DivergedError(" ".join(str(error).split())) from error


class AutocastTrainer(AMPTrainer):  # type: ignore[misc]
    """Trains in float16 with scaled gradients, or in bfloat16, on any device; detectron2's own is for GPUs alone."""

    def __init__(self, model: Any, batches: Any, optimizer: Any, precision: str, device: str) -> None:
        # bfloat16 has the range of float32, so that nothing needs a scale
        scaler = torch.amp.GradScaler(device, FIRST_SCALE, enabled=precision == "float16")
        super().__init__(model, batches, optimizer, grad_scaler=scaler, precision=getattr(torch, precision))
        self._device, self._skipped = device, SkippedSteps()
        self.has_loss = False
        """Whether the last step had losses that are numbers."""

    def run_step(self) -> None:
        """Take a step, unless its gradients are not finite."""
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        waited = time.perf_counter() - start
        with torch.autocast(self._device, dtype=self.precision):
            losses = self.model(data)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        before = self.grad_scaler.get_scale()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        skipped = self.grad_scaler.get_scale() < before
        self._skipped.note(self.iter + 1, skipped=skipped)
        try:
            self._write_metrics(losses, waited)
            self.has_loss = True
        except FloatingPointError:
            self.has_loss = False
            if not skipped:  # what the scaler left out has changed nothing
                raise


def solver(settings: Mapping[str, Any], iterations: int) -> CfgNode:
    """Return detectron2's configuration of the optimiser (SGD) and of the learning rate's schedule."""
    cfg = get_cfg()
    cfg.SOLVER.MAX_ITER = iterations
    cfg.SOLVER.BASE_LR = float(settings["learning_rate"])
    cfg.SOLVER.MOMENTUM = float(settings["momentum"])
    cfg.SOLVER.WEIGHT_DECAY = float(settings["weight_decay"])
    cfg.SOLVER.GAMMA = float(settings["gamma"])
    cfg.SOLVER.STEPS = tuple(round(share * iterations) for share in settings["milestones"])
    cfg.SOLVER.WARMUP_ITERS = min(int(settings["warmup_iterations"]), iterations // 10)
    cfg.SOLVER.WARMUP_FACTOR = 0.001
    clip = float(settings["clip_gradients"])
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clip > 0
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = clip
    return cfg


class _Report(HookBase):  # type: ignore[misc]
    """Tells the loss, and keeps checkpoints; registered last, so that the schedule has taken its step."""

    def __init__(self, model: Any, progress: Progress, checkpoints: Checkpoints, *, first: bool) -> None:
        self._model, self._progress, self._checkpoints, self._first = model, progress, checkpoints, first
        self._losses: list[float] = []
        self._told = time.monotonic()

    def after_step(self) -> None:
        if not self._first:
            return
        done, total = self.trainer.iter + 1, self.trainer.max_iter
        if getattr(self.trainer, "has_loss", True):
            self._losses.append(self.trainer.storage.latest()["total_loss"][0])
        every = max(1, total // _MOST_REPORTS)
        if done == total or (
            done % every == 0 and (total <= _MOST_REPORTS or time.monotonic() - self._told > _REPORT_S)
        ):
            self._told = time.monotonic()
            self._progress.train(step=done, steps=total, loss=float(np.mean(self._losses)) if self._losses else None)
            self._losses.clear()
        if done < total and self._checkpoints.due():
            with self._checkpoints.writing() as folder:
                self._write(folder / "state.pth")

    def _write(self, path: Path) -> None:
        state = {"model": self._model.state_dict(), "trainer": self.trainer.state_dict(), "random": random_state()}
        torch.save(state, path)


def random_state() -> dict[str, Any]:
    """Return the states of torch's and NumPy's generators, in types that torch loads without running code."""
    _, keys, position, has_gauss, cached = np.random.get_state()
    numpy = [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)]
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy}


def restore_random(state: Mapping[str, Any]) -> None:
    """Set the generators to what ``random_state`` returned."""
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])


def _seed(seed: int) -> None:
    """Seed what draws augmentations and samples: each process its own way, while their models began alike."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
