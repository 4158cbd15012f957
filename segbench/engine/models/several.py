"""Applies several models to the same images: each one's results, their consensus, and how far they agree on each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segbench.engine.files.pictures import read_numbers, read_picture
from segbench.engine.models.applying import (
    Applied,
    ApplyOptions,
    Progress,
    apply,
    check_options,
    opened_folder,
)
from segbench.engine.models.consensus import consensus_of
from segbench.engine.models.images import ImageFile
from segbench.engine.models.outputs import Result, write_result
from segbench.engine.models.trained import TrainedModel, describe
from segbench.errors import SegbenchError
from segbench.small_files import write_whole

if TYPE_CHECKING:
    import polars as pl

CONSENSUS = "consensus"
"""The folder of the consensus, beside those of the models."""
_TABLE = "agreement.csv"


@dataclass(frozen=True)
class Agreed:
    """How far the models agree on an image."""

    image: Path
    name: str
    agreement: float
    """See ``consensus.Consensus``."""
    cells: int
    """Of the consensus."""
    of_models: tuple[int, ...]
    """Each model's cells."""


def model_folders(models: Sequence[TrainedModel]) -> list[str]:
    """Return what the folder of each model's results is called; raises SegbenchError where two are the same model."""
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip(".") or "model" for model in models]
    taken = {CONSENSUS}
    for name in names:
        if name in taken:
            raise SegbenchError(f"two models are called {name}: name each once")
        taken.add(name)
    return names


def apply_several(
    models: Sequence[TrainedModel], images: Sequence[ImageFile], to: Path, options: ApplyOptions,
    progress: Callable[[Progress], None] = lambda _: None, note: Callable[[str], None] = lambda _: None,
    address: str | None = None,
) -> Iterator[Applied]:  # fmt: skip
    """Yield what becomes of each image with each model, one model after the other, as ``apply`` does.

    Each model's results go into a folder of its name; label TIFFs are written whatever else is, for the consensus.
    """
    folders = model_folders(models)
    options = replace(options, write=tuple(dict.fromkeys(("tiff", *options.write))))
    for model in models:
        check_options(model, options)
    with opened_folder(to, {"models": [describe(model) for model in models], "options": options.to_dict()}):
        for model, folder in zip(models, folders, strict=True):
            note(f"{folder}: {model.method} on {', '.join(model.task.channels)}")
            yield from apply(model, images, to / folder, options, progress, note, address)


def agree(
    models: Sequence[TrainedModel], images: Sequence[ImageFile], to: Path, options: ApplyOptions,
    told: Callable[[Agreed], None] = lambda _: None,
) -> pl.DataFrame:  # fmt: skip
    """Write the consensus of what ``apply_several`` has written, and ``agreement.csv``; images that failed are left.

    The score of a cell of the consensus is the models' agreement on it.

    Returns
    -------
    polars.DataFrame
        One row an image, those first on which the models agree least: image, agreement, cells of the consensus and of
        each model.
    """
    import polars as pl

    folders = model_folders(models)
    found: list[Agreed] = []
    for image in images:
        paths = [to / folder / f"{image.name}.labels.tif" for folder in folders]
        if not all(path.is_file() for path in paths):
            continue
        one = _consensus(image, paths, to / CONSENSUS, options)
        found.append(one)
        told(one)
    rows = [
        {"image": str(one.image), "name": one.name, "agreement": one.agreement, "consensus_cells": one.cells}
        | {f"cells_{folder}": n for folder, n in zip(folders, one.of_models, strict=True)}
        for one in sorted(found, key=lambda one: (one.agreement, one.name))
    ]
    table = pl.DataFrame(rows)
    if rows:
        write_whole(to / _TABLE, table.write_csv())
    return table


def _consensus(image: ImageFile, paths: Sequence[Path], to: Path, options: ApplyOptions) -> Agreed:
    maps = [read_numbers(path, large=True) for path in paths]
    common = consensus_of(maps, str(image.path))
    picture = read_picture(image.path, options.take, None, large=True)
    size = picture.pixel_size_um if options.pixel_size_um is None else options.pixel_size_um
    result = Result(image.path, common.labels, common.agreement, picture.pixels, picture.channels, pixel_size_um=size)
    forms = tuple(dict.fromkeys(("tiff", *options.write)))
    write_result(result, forms, image.name, to, to / ".part")
    cells = tuple(int(np.max(labels)) for labels in maps)
    return Agreed(image.path, image.name, common.image_agreement, int(common.agreement.size), cells)
