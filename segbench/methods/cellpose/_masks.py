"""Makes the masks of several windows at once by the steps of Cellpose's path for GPUs; imported only where torch is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

_NEAR = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
"""A pixel and its neighbours, as (y, x), in upstream's order."""
_EDGE = 20
"""Pixels around a window in the histogram of where pixels end up."""
_REACH = 5
"""Pixels by which a mask's core may grow from its peak in that histogram."""
_FEW, _LEAST = 10, 2
"""A peak has more pixels than the one, and a core more at each place than the other."""
_LARGEST = 0.4
"""Share of the window beyond which a mask is dropped."""


@dataclass(frozen=True)
class Found:
    """The masks of N windows of one size, on the device, before any was filled or dropped for its size."""

    labels: torch.Tensor
    """(N, H, W) int64: 0 for background, cells numbered 1..k in each window by their first pixels."""
    errors: torch.Tensor
    """(M,) float64: the flow errors of all cells, window by window."""
    counts: torch.Tensor
    """(N,) int64: cells of each window."""

    def within(self, threshold: float) -> torch.Tensor:
        """Return the labels without the cells whose flow error is larger; 0 keeps all."""
        if threshold <= 0:
            return self.labels
        before = _before(self.counts)[:, None, None]
        bad = torch.cat((self.errors.new_zeros(1), self.errors)) > threshold
        numbers = torch.where(self.labels > 0, self.labels + before, 0)
        return torch.where(bad[numbers], 0, self.labels)


def find(flows: torch.Tensor, logits: torch.Tensor, steps: int, cell_threshold: float) -> Found:
    """Return the masks that the flows lead to, with their flow errors.

    Parameters
    ----------
    flows, logits
        The network's outputs: (N, 2, H, W) along y and x, and (N, H, W), float32.
    steps
        Of the dynamics.
    cell_threshold
        Pixels with a larger logit belong to a cell.
    """
    labels, counts = _gather(*_follow(flows, logits > cell_threshold, steps), logits.shape)
    return Found(labels, _flow_errors(labels, counts, flows), counts)


def _before(counts: torch.Tensor) -> torch.Tensor:
    """Return how many come before each window."""
    return torch.cumsum(counts, 0) - counts


def _follow(flows: torch.Tensor, inside: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (P,) places, among all pixels, of the pixels inside, and the (2, P) rows and columns they move to."""
    n, _, height, width = flows.shape
    sides = (width - 1.0, height - 1.0)
    field = (flows * inside[:, None] / 5.0).flip(1)  # x before y, as grid_sample has it
    starts = inside.flatten().nonzero().squeeze(1)
    window, pixel = starts // (height * width), starts % (height * width)
    counts = inside.sum((1, 2))
    place = torch.arange(len(starts), device=flows.device) - _before(counts)[window]
    points = flows.new_zeros((n, 1, max(1, int(counts.max())), 2))
    for axis, where in enumerate((pixel % width, pixel // width)):
        field[:, axis] *= 2.0 / sides[axis]
        points[window, 0, place, axis] = where.float()
        points[..., axis] /= sides[axis]
    points *= 2
    points -= 1
    for _ in range(steps):
        moved = functional.grid_sample(field, points, align_corners=False)
        points = (points + moved.permute(0, 2, 3, 1)).clamp_(-1.0, 1.0)
    points += 1
    points *= 0.5
    for axis, side in enumerate(sides):
        points[..., axis] *= side
    return starts, points[window, 0, place].flip(1).T.int().long()


def _gather(
    starts: torch.Tensor, ends: torch.Tensor, shape: tuple[int, ...] | torch.Size
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return labels (N, H, W) and cells a window: pixels that end around the same peak are one cell."""
    n, height, width = shape
    tall, wide = height + 2 * _EDGE, width + 2 * _EDGE
    ended = (starts // (height * width) * tall + ends[0] + _EDGE) * wide + ends[1] + _EDGE
    crowd = torch.bincount(ended, minlength=n * tall * wide).view(n, tall, wide).float()
    peaks = (crowd >= functional.max_pool2d(crowd, 5, 1, 2)) & (crowd > _FEW)
    seeds = peaks.flatten().nonzero().squeeze(1)
    # where two cores meet, the pixel is the one's with the higher peak: the later one's, for upstream
    seeds = seeds[crowd.flatten()[seeds].argsort(stable=True)]
    seeds = seeds[(seeds // (tall * wide)).argsort(stable=True)]
    if len(seeds) == 0:
        return starts.new_zeros(shape), starts.new_zeros(n)
    reach = torch.arange(-_REACH, _REACH + 1, device=starts.device)
    around = seeds[:, None, None] + reach[:, None] * wide + reach
    crowded = crowd.flatten()[around] > _LEAST
    core = torch.zeros_like(crowded, dtype=torch.float32)
    core[:, _REACH, _REACH] = 1
    for _ in range(_REACH):
        core = functional.max_pool2d(core, 3, 1, 1) * crowded
    which, row, column = core.nonzero(as_tuple=True)
    cells = torch.zeros(n * tall * wide, dtype=torch.int64, device=starts.device)
    cells.scatter_reduce_(0, around[which, row, column], which + 1, "amax")
    mine = torch.zeros(n * height * width, dtype=torch.int64, device=starts.device)
    mine[starts] = cells[ended]
    sizes = torch.bincount(mine, minlength=len(seeds) + 1)
    sizes[0] = 0
    mine = torch.where(sizes[mine] > height * width * _LARGEST, 0, mine)
    return _renumber(mine, len(seeds), n, height, width)


def _renumber(cells: torch.Tensor, most: int, n: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Number the cells of each window from 1 by their first pixels."""
    pixels, total = height * width, len(cells)
    first = torch.full((most + 1,), total, dtype=torch.int64, device=cells.device)
    first.scatter_reduce_(0, cells, torch.arange(total, device=cells.device), "amin")
    first[0] = total
    window = first // pixels  # n where the cell has no pixel
    counts = torch.bincount(window, minlength=n + 1)[:n]
    rank = torch.empty_like(first)
    rank[first.argsort(stable=True)] = torch.arange(len(first), device=cells.device)
    numbers = torch.where(first < total, rank + 1 - torch.cat((_before(counts), counts.new_zeros(1)))[window], 0)
    return numbers[cells].view(n, height, width), counts


def _flow_errors(labels: torch.Tensor, counts: torch.Tensor, flows: torch.Tensor) -> torch.Tensor:
    """Return the mean squared differences (M,) between the network's flows and those of the masks themselves."""
    numbers = torch.where(labels > 0, labels + _before(counts)[:, None, None], 0)
    total = int(counts.sum())
    if total == 0:
        return flows.new_zeros(0, dtype=torch.float64)
    found = _Cells(numbers, total)
    own = found.flows()
    window, y, x = found.places
    netted = flows[window, :, y, x].T / 5.0
    sums = torch.zeros(total, dtype=torch.float64, device=flows.device)
    sizes = torch.bincount(found.cell, minlength=total)
    for axis in range(2):
        sums += torch.zeros_like(sums).index_add_(0, found.cell, (own[axis] - netted[axis]) ** 2) / sizes
    return sums


class _Cells:
    """The pixels of all cells as one list, those of the windows that diffuse longest first.

    Heat diffuses from each cell's centre for as many steps as upstream takes for its window: twice the extent of the
    window's largest cell. What goes down its slope are the cell's flows.
    """

    def __init__(self, numbers: torch.Tensor, total: int) -> None:
        n, height, width = numbers.shape
        device = numbers.device
        window, y, x = numbers.nonzero(as_tuple=True)
        cell = numbers[window, y, x] - 1

        def extreme(values: torch.Tensor, how: str) -> Any:
            start = torch.full((total,), -1 if how == "amax" else height * width, dtype=torch.int64, device=device)
            return start.scatter_reduce_(0, cell, values, how)

        top, left = extreme(y, "amin"), extreme(x, "amin")
        extent = extreme(y, "amax") - top + extreme(x, "amax") - left + 4
        longest = torch.zeros(n, dtype=torch.int64, device=device)
        longest.scatter_reduce_(0, cell.new_zeros(total).scatter_(0, cell, window), 2 * extent, "amax")
        order = longest[window].argsort(descending=True, stable=True)
        self.places = window, y, x = window[order], y[order], x[order]
        self.cell = cell = cell[order]
        self._centres = self._centre_pixels(y - top[cell], x - left[cell], total)
        steps, pixels = torch.stack((longest, torch.bincount(window, minlength=n))).tolist()
        pairs = sorted(((many, few) for many, few in zip(steps, pixels, strict=True) if few), reverse=True)
        self._plan: list[tuple[int, int]] = []
        """(steps, pixels): how long how many of the first pixels go on."""
        done = sum(few for _, few in pairs)
        for many, few in reversed(pairs):
            self._plan.append((many, done))
            done -= few
        self._neighbours(numbers)

    def _centre_pixels(self, y: torch.Tensor, x: torch.Tensor, total: int) -> torch.Tensor:
        """Return which pixel of each cell is nearest to its mean, the first of equal ones; places within the cell."""
        cell = self.cell
        sizes = torch.bincount(cell, minlength=total).double()
        zero = torch.zeros(total, dtype=torch.int64, device=cell.device)
        middle_y, middle_x = (zero.index_add(0, cell, each).double() / sizes for each in (y, x))
        away = (x - middle_x[cell]) ** 2 + (y - middle_y[cell]) ** 2
        nearest = torch.full((total,), torch.inf, dtype=torch.float64, device=cell.device)
        nearest.scatter_reduce_(0, cell, away, "amin")
        numbers = torch.arange(len(cell), device=cell.device)
        first = torch.full((total,), len(cell), dtype=torch.int64, device=cell.device)
        return first.scatter_reduce_(0, cell, torch.where(away == nearest[cell], numbers, len(cell)), "amin")

    def _neighbours(self, numbers: torch.Tensor) -> None:
        """Find each pixel's neighbours in the list: any cell's for slopes, the same cell's for heat; else the last."""
        window, y, x = self.places
        n, height, width = numbers.shape
        many = len(self.cell)
        listed = torch.full((n, height + 2, width + 2), many, dtype=torch.int64, device=numbers.device)
        listed[window, y + 1, x + 1] = torch.arange(many, device=numbers.device)
        near = torch.stack([listed[window, y + 1 + down, x + 1 + right] for down, right in _NEAR])
        cells = torch.cat((self.cell, self.cell.new_full((1,), -1)))
        self._any, self._same = near, torch.where(cells[near] == self.cell, near, many)

    def flows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the flows (P,) along y and x, float64, of length 1."""
        many = len(self.cell)
        heat = torch.zeros(many + 1, dtype=torch.float64, device=self.cell.device)
        source = torch.zeros_like(heat)
        source[self._centres] = 1
        done = 0
        for steps, pixels in self._plan:
            near, mine, warm = self._same[:, :pixels].contiguous(), source[:pixels], heat[:pixels]
            for _ in range(steps - done):
                warm += mine
                torch.mean(heat[near], 0, out=warm)
            done = max(done, steps)
        slopes = heat[self._any[2]] - heat[self._any[1]], heat[self._any[4]] - heat[self._any[3]]
        length = 1e-60 + (slopes[0] ** 2 + slopes[1] ** 2) ** 0.5
        return slopes[0] / length, slopes[1] / length
