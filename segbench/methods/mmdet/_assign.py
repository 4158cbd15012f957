"""Which boxes a loss looks at: upstream's assigner and random sampler for all windows of a batch at once.

Upstream asks the device about every cell and every window. Here the device assigns the boxes of all windows, the answer
is read once, and the processor draws from it with the random numbers that upstream would draw. Imported inside
functions only: it needs torch and MMDetection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.task_modules.assigners import BboxOverlaps2D, MaxIoUAssigner
from mmdet.models.task_modules.samplers import RandomSampler, SamplingResult
from torch.nn.utils.rnn import pad_sequence

_PAIRS_TOGETHER = 1 << 25
"""Of cells and boxes whose overlap is known at a time: 128 MB."""


def is_known(assigner: Any, sampler: Any) -> bool:
    """Return whether these are upstream's, with the options that are answered here."""
    return (
        type(assigner) is MaxIoUAssigner
        and type(sampler) is RandomSampler
        and type(assigner.iou_calculator) is BboxOverlaps2D
        and assigner.iou_calculator.dtype is None
        and isinstance(assigner.neg_iou_thr, float)
        and assigner.gt_max_assign_all
        and assigner.ignore_iof_thr <= 0
        and assigner.gpu_assign_thr <= 0
        and assigner.perm_repeat_gt_cfg is None
        and sampler.neg_pos_ub < 0
    )


def assign(assigner: Any, cells: Sequence[torch.Tensor], priors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return for each window's boxes the number of its cell, from 1; 0 for the ground and -1 for neither.

    Parameters
    ----------
    assigner
        A ``MaxIoUAssigner`` that :func:`is_known`.
    cells, priors
        The boxes of each window's cells (k, 4) and those to assign (n, 4); one of the latter for all windows alike.

    Returns
    -------
    (B, n), of integers; -1 beyond a window's own number.
    """
    most = max(max(len(each) for each in cells), 1) * max(max(len(each) for each in priors), 1)
    step = max(1, _PAIRS_TOGETHER // most)
    width = max(len(each) for each in priors)
    found = []
    for first in range(0, len(cells), step):
        mine = priors if len(priors) == 1 else priors[first : first + step]
        part = _assign(assigner, cells[first : first + step], mine)
        found.append(torch.nn.functional.pad(part, (0, width - part.shape[1]), value=-1))
    return torch.cat(found)


def _assign(assigner: Any, cells: Sequence[torch.Tensor], priors: Sequence[torch.Tensor]) -> torch.Tensor:
    k, n = max(len(each) for each in cells), max(len(each) for each in priors)
    here = priors[0].device
    numbers = torch.full((len(cells), n), -1, dtype=torch.long, device=here)
    if n == 0:
        return numbers
    if k == 0:
        return numbers.fill_(0)
    overlaps = _overlaps(pad_sequence(list(cells), True), pad_sequence(list(priors), True))
    # what only fills up overlaps nothing
    for beyond, axis in ((cells, 1), (priors, 2)):
        counts = [len(each) for each in beyond]
        if min(counts) < max(counts):
            shape = (-1, 1, 1), ((1, -1, 1) if axis == 1 else (1, 1, -1))
            limits = torch.tensor(counts).to(here, non_blocking=True).view(shape[0])
            overlaps.masked_fill_(torch.arange(max(counts), device=here).view(shape[1]) >= limits, -1.0)
    best, cell = overlaps.max(1)
    numbers.masked_fill_((best >= 0) & (best < assigner.neg_iou_thr), 0)
    numbers = torch.where(best >= assigner.pos_iou_thr, cell + 1, numbers)
    if assigner.match_low_quality:
        most = overlaps.amax(2, keepdim=True)
        hit = (overlaps == most) & (most >= max(assigner.min_pos_iou, 0.0))
        order = torch.arange(1, k + 1, dtype=torch.int16 if k < 2**15 else torch.int32, device=here)
        # of several cells that have this box as their best the last stays, as where they are taken one after the other
        last = (hit * order[:, None]).amax(1).long()
        numbers = torch.where(last > 0, last, numbers)
    empty = [i for i, each in enumerate(cells) if len(each) == 0]
    if empty:
        numbers[empty] = 0
    return numbers


def _overlaps(cells: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Return the IoU (B, k, n) of boxes (B, k, 4) and (B or 1, n, 4), rounded as upstream's ``bbox_overlaps`` is."""
    mine, theirs = cells[:, :, None].unbind(-1), priors[:, None].unbind(-1)
    area1, area2 = ((box[2] - box[0]) * (box[3] - box[1]) for box in (mine, theirs))
    overlap = (torch.minimum(mine[2], theirs[2]) - torch.maximum(mine[0], theirs[0])).clamp_(min=0)
    overlap *= (torch.minimum(mine[3], theirs[3]) - torch.maximum(mine[1], theirs[1])).clamp_(min=0)
    return overlap.div_((area1 + area2).sub_(overlap).clamp_(min=1e-6))


def choose(sampler: Any, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places in ``numbers`` (n,), on the processor, that the sampler draws of cells and ground, sorted."""
    cells = _drawn(sampler, (numbers > 0).nonzero()[:, 0], int(sampler.num * sampler.pos_fraction))
    return cells, _drawn(sampler, (numbers == 0).nonzero()[:, 0], sampler.num - len(cells))


def _drawn(sampler: Any, places: torch.Tensor, wanted: int) -> torch.Tensor:
    return places if len(places) <= wanted else sampler.random_choice(places, wanted).sort().values


def sent(values: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return integer tensors of one dimension on a device, sent as one and without waiting for it."""
    together = torch.cat(list(values))
    if device.type == "cuda":
        together = together.pin_memory().to(device, non_blocking=True)
    return list(together.split([len(each) for each in values]))


@dataclass(frozen=True)
class Together:
    """What was drawn of all windows of a batch, one after the other, as ``SamplingResult`` has it of each."""

    pos_rows: torch.Tensor
    """Where the boxes on cells are among all that were drawn: those of a window come before its others."""
    pos_priors: torch.Tensor
    pos_gt_bboxes: torch.Tensor
    pos_gt_labels: torch.Tensor
    kept_rows: torch.Tensor
    """Rows that are not the cells' own boxes."""
    kept: list[int]
    """How many of each window those are."""
    drawn: list[int]
    """How many of each window were drawn."""


def sample(
    assigner: Any, sampler: Any, proposals: Sequence[torch.Tensor], truth: Sequence[Any]
) -> tuple[list[Any], Together]:
    """Return upstream's sampling results of each window, and those of all.

    Parameters
    ----------
    assigner, sampler
        Such that :func:`is_known`.
    proposals
        (n, 4) of each window.
    truth
        ``InstanceData`` with ``bboxes`` (k, 4) and ``labels`` (k,) of each.
    """
    boxes, labels = [each.bboxes for each in truth], [each.labels for each in truth]
    device = boxes[0].device
    numbers = assign(assigner, boxes, proposals).cpu()
    counts = [len(each) for each in boxes]
    ours = sampler.add_gt_as_proposals
    own = counts if ours else [0] * len(counts)
    priors = torch.cat([part for pair in zip(boxes, proposals, strict=True) for part in pair[0 if ours else 1 :]])
    pos, neg, cells = [], [], []
    for i, row in enumerate(numbers.unbind()):
        mine = torch.cat([torch.arange(1, own[i] + 1), row[: len(proposals[i])]])
        chosen = choose(sampler, mine)
        pos.append(chosen[0])
        neg.append(chosen[1])
        cells.append(mine[chosen[0]] - 1)
    starts = _starts([own[i] + len(each) for i, each in enumerate(proposals)])
    rows = _starts([len(one) + len(other) for one, other in zip(pos, neg, strict=True)])
    is_own = [(one < count).long() for one, count in zip(pos, own, strict=True)]
    kept = [
        torch.cat([(one == 0).nonzero()[:, 0], torch.arange(len(mine), len(mine) + len(other))])
        for one, mine, other in zip(is_own, pos, neg, strict=True)
    ]
    wanted = sent(
        [
            torch.cat([one + at for one, at in zip(pos, starts, strict=False)]),
            torch.cat([one + at for one, at in zip(neg, starts, strict=False)]),
            torch.cat([one + at for one, at in zip(cells, _starts(counts), strict=False)]),
            torch.cat(cells),
            torch.cat(is_own),
            torch.cat([torch.arange(at, at + len(one)) for one, at in zip(pos, rows, strict=False)]),
            torch.cat([one + at for one, at in zip(kept, rows, strict=False)]),
            torch.cat(pos),
            torch.cat(neg),
        ],
        device,
    )
    all_boxes, all_labels = torch.cat(boxes), torch.cat(labels)
    together = Together(
        wanted[5], priors[wanted[0]], all_boxes[wanted[2]], all_labels[wanted[2]], wanted[6],
        [len(one) for one in kept], [len(one) + len(other) for one, other in zip(pos, neg, strict=True)],
    )  # fmt: skip
    of_cells, of_ground = [len(one) for one in pos], [len(one) for one in neg]
    fields = zip(
        together.pos_priors.split(of_cells), priors[wanted[1]].split(of_ground),
        wanted[4].to(torch.uint8).split(of_cells), wanted[3].split(of_cells), together.pos_gt_labels.split(of_cells),
        together.pos_gt_bboxes.split(of_cells),
        wanted[7].split(of_cells), wanted[8].split(of_ground), counts, strict=True,
    )  # fmt: skip
    return [_result(*each) for each in fields], together


def _result(
    pos_priors: Any,
    neg_priors: Any,
    pos_is_gt: Any,
    cells: Any,
    labels: Any,
    boxes: Any,
    pos: Any,
    neg: Any,
    count: int,
) -> Any:
    result = SamplingResult.__new__(SamplingResult)
    result.pos_inds, result.neg_inds, result.num_gts = pos, neg, count
    result.num_pos, result.num_neg = max(len(pos), 1), max(len(neg), 1)
    result.avg_factor_with_neg, result.avg_factor = True, result.num_pos + result.num_neg
    result.pos_priors, result.neg_priors, result.pos_is_gt = pos_priors, neg_priors, pos_is_gt
    result.pos_assigned_gt_inds, result.pos_gt_labels, result.pos_gt_bboxes = cells, labels, boxes
    return result


def _starts(lengths: Sequence[int]) -> list[int]:
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts
