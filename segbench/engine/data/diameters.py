"""How large a dataset's cells are: measured on whole images, and told beside what the methods are made for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.study.diameters import unfit

if TYPE_CHECKING:
    from segbench.engine.data.prepared import PreparedDataset


def diameters(labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the diameter in pixels of each cell of a label map (H, W): of the disc that has the cell's area.

    Examples
    --------
    >>> diameters(np.array([[1, 1, 0, 2], [1, 1, 0, 0]])).round(2)
    array([2.26, 1.13], dtype=float32)
    """
    areas = np.bincount(labels.ravel())[1:] if labels.size else np.zeros(0)
    return np.sqrt(areas[areas > 0] * (4 / np.pi)).astype(np.float32)


def median_diameters(prepared: PreparedDataset) -> Mapping[str, tuple[float, int]]:
    """Return the median diameter in pixels and the number of the training cells of each target that has any.

    Of a dataset that was prepared before they were measured on whole images, the cells that no window cuts are taken.
    """
    if prepared.diameters is not None:
        return prepared.diameters
    cells = prepared.cells()
    found = {}
    for target in prepared.targets:
        whole = cells.filter((cells["split"] == "train") & (cells["target"] == target) & ~cells["cut"])
        if whole.height:
            values = np.sqrt(whole["area"].to_numpy() * (4 / np.pi))
            found[target] = float(np.median(values)), whole.height
    return found


def diameter_lines(prepared: PreparedDataset) -> Iterator[str]:
    """Yield what to tell of the size of a dataset's cells, a line each, and what mends it where it suits few."""
    size = prepared.pixel_size_um
    settings = prepared.spec.preparation
    outside = False
    for target, (median, n) in median_diameters(prepared).items():
        um = "" if size is None else f" ({median * size:.3g} um)"
        yield f"median diameter of {n:,} training cells ({target}): {median:.3g} pixels{um}"
        lost = settings.window - settings.step
        if median > lost:
            outside = True
            yield f"windows overlap by {lost} pixels: a cell of {median:.3g} ({target}) may be whole in none of them"
        others = unfit(median)
        if others:
            outside = True
            told = ", ".join(
                f"{family} ({fit.smallest:g} to {fit.largest:g})"
                if fit.largest
                else f"{family} (from {fit.smallest:g})"
                for family, fit in others.items()
            )
            yield f"{median:.3g} pixels ({target}) is outside of what these are made for: {told}"
    if outside:
        yield (
            "to mend it prepare again with --rescale-to-diameter 30 (pixels)"
            + (" or --rescale-to-pixel-size 0.5 (um)" if size is not None else "")
            + "; docs/data.md gives the source of each range"
        )
    if prepared.rescaling is not None:
        yield _told_rescaling(prepared)


def _told_rescaling(prepared: PreparedDataset) -> str:
    rescaling = prepared.rescaling
    if rescaling is not None and rescaling.factor is not None:
        return f"images were rescaled by {rescaling.factor:.4g} before they were cut into windows"
    return f"images were rescaled to {prepared.pixel_size_um:g} um a pixel before they were cut into windows"
