"""Which diameters of cells each family of methods is made for, with the source of both bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """The diameters of cells, in pixels of a window, that a family of methods is made for."""

    smallest: float
    largest: float | None
    """None for no bound but the window."""
    source: str
    """Where the two come from."""


DIAMETERS: Mapping[str, Fit] = {
    "baseline": Fit(
        5, None, "watershed drops pieces of fewer than 15 pixels (min_size): a disc of 4.4 pixels; nothing bounds large"
    ),
    "cellpose": Fit(
        5,
        68,
        "drops masks of fewer than 15 pixels (min_size); scaled to cells of 30 pixels (diam_mean), a window of larger "
        "ones fills less than half the side of a training crop of 224 (crop)",
    ),
    "deepcell": Fit(
        8, 61, "RetinaMask takes no cells below 8 pixels; FeatureNet's receptive field is 61 pixels (receptive_field)"
    ),
    "detectron2": Fit(
        2, 52, "ResNeSt's anchors of 4 to 127 pixels (anchor_sizes) in windows enlarged up to 2.42 times (train_scales)"
    ),
    "instanseg": Fit(
        4,
        128,
        "drops cells of fewer than 10 pixels (min_size): a disc of 3.6 pixels; looks for a cell's pixels in the 128 "
        "around its seed (window)",
    ),
    "mmdet": Fit(8, 128, "anchors of 8 to 128 pixels: anchor_scale 2 on strides 4 to 64"),
    "sam": Fit(
        8, None, "32 prompts along each side of a window of 256 pixels (points_per_side): one at every 8 pixels"
    ),
    "stardist": Fit(
        4,
        92,
        "two points of the grid of 2 pixels; the field of view that StarDist computes of its network at this grid",
    ),
}
"""By the family that cards name; all with their cards' default settings."""


def unfit(diameter: float) -> dict[str, Fit]:
    """Return the families that are not made for cells of a diameter in pixels.

    Examples
    --------
    >>> list(unfit(30)), list(unfit(70))
    ([], ['cellpose', 'deepcell', 'detectron2'])
    """
    return {
        family: fit
        for family, fit in DIAMETERS.items()
        if diameter < fit.smallest or (fit.largest is not None and diameter > fit.largest)
    }
