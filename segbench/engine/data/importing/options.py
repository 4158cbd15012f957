"""What a user says of the annotations to import, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segbench.engine.data.spec import SPLITS
from segbench.engine.files.masks import Masks
from segbench.errors import SegbenchError, unknown_name

KINDS: Mapping[str, str] = {
    "coco": "COCO JSON: polygons or run lengths",
    "geojson": "QuPath's GeoJSON, a file an image",
    "imagej": "ImageJ's ROI files and zips, one an image",
    "cellpose": "Cellpose's _seg.npy",
    "instances": "a folder an image, with one mask file a cell",
    "suffix": "label maps beside the images (_masks, _mask, _label, _seg), or in a folder beside theirs",
}
"""Each kind of annotations, and what its files are."""
DEFAULT_SPLIT = {"train": 0.7, "val": 0.15, "test": 0.15}
_OF_KINDS = {"masks": ("suffix",), "nuclei": ("geojson",), "pattern": ("geojson", "imagej", "cellpose", "suffix")}


@dataclass(frozen=True)
class ImportOptions:
    """How annotations find their images, and how the images are divided."""

    images: Path | None = None
    """Folder (or file) of the images, where the annotations lie apart from them."""
    split: Mapping[str, float] | None = None
    """Share of the images by split; None keeps the split of the folders, else is ``DEFAULT_SPLIT``."""
    seed: int = 0
    """Another seed is another split."""
    tissue: str | None = None
    """Tissue of every image, or how it follows from the image: see ``Choice``."""
    group_by: str | None = None
    """What images share that must stand in one split, such as their slide: see ``Choice``."""
    table: Path | None = None
    """CSV with the column ``image``, for ``column:NAME``."""
    pattern: str | None = None
    """The annotations' file name, with ``{}`` for the image's name without suffix."""
    masks: Masks = Masks.LABELS
    """What the numbers of mask files mean; of kind suffix."""
    keep_empty: bool = False
    """Images without annotations are images without cells, instead of being left out."""
    nuclei: bool = False
    """Take the nuclei of QuPath's cells; of kind geojson."""

    def check_for(self, kind: str) -> None:
        """Raise SegbenchError where the kind is unknown, or an option is of other kinds."""
        if kind not in KINDS:
            raise unknown_name("kind of annotations", kind, KINDS)
        usual = ImportOptions()
        for name, kinds in _OF_KINDS.items():
            if kind not in kinds and getattr(self, name) != getattr(usual, name):
                raise SegbenchError(f"--{name} is for kind {' or '.join(kinds)}, not {kind}")
        if self.pattern is not None and self.pattern.count("{}") != 1:
            raise SegbenchError(f"--pattern is a file name with one {{}} for the image's name, found {self.pattern!r}")


def parse_split(text: str) -> dict[str, float]:
    """Return the share of each split; raises SegbenchError where they are not two or three that sum to 1.

    Examples
    --------
    >>> parse_split("0.7,0.15,0.15")
    {'train': 0.7, 'val': 0.15, 'test': 0.15}
    >>> parse_split("0.8,0.2")
    {'train': 0.8, 'test': 0.2}
    """
    try:
        shares = [float(one) for one in text.split(",")]
    except ValueError:
        shares = []
    names = SPLITS if len(shares) == 3 else ("train", "test")
    if len(shares) not in (2, 3) or not all(math.isfinite(one) and one >= 0 for one in shares):
        raise SegbenchError(f"--split takes the shares of train, val and test (or train and test), found {text!r}")
    if abs(sum(shares) - 1) > 1e-6 or not shares[0] or not shares[-1]:
        raise SegbenchError(f"--split takes shares that sum to 1, those of train and test above 0, found {text!r}")
    return {name: share for name, share in zip(names, shares, strict=True) if share}
