"""A model that can be applied: what it was trained for and on, how images are prepared for it, where its files lie."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbench.engine.data.cache import find_prepared
from segbench.engine.data.recipe import Recipe
from segbench.engine.grid.cards import get_card
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirror import pull_attempt
from segbench.engine.results.record import AttemptRow
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.engine.scheduler.catalogue import known_datasets
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.card import Budget
from segbench.methods.folder import JobFolder
from segbench.methods.job import Job, Task
from segbench.methods.setting import check_values
from segbench.small_files import read_json, write_whole

DESCRIPTION = "segbench-model.json"
"""In the folder of a model on its own: what it is, without its weights."""
MODEL = JobFolder(Path()).model.name
"""Beside it: the folder of the weights; methods that are not trained have none."""
MODEL_SCHEMA = 1
_LARGEST = 2**20


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, with all that is needed to apply it to images; of a method that is not trained, its settings.

    Examples
    --------
    >>> import tempfile
    >>> from segbench.engine.data.spec import PreparationSettings
    >>> model = TrainedModel(
    ...     name="dark-nuclei",
    ...     method="watershed",
    ...     task=Task("mine-nuclear-1ch", "mine", ("nuclear",), "nuclear"),
    ...     settings=get_card("watershed").defaults,
    ...     budget=Budget(batch_size=1),
    ...     recipe=Recipe(("nuclear",), PreparationSettings()),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_description(model, Path(folder))
    ...     read_description(Path(folder)) == model
    True
    """

    name: str
    """The run's id, or what its package calls it."""
    method: str
    """The method's name."""
    task: Task
    """What is segmented from what: its channels are those that the model sees, in their order."""
    settings: Mapping[str, Any]
    """The method's settings, complete."""
    budget: Budget
    """Of its training; the batch size counts in prediction, too."""
    recipe: Recipe
    """How images become windows."""
    folder: Path | None = None
    """Of the weights, with the method's ``model.json``; None for a method that is not trained."""
    train_tissue: str = "all"
    seed: int = 0
    run_id: str | None = None
    """Of the run that trained it; None where it is of no run."""
    method_revision: int = 1
    fingerprint: str | None = None
    """Of the dataset that it was trained on."""
    lock_hash: str | None = None
    """Of the environment that it was trained in."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the libraries that it was trained with."""

    @property
    def diameter_px(self) -> float | None:
        """Median diameter of the training cells in pixels of a window; None where it is not known."""
        return self.recipe.diameters.get(self.task.target)


def is_model_folder(path: Path) -> bool:
    """Return whether a folder is that of a model on its own."""
    return (path / DESCRIPTION).is_file()


def is_named_model(text: str, out: ResultsFolder) -> bool:
    """Return whether an argument names a model rather than images: as ``find_model`` takes it, without looking inside.

    What is not there counts where it looks like the beginning of a run's id.
    """
    from segbench.engine.models.importing import imported_folder

    path = Path(text)
    if os.path.exists(path):  # noqa: PTH110 - False, too, where it may not be looked at
        return is_model_folder(path) or path.suffix.lower() == ".zip"
    looks_like_run = re.fullmatch(r"[0-9a-fA-F]{3,12}", text) is not None
    return looks_like_run or imported_folder(text, out) is not None or _pulled(text) is not None


def find_model(text: str | os.PathLike[str], out: ResultsFolder) -> TrainedModel:
    """Return the model that is meant: a folder of one on its own, a package, an imported one, or a run's.

    Parameters
    ----------
    text
        A folder, the file of a package, the name of an imported model or of a package in the working folder, or the
        beginning of the id of a finished run.
    out
        The results folder of that run, or into which the model was imported.

    Raises
    ------
    SegbenchError
        There is no such model, the run is not finished, or its files are not here; the nearest ids are named.
    """
    from segbench.engine.models.importing import imported_folder, unpacked  # they read descriptions by this module

    path = Path(text)
    if os.path.isdir(path):  # noqa: PTH112 - False, too, where it may not be looked at
        return read_description(path)
    if os.path.isfile(path):  # noqa: PTH113 - as above
        return read_description(unpacked(path))
    if path.suffix.lower() == ".zip":
        raise SegbenchError(f"there is no package {path}, or it may not be read")
    imported = imported_folder(os.fspath(text), out)
    if imported is not None:
        return read_description(imported)
    pulled = _pulled(os.fspath(text))
    return model_of_run(out, os.fspath(text)) if pulled is None else read_description(unpacked(pulled))


def _pulled(text: str) -> Path | None:
    """Return the package of a name, where 'models pull' has left it in the working folder."""
    from segbench.engine.models.facts import NAME

    path = Path(f"{text}.zip")
    return path if "-" in text and NAME.fullmatch(text) and path.is_file() else None


def model_of_run(out: ResultsFolder, prefix: str) -> TrainedModel:
    """Return the model of the finished run whose id begins with ``prefix``; errors as of ``find_model``."""
    attempt, row = _finished(out, prefix)
    if not attempt.has_job():
        raise SegbenchError(f"the files of run {row.run_id} are not in {attempt.path}: bring them, or run it again")
    card = get_card(row.method)
    job = Job.read(attempt.job.job)
    weights = out.attempt(row.of_run, row.of_attempt or 1) if row.of_run is not None else attempt
    if weights.url is not None and not weights.has_job():
        pull_attempt(weights)
    if card.trained and not weights.job.model_marker.is_file():
        raise SegbenchError(f"the model of run {row.run_id} is not in {weights.path}: bring it, or run it again")
    return TrainedModel(
        name=row.run_id,
        method=row.method,
        task=job.task,
        settings={**card.defaults, **row.settings},
        budget=dataclasses.replace(job.budget, batch_size=row.batch_size),
        recipe=_recipe(attempt, row),
        folder=weights.job.model.absolute() if card.trained else None,
        train_tissue=row.train_tissue,
        seed=row.seed,
        run_id=row.run_id,
        method_revision=row.method_revision,
        fingerprint=row.dataset_fingerprint,
        lock_hash=row.lock_hash,
        versions=row.versions,
    )


def describe(model: TrainedModel) -> dict[str, Any]:
    """Return what a model is as JSON-able values, without where it lies here."""
    told = {name.name: getattr(model, name.name) for name in dataclasses.fields(model) if name.name != "folder"}
    return {
        "schema": MODEL_SCHEMA,
        **told,
        "task": dataclasses.asdict(model.task),
        "budget": dataclasses.asdict(model.budget),
        "settings": dict(model.settings),
        "versions": dict(model.versions),
        "recipe": model.recipe.to_dict(),
    }


def write_description(model: TrainedModel, folder: Path) -> None:
    """Write what a model is into a folder, in which its weights lie in ``model/``, or are about to."""
    write_whole(folder / DESCRIPTION, json.dumps(describe(model), indent=1))


def read_description(folder: Path) -> TrainedModel:
    """Return the model in a folder of its own; nothing in it is run.

    Raises
    ------
    SegbenchError
        The folder holds no model, its description does not fit, its method is not here, or its weights are missing.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise SegbenchError(f"{folder} holds no model: a {DESCRIPTION} would say what it is")
    if path.stat().st_size > _LARGEST:
        raise SegbenchError(f"{path} is {path.stat().st_size:,} bytes: it describes no model")
    raw = read_json(path)
    if raw.get("schema") != MODEL_SCHEMA:
        raise SegbenchError(
            f"{path}: field schema is {raw.get('schema')!r}, this segbench reads {MODEL_SCHEMA}: it describes no "
            "model, or is of a newer segbench"
        )
    card = get_card(str(raw.get("method")))
    weights = folder / MODEL
    if card.trained and not (weights / JobFolder(folder).model_marker.name).is_file():
        raise SegbenchError(f"{weights} holds no finished model of {card.name}")
    try:
        model = _from_dict(raw, weights.absolute() if card.trained else None)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise SegbenchError(f"{path} does not describe a model: {what}") from None
    check_values(f"{path}: settings", card.settings, model.settings)
    if missing := set(card.settings) - set(model.settings):
        raise SegbenchError(f"{path}: setting {min(missing)} of {card.name} is missing")
    if unknown := [name for name in model.task.channels if name not in model.recipe.channels]:
        raise SegbenchError(f"{path}: {unknown_name('channel', unknown[0], model.recipe.channels)}")
    return model


def _from_dict(raw: Mapping[str, Any], folder: Path | None) -> TrainedModel:
    task, run_id = raw["task"], raw["run_id"]
    texts = {name: str(raw[name]) for name in ("name", "method", "train_tissue")}
    maybe = {name: None if raw[name] is None else str(raw[name]) for name in ("fingerprint", "lock_hash")}
    return TrainedModel(
        **texts,
        **maybe,  # type: ignore[arg-type]
        task=Task(str(task["name"]), str(task["dataset"]), tuple(map(str, task["channels"])), str(task["target"])),
        settings=dict(raw["settings"]),
        budget=Budget(**raw["budget"]),
        recipe=Recipe.from_dict(raw["recipe"]),
        folder=folder,
        seed=int(raw["seed"]),
        run_id=None if run_id is None else str(run_id),
        method_revision=int(raw["method_revision"]),
        versions={str(name): str(version) for name, version in raw["versions"].items()},
    )


def _finished(out: ResultsFolder, prefix: str) -> tuple[AttemptFolder, AttemptRow]:
    """Return the finished attempt of the run that is meant, and its row as its record has it."""
    rows = query(out, "select run_id, attempt, status from attempts order by attempt").rows() if out.has_store() else []
    known = list(dict.fromkeys(str(run_id) for run_id, _, _ in rows))
    found = [run_id for run_id in known if prefix and run_id.startswith(prefix.lower())]
    if len(found) > 1:
        raise SegbenchError(f"{len(found)} runs begin with {prefix!r}: {', '.join(found[:5])}; give more of the id")
    if not found:
        from segbench.engine.models.importing import imported_names

        imported = imported_names(out)
        if prefix in imported:
            raise SegbenchError(f"{prefix} is an imported model, not a run: its package is the file that it came from")
        near = difflib.get_close_matches(prefix.lower(), [*known, *imported], n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"see 'segbench runs list --out {out}'"
        where = f"no run in {out} begins so" if known else f"there is no run in {out}; --results names another folder"
        raise SegbenchError(f"no model {prefix!r}: it is no folder of one, and {where}; {hint}")
    numbers = [(int(number), status) for run_id, number, status in rows if run_id == found[0]]
    done = [number for number, status in numbers if status == Status.DONE]
    if not done:
        raise SegbenchError(f"run {found[0]} has no model to apply: it is not finished, but {numbers[-1][1]}")
    attempt = out.attempt(found[0], done[-1])
    if attempt.url is not None and not attempt.has_job():
        pull_attempt(attempt)
    if not attempt.has_record():
        raise SegbenchError(f"the record of run {found[0]} is not in {attempt.path}: bring it, or run it again")
    return attempt, attempt.believed_record().attempt


def _recipe(attempt: AttemptFolder, row: AttemptRow) -> Recipe:
    """Return how a run's images became windows: as the run tells, else as its dataset is prepared here now."""
    if attempt.recipe.is_file():
        return Recipe.from_dict(json.loads(attempt.recipe.read_text()))
    spec = known_datasets().specs.get(row.dataset)
    prepared = None if spec is None else find_prepared(spec)
    if prepared is None or prepared.fingerprint != row.dataset_fingerprint:
        raise SegbenchError(
            f"run {row.run_id} is of a segbench that did not keep how its images were prepared, and dataset "
            f"{row.dataset!r} is not prepared here as it was then: prepare it again with 'segbench data prepare'"
        )
    return Recipe.of(prepared)
