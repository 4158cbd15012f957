"""Keeps packages in a results folder as models that nobody trained there, and lists the models that it has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segbench.engine.files.archives import file_sha256
from segbench.engine.models.facts import FACTS, NAME, ModelFacts
from segbench.engine.models.model_card import summary
from segbench.engine.models.packages import Package, facts_of, open_folder, unpack_package
from segbench.engine.models.trained import is_model_folder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.errors import SegbenchError
from segbench.paths import cache_folder
from segbench.small_files import read_json, write_whole

IMPORTED = "models"
"""The folder of imported models, in a results folder."""
_ORIGIN = "origin.json"
"""In the folder of an imported model: which file it came from."""


def import_package(path: Path, out: ResultsFolder) -> tuple[Package, bool]:
    """Add a package's model to a results folder, and return it, and whether it was new.

    Raises
    ------
    SegbenchError
        The file is no package, is damaged or hostile, or another model of its name is there.
    """
    import json

    name, digest = facts_of(path).name, file_sha256(path)
    folder = out.make().path / IMPORTED / name
    if folder.exists():
        if read_json(folder / _ORIGIN).get("sha256") == digest:
            return open_folder(folder, str(path)), False
        raise SegbenchError(f"{out} has another model {name!r}: remove {folder} first, or import into another folder")
    folder.parent.mkdir(exist_ok=True)
    package = unpack_package(path, folder)
    write_whole(folder / _ORIGIN, json.dumps({"file": path.name, "sha256": digest}))
    return package, True


def imported_folder(name: str, out: ResultsFolder) -> Path | None:
    """Return the folder of an imported model; None where a results folder has none of this name."""
    folder = out.path / IMPORTED / name
    return folder if NAME.fullmatch(name) and is_model_folder(folder) else None


def imported_names(out: ResultsFolder) -> list[str]:
    """Return the names of the imported models, sorted."""
    folder = out.path / IMPORTED
    return sorted(each.name for each in folder.iterdir() if is_model_folder(each)) if folder.is_dir() else []


def unpacked(path: Path) -> Path:
    """Return the folder of a package's content in the cache, unpacked and checked once for each file's content."""
    folder = cache_folder() / "packages" / file_sha256(path)[:32]
    if not is_model_folder(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unpack_package(path, folder)
    return folder


def model_rows(out: ResultsFolder) -> Iterator[dict[str, Any]]:
    """Yield a row for each model of a results folder: those of its runs, then the imported ones."""
    if out.has_store():
        yield from _run_rows(out)
    for name in imported_names(out):
        facts = ModelFacts.read((out.path / IMPORTED / name / FACTS).read_bytes(), name)
        yield {"source": "imported", **summary(facts)}


_RUNS = """\
select runs.run_id, runs.attempt, runs.method, runs.task, runs.train_tissue, runs.trained, scored.accuracy
from runs_latest as runs
left join accuracy as scored
    on scored.run_id = runs.run_id and scored.test_task = runs.task and scored.test_tissue = 'all'
    and scored.operation = 'none'
where runs.status = 'done' and runs.category <> 'control'
order by runs.task, scored.accuracy desc nulls last, runs.run_id"""


def run_models(out: ResultsFolder) -> Iterator[dict[str, Any]]:
    """Yield the finished runs of a results folder whose model is there, by task and falling accuracy."""
    for row in query(out, _RUNS).iter_rows(named=True):
        files = out.attempt(row["run_id"], row["attempt"]).job
        if not row["trained"] or files.model_marker.is_file():
            yield row


def _run_rows(out: ResultsFolder) -> Iterator[dict[str, Any]]:
    for row in run_models(out):
        files = out.attempt(row["run_id"], row["attempt"]).job
        size = sum(path.stat().st_size for path in files.model.rglob("*") if path.is_file()) if row["trained"] else 0
        yield {
            "source": "run",
            "name": row["run_id"],
            **{name: row[name] for name in ("method", "task", "train_tissue", "accuracy")},
            "low": None,
            "high": None,
            "megabytes": size / 1e6,
            "licence": None,
        }
