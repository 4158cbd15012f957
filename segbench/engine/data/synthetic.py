"""The built-in datasets: seeded synthetic tissue and cell culture that look like microscopy, with exact labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.geometry import Shape, grow_cells
from segbench.engine.data.render import Culture, Stain, render_fluorescence, render_phase
from segbench.engine.data.source import Load, RawImage, Source
from segbench.engine.study.tissues import LIVECELL_CHANNELS, LIVECELL_TARGETS, TISSUENET_CHANNELS, TISSUENET_TARGETS
from segbench.errors import SegbenchError, unknown_name

GENERATOR_REVISION = 2
"""Raised whenever a change to the generator changes its images; part of the fingerprint."""

TRAIN_SIZE, TEST_SIZE = 448, 256
"""Sides of the images: a training image gives 2x2 windows at step 192, a validation or test image one."""


@dataclass(frozen=True)
class Tissue:
    """One synthetic tissue or cell type."""

    shape: Shape
    look: Stain | Culture
    share: float = 1.0
    """Number of training images relative to a plentiful tissue."""


TISSUES: Mapping[str, Tissue] = {
    "Breast": Tissue(Shape(23, 0.16, 1.35, 0.20, 0.0, 0.80, 0.80, 0.62, "glands"), Stain(60, 1.0, 0.35, 0.5)),
    "Colon": Tissue(Shape(22, 0.14, 1.70, 0.14, 0.0, 0.90, 0.78, 0.64, "glands"), Stain(45, 1.1, 0.25, 0.8)),
    "Epidermis": Tissue(Shape(27, 0.14, 1.50, 0.13, 0.0, 0.75, 0.80, 0.48, "layers"), Stain(80, 1.0, 0.45, 0.9)),
    "Esophagus": Tissue(Shape(31, 0.18, 1.30, 0.16, 0.0, 0.92, 0.82, 0.45, "layers"), Stain(90, 0.9, 0.50, 0.8)),
    "Lung": Tissue(Shape(22, 0.22, 1.60, 0.26, 0.20, 0.38, 0.90, 0.62, "septa"), Stain(35, 1.2, 0.35, 0.5), 0.34),
    "Lymph Node": Tissue(Shape(15, 0.12, 1.12, 0.14, 0.0, 0.94, 0.80, 0.78, "follicles"), Stain(40, 1.0, 0.20, 0.6)),
    "Lymph Node Metastasis": Tissue(
        Shape(26, 0.26, 1.30, 0.24, 0.12, 0.85, 0.80, 0.64, "islands"), Stain(50, 1.1, 0.40, 0.5)
    ),
    "Pancreas": Tissue(Shape(25, 0.15, 1.20, 0.17, 0.0, 0.80, 0.85, 0.54, "glands"), Stain(70, 0.9, 0.55, 0.6)),
    "Spleen": Tissue(Shape(16, 0.20, 1.25, 0.24, 0.0, 0.82, 0.82, 0.74, "follicles"), Stain(25, 1.3, 0.30, 0.5), 0.34),
    "Tonsil": Tissue(Shape(17, 0.15, 1.15, 0.16, 0.0, 0.90, 0.80, 0.72, "follicles"), Stain(65, 0.9, 0.25, 0.7)),
}
"""The TissueNet-like part; diameters suit TissueNet's 0.5 micrometres a pixel."""

CELL_TYPES: Mapping[str, Tissue] = {
    "A172": Tissue(Shape(40, 0.25, 2.2, 0.20, 0.35, 0.75, 1.05, 0.40), Culture(0.75, 7, 4.0, 0.7, 0.0)),
    "BT474": Tissue(Shape(26, 0.22, 1.3, 0.14, 0.05, 0.55, 0.84, 0.48, "islands"), Culture(0.90, 5, 2.5, 0.8, 0.15)),
    "BV2": Tissue(Shape(16, 0.15, 1.2, 0.07, 0.0, 0.85, 0.98, 0.50), Culture(1.15, 4, 1.8, 0.5, 0.9)),
    "Huh7": Tissue(Shape(42, 0.20, 1.4, 0.12, 0.05, 0.92, 0.88, 0.40), Culture(0.65, 6, 3.5, 0.9, 0.0)),
    "MCF7": Tissue(Shape(23, 0.20, 1.3, 0.14, 0.05, 0.65, 0.82, 0.48, "islands"), Culture(0.95, 4, 2.2, 0.8, 0.2)),
    "SHSY5Y": Tissue(
        Shape(22, 0.20, 2.4, 0.18, 0.50, 0.80, 1.08, 0.48, "islands"), Culture(1.0, 4, 2.5, 0.5, 0.1), 0.67
    ),
    "SKOV3": Tissue(Shape(38, 0.24, 1.7, 0.16, 0.15, 0.85, 0.98, 0.40), Culture(0.75, 7, 3.5, 0.8, 0.0)),
    "SkBr3": Tissue(Shape(23, 0.14, 1.1, 0.05, 0.0, 0.60, 1.08, 0.48), Culture(1.2, 6, 2.5, 0.5, 1.0)),
}
"""The LIVECell-like part."""

_OPTIONS: Mapping[str, Any] = {"layout": "tissuenet", "seed": 0, "scale": 1.0, "train": 6, "val": 2, "test": 5}


class SyntheticSource(Source):
    """Images made on the fly; every image has its own seed, so that any of them can be made alone and in any order.

    Parameters
    ----------
    options
        ``layout``: ``tissuenet`` or ``livecell``. ``seed``: any number from 0. ``train``, ``val``, ``test``: images of
        a plentiful tissue in each split. ``scale``: factor on the number of images (at least one a tissue and split).
        ``pixel_size_um`` describes and changes nothing.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        for key in options:
            if key not in _OPTIONS and key != "pixel_size_um":
                raise unknown_name("option of a synthetic dataset", key, [*_OPTIONS, "pixel_size_um"])
        self._options = {key: options.get(key, default) for key, default in _OPTIONS.items()}
        layout, seed, scale = (self._options[key] for key in ("layout", "seed", "scale"))
        if layout not in ("tissuenet", "livecell"):
            raise unknown_name("layout of a synthetic dataset", str(layout), ("tissuenet", "livecell"))
        if not (isinstance(seed, int) and seed >= 0):
            raise SegbenchError(f"a synthetic dataset's seed is a whole number from 0, found {seed!r}")
        if not (isinstance(scale, int | float) and 0 < scale <= 1000):
            raise SegbenchError(f"a synthetic dataset's scale is above 0 and at most 1000, found {scale!r}")
        for split in ("train", "val", "test"):
            n = self._options[split]
            if not (isinstance(n, int) and 1 <= n <= 10_000):
                raise SegbenchError(f"a synthetic dataset's {split} is 1 to 10000 images a tissue, found {n!r}")
        if layout == "tissuenet":
            self._tissues, self.channels, self.targets = TISSUES, TISSUENET_CHANNELS, TISSUENET_TARGETS
        else:
            self._tissues, self.channels, self.targets = CELL_TYPES, LIVECELL_CHANNELS, LIVECELL_TARGETS

    def _images_of(self, split: str, tissue: Tissue) -> int:
        # only training data is scarce: a test on few images would say little
        share = tissue.share if split == "train" else 1.0
        return max(1, round(float(self._options[split] * self._options["scale"] * share)))

    def counts(self) -> Mapping[str, int]:
        """How many images each split has."""
        return {
            split: sum(self._images_of(split, tissue) for tissue in self._tissues.values())
            for split in ("train", "val", "test")
        }

    def images(self, split: str) -> Iterator[Load]:
        """Yield a loader for each image, tissue by tissue."""
        size = TRAIN_SIZE if split == "train" else TEST_SIZE
        for name, tissue in self._tissues.items():
            for number in range(self._images_of(split, tissue)):
                key = [
                    self._options["seed"],
                    ("train", "val", "test").index(split),
                    list(self._tissues).index(name),
                    number,
                ]
                yield partial(
                    make_image, f"{split}-{name.lower().replace(' ', '-')}-{number:03d}", name, tissue, size, key
                )

    def files(self) -> list[Path]:
        """Nothing is read from files."""
        return []

    def content(self, digest: Callable[[Path], str]) -> Any:  # noqa: ARG002
        """Return the options and the generator's revision."""
        return {**self._options, "revision": GENERATOR_REVISION}


def make_image(image: str, name: str, tissue: Tissue, size: int, key: list[int]) -> RawImage:
    """Make one image with its labels.

    Parameters
    ----------
    image, name
        The image's id and its tissue's name.
    tissue
        What it looks like.
    size
        Height and width in pixels.
    key
        Numbers that seed this image and no other.
    """
    rng = np.random.default_rng(np.random.SeedSequence(key))
    # cells at the edge of the image are cut out of whole ones
    margin = int(1.5 * tissue.shape.diameter)
    cells, nuclei = grow_cells(rng, size + 2 * margin, tissue.shape)
    pixels: npt.NDArray[Any]
    if isinstance(tissue.look, Stain):
        pixels = render_fluorescence(rng, cells, nuclei, tissue.look, tissue.shape.diameter)
        labels = {"nuclear": nuclei, "wholecell": cells}
    else:
        pixels = render_phase(rng, cells, nuclei, tissue.look, tissue.shape.diameter)
        labels = {"wholecell": cells}
    inner = slice(margin, margin + size)
    return RawImage(
        image=image,
        tissue=name,
        pixels=np.ascontiguousarray(pixels[:, inner, inner]),
        labels={target: np.ascontiguousarray(plane[inner, inner]) for target, plane in labels.items()},
    )
