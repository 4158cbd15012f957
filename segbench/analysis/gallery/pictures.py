"""Makes a gallery's pictures small: each window once, and each model's outlines over it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.analysis.gallery.entries import Entry, Windows
from segbench.analysis.report import tiles

SHARE = 1_000_000
"""Bytes of pictures for all models together, about: below the two megabytes of a site beside its packages."""
_MOST = 4
_SIDES = (256, 128)
"""Pixels of a window that are shown: of many models, whose share is small, fewer."""


@dataclass(frozen=True)
class Panel:
    """One test window of a model: names of pictures, and what was found."""

    image: str
    truth: str
    prediction: str
    difference: str
    tissue: str
    ap50: float | None
    told: str
    """What the difference shows, in words."""


@dataclass
class Pictures:
    """The pictures of a site, each once, by its content."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Contents by name."""

    def add(self, picture: str) -> str:
        """Keep a picture (base64 of WebP) once, whichever models show it; return its name."""
        content = base64.b64decode(picture)
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.webp"
        self.files[name] = content
        return name

    def panels(self, entry: Entry, models: int) -> list[Panel]:
        """Return the panels of a model, as many as its share of the site's bytes allows, one at least."""
        windows = entry.windows()
        if windows is None:
            return []
        share = SHARE / models
        side = _SIDES[0] if share > 4 * windows.truth[0, : _SIDES[0], : _SIDES[0]].size / 5 else _SIDES[1]
        panels: list[Panel] = []
        used = 0
        for k in range(min(_MOST, len(windows.tissues))):
            panel, grown = self._panel(windows, k, side)
            panels.append(panel)
            used += grown
            if used > share / 2:
                break
        return panels

    def _panel(self, windows: Windows, k: int, side: int) -> tuple[Panel, int]:
        image, truth, prediction = (
            _cut(array[k], side) for array in (windows.images, windows.truth, windows.prediction)
        )
        overlay = tiles.prediction_overlay(truth, prediction)
        before = sum(map(len, self.files.values()))
        ap50 = float(windows.ap50[k])
        panel = Panel(
            image=self.add(tiles.picture(image)),
            truth=self.add(tiles.truth_overlay(truth)),
            prediction=self.add(tiles.truth_overlay(prediction)),
            difference=self.add(overlay.picture),
            tissue=windows.tissues[k],
            ap50=None if np.isnan(ap50) else ap50,
            told=tiles.told(overlay.counts),
        )
        return panel, sum(map(len, self.files.values())) - before


def _cut(array: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Return the middle of the last two axes, so many pixels at most."""
    top, left = ((length - min(side, length)) // 2 for length in array.shape[-2:])
    return np.ascontiguousarray(array[..., top : top + side, left : left + side])
