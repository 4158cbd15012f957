"""Training windows for MMDetection's models: label maps until a loss asks for masks, a few tensors a batch.

Imported inside functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from scipy.ndimage import find_objects
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.ops import roi_align

from segbench.methods.base import ImageStack
from segbench.methods.job import Arrays
from segbench.methods.planes import three_planes

ORIENTATIONS = 4
"""As they are, flipped left to right, top to bottom, and both."""

PLACES = 1 << 20
"""How many random places of a crop are told apart."""

META = {"classes": ("cell",), "palette": [(220, 20, 60)]}

_PIXELS_TOGETHER = 1 << 25
"""Of masks that are whole at a time: 128 MB as floats."""


def masks_of(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Return the cells of a label map (H, W) as masks (k, H, W) of 0 and 1."""
    present = np.unique(labels)
    present = present[present != 0]
    there: npt.NDArray[np.bool_] = labels[np.newaxis] == present[:, np.newaxis, np.newaxis]
    return there.view(np.uint8)


def boxes_of(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Return the corners (k, 4) x1, y1, x2, y2 of a label map's cells, the lower right one just outside of the cell."""
    return numbered(labels)[1]


def numbered(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return a label map with its k cells numbered 1..k in the same order, and their corners (k, 4)."""
    found = find_objects(labels)
    places = [place for place in found if place is not None]
    if len(places) < len(found):
        new = np.zeros(len(found) + 1, np.int32)
        new[1:] = np.cumsum([place is not None for place in found])
        labels = new[labels]
    boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in places]
    return labels, np.asarray(boxes, np.float32).reshape(-1, 4)


class CellMasks(BitmapMasks):  # type: ignore[misc]
    """The masks of a label map's cells, which stay a label map, on any device, until a loss asks for them.

    What its methods return equals what ``BitmapMasks`` returns for the masks of all cells.

    Parameters
    ----------
    labels
        (H, W), 0 for the ground.
    count
        How many cells there are, where they are known to be numbered 1 to ``count``.
    """

    def __init__(self, labels: npt.NDArray[np.int32] | torch.Tensor, count: int | None = None) -> None:
        if count is None:
            labels, boxes = numbered(np.asarray(labels))
            count = len(boxes)
        self.labels = torch.as_tensor(np.ascontiguousarray(labels)) if isinstance(labels, np.ndarray) else labels
        self.count = count
        self.height, self.width = self.labels.shape
        self._masks: npt.NDArray[np.uint8] | None = None

    @property
    def masks(self) -> npt.NDArray[np.uint8]:
        """(k, H, W), 0 and 1."""
        if self._masks is None:
            self._masks = self._of(self._numbers()).cpu().numpy().view(np.uint8)
        return self._masks

    def __len__(self) -> int:
        return self.count

    def __reduce__(self) -> Any:
        return CellMasks, (self.labels, self.count)

    def __deepcopy__(self, memo: dict[int, Any]) -> CellMasks:
        return self  # nothing changes a label map

    def to(self, *where: Any, **how: Any) -> CellMasks:
        """Return them on another device."""
        return CellMasks(self.labels.to(*where, **how), self.count)

    def pad(self, out_shape: tuple[int, int], pad_val: int = 0) -> BitmapMasks:
        """Return them with more ground to the right and below."""
        if tuple(out_shape) == (self.height, self.width):
            return self
        if pad_val:
            return super().pad(out_shape, pad_val)
        more = (0, out_shape[1] - self.width, 0, out_shape[0] - self.height)
        return CellMasks(functional.pad(self.labels, more), self.count)

    def to_tensor(self, dtype: Any, device: Any) -> torch.Tensor:
        """Return the masks (k, H, W)."""
        return self._of(self._numbers()).to(device=device, dtype=dtype)

    @property
    def areas(self) -> npt.NDArray[Any]:
        """(k,), in pixels."""
        areas: npt.NDArray[Any] = self.pixels().cpu().numpy()
        return areas

    def pixels(self) -> torch.Tensor:
        """Return the (k,) areas in pixels, where the label map is."""
        return torch.zeros(self.count + 1, dtype=torch.long, device=self.labels.device).index_add_(
            0, self.labels.flatten(), torch.ones_like(self.labels, dtype=torch.long).flatten()
        )[1:]

    def within(self, boxes: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
        """Return how many pixels of each of ``cells`` (n,) lie in its box, as ``crop`` cuts it; boxes (n, 4)."""
        x1, y1, x2, y2 = self._inside(boxes.trunc()).unbind(1)
        x2, y2 = torch.maximum(x2, x1 + 1), torch.maximum(y2, y1 + 1)
        rows, columns = (torch.arange(n, device=boxes.device) for n in (self.height, self.width))
        found = []
        for part in self._parts(len(cells)):
            mine = self._of(cells[part] + 1)
            mine &= ((rows >= y1[part, None]) & (rows < y2[part, None]))[:, :, None]
            mine &= ((columns >= x1[part, None]) & (columns < x2[part, None]))[:, None, :]
            found.append(mine.sum((1, 2)))
        return torch.cat(found) if found else cells.new_zeros(0)

    def targets(self, boxes: torch.Tensor, cells: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return the masks of ``cells`` (n,) in their boxes (n, 4), resized to ``size``: (n, h, w) of 0 and 1."""
        boxes = self._inside(boxes)
        found = [boxes.new_zeros((0, *size))]
        for part in self._parts(len(cells)):
            mine = self._of(cells[part] + 1)[:, None].to(boxes.dtype)
            numbers = torch.arange(len(mine), device=boxes.device, dtype=boxes.dtype)
            rois = torch.cat([numbers[:, None], boxes[part]], 1)
            found.append((roi_align(mine, rois, size, 1.0, 0, True)[:, 0] >= 0.5).to(boxes.dtype))
        return torch.cat(found)

    def _inside(self, boxes: torch.Tensor) -> torch.Tensor:
        """Return boxes (n, 4) cut off at the border; the limits are no tensor, which would have to be sent."""
        x1, y1, x2, y2 = boxes.unbind(1)
        x1, x2 = (each.clamp(0, self.width) for each in (x1, x2))
        y1, y2 = (each.clamp(0, self.height) for each in (y1, y2))
        return torch.stack([x1, y1, x2, y2], 1)

    def _of(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.labels == numbers[:, None, None]

    def _numbers(self) -> torch.Tensor:
        return torch.arange(1, self.count + 1, device=self.labels.device)

    def _parts(self, n: int) -> list[slice]:
        step = max(1, _PIXELS_TOGETHER // (self.height * self.width))
        return [slice(first, first + step) for first in range(0, n, step)]


class CellSample(DetDataSample):  # type: ignore[misc]
    """A window's truth; upstream copies it for the first stage, which changes nothing but its classes: there is one."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CellSample:
        return self


def sample(image: npt.NDArray[np.float32], labels: npt.NDArray[np.int32] | None, number: int) -> dict[str, Any]:
    """Return a window (C, H, W), with its cells if their label map is given, for :func:`collate`."""
    view: dict[str, Any] = {"inputs": torch.from_numpy(np.ascontiguousarray(image)), "number": number}
    if labels is not None:
        labels, boxes = numbered(labels)
        view |= {"labels": torch.from_numpy(np.ascontiguousarray(labels)), "boxes": torch.from_numpy(boxes)}
    return view


def collate(views: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return views of windows as a batch: a few tensors, which are sent and copied as they are."""
    batch: dict[str, Any] = {
        "inputs": torch.stack([view["inputs"] for view in views]),
        "numbers": [view["number"] for view in views],
    }
    if "labels" in views[0]:
        batch["labels"] = torch.stack([view["labels"] for view in views])
        batch["boxes"] = torch.cat([view["boxes"] for view in views])
        batch["counts"] = [len(view["boxes"]) for view in views]
    return batch


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
class CellPreprocessor(DetDataPreprocessor):  # type: ignore[misc]
    """Makes of a batch of :func:`collate`, on the model's device, what MMDetection's own makes of its samples."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Return the ``inputs`` (B, 3, H, W), normalised and padded, and the ``data_samples``."""
        del training
        images = three_planes_of(data["inputs"].to(self.device, non_blocking=True))
        height, width = images.shape[2:]
        images = (images - self.mean) / self.std
        more = [-side % self.pad_size_divisor for side in (height, width)]
        padded = (height + more[0], width + more[1])
        if any(more):
            images = functional.pad(images, (0, more[1], 0, more[0]), value=self.pad_value)
        about = {
            "img_path": "", "ori_shape": (height, width), "img_shape": (height, width), "scale_factor": (1.0, 1.0),
            "flip": False, "batch_input_shape": padded, "pad_shape": padded,
        }  # fmt: skip
        samples = [CellSample(metainfo={"img_id": number, **about}) for number in data["numbers"]]
        if "labels" in data:
            self._add_cells(samples, data, more)
        return {"inputs": images, "data_samples": samples}

    def _add_cells(self, samples: Sequence[CellSample], data: Mapping[str, Any], more: Sequence[int]) -> None:
        labels = functional.pad(data["labels"].to(self.device, non_blocking=True), (0, more[1], 0, more[0]))
        boxes = data["boxes"].to(self.device, non_blocking=True).split(data["counts"])
        classes = torch.zeros(max(data["counts"]), dtype=torch.long, device=self.device)
        nothing = InstanceData(bboxes=boxes[0][:0], labels=classes[:0])
        for about, mine, box, count in zip(samples, labels.unbind(), boxes, data["counts"], strict=True):
            about.gt_instances = InstanceData(bboxes=box, labels=classes[:count], masks=CellMasks(mine, count))
            about.ignored_instances = nothing


def three_planes_of(images: torch.Tensor) -> torch.Tensor:
    """Return the (B, 3, H, W) planes that a colour network sees of windows (B, C, H, W), as ``three_planes`` does."""
    channels = images.shape[1]
    if channels == 1:
        return images.expand(-1, 3, -1, -1)
    if channels == 2:
        return torch.cat([images, torch.zeros_like(images[:, :1])], 1)
    return images if channels == 3 else torch.from_numpy(three_planes(images[0].numpy()))  # which says what is wrong
