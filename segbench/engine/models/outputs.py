"""The forms in which the cells of an image are written: each by its own name, all with the same cells in them."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files import spool
from segbench.engine.files.label_zarr import write_label_zarr
from segbench.engine.files.writers import write_coco, write_geojson, write_label_tiff, write_rois, write_seg_npy
from segbench.engine.models.annotated import write_anndata
from segbench.engine.models.cells import cell_table
from segbench.engine.models.picturing import write_outlines
from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    import polars as pl

USUAL = ("tiff", "table")
"""What is written where nothing else is asked for."""
_SEG_NPY_PIXELS = 2**27
"""Cellpose's interface holds all of an image several times in memory."""


@dataclass(frozen=True)
class Result:
    """The cells of one image, and what its file told."""

    image: Path
    labels: npt.NDArray[np.int32]
    """(H, W), numbered from 1 without gaps."""
    scores: npt.NDArray[np.float64]
    """(k,)."""
    pixels: npt.NDArray[Any]
    """(C, H, W), all channels of the file."""
    channels: tuple[str, ...] | None = None
    """Their names, where the file gives them."""
    seen: npt.NDArray[Any] | None = None
    """(C, H, W), what the model sees, for pictures; None for all."""
    pixel_size_um: float | None = None

    @cached_property
    def table(self) -> pl.DataFrame:
        """One row a cell."""
        return cell_table(self.labels, self.scores, self.pixels, self.channels, self.pixel_size_um)

    def measured(self) -> dict[int, dict[str, float]]:
        """Return what QuPath shows of each cell, by its label."""
        left_out = ("label", "y", "x", "y_um", "x_um", "at_border")
        rows = self.table.drop(left_out).iter_rows(named=True)
        return {
            label: {name: float(value) for name, value in row.items() if value is not None}
            for label, row in enumerate(rows, start=1)
        }


Write = Callable[[Result, Path], None]


def checked_forms(forms: Sequence[str]) -> tuple[str, ...]:
    """Return the names of forms, each once; raises SegbenchError where one is unknown, or cannot be written here."""
    for form in forms:
        if form not in FORMS:
            raise unknown_name("form to write", form, FORMS)
        if (wanted := missing_for(form)) is not None:
            raise SegbenchError(f"--write {form}: {wanted}")
    if not forms:
        raise SegbenchError(f"nothing is to be written; forms are {', '.join(FORMS)}")
    return tuple(dict.fromkeys(forms))


def missing_for(form: str) -> str | None:
    """Return what must be installed before a form can be written, in words; None where nothing is missing."""
    package, extra = _NEEDS.get(form, (None, None))
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return f"it is written by {package}, which is not installed: pip install 'segbench[{extra}]'"


def writable_forms() -> tuple[str, ...]:
    """Return all forms but those whose packages are not installed."""
    return tuple(form for form in FORMS if missing_for(form) is None)


def write_result(result: Result, forms: Sequence[str], name: str, folder: Path, spare: Path) -> dict[str, list[str]]:
    """Write an image's cells in several forms; each file is whole, or not there.

    Parameters
    ----------
    result
        The cells.
    forms
        Checked.
    name
        Of the image, as a path without suffix below ``folder``: what all files begin with.
    folder
        Where they go.
    spare
        A folder on the same disk for what is not yet whole.

    Returns
    -------
    dict
        The files of each form, relative to the folder.
    """
    shutil.rmtree(spare, ignore_errors=True)
    spare.mkdir(parents=True)
    last = Path(name).name
    written: dict[str, list[str]] = {}
    for form in forms:
        for suffix, write in FORMS[form].items():
            file = f"{last}{suffix}"
            write(result, spare / file)
            if (spare / file).exists():
                written.setdefault(form, []).append(f"{name}{suffix}")
    for file in (file for files in written.values() for file in files):
        place = folder / file
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():  # of an attempt that was cut off: a folder cannot be replaced by renaming
            shutil.rmtree(place)
        (spare / Path(file).name).replace(place)
    shutil.rmtree(spare)
    return written


def notes_on(forms: Sequence[str], labels: npt.NDArray[Any]) -> tuple[str, ...]:
    """Return what the user should know of the forms of an image, a line each."""
    too_large = "seg-npy" in forms and labels.size > _SEG_NPY_PIXELS
    return ("too large for _seg.npy, which is not written",) if too_large else ()


def _seg_npy(result: Result, path: Path) -> None:
    if result.labels.size <= _SEG_NPY_PIXELS:
        write_seg_npy(path, result.labels, result.image.name)


def _outlines(result: Result, path: Path) -> None:
    write_outlines(path, result.pixels if result.seen is None else result.seen, result.labels)


def _parquet(result: Result, path: Path) -> None:
    result.table.write_parquet(path)


def _csv(result: Result, path: Path) -> None:
    result.table.write_csv(path)


def _coco(result: Result, path: Path) -> None:
    write_coco(path, [(result.image.name, result.labels)], scores=[result.scores])


def _anndata(result: Result, path: Path) -> None:
    write_anndata(path, result.table, f"{path.name.removesuffix('.cells.h5ad')}.labels")


FORMS: Mapping[str, Mapping[str, Write]] = {
    "tiff": {".labels.tif": lambda result, path: write_label_tiff(path, result.labels, result.pixel_size_um)},
    "geojson": {".geojson": lambda result, path: write_geojson(path, result.labels, result.measured())},
    "roi": {".rois.zip": lambda result, path: write_rois(path, result.labels)},
    "zarr": {".labels.zarr": lambda result, path: write_label_zarr(path, result.labels, result.pixel_size_um)},
    "seg-npy": {"_seg.npy": _seg_npy},
    "coco": {".coco.json": _coco},
    "table": {".cells.parquet": _parquet, ".cells.csv": _csv},
    "outlines": {".outlines.png": _outlines},
    "anndata": {".cells.h5ad": _anndata},
}
"""What can be written: for each form the suffixes of its files and what writes them."""
_NEEDS = {"zarr": ("zarr", "formats"), "anndata": ("anndata", "spatial")}
"""The package that writes a form, and the extra that has it; the others need none."""


def free_memory(result: Result) -> None:
    """Give back the memory of what an image's arrays have on the disk."""
    for array in (result.labels, result.pixels):
        spool.let_go(array)
