"""A prepared dataset: memory-mapped windows and label maps on disk, and tables about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.engine.data.rescaling import Rescaling
from segbench.engine.data.spec import DatasetSpec
from segbench.engine.data.tasks import tasks_of
from segbench.engine.study.tissues import ALL_TISSUES, LIVECELL_TISSUES, TISSUENET_TISSUES
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.job import Task

if TYPE_CHECKING:
    import polars as pl

META = "meta.json"


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset as methods see it: windows in 0..1 and labels, by split. Cheap to make, to copy and to pickle."""

    folder: Path
    """Where its arrays and tables lie."""
    spec: DatasetSpec
    """The dataset it was prepared from."""
    fingerprint: str
    """Hash of the original data and the settings: the same wherever the same data were prepared the same way."""
    channels: tuple[str, ...]
    """Names of the image channels."""
    targets: tuple[str, ...]
    """Names of the label maps."""
    splits: tuple[str, ...]
    """The splits that it has, of train, val and test."""
    tissues_of_split: Mapping[str, tuple[str, ...]]
    """The tissues that have a window, for each split."""
    notes: tuple[str, ...] = ()
    """What preparation left out or suspects, each in one line."""
    diameters: Mapping[str, tuple[float, int]] | None = None
    """The median diameter of the training cells, in pixels of the windows, and their number, for each target that has
    any; None where an older segbench prepared the dataset."""
    rescaling: Rescaling | None = None
    """By how much the originals were rescaled, which results must undo; None where they were not."""
    file_pixel_size_um: float | None = None
    """Side of the originals' pixels in micrometres, where all files tell the same."""

    @classmethod
    def read(cls, folder: Path, spec: DatasetSpec) -> PreparedDataset:
        """Open a prepared dataset's folder."""
        meta = json.loads((folder / META).read_text())
        return cls(
            folder=folder,
            spec=spec,
            fingerprint=meta["fingerprint"],
            channels=tuple(meta["channels"]),
            targets=tuple(meta["targets"]),
            splits=tuple(meta["tissues"]),
            tissues_of_split={split: tuple(tissues) for split, tissues in meta["tissues"].items()},
            notes=tuple(meta.get("notes", ())),
            diameters={t: (d["median"], d["cells"]) for t, d in meta["diameters"].items()}
            if "diameters" in meta
            else None,
            rescaling=Rescaling.from_dict(meta["rescaling"]) if "rescaling" in meta else None,
            file_pixel_size_um=meta.get("pixel_size_um"),
        )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that it gives, named after the dataset."""
        return tasks_of(self.spec.name, self.channels, self.targets)

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a window's pixel in micrometres; None where it is not known."""
        if self.rescaling is not None and self.rescaling.pixel_size_um is not None:
            return self.rescaling.pixel_size_um
        size = self.spec.pixel_size_um or self.file_pixel_size_um
        factor = self.rescaling.factor if self.rescaling is not None else None
        return size if size is None or factor is None else size / factor

    def tissues(self, split: str | None = None) -> tuple[str, ...]:
        """Return the tissues of a split that have a window, or of all splits."""
        if split is not None:
            return self.tissues_of_split[self._split(split)]
        return in_order({tissue for tissues in self.tissues_of_split.values() for tissue in tissues})

    def images_path(self, split: str) -> Path:
        """Return the .npy of a split's windows: (N, C, H, W) float32 in 0..1."""
        return self.folder / f"images-{self._split(split)}.npy"

    def labels_path(self, split: str, target: str) -> Path:
        """Return the .npy of a split's labels: (N, H, W) int32, 0 background, 1..k without gaps in each window."""
        if target not in self.targets:
            raise unknown_name("target", target, self.targets)
        return self.folder / f"labels-{target}-{self._split(split)}.npy"

    def n_windows(self, split: str) -> int:
        """Return how many windows a split has; reads no table."""
        import numpy as np

        return int(np.load(self.images_path(split), mmap_mode="r").shape[0])

    def index(self, split: str) -> pl.DataFrame:
        """Return one row a window: window, image, tissue, y, x (of the window in the image), n_cells_TARGET.

        Where several images are the same picture (annotated twice, say), ``origin`` names the picture.
        """
        import polars as pl

        return pl.read_parquet(self.folder / f"index-{self._split(split)}.parquet")

    def origins(self, split: str) -> list[str]:
        """Return the picture that each window was cut from: what resampling draws, whole or not at all."""
        index = self.index(split)
        return list(index["origin" if "origin" in index.columns else "image"])

    def rows(self, split: str, tissue: str = ALL_TISSUES) -> tuple[int, ...]:
        """Return the windows of a tissue, ``all`` for every one; raises SegbenchError for a tissue without any."""
        index = self.index(split)
        if tissue == ALL_TISSUES:
            return tuple(range(index.height))
        if tissue not in self.tissues(split):
            raise unknown_name(
                f"{split} tissue of dataset {self.spec.name}", tissue, [ALL_TISSUES, *self.tissues(split)]
            )
        return tuple(index.filter(index["tissue"] == tissue)["window"].to_list())

    def cells(self) -> pl.DataFrame:
        """Return one row a cell of a window.

        Columns: split, window, image, tissue, target, label, area (pixels), elongation, convexity, and cut (the cell
        touches the window's border, so it may be a part of a larger one). A cell
        is seen in every window that it lies in.
        """
        import polars as pl

        tables = []
        for split in self.splits:
            cells = pl.read_parquet(self.folder / f"cells-{split}.parquet")
            named = cells.join(
                self.index(split).select("window", "image", "tissue"), on="window", maintain_order="left"
            )
            tables.append(named.select(pl.lit(split).alias("split"), *_CELL_ORDER))
        return pl.concat(tables)

    def _split(self, split: str) -> str:
        if split not in self.splits:
            raise SegbenchError(f"dataset {self.spec.name!r} has no split {split!r}; it has {', '.join(self.splits)}")
        return split


_CELL_ORDER = ("window", "image", "tissue", "target", "label", "area", "elongation", "convexity", "cut")


def in_order(tissues: set[str]) -> tuple[str, ...]:
    """Return tissues in the study's order, others after them by name."""
    known: list[Any] = [*TISSUENET_TISSUES, *LIVECELL_TISSUES]
    return tuple(sorted(tissues, key=lambda t: (known.index(t) if t in known else len(known), t)))
