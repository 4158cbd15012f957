"""Datasets: what they are, where their originals lie, and how they become windows that methods can read.

Importing this package loads neither Polars nor the preparation's compiled code; calling its functions does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from segbench.engine.data.prepared import PreparedDataset
from segbench.engine.data.registry import get_spec, layout, register, registered, usual_tissues
from segbench.engine.data.spec import KINDS, SPLITS, DatasetSpec, PreparationSettings
from segbench.engine.data.tasks import tasks_of
from segbench.errors import SegbenchError
from segbench.methods.job import Task

__all__ = [
    "KINDS",
    "SPLITS",
    "DatasetSpec",
    "PreparationSettings",
    "PreparedDataset",
    "dataset_tasks",
    "dataset_tissues",
    "ensure_prepared",
    "get_spec",
    "open_prepared",
    "register",
    "registered",
]


def dataset_tasks(spec: DatasetSpec) -> tuple[Task, ...]:
    """Return the tasks that a dataset gives, without preparing it.

    Examples
    --------
    >>> [task.name for task in dataset_tasks(get_spec("synthetic-livecell"))]
    ['synthetic-livecell-wholecell']
    """
    return tasks_of(spec.name, *layout(spec))


def dataset_tissues(spec: DatasetSpec) -> tuple[str, ...]:
    """Return the tissues that a dataset can be trained on.

    Of a prepared dataset they are what its training split has. Before that: the study's tissues for TissueNet and the
    synthetic datasets, the cell types in the image names for LIVECell, and what the index says for a folder.

    Examples
    --------
    >>> dataset_tissues(get_spec("synthetic-livecell"))
    ('A172', 'BT474', 'BV2', 'Huh7', 'MCF7', 'SHSY5Y', 'SKOV3', 'SkBr3')
    """
    usual = usual_tissues(spec)
    if spec.kind == "synthetic" and usual is not None:
        return usual
    from segbench.engine.data.cache import find_prepared

    prepared = find_prepared(spec)
    if prepared is not None:
        return prepared.tissues("train")
    if spec.kind == "livecell" and spec.source is not None and Path(spec.source).is_dir():
        from segbench.engine.data.livecell import cell_types

        return cell_types(Path(spec.source))
    if usual is not None:
        return usual
    from segbench.engine.data.folder import training_tissues

    return training_tissues(spec)


def ensure_prepared(
    spec: DatasetSpec, progress: Callable[[str, int, int], None] | None = None, workers: int | None = None
) -> PreparedDataset:
    """Return a dataset prepared, preparing it where that is not done yet; see ``segbench.engine.data.cache``."""
    from segbench.engine.data import cache

    return cache.ensure_prepared(spec, progress, workers)


def open_prepared(name: str) -> PreparedDataset:
    """Return a registered dataset as it was last prepared; raises SegbenchError where it was not."""
    from segbench.engine.data.cache import find_prepared

    spec = get_spec(name)
    prepared = find_prepared(spec)
    if prepared is None:
        path = "" if spec.source is None else f" {spec.source}"
        raise SegbenchError(
            f"dataset {name!r} is not prepared: run segbench data prepare {spec.kind}{path} --name {name}"
        )
    return prepared
