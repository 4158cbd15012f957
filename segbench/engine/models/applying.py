"""Applies a model to images, one after the other: what is done stays done, and what is broken is told and left."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from segbench.engine.files.picture import Take
from segbench.engine.files.pictures import read_picture
from segbench.engine.grid.cards import get_card
from segbench.engine.models.channels import planes_for
from segbench.engine.models.images import APPLY, ImageFile
from segbench.engine.models.outputs import USUAL, Result, checked_forms, free_memory, notes_on, write_result
from segbench.engine.models.predictor import BrokenModelError, Predictor, Predicts
from segbench.engine.models.scale import scale_of
from segbench.engine.models.segmenting import segment
from segbench.engine.models.trained import TrainedModel, describe
from segbench.errors import SegbenchError
from segbench.small_files import read_json, write_whole

if TYPE_CHECKING:
    import polars as pl

_MARKS = ".apply"
"""A folder in that of the results: the marks of images that are done, and what is not yet whole."""
_TABLE = "images.csv"
_COLUMNS: dict[str, Any] = {
    "image": str,
    "name": str,
    "status": str,
    "cells": int,
    "seconds": float,
    "error": str,
    "notes": str,
}


@dataclass(frozen=True)
class ApplyOptions:
    """How a model is applied."""

    write: tuple[str, ...] = USUAL
    """The forms of the results, see ``outputs.FORMS``."""
    pixel_size_um: float | None = None
    """Side of the images' pixels, where their files do not tell it."""
    channels: tuple[str, ...] = ()
    """For each channel that the model sees one of the images', by name or number from 1; empty to find them."""
    rescale: bool = True
    """Whether images become the pixel size that the model was trained at."""
    overlap: int | None = None
    """Of windows, in pixels; None for what ``segmenting.tiling`` gives."""
    take: Take = field(default_factory=Take)
    """Which plane of a stack is meant."""
    use_gpu: bool = False
    """No result depends on it, but for rounding."""

    def to_dict(self) -> dict[str, Any]:
        """Return what decides a result, as JSON-able values."""
        told = dataclasses.asdict(self)
        del told["use_gpu"]
        result: dict[str, Any] = json.loads(json.dumps(told))
        return result


@dataclass(frozen=True)
class Applied:
    """What became of one image."""

    image: Path
    name: str
    """What its results begin with."""
    cells: int | None = None
    """None where it failed."""
    error: str | None = None
    notes: tuple[str, ...] = ()
    files: dict[str, list[str]] = field(default_factory=dict)
    """Of each form, relative to the folder of results."""
    seconds: float = 0.0
    earlier: bool = False
    """Done by an earlier call."""


@dataclass(frozen=True)
class Progress:
    """How far a call is."""

    image: ImageFile
    number: int
    """Of the image, from 1."""
    n_images: int
    share: float
    """Of all the work, 0 to 1."""
    left_s: float | None
    """Seconds that the rest takes at this pace; None while nothing can be told."""


def apply(
    model: TrainedModel, images: Sequence[ImageFile], to: Path, options: ApplyOptions | None = None,
    progress: Callable[[Progress], None] = lambda _: None, note: Callable[[str], None] = lambda _: None,
    address: str | None = None,
) -> Iterator[Applied]:  # fmt: skip
    """Yield what becomes of each image, as it is done; its results are then written.

    A call that is cut off and made again does what is left: an image is done once all its files are whole and it is
    marked. An image that fails is tried again.

    Parameters
    ----------
    model
        The model.
    images
        What it is applied to.
    to
        The folder of results: not there, empty, or of the same model and options.
    options
        How.
    progress, note
        Are told how far it is, and what the user should know.
    address
        Of a Ray cluster whose nodes do it (``auto`` for the one of this machine, ``local`` for a new one on it), on
        folders that they share; None for this process and one of the method. The results are the same.

    Raises
    ------
    SegbenchError
        The options cannot be meant, the folder holds something else or is used by another call, or the method's
        environment cannot be had. An image that fails is yielded, not raised.
    """
    options = options or ApplyOptions()
    check_options(model, options)
    with opened_folder(to, {"model": describe(model), "options": options.to_dict()}):
        yield from _each(model, images, to, options, progress, note, address)


def check_options(model: TrainedModel, options: ApplyOptions) -> None:
    """Raise SegbenchError where options cannot be meant for a model, or its method is not here."""
    checked_forms(options.write)
    if options.channels and len(options.channels) != len(model.task.channels):
        wanted = ", ".join(model.task.channels)
        raise SegbenchError(f"--channels names {len(options.channels)}, the model sees {wanted}: one for each of them")
    window = model.recipe.preparation.window
    if options.overlap is not None and not 1 <= options.overlap < window:
        raise SegbenchError(f"windows of {window} pixels overlap by 1 to {window - 1}, found {options.overlap}")
    get_card(model.method)


@contextlib.contextmanager
def opened_folder(to: Path, launch: dict[str, Any]) -> Iterator[None]:
    """Hold a folder of results of one launch: nothing of another is ever written over.

    Parameters
    ----------
    to
        The folder.
    launch
        What decides its results, as JSON-able values.

    Raises
    ------
    SegbenchError
        It holds something else, is held by another call, or cannot be written.
    """
    if to.exists() and not to.is_dir():
        raise SegbenchError(f"{to} is a file: name a folder for the results")
    before = read_json(to / APPLY)
    if to.is_dir() and not before and any(one.name != _MARKS for one in to.iterdir()):
        raise SegbenchError(f"{to} is not empty: results go into a new folder, name another --to")
    if before and (what := _difference(before, launch)) is not None:
        raise SegbenchError(f"{to} holds the results of another {what}: name another --to")
    lock = filelock.FileLock(to / _MARKS / "lock", timeout=0)
    try:
        (to / _MARKS).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise SegbenchError(f"another call is writing into {to}") from None
    except OSError as error:
        raise SegbenchError(f"cannot write results to {to}: {error.strerror or error}") from None
    try:
        if not before:
            write_whole(to / APPLY, json.dumps(launch, indent=1))
        yield
    finally:
        lock.release()


def write_images_table(to: Path, done: Sequence[Applied]) -> pl.DataFrame:
    """Write ``images.csv``, one row an image: how it ended, its cells, its notes; rows of other images stay.

    Returns
    -------
    polars.DataFrame
        The table.
    """
    import polars as pl

    table = pl.DataFrame(
        [
            {
                "image": str(one.image),
                "name": one.name,
                "status": "failed" if one.error else "done",
                "cells": one.cells,
                "seconds": round(one.seconds, 3),
                "error": one.error,
                "notes": "; ".join(one.notes) or None,
            }
            for one in done
        ],
        schema=_COLUMNS,
    )
    if (to / _TABLE).is_file():
        before = pl.read_csv(to / _TABLE, schema=table.schema)
        table = pl.concat([before.join(table, on="image", how="anti"), table])
    write_whole(to / _TABLE, table.write_csv())
    return table


def _each(
    model: TrainedModel, images: Sequence[ImageFile], to: Path, options: ApplyOptions,
    progress: Callable[[Progress], None], note: Callable[[str], None], address: str | None,
) -> Iterator[Applied]:  # fmt: skip
    _check_names(to, images)
    revision = get_card(model.method).revision
    if revision != model.method_revision:
        note(f"note: trained by revision {model.method_revision} of {model.method}, applied by {revision}")
    earlier = [one for image in images if (one := _marked(to, image)) is not None]
    there = {one.image for one in earlier}
    left = [image for image in images if image.path not in there]
    work, done = _Work(images, left, progress), list[Applied]()
    try:
        for one in earlier:
            done.append(one)
            yield one
        for one in _doing(model, left, to, options, work, note, address):
            work.ended(one)
            done.append(one)
            yield one
    finally:
        write_images_table(to, done)


def _doing(
    model: TrainedModel, images: Sequence[ImageFile], to: Path, options: ApplyOptions, work: _Work,
    note: Callable[[str], None], address: str | None,
) -> Iterator[Applied]:  # fmt: skip
    if not images:  # the environment is not built, and no process started, where nothing is left
        return
    if address is not None:
        from segbench.engine.models.on_ray import each_on_ray  # Ray takes a while

        yield from each_on_ray(model, images, to, options, address, work.told, note)
        return
    with Predictor(model, use_gpu=options.use_gpu, note=note) as predictor:
        for image in images:
            work.told(image, 0.0)
            yield one_image(model, predictor, image, to, options, lambda own, i=image: work.told(i, own))  # type: ignore[misc]


class _Work:
    """How much of it is done, in bytes of images, and when the rest will be."""

    def __init__(
        self, images: Sequence[ImageFile], left: Sequence[ImageFile], progress: Callable[[Progress], None]
    ) -> None:
        self._numbers = {image.path: number for number, image in enumerate(images, start=1)}
        self._sizes = {image.path: max(1, image.size()) for image in left}
        self._shares = dict.fromkeys(self._sizes, 0.0)
        self._total, self._progress, self._began = max(1, sum(self._sizes.values())), progress, time.monotonic()

    def told(self, image: ImageFile, own: float) -> None:
        """Take in which share of an image is done."""
        self._shares[image.path] = own
        share = sum(self._sizes[path] * one for path, one in self._shares.items()) / self._total
        left = (time.monotonic() - self._began) * (1 - share) / share if share > 0 else None
        self._progress(Progress(image, self._numbers[image.path], len(self._numbers), share, left))

    def ended(self, one: Applied) -> None:
        """Take in that nothing is left to do for an image."""
        self._shares[one.image] = 1.0


def one_image(
    model: TrainedModel, predictor: Predicts, image: ImageFile, to: Path, options: ApplyOptions,
    progress: Callable[[float], None],
) -> Applied:  # fmt: skip
    """Segment one image, write its results and mark it as done; one that fails is told in what is returned.

    Parameters
    ----------
    model, predictor
        The model, and what predicts with it.
    image, to, options
        As ``apply`` takes them.
    progress
        Is told which share of the image is done.

    Raises
    ------
    BrokenModelError
        The model can predict nothing at all.
    """
    began = time.monotonic()
    try:
        # before it is read: what changes meanwhile is done again
        stamp = image.stamp()
        result, notes = _segmented(model, predictor, image, options, progress)
        files = write_result(result, options.write, image.name, to, _spare(to, image))
        free_memory(result)
    except BrokenModelError:
        raise
    except (SegbenchError, MemoryError, OSError, ValueError) as error:
        # on a full disk its room is what is left for the table of images
        shutil.rmtree(_spare(to, image), ignore_errors=True)
        return Applied(image.path, image.name, error=_told(error), seconds=time.monotonic() - began)
    cells = int(result.scores.size)
    one = Applied(image.path, image.name, cells, None, notes, files, time.monotonic() - began)
    mark = {**dataclasses.asdict(one), "image": str(image.path), "stamp": stamp}
    write_whole(_mark(to, image), json.dumps(mark))
    return one


def _segmented(
    model: TrainedModel, predictor: Predicts, image: ImageFile, options: ApplyOptions,
    progress: Callable[[float], None],
) -> tuple[Result, tuple[str, ...]]:  # fmt: skip
    where = str(image.path)
    picture = read_picture(image.path, options.take, None, large=True)
    seen = planes_for(picture, model.task.channels, model.recipe, options.channels, where)
    scale = scale_of(model.recipe, picture.pixel_size_um, options.pixel_size_um, where, rescale=options.rescale)
    found = segment(
        seen.pixels, model, predictor, factor=scale.factor, overlap=options.overlap, progress=progress, image=where
    )
    result = Result(
        image=image.path,
        labels=found.labels,
        scores=found.scores,
        pixels=picture.pixels,
        channels=picture.channels,
        seen=seen.pixels,
        pixel_size_um=scale.pixel_size_um,
    )
    vanished = f"{found.vanished:,} cells have no pixel left at the image's own scale" if found.vanished else None
    told = (*picture.notes, seen.note, scale.note, vanished, *notes_on(options.write, found.labels))
    return result, tuple(one for one in told if one)


def _told(error: Exception) -> str:
    if isinstance(error, SegbenchError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there was not enough memory"
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
    return f"{type(error).__name__}: {error}"


def _check_names(to: Path, images: Sequence[ImageFile]) -> None:
    """Raise SegbenchError where an image's results would replace those of another image of an earlier call."""
    taken = {str(raw.get("name")): str(raw.get("image")) for raw in map(read_json, (to / _MARKS).glob("*.json"))}
    for image in images:
        other = taken.get(image.name, str(image.path))
        if other != str(image.path):
            raise SegbenchError(
                f"{to} has results of {other} by the name of {image.name}, which those of {image.path} would have: "
                "name all images in one call, or another --to"
            )


def _marked(to: Path, image: ImageFile) -> Applied | None:
    """Return what an earlier call made of an image; None where it did not finish it, or anything is gone or changed."""
    raw = read_json(_mark(to, image))
    try:
        if not raw or raw["stamp"] != image.stamp() or raw["name"] != image.name:
            return None
        files = {str(form): [str(name) for name in names] for form, names in raw["files"].items()}
        if not all((to / name).exists() for names in files.values() for name in names):
            return None
        notes = tuple(str(one) for one in raw["notes"])
        return Applied(image.path, image.name, int(raw["cells"]), None, notes, files, float(raw["seconds"]), True)
    except (KeyError, TypeError, ValueError, OSError):
        return None


def _mark(to: Path, image: ImageFile) -> Path:
    return to / _MARKS / f"{_digest(image)}.json"


def _spare(to: Path, image: ImageFile) -> Path:
    return to / _MARKS / f"{_digest(image)}.part"


def _digest(image: ImageFile) -> str:
    return hashlib.sha256(os.fsencode(image.path)).hexdigest()[:16]


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return in words what two launches differ in; None where they are the same."""
    now = json.loads(json.dumps(now))
    if before == now:
        return None
    for kind in ("model", "models"):
        if before.get(kind) != now.get(kind):
            return "model"
    options, others = before.get("options") or {}, now["options"]
    for name, value in others.items():
        if options.get(name) != value:
            return f"{name.replace('_', '-').removesuffix('-um')} ({_short(options.get(name))}, not {_short(value)})"
    return "launch"


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
