"""What MMEngine's Runner is given of segbench: the windows, their order, and a hook that watches a training.

Imported inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import DATA_SAMPLERS, DATASETS, MODELS, OPTIM_WRAPPERS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from scipy.ndimage import find_objects
from torch.utils.data import Dataset, Sampler

from segbench.methods.base import ImageStack, Progress
from segbench.methods.checkpoints import Checkpoints
from segbench.methods.job import Arrays
from segbench.methods.planes import three_planes
from segbench.methods.scaling import FIRST_SCALE, SkippedSteps

ORIENTATIONS = 4
"""As they are, flipped left to right, top to bottom, and both."""

PLACES = 1 << 20
"""How many random places of a crop are told apart."""

META = {"classes": ("cell",), "palette": [(220, 20, 60)]}


def masks_of(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Return the cells of a label map (H, W) as masks (k, H, W) of 0 and 1."""
    present = np.unique(labels)
    present = present[present != 0]
    there: npt.NDArray[np.bool_] = labels[np.newaxis] == present[:, np.newaxis, np.newaxis]
    return there.view(np.uint8)


def boxes_of(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return the corners (k, 4) x1, y1, x2, y2 of a label map's cells, the lower right one just outside of the cell."""
    found = [place for place in find_objects(labels) if place is not None]
    boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in found]
    return np.asarray(boxes, np.float32).reshape(-1, 4)


class CellMasks(BitmapMasks):  # type: ignore[misc]
    """The masks of a label map's cells, which stay a label map until a loss asks for them.

    So a worker sends 0.3 MB for a window of 256x256, where 400 masks are 26 MB.

    Parameters
    ----------
    labels
        (H, W), 0 for the ground.
    """

    def __init__(self, labels: npt.NDArray[np.int32]) -> None:
        self.labels = np.ascontiguousarray(labels)
        self.height, self.width = labels.shape
        self._masks: npt.NDArray[np.uint8] | None = None

    @property
    def masks(self) -> npt.NDArray[np.uint8]:
        """(k, H, W), 0 and 1."""
        if self._masks is None:
            self._masks = masks_of(self.labels)
        return self._masks

    def __reduce__(self) -> Any:
        return CellMasks, (self.labels,)


def sample(image: npt.NDArray[np.float32], labels: npt.NDArray[np.int32] | None, number: int) -> dict[str, Any]:
    """Return a window (C, H, W), with its cells if their label map is given, in the form of MMDetection's models."""
    height, width = image.shape[1:]
    about = DetDataSample()
    about.set_metainfo(
        {
            "img_id": number, "img_path": "", "ori_shape": (height, width), "img_shape": (height, width),
            "scale_factor": (1.0, 1.0), "flip": False,
        }
    )  # fmt: skip
    if labels is not None:
        boxes = boxes_of(labels)
        instances = InstanceData()
        instances.bboxes = torch.from_numpy(boxes)
        instances.labels = torch.zeros(len(boxes), dtype=torch.long)
        instances.masks = CellMasks(labels)
        about.gt_instances = instances
        about.ignored_instances = InstanceData(
            bboxes=torch.zeros((0, 4)), labels=torch.zeros(0, dtype=torch.long), masks=BitmapMasks([], height, width)
        )
    return {"inputs": torch.from_numpy(np.ascontiguousarray(three_planes(image))), "data_samples": about}


def cut_around_a_cell(
    image: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], side: int, where: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return ``side`` pixels square of a window, with a pixel of a cell as near to its middle as the border lets it.

    ``where`` in 0..1 chooses the pixel among those of all cells.
    """
    pixels = np.flatnonzero(labels)
    middle = np.unravel_index(pixels[int(where * pixels.size)], labels.shape)
    rows, columns = (
        slice(first, first + side)
        for first in (
            min(max(0, int(at) - side // 2), max(0, size - side)) for at, size in zip(middle, labels.shape, strict=True)
        )
    )
    return image[:, rows, columns], labels[rows, columns]


def view_number(window: Any, orientation: Any, place: Any) -> Any:
    """Return the number under which :class:`CellWindows` gives a view of a window."""
    return (window * ORIENTATIONS + orientation) * PLACES + place


@DATASETS.register_module()
class CellWindows(Dataset):  # type: ignore[misc]
    """The training windows, straight from the job's memory-mapped arrays, each in several views.

    All chance is in the view's number, which the sampler draws: processes that read windows need no random numbers.

    Parameters
    ----------
    arrays
        The fields of :class:`segbench.methods.job.Arrays`. MMEngine copies its configuration, so that it gets these and
        not the arrays themselves.
    windows
        Which of them are trained on.
    crop
        Pixels of a side of the part that is cut out around a cell; None for whole windows.
    """

    metainfo = META

    def __init__(self, arrays: Mapping[str, Any], windows: list[int], crop: int | None = None) -> None:
        self._stack = ImageStack(Arrays(**arrays))
        self._windows, self._crop = windows, crop

    @property
    def n_windows(self) -> int:
        """How many windows there are."""
        return len(self._windows)

    def __len__(self) -> int:
        return len(self._windows) * ORIENTATIONS * PLACES

    def __getitem__(self, n: int) -> dict[str, Any]:
        """Return the view that :func:`view_number` numbers."""
        n, place = divmod(n, PLACES)
        window = self._windows[n // ORIENTATIONS]
        image, labels = self._stack[window], self._stack.labels(window)
        if self._crop is not None:
            image, labels = cut_around_a_cell(image, labels, self._crop, place / PLACES)
        if n % 2:
            image, labels = image[..., ::-1], labels[..., ::-1]
        if n % ORIENTATIONS >= 2:
            image, labels = image[..., ::-1, :], labels[..., ::-1, :]
        return sample(image, labels, window)


@MODELS.register_module()
class Float32Mask2FormerHead(Mask2FormerHead):  # type: ignore[misc]
    """Mask2Former's head with its matching and losses in float32, also under autocast.

    Upstream multiplies the number of masks by 12,544 points in the type of the class scores, which is infinite in half
    precision from six masks on (mmdetection #10909).
    """

    def loss_by_feat(self, all_cls_scores: Any, all_mask_preds: Any, *rest: Any) -> dict[str, torch.Tensor]:
        """Return the losses of every decoder layer."""
        with torch.autocast(all_cls_scores[0].device.type, enabled=False):
            losses: dict[str, torch.Tensor] = super().loss_by_feat(
                [scores.float() for scores in all_cls_scores], [masks.float() for masks in all_mask_preds], *rest
            )
        return losses


@MODELS.register_module()
class Float32RoIExtractor(SingleRoIExtractor):  # type: ignore[misc]
    """MMDetection's RoI extractor in float32, also under autocast.

    Upstream rounds the boxes to the features' type: in a window of 256 pixels to whole pixels in bfloat16.
    """

    def forward(self, feats: tuple[torch.Tensor, ...], rois: torch.Tensor, *rest: Any) -> torch.Tensor:
        """Return the features of boxes."""
        pooled: torch.Tensor = super().forward(tuple(level.float() for level in feats), rois, *rest)
        return pooled


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):  # type: ignore[misc]
    """Trains in float16 with scaled gradients, or in bfloat16, on any device; MMEngine's own is for GPUs alone.

    Parameters
    ----------
    precision
        ``float16`` or ``bfloat16``.
    **wrapper
        The arguments of MMEngine's ``OptimWrapper``.
    """

    def __init__(self, precision: str, **wrapper: Any) -> None:
        super().__init__(**wrapper)
        self._type = getattr(torch, precision)
        self._device = next(p.device.type for group in self.param_groups for p in group["params"])
        # bfloat16 has the range of float32, so that nothing needs a scale
        self.loss_scaler = torch.amp.GradScaler(self._device, FIRST_SCALE, enabled=precision == "float16")
        self.skipped = False
        """Whether the last step was left out, for its gradients were not finite."""

    @contextmanager
    def optim_context(self, model: Any) -> Iterator[None]:
        """Compute a step's losses in half precision, where PyTorch takes it to be safe."""
        with super().optim_context(model), torch.autocast(self._device, dtype=self._type):
            yield

    def backward(self, loss: torch.Tensor, **options: Any) -> None:
        """Compute the gradients of the scaled loss."""
        self.loss_scaler.scale(loss).backward(**options)
        self._inner_count += 1

    def step(self, **options: Any) -> None:
        """Take the step, unless the gradients are not finite; the scale follows."""
        before = self.loss_scaler.get_scale()
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **options)
        self.loss_scaler.update()
        self.skipped = self.loss_scaler.get_scale() < before

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state with the scaler's."""
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` returned."""
        self.loss_scaler.load_state_dict(state_dict["loss_scaler"])
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "loss_scaler"})


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
        self._losses: list[Any] = []
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
        """Note the loss, and tell it now and then."""
        assert outputs is not None
        done, steps = runner.iter + 1, runner.max_iters
        loss, skipped = outputs["loss"].detach(), getattr(runner.optim_wrapper, "skipped", False)
        self._skipped.note(done, skipped=skipped)
        if not skipped or loss.isfinite():  # what the scaler left out has changed nothing
            self._losses.append(loss)
        every = max(1, min(50, steps // self._n_reports))
        if self._losses and (done % every == 0 or done in (1, steps)):
            loss = float(torch.stack(self._losses).mean())
            self._losses.clear()
            epoch = runner.epoch + 1
            self._progress.train(epoch=epoch, epochs=runner.max_epochs, step=done, steps=steps, loss=loss)


class KeepHook(Hook):  # type: ignore[misc]
    """Writes checkpoints, after every other hook has had its say about a step."""

    priority = "LOWEST"

    def __init__(self, checkpoints: Checkpoints, extra_state: Callable[[], dict[str, Any]]) -> None:
        self._checkpoints, self._extra_state = checkpoints, extra_state

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


__all__ = ["CellSampler", "CellWindows", "KeepHook", "WatchHook", "sample"]
