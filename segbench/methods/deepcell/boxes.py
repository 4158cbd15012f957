"""Makes RetinaMask's batches: what each anchor should say, and the cells as one label map instead of a mask each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segbench.methods.compiled import compiled

_NEGATIVE, _POSITIVE = 0.4, 0.5
"""Overlaps with a cell's box: an anchor is ground up to the first, a cell from the second on, between them neither."""
_FACTS = 8
"""What is told of a cell: its box, its class, the window's width and height, and its number in the label map."""
_SCALE = 0.2
"""Of the distances that are learnt."""


class BoxTargets:
    """Makes the batches of ``deepcell_retinamask.image_generators.RetinaNetIterator``, to the bit, but for the masks.

    Upstream gives the loss a float a pixel and cell, 105 MB for a window of 256x256 with 400 cells. Here the loss gets
    the label map and makes the masks of it (``expand_masks``).

    Parameters
    ----------
    anchors
        (N, 4), by upstream's ``anchors_for_shape``: left, top, right, bottom.
    """

    def __init__(self, anchors: npt.NDArray[np.float64]) -> None:
        self._anchors = np.ascontiguousarray(anchors, np.float64)
        corners = self._anchors[:, :2]
        self._sizes = self._anchors[:, 2:] - corners
        self._centres = (corners + self._anchors[:, 2:]) / 2
        # equally wide ones together, from left to right, so that a box need be compared with few
        widths, group = np.unique(self._sizes[:, 0], return_inverse=True)
        self._order = np.lexsort((self._anchors[:, 0], group))
        self._sorted, self._widths = self._anchors[self._order], widths
        self._starts = np.searchsorted(group[self._order], np.arange(len(widths) + 1))

    def __call__(self, iterator: Any, numbers: npt.NDArray[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Make a batch of tiles of an iterator."""
        side = iterator.x.shape[1]
        images = np.zeros((len(numbers), *iterator.x.shape[1:]), np.float32)
        maps = np.zeros((len(numbers), side, side), np.int32)
        for place, n in enumerate(numbers):
            image, (labels,) = iterator.image_data_generator.random_transform(iterator.x[n], [iterator.y[n]])
            images[place], maps[place] = iterator.image_data_generator.standardize(image), labels[..., 0]
        found = [boxes_of(labels) for labels in maps]
        most = max(len(cells) for cells, _ in found)
        boxes = np.zeros((len(numbers), most, 4), np.float32)
        masks = np.zeros((len(numbers), most + side * side // _FACTS, _FACTS), np.float32)
        masks[:, :most, 5:] = side, side, -1
        masks[:, most:] = maps.reshape(len(numbers), -1, _FACTS)
        regression = np.zeros((len(numbers), len(self._anchors), 5), np.float32)
        classes = np.zeros((len(numbers), len(self._anchors), 2), np.float32)
        for place, (cells, names) in enumerate(found):
            boxes[place, : len(cells)] = masks[place, : len(cells), :4] = cells
            masks[place, : len(cells), 7] = names
            self._fill(regression[place], classes[place], cells, side)
        outputs = {"regression": regression, "classification": classes, "masks": masks}
        return {"input": images, "boxes_input": boxes}, outputs

    def _fill(
        self,
        regression: npt.NDArray[np.float32],
        classes: npt.NDArray[np.float32],
        boxes: npt.NDArray[np.int64],
        side: int,
    ) -> None:
        """Write what the anchors should say of one window; upstream's ``anchor_targets_bbox`` for one class."""
        if len(boxes):
            nearest, overlap = np.empty(len(self._anchors), np.int64), np.empty(len(self._anchors))
            nearest[self._order], overlap[self._order] = compiled(_best)(
                self._sorted, self._widths, self._starts, boxes.astype(np.float64)
            )
            cell = overlap >= _POSITIVE
            state = np.where(cell, 1, np.where(overlap > _NEGATIVE, -1, 0))
            classes[cell, 0] = 1
            classes[:, 1] = regression[:, 4] = state
            chosen = boxes[nearest]
            regression[:, :2] = (chosen[:, :2] - self._anchors[:, :2]) / self._sizes / _SCALE
            regression[:, 2:4] = (chosen[:, 2:] - self._anchors[:, 2:]) / self._sizes / _SCALE
        outside = (self._centres >= side).any(axis=1)
        classes[outside, 1] = regression[outside, 4] = -1


def boxes_of(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return left, top, right and bottom of the cells of a label map, and their numbers, in the order of these."""
    from scipy.ndimage import find_objects

    found = [(n, place) for n, place in enumerate(find_objects(labels), 1) if place is not None]
    boxes = [(x.start, y.start, x.stop, y.stop) for _, (y, x) in found]
    return np.asarray(boxes, np.int64).reshape(-1, 4), np.asarray([n for n, _ in found], np.int64)


class BoxProperties(NamedTuple):
    """What upstream's choice of anchors asks of a cell."""

    bbox: tuple[int, int, int, int]
    """Top, left, bottom, right."""


def box_properties(labels: npt.NDArray[np.int32]) -> list[BoxProperties]:
    """Return what stands for scikit-image's ``regionprops`` where only boxes are wanted."""
    return [BoxProperties((top, left, bottom, right)) for left, top, right, bottom in boxes_of(labels)[0].tolist()]


def expand_masks(tensorflow: Any, told: Any, side: int) -> Any:
    """Return what upstream's mask loss takes, (B, k, 7 + S * S), of what ``BoxTargets`` gives.

    Parameters
    ----------
    tensorflow
        The module.
    told
        A tensor (B, k + S * S / 8, 8).
    side
        S, of a window.
    """
    rows = side * side // _FACTS
    cells = tensorflow.shape(told)[1] - rows
    facts, maps = told[:, :cells], tensorflow.reshape(told[:, cells:], (-1, 1, side * side))
    masks = tensorflow.cast(tensorflow.equal(maps, facts[:, :, 7:]), told.dtype)
    return tensorflow.concat([facts[:, :, :7], masks], axis=-1)


def _best(
    anchors: npt.NDArray[np.float64],
    widths: npt.NDArray[np.float64],
    starts: npt.NDArray[np.int64],
    boxes: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return for each anchor the box that overlaps it most, the first of equals, and how much.

    By deepcell_toolbox.compute_overlap, which counts the last pixel as a whole one. Anchors from ``starts[g]`` on are
    ``widths[g]`` wide and go from left to right.
    """
    nearest, most = np.zeros(len(anchors), np.int64), np.zeros(len(anchors))
    for group in range(len(widths)):
        begin, end = starts[group], starts[group + 1]
        lefts = anchors[begin:end, 0]
        for n in range(len(boxes)):
            left, top, right, bottom = boxes[n]
            area = (right - left + 1) * (bottom - top + 1)
            first = begin + np.searchsorted(lefts, left - widths[group] - 2)
            last = begin + np.searchsorted(lefts, right + 2)
            for one in range(first, last):
                height = min(anchors[one, 3], bottom) - max(anchors[one, 1], top) + 1
                if height <= 0:
                    continue
                width = min(anchors[one, 2], right) - max(anchors[one, 0], left) + 1
                if width <= 0:
                    continue
                own = (anchors[one, 2] - anchors[one, 0] + 1) * (anchors[one, 3] - anchors[one, 1] + 1)
                overlap = width * height / (own + area - width * height)
                if overlap > most[one]:
                    nearest[one], most[one] = n, overlap
    return nearest, most
