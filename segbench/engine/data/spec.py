"""What a dataset is: everything needed to prepare it again, anywhere, as plain data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segbench.engine.study.tissues import ALL_TISSUES
from segbench.errors import SegbenchError, unknown_name

KINDS = ("tissuenet", "livecell", "folder", "synthetic")
SPLITS = ("train", "val", "test")
EDGES = ("shift", "drop")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class PreparationSettings:
    """How images become windows; part of a prepared dataset's fingerprint."""

    window: int = 256
    """Height and width of a window, in pixels."""
    step: int = 192
    """Pixels from one window to the next."""
    edge: str = "shift"
    """What becomes of the last window of a row or column: ``shift`` moves it inward so that every pixel is covered,
    ``drop`` leaves it out."""
    percentiles: tuple[float, float] = (0.1, 99.9)
    """Percentiles of the original image and channel that become 0 and 1."""
    clahe_kernel: int = 128
    """Side of CLAHE's tiles in pixels; 0 for no CLAHE."""
    clahe_clip: float = 0.01
    """CLAHE's clip limit, as scikit-image's ``clip_limit``."""
    keep_empty: tuple[str, ...] = ("val", "test")
    """Splits whose windows without any cell are kept; in the others they are left out."""
    rescale_to_diameter: float | None = None
    """Originals are rescaled, all by one factor, so that the median diameter of the training cells is this many pixels
    (of whole cells, where a dataset labels nuclei too); None leaves them as they are."""
    rescale_to_pixel_size: float | None = None
    """Originals are rescaled, each by its own factor, to pixels of this side in micrometres; None leaves them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "percentiles", tuple(float(p) for p in self.percentiles))
        object.__setattr__(self, "keep_empty", tuple(self.keep_empty))
        if not 16 <= self.window <= 4096:
            raise SegbenchError(f"window must be 16 to 4096 pixels, found {self.window}")
        if not 1 <= self.step <= self.window:
            raise SegbenchError(f"step must be 1 to {self.window} (the window's size) pixels, found {self.step}")
        if self.edge not in EDGES:
            raise unknown_name("edge rule", str(self.edge), EDGES)
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise SegbenchError(f"percentiles must be two rising numbers in 0..100, found {self.percentiles}")
        if not 0 <= self.clahe_kernel <= 4096:
            raise SegbenchError(f"clahe_kernel must be 0 (off) to 4096 pixels, found {self.clahe_kernel}")
        if not (math.isfinite(self.clahe_clip) and 0 <= self.clahe_clip <= 1):
            raise SegbenchError(f"clahe_clip must be 0 to 1, found {self.clahe_clip}")
        for split in self.keep_empty:
            if split not in SPLITS:
                raise unknown_name("split", split, SPLITS)
        self._check_rescaling()

    def _check_rescaling(self) -> None:
        diameter, size = self.rescale_to_diameter, self.rescale_to_pixel_size
        if diameter is not None and size is not None:
            raise SegbenchError("rescale to a diameter or to a pixel size, not to both")
        if diameter is not None and not 2 <= diameter <= 1000:
            raise SegbenchError(f"rescale to a diameter of 2 to 1000 pixels, found {diameter}")
        if size is not None and not 0 < size <= 1000:
            raise SegbenchError(f"rescale to a pixel size above 0 and up to 1000 um, found {size}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values; rescaling only where there is any, so that fingerprints stay."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> PreparationSettings:
        """Read the settings from what ``dataclasses.asdict`` gave, or JSON of it; raises for unknown settings."""
        for key in raw:
            if key not in cls.__dataclass_fields__:
                raise unknown_name("preparation setting", key, cls.__dataclass_fields__)
        return cls(**raw)


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset by name: its kind, where its files lie, and how it is prepared.

    Examples
    --------
    >>> spec = DatasetSpec("my-cells", "folder", "/data/cells", {"target": "cell", "channels": ["image"]})
    >>> DatasetSpec.from_dict(spec.to_dict()) == spec
    True
    >>> DatasetSpec("My cells", "folder", "/data/cells")
    Traceback (most recent call last):
    ...
    segbench.errors.SegbenchError: a dataset's name is lower-case letters, digits, '-' and '_', at most 64,
    found 'My cells'
    """

    name: str
    """The registered name: lower-case letters, digits, ``-`` and ``_``."""
    kind: str
    """``tissuenet``, ``livecell``, ``folder`` or ``synthetic``."""
    source: str | None = None
    """Absolute path of the data as the user gave it; None for ``synthetic``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The kind's own options; see ``docs/data.md``."""
    preparation: PreparationSettings = field(default_factory=PreparationSettings)
    """How it is prepared."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == ALL_TISSUES:
            raise SegbenchError(
                f"a dataset's name is lower-case letters, digits, '-' and '_', at most 64, found {self.name!r}"
            )
        if self.kind not in KINDS:
            raise unknown_name("kind of dataset", self.kind, KINDS)
        if (self.source is None) != (self.kind == "synthetic"):
            wanted = "takes no path" if self.kind == "synthetic" else "needs the path of its data"
            raise SegbenchError(f"a dataset of kind {self.kind!r} {wanted}")
        if self.source is not None and not Path(self.source).is_absolute():
            raise SegbenchError(f"the source of dataset {self.name!r} must be an absolute path, found {self.source!r}")
        object.__setattr__(self, "options", dict(self.options))

    @property
    def pixel_size_um(self) -> float | None:
        """Side of the originals' pixels in micrometres, where the user or the distribution tells it."""
        size = self.options.get("pixel_size_um")
        return None if size is None else float(size)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-able values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "source": self.source,
            "options": dict(self.options),
            "preparation": self.preparation.to_dict(),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DatasetSpec:
        """Read a spec from what ``to_dict`` gave, or JSON of it."""
        return cls(
            name=raw["name"],
            kind=raw["kind"],
            source=raw["source"],
            options=raw.get("options", {}),
            preparation=PreparationSettings.from_dict(raw.get("preparation", {})),
        )
