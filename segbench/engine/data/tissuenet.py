"""TissueNet v1.0 and v1.1 as they are distributed: one .npz a split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.npz import Archive
from segbench.engine.data.source import Load, RawImage, Source
from segbench.engine.data.spec import SPLITS
from segbench.engine.study.tissues import ALL_TISSUES, TISSUENET_CHANNELS, TISSUENET_TARGETS, TISSUENET_TISSUES
from segbench.errors import SegbenchError, unknown_name

_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?![a-z])")
_TISSUES = {name.lower(): name for name in TISSUENET_TISSUES}
_TISSUE_COLUMNS = ("specimen", "tissue", "tissue_type")
_LABEL_PLANES = {"wholecell": 0, "nuclear": 1}
"""y's planes are the other way round than X's: whole cells come first."""


class TissuenetSource(Source):
    """The folder of a TissueNet download, with ``tissuenet_v1.0_train.npz`` and so on, or names that hold the split.

    Every file holds X (N, H, W, 2), nuclear then membrane channel, and y (N, H, W, 2), whole-cell then nuclear labels.
    Version 1.0 tells the tissues in ``tissue_list`` (N,), version 1.1 in the column ``specimen`` of the table ``meta``,
    whose heading is a row of it and may be repeated.

    Parameters
    ----------
    folder
        Where the files lie, at any depth.
    options
        ``pixel_size_um`` describes only.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        for key in options:
            if key != "pixel_size_um":
                raise unknown_name("option of a TissueNet dataset", key, ["pixel_size_um"])
        if not folder.is_dir():
            raise SegbenchError(f"{folder} is not a folder")
        self.channels, self.targets = TISSUENET_CHANNELS, TISSUENET_TARGETS
        self._paths = _find(folder)
        self._tissues = {split: _read_tissues(path) for split, path in self._paths.items()}

    def counts(self) -> Mapping[str, int]:
        """How many images each split has."""
        return {split: len(tissues) for split, tissues in self._tissues.items()}

    def images(self, split: str) -> Iterator[Load]:
        """Yield a loader for each image; the archive is decompressed here, in sequence, one image at a time."""
        with Archive(self._paths[split]) as archive:
            arrays = zip(archive.rows("X"), archive.rows("y"), self._tissues[split], strict=True)
            for number, (pixels, labels, tissue) in enumerate(arrays):
                yield partial(_load, f"{split}-{number:05d}", tissue, pixels, labels)

    def files(self) -> list[Path]:
        """The archives."""
        return list(self._paths.values())

    def content(self, digest: Callable[[Path], str]) -> Any:
        """Return each split's archive by its digest."""
        return {split: digest(path) for split, path in self._paths.items()}


def tissue_name(found: str) -> str:
    """Return a tissue's name as the study writes it, or as it was found where the study has none.

    Examples
    --------
    >>> tissue_name("lymph node metastasis"), tissue_name("lymph_node"), tissue_name("gi")
    ('Lymph Node Metastasis', 'Lymph Node', 'gi')
    """
    found = found.strip()
    return _TISSUES.get(" ".join(re.split(r"[\s_-]+", found.lower())), found)


def _load(image: str, tissue: str, pixels: npt.NDArray[Any], labels: npt.NDArray[Any]) -> RawImage:
    return RawImage(
        image=image,
        tissue=tissue,
        pixels=np.moveaxis(pixels, -1, 0),
        labels={target: labels[..., _LABEL_PLANES[target]] for target in TISSUENET_TARGETS},
    )


def _find(folder: Path) -> dict[str, Path]:
    archives = sorted(folder.rglob("*.npz"))
    by_split: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in archives:
        for split in set(_SPLIT.findall(path.name.lower())):
            by_split[split].append(path)
    for split, paths in by_split.items():
        if len(paths) > 1:
            raise SegbenchError(
                f"{folder} holds {len(paths)} .npz files for {split}: {', '.join(p.name for p in paths)}"
            )
        if not paths and split != "val":
            found = ", ".join(path.name for path in archives) or "none"
            raise SegbenchError(
                f"{folder} holds no .npz file for {split}, such as tissuenet_v1.0_{split}.npz; found: {found}"
            )
    return {split: paths[0] for split, paths in by_split.items() if paths}


def _read_tissues(path: Path) -> tuple[str, ...]:
    """Return the tissue of every image of an archive, having checked its layout."""
    with Archive(path) as archive:
        archive.require("X", "y")
        shape, dtype = archive.header("X")
        labels_shape, labels_dtype = archive.header("y")
        if len(shape) != 4 or shape[-1] != 2 or dtype.kind not in "iuf":
            raise SegbenchError(f"{path}: X must be numbers (N, H, W, 2), found {dtype} {shape}")
        if labels_shape != shape or labels_dtype.kind not in "iuf":
            raise SegbenchError(f"{path}: y must be labels {shape} like X, found {labels_dtype} {labels_shape}")
        if "tissue_list" in archive.keys:
            found = [_text(value) for value in archive.small("tissue_list").ravel()]
        elif "meta" in archive.keys:
            found = _tissues_of_meta(archive.small("meta"), path)
        else:
            raise SegbenchError(f"{path} has neither tissue_list nor meta; it has {', '.join(archive.keys)}")
    if len(found) != shape[0]:
        raise SegbenchError(f"{path} has {shape[0]} images and {len(found)} tissues")
    if not found:
        raise SegbenchError(f"{path} holds no image")
    tissues = tuple(tissue_name(tissue) for tissue in found)
    if ALL_TISSUES in tissues or "" in tissues:
        raise SegbenchError(f"{path}: a tissue is named {ALL_TISSUES!r} or not at all")
    return tissues


def _tissues_of_meta(meta: npt.NDArray[Any], path: Path) -> list[str]:
    rows = [[_text(value) for value in row] for row in meta] if meta.ndim == 2 else []
    heading = rows[0] if rows else []
    column = next((heading.index(name) for name in _TISSUE_COLUMNS if name in heading), None)
    if column is None:
        raise SegbenchError(f"{path}: meta has no column {' or '.join(_TISSUE_COLUMNS)}; its first row is {heading}")
    return [row[column] for row in rows if row != heading]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
