"""Images of discs whose labels are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def discs(height: int, width: int, n: int, seed: int = 0) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Return an image of bright discs on noise, and their labels 1..n."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.int32)
    for label in range(1, n + 1):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(6, 14)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = label
    image = rng.normal(500, 40, labels.shape) + 2000 * (labels > 0)
    return image.clip(0, 65535).astype(np.uint16), labels
