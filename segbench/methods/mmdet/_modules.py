"""What MMEngine's Runner is given of segbench: the order of the windows, and hooks that watch and keep a training.

Imported inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from torch.utils.data import Sampler

from segbench.methods.base import Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.mmdet._heads import Float32RoIExtractor
from segbench.methods.mmdet._mask2former import CellFusionHead, Float32Mask2FormerHead
from segbench.methods.mmdet._optim import AutocastOptimWrapper, FewGroupsConstructor
from segbench.methods.mmdet._rtmdet import AverageHook, CellRTMDetInsHead
from segbench.methods.mmdet._solov2 import CellSOLOV2Head
from segbench.methods.mmdet._windows import (
    ORIENTATIONS,
    PLACES,
    CellMasks,
    CellPreprocessor,
    CellWindows,
    boxes_of,
    collate,
    cut_around_a_cell,
    sample,
    view_number,
)
from segbench.methods.scaling import SkippedSteps

MOST_WAITING = 4
"""Steps that may run on the device while the losses of those before have not been read."""


@DATA_SAMPLERS.register_module()
class CellSampler(Sampler):  # type: ignore[misc]
    """Draws each window once an epoch, in an order that depends on the seed and the epoch alone.

    However many processes share a step, its windows are the same, each process taking its part of them, and a training
    that is taken up again goes on where it stood.

    Parameters
    ----------
    dataset
        A CellWindows.
    batch_size
        Of a step, over all processes; the last step of an epoch is filled up from the epoch's beginning.
    seed
        Decides the order and the orientations.
    flips
        False to leave every window as it is.
    """

    def __init__(self, dataset: CellWindows, batch_size: int, seed: int, flips: bool) -> None:
        self._windows = dataset.n_windows
        self._batch, self._seed, self._flips = batch_size, seed, flips
        self._rank, self._world = get_dist_info()
        self._epoch, self._resumed = 0, (0, 0)

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return -(-self._windows // self._batch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; MMEngine calls it."""
        self._epoch = epoch

    def resume(self, epoch: int, steps: int) -> None:
        """Leave out the first ``steps`` of ``epoch``."""
        self._epoch, self._resumed = epoch, (epoch, steps)

    def __len__(self) -> int:
        return int(self.steps * self._batch // self._world)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = np.resize(rng.permutation(self._windows), self.steps * self._batch)
        turned = rng.integers(ORIENTATIONS, size=order.size) if self._flips else np.zeros(order.size, np.int64)
        drawn = view_number(order, turned, rng.integers(PLACES, size=order.size)).reshape(self.steps, self._world, -1)
        done = self._resumed[1] if self._epoch == self._resumed[0] else 0
        return iter(drawn[done:, self._rank].ravel().tolist())


class WatchHook(Hook):  # type: ignore[misc]
    """Seeds every step, tells losses, keeps checkpoints and takes them up again.

    Each step's random numbers depend on the seed, the step and the process, so that a training that
    was interrupted ends as one that was not.

    Parameters
    ----------
    progress, checkpoints
        Where losses and states go.
    seed
        The job's.
    take_extra_state
        Takes up what the method keeps beside the weights.
    n_reports
        How often losses are told at least, in a training that has as many steps.
    """

    priority = "VERY_HIGH"

    def __init__(
        self,
        progress: Progress,
        checkpoints: Checkpoints,
        seed: int,
        take_extra_state: Callable[[dict[str, Any]], None],
        n_reports: int = 500,
    ) -> None:
        self._progress, self._checkpoints, self._seed, self._n_reports = progress, checkpoints, seed, n_reports
        self._take_extra_state = take_extra_state
        self._waiting: deque[tuple[int, int, torch.Tensor, Any]] = deque()
        self._losses: list[float] = []
        self._skipped = SkippedSteps()

    def before_run(self, runner: Any) -> None:
        """Take up the newest checkpoint, if there is one."""
        latest = self._checkpoints.latest()
        if latest is None:
            return
        state = torch.load(latest / "state.pth", map_location="cpu", weights_only=True)
        self._take_extra_state(state["extra"])
        _bare(runner.model).load_state_dict(state["model"])
        runner.optim_wrapper.load_state_dict(state["optimizer"])
        for scheduler, kept in zip(runner.param_schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(kept)
        loop, sampler = runner.train_loop, runner.train_dataloader.sampler
        loop._iter, loop._epoch = state["step"], state["step"] // sampler.steps
        sampler.resume(loop._epoch, state["step"] % sampler.steps)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        """Seed this step."""
        rank, _ = get_dist_info()
        seed = np.random.SeedSequence([self._seed, runner.iter, rank]).generate_state(1)[0]
        torch.manual_seed(int(seed))
        np.random.seed(int(seed))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Note the loss, and tell those that the device has come to: waiting for it in each step would starve it."""
        assert outputs is not None
        loss, skipped = outputs["loss"].detach(), getattr(runner.optim_wrapper, "skipped", None)
        seen = torch.stack([loss.double(), torch.zeros_like(loss).double() if skipped is None else skipped.double()])
        arrived = None
        if seen.is_cuda:
            seen = seen.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._waiting.append((runner.iter + 1, runner.epoch + 1, seen, arrived))
        self.tell(runner, at_most=0 if runner.iter + 1 == runner.max_iters else MOST_WAITING)

    def tell(self, runner: Any, at_most: int = 0) -> None:
        """Tell the losses that have arrived, and wait until ``at_most`` are left that have not."""
        while self._waiting:
            done, epoch, seen, arrived = self._waiting[0]
            if arrived is not None and not arrived.query():
                if len(self._waiting) <= at_most:
                    return
                arrived.synchronize()
            self._waiting.popleft()
            loss, skipped = seen.tolist()
            self._tell(runner, done, epoch, loss, bool(skipped))

    def _tell(self, runner: Any, done: int, epoch: int, loss: float, skipped: bool) -> None:
        steps = runner.max_iters
        self._skipped.note(done, skipped=skipped)
        if not skipped or math.isfinite(loss):  # what the scaler left out has changed nothing
            self._losses.append(loss)
        every = max(1, min(50, steps // self._n_reports))
        if self._losses and (done % every == 0 or done in (1, steps)):
            mean = float(np.mean(self._losses))
            self._losses.clear()
            self._progress.train(epoch=epoch, epochs=runner.max_epochs, step=done, steps=steps, loss=mean)


class KeepHook(Hook):  # type: ignore[misc]
    """Writes checkpoints, after every other hook has had its say about a step."""

    priority = "LOWEST"

    def __init__(
        self, checkpoints: Checkpoints, extra_state: Callable[[], dict[str, Any]], watch: WatchHook
    ) -> None:  # fmt: skip
        self._checkpoints, self._extra_state, self._watch = checkpoints, extra_state, watch

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None  # noqa: ARG002
    ) -> None:  # fmt: skip
        """Keep the state of the training, where it is time."""
        last_of_epoch = (runner.iter + 1) % runner.train_dataloader.sampler.steps == 0
        if self._checkpoints.due() and not last_of_epoch:
            self._keep(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Keep the state after the epoch's end, when what happens between epochs has happened."""
        if self._checkpoints.due():
            self._keep(runner, runner.iter)

    def _keep(self, runner: Any, steps_done: int) -> None:
        self._watch.tell(runner)  # which ends a training that has diverged, before its state is kept
        with self._checkpoints.writing() as folder:
            torch.save(
                {
                    "model": _bare(runner.model).state_dict(),
                    "optimizer": runner.optim_wrapper.state_dict(),
                    "schedulers": [plain(scheduler.state_dict()) for scheduler in runner.param_schedulers],
                    "step": steps_done,
                    "extra": self._extra_state(),
                },
                Path(folder) / "state.pth",
            )


def plain(value: Any) -> Any:
    """Return a scheduler's state without NumPy's numbers, which a safe ``torch.load`` refuses."""
    if isinstance(value, dict):
        return type(value)({key: plain(each) for key, each in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(plain(each) for each in value)
    return value.item() if isinstance(value, np.generic) else value


def _bare(model: Any) -> Any:
    return model.module if hasattr(model, "module") else model


__all__ = [
    "PLACES",
    "AutocastOptimWrapper",
    "AverageHook",
    "CellFusionHead",
    "CellMasks",
    "CellPreprocessor",
    "CellRTMDetInsHead",
    "CellSOLOV2Head",
    "CellSampler",
    "CellWindows",
    "FewGroupsConstructor",
    "Float32Mask2FormerHead",
    "Float32RoIExtractor",
    "KeepHook",
    "WatchHook",
    "boxes_of",
    "collate",
    "cut_around_a_cell",
    "sample",
    "view_number",
]
