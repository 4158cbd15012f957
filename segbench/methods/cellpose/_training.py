"""Trains Cellpose's network as upstream's ``train_seg`` does, batches being prepared ahead; imported only with torch.

Upstream prepares each batch, waits for its step and reads its loss before it prepares the next: a GPU then waits for
most of the time. The order of the windows, the random numbers of each window, the rates and the arithmetic are its own
here, and ``tests/methods/test_cellpose.py`` holds the weights to those that ``train_seg`` leaves, to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from segbench.methods.base import Progress
from segbench.methods.cellpose.schedule import EpochPlan

_DRAWS = 5
"""Random numbers that upstream's augmentation takes for a window: mirrored, angle, scale, two shifts."""
_VALIDATION_SEED = 42
_AHEAD = 2
"""Batches that each of the other processes prepares ahead."""


@dataclass(frozen=True)
class Windows:
    """Windows and their targets, as upstream takes them, with the median diameter of the cells of each."""

    images: Sequence[Any]
    targets: Sequence[Any]
    per_epoch: int
    """How many are seen in an epoch, or a validation; as many as there are is each once."""
    diameters: npt.NDArray[np.float64]

    def order(self) -> npt.NDArray[np.int64]:
        """Return which windows are seen in turn, by NumPy's own random numbers."""
        many = len(self.images)
        if many == self.per_epoch:
            return np.random.permutation(np.arange(many))
        equal = 1.0 / many * np.ones(many)
        return np.random.choice(np.arange(many), size=self.per_epoch, p=equal / equal.sum())


@dataclass(frozen=True)
class Task:
    """One batch."""

    epoch: int
    """From 0."""
    first: int
    """Windows of the epoch, or the validation, before it."""
    validating: bool
    last: bool
    """Whether it ends its epoch, or its validation."""


@dataclass
class Batches:
    """Makes any batch of a training by itself, so that several processes can."""

    train: Windows
    val: Windows | None
    together: int
    options: dict[str, Any]
    """Of upstream's augmentation."""
    diameter: float
    """To which cells are scaled."""
    transforms: Any
    _begun: tuple[Any, ...] = (None,)

    def __getitem__(self, task: Task) -> tuple[Task, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return images (N, C, h, w) and targets (N, 3, h, w): cell or not, flows along y and x."""
        windows = self.val if task.validating else self.train
        assert windows is not None
        seed = _VALIDATION_SEED if task.validating else task.epoch
        if self._begun[0] != (task.validating, seed):
            np.random.seed(seed)
            self._begun = ((task.validating, seed), windows.order(), np.random.get_state())
        _, order, state = self._begun
        np.random.set_state(state)
        np.random.rand(_DRAWS * task.first)
        chosen = order[task.first : task.first + self.together]
        images, targets = [windows.images[n] for n in chosen], [windows.targets[n][1:] for n in chosen]
        scales = windows.diameters[chosen] / self.diameter
        image, target, _ = self.transforms.random_rotate_and_resize(images, Y=targets, rescale=scales, **self.options)
        return task, image, target

    def __len__(self) -> int:
        """Return how many windows there are."""
        return len(self.train.images)


@dataclass(frozen=True)
class Tasks:
    """All batches of a training, in order."""

    plan: EpochPlan
    together: int
    windows: int
    """Trained on in an epoch."""
    val_windows: int
    validates_last: bool

    def __iter__(self) -> Iterator[Task]:
        """Yield them; a validation follows the first epoch, the sixth and every tenth."""
        for epoch in range(self.plan.epochs):
            for first in range(0, self.windows, self.together):
                yield Task(epoch, first, False, first + self.together >= self.windows)
            if epoch == 5 or epoch % 10 == 0 or (self.validates_last and epoch == self.plan.epochs - 1):
                for first in range(0, self.val_windows, self.together):
                    yield Task(epoch, first, True, first + self.together >= self.val_windows)


def rates(epochs: int, rate: float) -> npt.NDArray[np.float64]:
    """Return each epoch's learning rate: it rises for ten epochs, and is halved ten times at the end of longer ones."""
    rising = np.linspace(0, rate, 10)
    level = rate * np.ones(max(0, epochs - 10))
    whole = np.append(rising, level)
    each = 10 if epochs > 300 else 5 if epochs > 100 else 0
    if each:
        whole = whole[: -10 * each]
        for _ in range(10):
            whole = np.append(whole, whole[-1] / 2 * np.ones(each))
    return whole


def flow_loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return half the mean squared error of the flows, five times their length, plus the cross entropy of the cells.

    Parameters
    ----------
    found, wanted
        (N, 3, H, W): flows along y and x and the cell's logit; cell or not and the flows.
    """
    flows = functional.mse_loss(found[:, :2], 5.0 * wanted[:, 1:])
    cells = functional.binary_cross_entropy_with_logits(found[:, -1], (wanted[:, 0] > 0.5).float())
    return flows / 2.0 + cells


@dataclass
class Losses:
    """Tells the losses of each epoch: on a GPU one step later, for which it need not wait."""

    progress: Progress
    plan: EpochPlan
    epochs: int
    late: bool
    done: int = 0
    _train: list[torch.Tensor] = field(default_factory=list)
    _val: list[torch.Tensor] = field(default_factory=list)
    _waiting: deque[tuple[Any, ...]] = field(default_factory=deque)

    def validated(self, loss: torch.Tensor) -> None:
        """Take the loss of a validation batch; it is told with the next epoch's."""
        self._val.append(loss.detach())

    def trained(self, loss: torch.Tensor) -> None:
        """Take the loss of a step."""
        self.done += 1
        self._train.append(loss.detach())
        self.tell_rest()
        if self.done % self.plan.steps_per_epoch == 0 or not (self.late or np.isfinite(float(self._train[-1]))):
            both = self._train, self._val
            self._train, self._val = [], []
            self._waiting.append((self.done, *(_copied(losses, self.late) for losses in both), _marked(self.late)))
            if not self.late:
                self.tell_rest()

    def tell_rest(self) -> None:
        """Tell what waits to be told."""
        steps = self.plan.epochs * self.plan.steps_per_epoch
        while self._waiting:
            done, train, val, copied = self._waiting.popleft()
            if copied is not None:
                copied.synchronize()
            self.progress.train(
                epoch=max(1, -(-done * self.epochs // steps)),
                epochs=self.epochs,
                step=done,
                steps=steps,
                loss=float(np.mean(train.tolist())),
                val_loss=None if val is None else float(np.mean(val.tolist())),
            )


def _copied(losses: list[torch.Tensor], late: bool) -> torch.Tensor | None:
    return torch.stack(losses).to("cpu", non_blocking=late) if losses else None


def _marked(late: bool) -> Any:
    if not late:
        return None
    event = torch.cuda.Event()
    event.record()
    return event


@dataclass
class Best:
    """The weights with the smallest validation loss so far."""

    net: Any
    losses: list[torch.Tensor] = field(default_factory=list)
    least: float = float("inf")
    weights: dict[str, torch.Tensor] | None = None

    def validated(self, loss: torch.Tensor, last: bool) -> None:
        """Take the loss of a validation batch, and the weights after the last one where they are the best."""
        self.losses.append(loss.detach())
        if not last:
            return
        mean = float(torch.stack(self.losses).mean())
        self.losses.clear()
        if mean < self.least:
            self.least = mean
            self.weights = {name: value.clone() for name, value in self.net.state_dict().items()}


@dataclass(frozen=True)
class Training:
    """How a network is trained."""

    plan: EpochPlan
    epochs: int
    """Of the budget."""
    batch_size: int
    settings: Any
    workers: int
    """Processes that prepare batches."""


def fit(net: Any, train: Windows, val: Windows | None, how: Training, transforms: Any, progress: Progress) -> None:
    """Train ``net`` in place; raises DivergedError where a loss is not finite."""
    device, settings = net.device, how.settings
    late = device.type == "cuda"
    side = settings["crop"]
    options = {"scale_range": settings["scale_range"], "xy": (side, side)}
    dataset = Batches(train, val, how.batch_size, options, net.diam_mean.item(), transforms)
    best = Best(net) if settings["keep_best"] else None
    tasks = Tasks(how.plan, how.batch_size, train.per_epoch, 0 if val is None else val.per_epoch, best is not None)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, sampler=tasks, num_workers=how.workers, pin_memory=late, generator=torch.Generator(),
        prefetch_factor=_AHEAD if how.workers else None, collate_fn=_tensors, worker_init_fn=_alone,
    )  # fmt: skip
    net.diam_labels.data = torch.Tensor([train.diameters.mean()]).to(device)
    optimizer = _optimizer(net, settings)
    each = rates(how.plan.epochs, settings["learning_rate"])
    losses = Losses(progress, how.plan, how.epochs, late)
    torch.backends.cudnn.benchmark = late  # all batches have the same size
    for task, image, target in loader:
        images, wanted = (part.to(device, non_blocking=late) for part in (image, target))
        if task.validating:
            with torch.no_grad():
                net.eval()
                loss = flow_loss(net(images)[0], wanted)
            losses.validated(loss)
            if best is not None:
                best.validated(loss, task.last)
            continue
        if task.first == 0:
            for group in optimizer.param_groups:
                group["lr"] = each[task.epoch]
            net.train()
        loss = flow_loss(net(images)[0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.trained(loss)
    losses.tell_rest()
    torch.backends.cudnn.benchmark = False
    if best is not None and best.weights is not None:
        net.load_state_dict(best.weights)
    if late:
        torch.cuda.synchronize(device)


def _optimizer(net: Any, settings: Any) -> torch.optim.Optimizer:
    options = {"lr": settings["learning_rate"], "weight_decay": settings["weight_decay"]}
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(net.parameters(), momentum=settings["momentum"], **options)
    return torch.optim.AdamW(net.parameters(), **options)


def _tensors(batch: tuple[Task, Any, Any]) -> tuple[Task, torch.Tensor, torch.Tensor]:
    task, *arrays = batch
    image, target = (torch.from_numpy(array) for array in arrays)
    return task, image, target


def _alone(_: int) -> None:
    import cv2  # type: ignore[import-not-found, unused-ignore]

    cv2.setNumThreads(0)  # its threads do not live on in a forked process
