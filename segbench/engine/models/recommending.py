"""Proposes models of a gallery for images: those that see such channels, by how alike their training images were."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segbench.engine.data.large import prepare_large
from segbench.engine.data.recipe import Recipe
from segbench.engine.data.resample import resample, rescaled_shape
from segbench.engine.data.source import RawImage
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.files.pictures import read_picture
from segbench.engine.models.channels import planes_for
from segbench.engine.models.images import ImageFile
from segbench.engine.models.likeness import Floats, describe_windows, distances
from segbench.engine.models.pulling import Gallery
from segbench.engine.models.scale import scale_of
from segbench.errors import SegbenchError

_MOST_IMAGES = 12
_MOST_WINDOWS = 6
"""Of an image, spread over it."""
SAME, ALL, OTHER = "its tissue is the most alike", "trained on all tissues", "trained on another tissue"
"""The study's guideline: a model of the same tissue, else of all tissues, else the most transferable one."""


@dataclass(frozen=True)
class Proposal:
    """A model, and why it is proposed."""

    name: str
    method: str
    task: str
    train_tissue: str
    distance: float
    """Of the images to what it was trained on: see ``likeness.distances``."""
    why: str
    expected: float | None
    """Its accuracy on the test images of the tissue that is the most alike, else on all."""
    licence: str | None


def recommend(
    images: Sequence[ImageFile], gallery: Gallery, *, channels: Sequence[str] = (), pixel_size_um: float | None = None,
    target: str | None = None, note: Callable[[str], None] = lambda _: None,
) -> list[Proposal]:  # fmt: skip
    """Return the models that fit images, by the study's guideline, within that by what accuracy is to be expected.

    Which tissue is the most alike is told by the distance of the images to the training windows of models of a single
    tissue. Models of the same channels and preparation are compared with each other; those that see other channels than
    the images have are left out.

    Parameters
    ----------
    images
        Twelve are looked at, spread over all.
    gallery
        The models.
    channels
        For each channel that a model sees one of the images'; empty for their own names or order.
    pixel_size_um
        Of the images, where files do not tell it.
    target
        What is to be segmented; None for anything.
    note
        Is told why models were left out.

    Raises
    ------
    SegbenchError
        The gallery tells of no training images, or no model fits.
    """
    told = gallery.read_json("likeness.json")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for model in gallery.models.values():
        item = model.told
        if target is not None and item.get("target") != target:
            continue
        key = json.dumps([item.get("channels"), item.get("preparation"), item.get("pixel_size_um")], sort_keys=True)
        groups.setdefault(key, []).append(item)
    chosen = [images[n] for n in np.unique(np.linspace(0, len(images) - 1, min(len(images), _MOST_IMAGES)).astype(int))]
    found: list[Proposal] = []
    for items in groups.values():
        try:
            seen = _described(chosen, items[0], channels, pixel_size_um)
        except SegbenchError as error:
            note(f"{len(items)} models left out: {error}")
            continue
        found += _proposals(items, seen, [_rows(told.get(str(item["id"])), seen.shape[1]) for item in items])
    if not found:
        raise SegbenchError("no model of the gallery fits these images: see the notes, or name --channels")
    order = {SAME: 0, ALL: 1, OTHER: 2}
    return sorted(found, key=lambda one: (order[one.why], -(one.expected or 0.0), one.distance, one.name))


def _described(
    images: Sequence[ImageFile], item: Mapping[str, Any], channels: Sequence[str], told_um: float | None
) -> Floats:
    """Return what windows of the images look like, prepared as a model's were (N, D)."""
    names = tuple(str(name) for name in item.get("channels") or ())
    settings = PreparationSettings.from_dict(item.get("preparation") or {})
    size = item.get("pixel_size_um")
    recipe = Recipe(names, settings, pixel_size_um=float(size) if isinstance(size, int | float) else None)
    described = []
    for image in images:
        picture = read_picture(image.path, None, None, large=True)
        seen = planes_for(picture, names, recipe, channels, image.path.name).pixels
        factor = scale_of(recipe, picture.pixel_size_um, told_um, image.path.name).factor
        if factor is not None:
            seen = resample(seen, rescaled_shape((seen.shape[1], seen.shape[2]), factor), image.path.name)
        described.append(describe_windows(_spread(seen, settings, image.path.name)))
    return np.concatenate(described)


def _spread(pixels: Any, settings: PreparationSettings, image: str) -> Any:
    rows = [row.pixels for row in prepare_large(RawImage(image, "", pixels, {}), settings, keep_empty=True)]
    windows = np.concatenate([row for row in rows if len(row)])
    return windows[np.unique(np.linspace(0, len(windows) - 1, min(len(windows), _MOST_WINDOWS)).astype(int))]


def _rows(told: Any, features: int) -> Floats:
    """Return what an index tells of a model's training windows (n, D); no row where it tells nothing that fits."""
    try:
        rows = np.asarray(told if told is not None else [], np.float64)
    except (TypeError, ValueError):
        rows = np.zeros(0)
    fits = rows.ndim == 2 and rows.shape[1] == features and bool(np.isfinite(rows).all())
    return rows if fits else np.zeros((0, features))


def _proposals(items: Sequence[Mapping[str, Any]], seen: Floats, trained_on: Sequence[Floats]) -> list[Proposal]:
    """Return the models of one group."""
    apart = distances(seen, trained_on)
    single = [n for n, item in enumerate(items) if item.get("train_tissue") != "all" and np.isfinite(apart[n])]
    nearest = min(single, key=lambda n: apart[n], default=None)
    tissue = None if nearest is None else str(items[nearest].get("train_tissue"))
    return [_proposal(item, float(distance), tissue) for item, distance in zip(items, apart, strict=True)]


def _proposal(item: Mapping[str, Any], distance: float, tissue: str | None) -> Proposal:
    own = str(item.get("train_tissue"))
    by_tissue = item.get("accuracy_by_tissue")
    scores = by_tissue if isinstance(by_tissue, dict) else {}
    expected = scores.get(tissue) if tissue is not None and scores.get(tissue) is not None else item.get("accuracy")
    return Proposal(
        name=str(item["id"]),
        method=str(item.get("method")),
        task=str(item.get("task")),
        train_tissue=own,
        distance=distance,
        why=ALL if own == "all" else SAME if own == tissue else OTHER,
        expected=float(expected) if isinstance(expected, int | float) else None,
        licence=None if item.get("license") is None else str(item["license"]),
    )
