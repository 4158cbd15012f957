"""By which means and deviations networks for colour pictures are given windows: fitted to them, or as published."""

from __future__ import annotations

from collections.abc import Mapping

from segbench.methods.setting import Setting

FITTED = "fitted"
PUBLISHED: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "study": ((55.0704424,) * 3, (67.22934807,) * 3),
    "livecell": ((128.0,) * 3, (11.578,) * 3),
}
"""Mean and standard deviation of each plane, of values 0..255, by name: of ImageNet, of the study's own configurations
and of LIVECell's reference models."""

NORMALISATION = Setting(
    FITTED,
    "mean and deviation that windows are given to the network by: fitted to the training windows, or published ones",
    choices=(FITTED, *PUBLISHED),
    neutral_default=True,
)
