"""From a user's annotated images, whatever wrote them, to a dataset that is registered and prepared."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.engine.data.importing.options import KINDS, ImportOptions
from segbench.engine.data.importing.recognition import recognised_kind
from segbench.engine.data.spec import DatasetSpec, PreparationSettings
from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    from segbench.engine.data.prepared import PreparedDataset

INDEX_NAME = "index.csv"
AS_THEY_ARE: Mapping[str, str] = {
    "folder": "a folder with index.csv: image, mask, split, tissue",
    "tissuenet": "TissueNet as it is distributed",
    "livecell": "LIVECell as it is distributed",
}
ANNOTATED: Mapping[str, str] = {**AS_THEY_ARE, **KINDS}
"""Every kind of annotated images, and what its files are."""
_SUFFIX_KINDS = {".json": "coco", ".geojson": "geojson", ".zip": "imagej", ".roi": "imagej", ".npz": "tissuenet"}


@dataclass(frozen=True)
class Seen:
    """What a first look at annotated images tells."""

    kind: str | None
    """As in ``ANNOTATED``; None where nothing tells it."""
    channels: tuple[str, ...] = ()
    """Names that the first image's channels get where nobody names them; empty where it was not read."""
    named: bool = False
    """The file itself names its channels."""
    pixel_size_um: float | None = None
    """Where the first image's file tells it."""
    targets: tuple[str, ...] = ()
    """What the kind says that its masks label; empty where only the user knows."""


@dataclass(frozen=True)
class Annotations:
    """Annotated images, as a user tells of them."""

    images: Path
    kind: str
    """As in ``ANNOTATED``."""
    name: str
    """The dataset's."""
    annotations: Path | None = None
    """Where they lie, if not with the images."""
    folder: Path | None = None
    """The new folder for what is imported; of kinds that are read as they are, None."""
    target: str | None = None
    channels: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    options: ImportOptions = field(default_factory=ImportOptions)
    """How annotations are imported."""

    def __post_init__(self) -> None:
        if self.kind not in ANNOTATED:
            raise unknown_name("kind of annotations", self.kind, ANNOTATED)

    @property
    def imported(self) -> bool:
        """Whether they are written as a folder dataset first."""
        return self.kind not in AS_THEY_ARE


def look_at(images: Path, annotations: Path | None = None) -> Seen:
    """Return what a first look at annotated images tells; only the first image is read.

    Raises
    ------
    SegbenchError
        There is nothing, or the first image cannot be read.
    """
    for path in (images, annotations):
        if path is not None and not path.exists():
            raise SegbenchError(f"there is nothing at {path}")
    kind = _kind_of(annotations or images)
    if kind in ("tissuenet", "livecell"):
        from segbench.engine.data.registry import layout

        channels, targets = layout(DatasetSpec("seen", kind, str(images), {}))
        return Seen(kind, channels, named=True, pixel_size_um=0.5 if kind == "tissuenet" else None, targets=targets)
    first = _first_image(images, kind)
    if first is None:
        return Seen(kind)
    from segbench.engine.data.folder import default_channels
    from segbench.engine.files.picture import Take
    from segbench.engine.files.pictures import read_picture

    picture = read_picture(first, Take("max"))
    return Seen(kind, default_channels(picture), picture.channels is not None, picture.pixel_size_um)


def name_of(images: Path) -> str:
    """Return the name that a dataset gets where nobody names it.

    Examples
    --------
    >>> name_of(Path("/data/My Cells (2)"))
    'my-cells-2'
    """
    path = images.expanduser().resolve()
    return re.sub(r"[^a-z0-9]+", "-", (path.name if path.is_dir() else path.stem).lower()).strip("-") or "mine"


def begin_dataset(
    asked: Annotations, progress: Callable[[str, int, int], None] | None = None
) -> tuple[PreparedDataset, tuple[str, ...]]:
    """Import annotations where they need it, prepare the dataset, and register it.

    Parameters
    ----------
    asked
        The images and how they are annotated.
    progress
        Is told of every image that is imported, and of every one that is prepared.

    Returns
    -------
    PreparedDataset, tuple of str
        The dataset, and what was left out or is suspected, in one line each.

    Raises
    ------
    SegbenchError
        Something cannot be read or is not what it should be. Nothing is left behind then.
    """
    from segbench.engine.data import ensure_prepared, register
    from segbench.engine.data.registry import complete

    check_name(asked)
    notes: tuple[str, ...] = ()
    source = asked.images.expanduser().resolve()
    with _folder_of(asked) as folder:
        if folder is not None:
            notes, source = _import(asked, folder, progress), folder
        kind = "folder" if asked.imported else asked.kind
        options: dict[str, Any] = {}
        if kind == "folder":
            options = {"target": asked.target or "cell"} | (
                {"channels": list(asked.channels)} if asked.channels else {}
            )
        if asked.pixel_size_um is not None:
            options["pixel_size_um"] = asked.pixel_size_um
        spec = complete(DatasetSpec(asked.name, kind, str(source), options, PreparationSettings()))
        prepared = ensure_prepared(spec, progress)
        register(spec)
    return prepared, (*notes, *prepared.notes)


def check_name(asked: Annotations) -> None:
    """Raise SegbenchError where the name cannot be a dataset's, or is that of other data."""
    from segbench.engine.data.registry import BUILT_IN, registered

    source = str((asked.folder if asked.imported else asked.images).expanduser().resolve())  # type: ignore[union-attr]
    DatasetSpec(asked.name, "folder", source, {}, PreparationSettings())
    if asked.name in {spec.name for spec in BUILT_IN}:
        raise SegbenchError(f"the name {asked.name!r} is kept for the built-in dataset; choose another with --name")
    for spec in registered():
        if spec.name == asked.name and spec.source != source:
            raise SegbenchError(
                f"dataset {asked.name!r} is of {spec.source} already: choose another --name, or forget that one with "
                f"'segbench data remove {asked.name}'"
            )


def _import(asked: Annotations, folder: Path, progress: Callable[[str, int, int], None] | None) -> tuple[str, ...]:
    import dataclasses

    from segbench.engine.data.importing import import_annotations

    options, where = asked.options, asked.images
    if asked.annotations is not None and asked.annotations != asked.images:
        options, where = dataclasses.replace(options, images=asked.images), asked.annotations
    return import_annotations(asked.kind, where, folder, options, progress).notes


@contextmanager
def _folder_of(asked: Annotations) -> Iterator[Path | None]:
    """Give the folder that is imported into; it goes again where the rest fails."""
    if not asked.imported:
        yield None
        return
    from segbench.engine.data.importing.target import check_new

    folder = (asked.folder or Path(f"{asked.name}-dataset")).expanduser().absolute()
    check_new(folder)
    there = folder.is_dir()
    try:
        yield folder
    except BaseException:
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            if there:
                folder.mkdir()
        raise


def _kind_of(path: Path) -> str | None:
    if path.is_file():
        return "folder" if path.name == INDEX_NAME else _SUFFIX_KINDS.get(path.suffix.lower())
    if (path / INDEX_NAME).is_file():
        return "folder"
    if any(path.rglob("livecell_coco_*.json")):
        return "livecell"
    if any("train" in found.name.lower() for found in path.rglob("*.npz")):
        return "tissuenet"
    return recognised_kind(path)


def _first_image(images: Path, kind: str | None) -> Path | None:
    """Return the first image that is no mask; None where there is none."""
    from segbench.engine.data.importing.listing import MASK_FOLDERS, list_files, stem_of
    from segbench.engine.files.label_maps import without_ending

    if kind == "folder":
        from segbench.engine.data.folder import first_image

        return first_image(images)
    folder = images if images.is_dir() else images.parent
    for file in list_files(folder).pictures():
        masked = any(part.lower() in MASK_FOLDERS for part in file.parts[:-1])
        if not masked and without_ending(stem_of(file.name)) == stem_of(file.name):
            return folder / file
    return None
