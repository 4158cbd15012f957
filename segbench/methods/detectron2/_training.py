"""Training by detectron2's trainer, solver and hooks; imported only where detectron2 is."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import AMPTrainer, HookBase, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer

from segbench.methods.base import DivergedError, ImageStack, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.detectron2._data import train_loader, training_inputs
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
    optimizer = build_sgd(cfg, model, fused=device.type == "cuda")
    scheduler = build_lr_scheduler(cfg, optimizer)
    found = checkpoints.latest()
    state = None if found is None else torch.load(found / "state.pth", map_location="cpu", weights_only=True)
    done = 0 if state is None else int(state["trainer"]["iteration"]) + 1
    workers = data_workers(job, device)
    loader = train_loader(
        stack, windows, settings, batch_size=job.budget.batch_size, seed=job.seed, done=done,
        workers=workers, pinned=device.type == "cuda",
    )  # fmt: skip
    _seed(job.seed + 1000 * job.rank() + done)
    batches = iter(loader)  # draws a number, so before the generators are restored
    model.train()
    wrapped = model
    if job.devices.processes > 1:
        here = [device.index] if device.type == "cuda" else None
        wrapped = torch.nn.parallel.DistributedDataParallel(model, device_ids=here, broadcast_buffers=False)
    trainer = Trainer(
        wrapped, (training_inputs(batch, device) for batch in batches), optimizer, precision_of(job, device), device,
        clip=float(settings["clip_gradients"]), ahead=workers > 0,
    )  # fmt: skip
    trainer.register_hooks([hooks.LRScheduler(optimizer, scheduler)])
    if state is not None:
        model.load_state_dict(state["model"])
        trainer.load_state_dict(state["trainer"])
        if job.devices.processes == 1:
            restore_random(state["random"])
    trainer.register_hooks([_Report(model, progress, checkpoints, first=job.rank() == 0)])
    try:
        trainer.train(done, iterations)
    except FloatingPointError as error:  # detectron2's proposals look for themselves
        raise DivergedError(" ".join(str(error).split())) from error


class Trainer(AMPTrainer):  # type: ignore[misc]
    """Trains in float32, in float16 with scaled gradients, or in bfloat16, on any device; detectron2's is for GPUs.

    The processor does not wait for a GPU at the end of a step: what a step's losses were is known a step later.

    Parameters
    ----------
    clip
        Largest norm of one parameter's gradient; 0 for no limit.
    ahead
        True to ask for the next batch before a step is finished. Without processes that read ahead this would draw
        numbers before their time, and a training that is resumed would not draw the same.
    """

    def __init__(
        self, model: Any, batches: Any, optimizer: Any, precision: str, device: Any, *, clip: float = 0.0,
        ahead: bool = False,
    ) -> None:  # fmt: skip
        # bfloat16 has the range of float32, so that nothing needs a scale
        scaler = torch.amp.GradScaler(device.type, FIRST_SCALE, enabled=precision == "float16")
        super().__init__(model, batches, optimizer, grad_scaler=scaler, precision=getattr(torch, precision))
        self._device, self._clip, self._ahead = device, clip, ahead
        self._next: Any = None
        self._told = Told(device)

    def run_step(self) -> None:
        """Take a step, unless its gradients are not finite."""
        data = next(self._data_loader_iter) if self._next is None else self._next
        with torch.autocast(self._device.type, dtype=self.precision, enabled=self.precision != torch.float32):
            losses = self.model(data)
        self.optimizer.zero_grad()
        self.grad_scaler.scale(sum(losses.values())).backward()
        self.after_backward()
        self.grad_scaler.unscale_(self.optimizer)
        if self._clip:
            clip_each(self.optimizer, self._clip)
        before = self._scale()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self._told.note(self.iter + 1, losses, before, self._scale())
        if self._ahead and self.iter + 1 < self.max_iter:
            self._next = next(self._data_loader_iter)

    def losses(self, *, to_the_end: bool) -> Iterator[tuple[int, float | None]]:
        """Yield each step, from 1, and its loss once that is known; None where it was skipped.

        Raises
        ------
        DivergedError
            Where a loss is not finite, or too many steps in a row were skipped.
        """
        return self._told.read(to_the_end=to_the_end)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned; a checkpoint of release 0.1.0 in float32 has no scale."""
        super().load_state_dict({"grad_scaler": {}, **state_dict})

    def _scale(self) -> torch.Tensor | None:
        # get_scale would wait for the device
        return self.grad_scaler._get_scale_async().clone() if self.grad_scaler.is_enabled() else None


class Told:
    """The losses of steps, on their way from the device to the processor."""

    def __init__(self, device: Any) -> None:
        self._device, self._waiting, self._skipped = device, deque[tuple[int, Any, Any]](), SkippedSteps()

    def note(
        self, step: int, losses: Mapping[str, torch.Tensor], before: torch.Tensor | None, after: torch.Tensor | None
    ) -> None:
        """Take the losses of a step, and the gradients' scale before and after it: it falls where it was skipped."""
        total = sum(loss.detach().float() for loss in losses.values())
        skipped = torch.zeros_like(total) if before is None or after is None else (after < before).to(total)
        found = torch.stack([total.reshape(()), skipped.reshape(())])
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            torch.distributed.all_reduce(found)
            found = found / torch.distributed.get_world_size()
        arrived = None
        if self._device.type == "cuda":
            found = torch.empty(2, pin_memory=True).copy_(found, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._waiting.append((step, found, arrived))

    def read(self, *, to_the_end: bool) -> Iterator[tuple[int, float | None]]:
        """Yield what has arrived: of a GPU all but the last step, unless the end is asked for."""
        kept = 0 if to_the_end or self._device.type != "cuda" else 1
        while len(self._waiting) > kept:
            step, found, arrived = self._waiting.popleft()
            if arrived is not None:
                arrived.synchronize()
            loss, skipped = found.tolist()
            self._skipped.note(step, skipped=skipped > 0)
            if not math.isfinite(loss) and not skipped:  # what the scaler left out has changed nothing
                raise DivergedError(f"the training loss is {loss} after step {step}")
            yield step, loss if math.isfinite(loss) else None


def build_sgd(cfg: CfgNode, model: Any, *, fused: bool) -> Any:
    """Return detectron2's SGD without its clipping, which takes one parameter after the other.

    Parameters
    ----------
    fused
        True for the one pass over all weights that GPUs have; it needs not wait to know whether a step is skipped.
    """
    cfg = cfg.clone()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    optimizer = build_optimizer(cfg, model)
    if not fused:
        return optimizer
    groups = [{**group, "fused": True, "foreach": False} for group in optimizer.param_groups]
    optimizer = torch.optim.SGD(groups, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM, fused=True)
    if cfg.SOLVER.MOMENTUM:
        # a first step that is skipped would leave the memory as it was found; a step from zero is a first step
        for parameter in (each for group in optimizer.param_groups for each in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def clip_each(optimizer: Any, most: float) -> None:
    """Shorten each parameter's gradient to a norm, as ``clip_grad_norm_`` does one by one."""
    gradients = [
        parameter.grad for group in optimizer.param_groups for parameter in group["params"]
        if parameter.grad is not None
    ]  # fmt: skip
    norms = torch.stack(torch._foreach_norm(gradients))
    torch._foreach_mul_(gradients, list((most / (norms + 1e-6)).clamp(max=1.0).unbind()))


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
        done, total = self.trainer.iter + 1, self.trainer.max_iter
        due = self._first and done < total and self._checkpoints.due()
        for step, loss in self.trainer.losses(to_the_end=due or done == total):
            if loss is not None:
                self._losses.append(loss)
            if self._first:
                self._tell(step, total)
        if due:
            with self._checkpoints.writing() as folder:
                self._write(folder / "state.pth")

    def _tell(self, step: int, total: int) -> None:
        every = max(1, total // _MOST_REPORTS)
        due = total <= _MOST_REPORTS or time.monotonic() - self._told > _REPORT_S
        if step == total or (step % every == 0 and due):
            self._told = time.monotonic()
            self._progress.train(step=step, steps=total, loss=float(np.mean(self._losses)) if self._losses else None)
            self._losses.clear()

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
