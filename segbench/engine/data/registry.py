"""The datasets by name: the built-in synthetic ones and those that the user has registered."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from segbench.engine.data.spec import DatasetSpec
from segbench.engine.study.tissues import (
    LIVECELL_CHANNELS,
    LIVECELL_TARGETS,
    LIVECELL_TISSUES,
    TISSUENET_CHANNELS,
    TISSUENET_TARGETS,
    TISSUENET_TISSUES,
)
from segbench.errors import SegbenchError, unknown_name
from segbench.paths import cache_folder
from segbench.small_files import write_whole

_LOG = logging.getLogger(__name__)
BUILT_IN = (
    DatasetSpec("synthetic", "synthetic", None, {"layout": "tissuenet", "seed": 0, "scale": 1.0, "pixel_size_um": 0.5}),
    DatasetSpec("synthetic-livecell", "synthetic", None, {"layout": "livecell", "seed": 0, "scale": 1.0}),
)
"""Datasets that need no registration."""


def register(spec: DatasetSpec) -> None:
    """Keep a dataset under its name, in place of one of that name; a built-in name only for a synthetic dataset."""
    for built_in in BUILT_IN:
        if spec.name == built_in.name and spec.kind != "synthetic":
            raise SegbenchError(f"the name {spec.name!r} is kept for the built-in dataset; choose another with --name")
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{spec.name}.json", json.dumps(spec.to_dict(), indent=1))


def registered() -> list[DatasetSpec]:
    """Return every known dataset, the built-in ones first, the others by name."""
    found = {spec.name: spec for spec in BUILT_IN}
    for path in sorted(_folder().glob("*.json")):
        try:
            spec = DatasetSpec.from_dict(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SegbenchError) as error:
            told = " ".join(str(error).split())[:200]
            _LOG.warning("passed over: %s is not a dataset's record (%s); prepare the dataset again", path, told)
            continue
        found[spec.name] = spec
    return list(found.values())


def unregister(name: str) -> None:
    """Forget a dataset that was registered; what was prepared of it stays in the cache.

    Raises
    ------
    SegbenchError
        There is none of the name, or it is built in.
    """
    path = _folder() / f"{name}.json"
    if "/" in name or not path.is_file():
        if name in {spec.name for spec in BUILT_IN}:
            raise SegbenchError(f"dataset {name!r} is built in: it needs no registration, and stays")
        raise unknown_name("dataset", name, (file.stem for file in _folder().glob("*.json")))
    path.unlink()


def get_spec(name: str) -> DatasetSpec:
    """Return a dataset by name; raises SegbenchError with the nearest names where there is none."""
    specs = {spec.name: spec for spec in registered()}
    if name not in specs:
        raise unknown_name("dataset", name, specs)
    return specs[name]


def layout(spec: DatasetSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a dataset's channels and targets without preparing it."""
    kind = spec.options.get("layout", "tissuenet") if spec.kind == "synthetic" else spec.kind
    if kind == "tissuenet":
        return TISSUENET_CHANNELS, TISSUENET_TARGETS
    if kind == "livecell":
        return LIVECELL_CHANNELS, LIVECELL_TARGETS
    channels = spec.options.get("channels")
    if not channels:
        from segbench.engine.data.folder import channel_names
        from segbench.engine.files.picture import Take

        take = Take.of(spec.options.get("project"), spec.options.get("planes"))
        channels = channel_names(Path(str(spec.source)), take)
    return tuple(channels), (str(spec.options.get("target", "cell")),)


def complete(spec: DatasetSpec) -> DatasetSpec:
    """Return a folder's spec with target and channel names filled in: its tasks are then known without its data."""
    if spec.kind != "folder":
        return spec
    channels, targets = layout(spec)
    return replace(spec, options={**spec.options, "target": targets[0], "channels": list(channels)})


def usual_tissues(spec: DatasetSpec) -> tuple[str, ...] | None:
    """Return the tissues that a dataset of this kind is known to have; None where only its data can tell."""
    kind = spec.options.get("layout", "tissuenet") if spec.kind == "synthetic" else spec.kind
    return {"tissuenet": TISSUENET_TISSUES, "livecell": LIVECELL_TISSUES}.get(kind)


def _folder() -> Path:
    return cache_folder() / "datasets"
