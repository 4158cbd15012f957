"""Runs Cellpose's network over several windows at once, the tiles of all of them together; imported only with torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from segbench.methods.base import DivergedError

_SIDE = 224
"""Of upstream's tiles, in pixels."""


def outputs(
    net: Any, planes: torch.Tensor, size: tuple[int, int], together: int, transforms: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return flows (N, 2, H, W) and cell logits (N, H, W), as upstream's ``run_net`` and ``resize_image`` make them.

    Parameters
    ----------
    net
        Upstream's network, on a device.
    planes
        (N, C, h, w) float32, normalised and scaled, on that device.
    size
        (H, W) of the windows before they were scaled.
    together
        Most tiles that go through the network at once.
    transforms
        Upstream's module, which knows where tiles lie and how they are weighed.

    Raises
    ------
    DivergedError
        An output is not finite.
    """
    net.eval()
    top, bottom, left, right = transforms.get_pad_yx(*planes.shape[2:])
    padded = functional.pad(planes, (left, right, top, bottom))
    height, width = padded.shape[2:]
    _, rows, columns, _, _ = transforms.make_tiles(np.zeros((1, height, width), np.float32), bsize=_SIDE)
    corners = list(zip(rows, columns, strict=True))
    tiles = torch.stack([padded[:, :, y[0] : y[1], x[0] : x[1]] for y, x in corners], 1).flatten(0, 1)
    with torch.no_grad():
        made = torch.cat([net(some)[0] for some in tiles.split(together)])
    found = made.unflatten(0, (len(planes), len(corners)))
    weight = torch.from_numpy(transforms._taper_mask(*found.shape[3:])).to(found.device)
    sums = found.new_zeros((len(planes), found.shape[2], height, width))
    weights = weight.new_zeros((height, width))
    for n, (y, x) in enumerate(corners):
        sums[:, :, y[0] : y[1], x[0] : x[1]] += found[:, n] * weight
        weights[y[0] : y[1], x[0] : x[1]] += weight
    sums /= weights
    inner = sums[:, :, top : height - bottom, left : width - right]
    if not torch.isfinite(inner).all():
        raise DivergedError("the trained network's output is not finite")
    if inner.shape[2:] != size:
        inner = functional.interpolate(inner, size=size, mode="bilinear", align_corners=False)
    return inner[:, :2], inner[:, 2]
