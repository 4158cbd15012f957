"""Makes a package of a run's model: everything that it takes to apply, test, judge and cite it, in one file."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.data.cache import find_prepared
from segbench.engine.data.prepared import PreparedDataset
from segbench.engine.files.archives import file_sha256, read_member, write_archive
from segbench.engine.files.weights import check_weights
from segbench.engine.grid.cards import get_card
from segbench.engine.models.cover import cover_png
from segbench.engine.models.description import (
    NO_WEIGHTS,
    WeightsEntry,
    describe_package,
    native_entry,
    placeholder_entry,
    to_yaml,
)
from segbench.engine.models.facts import (
    FACTS,
    LONGEST_LINE,
    LONGEST_NAME,
    NAME,
    DataFacts,
    ModelFacts,
    accuracy_intervals,
    package_name,
    score_rows,
    training_facts,
)
from segbench.engine.models.likeness import describe_windows
from segbench.engine.models.model_card import model_card
from segbench.engine.models.packages import (
    COVER,
    EXAMPLES,
    EXPECTED,
    FILES,
    LOCK,
    PACKED,
    RDF,
    README,
    SAMPLE_INPUT,
    SAMPLE_OUTPUT,
    TEST_INPUT,
    TEST_OUTPUT,
    WEIGHTS,
)
from segbench.engine.models.reproduce import label_map, predict_windows
from segbench.engine.models.trained import DESCRIPTION, MODEL, TrainedModel, describe, model_of_run
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.run.environments import lock_versions
from segbench.engine.run.lock_files import ANY, ENGINE, lock_files
from segbench.engine.scheduler.catalogue import known_datasets
from segbench.errors import SegbenchError
from segbench.methods.folder import JobFolder
from segbench.small_files import read_json

_MOST_EXAMPLES = 4
_MOST_LIKENESS = 48


@dataclass(frozen=True)
class Told:
    """What only people can tell of a model; what is None is not guessed."""

    licence: str | None = None
    """Of the model, an SPDX identifier."""
    data_licence: str | None = None
    authors: tuple[str, ...] = ()
    data_url: str | None = None
    """Where the training data can be had."""
    name: str | None = None
    """What the package is called; None for a name of method, task, tissue and run."""


@dataclass(frozen=True)
class Exported:
    """A package that was written."""

    path: Path
    sha256: str
    facts: ModelFacts
    notes: tuple[str, ...] = field(default=())
    """What it lacks, a line each."""


def export_model(
    out: ResultsFolder, run: str, to: Path, told: Told | None = None, *, gpu: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Exported:  # fmt: skip
    """Write the package of a run's model; the same run and options give the same bytes on one machine.

    Parameters
    ----------
    out, run
        The results folder, and the beginning of a finished run's id.
    to
        The file, or a folder for a file of the package's name.
    told
        Licences and authors.
    gpu
        Whether the model may use a GPU for the expected output.
    progress
        Is told what is done.

    Raises
    ------
    SegbenchError
        There is no such model, its files are not plain data, or it cannot predict.
    """
    told, report = checked(told or Told()), progress or (lambda _line: None)
    model = model_of_run(out, run)
    attempt = _finished(out, model)
    record = attempt.believed_record()
    if model.folder is not None:
        check_weights(model.folder)
    data = _prepared(record)
    notes = _missing(told, data, record)
    if data is not None:
        report("scoring again, for intervals")
    target = _target(to, model, told)
    if target.exists():
        notes.append(f"{target} held a package of this run already: it is replaced")
    facts = _facts(model, attempt, record, data, told)
    with TemporaryDirectory(prefix="segbench-export-") as scratch:
        report(f"predicting the test window with {model.method}")
        files, empty = _files(model, attempt, facts, told, Path(scratch), gpu=gpu, progress=progress)
        if empty:
            notes.append("the model finds no cell in the test window: its expected output is empty")
        digest = write_archive(target, files)
    return Exported(target, digest, facts, tuple(notes))


def checked(told: Told) -> Told:
    """Return what people told, with the licence spelt as in the list of SPDX; SegbenchError where it cannot be meant.

    Examples
    --------
    >>> checked(Told(licence="cc-by-4.0")).licence
    'CC-BY-4.0'
    """
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    if told.name is not None and (NAME.fullmatch(told.name) is None or len(told.name) > LONGEST_NAME):
        raise SegbenchError(
            f"--name {told.name[:100]!r}: a package's name is lower-case letters and digits, parts joined by hyphens, "
            f"{LONGEST_NAME} characters at most"
        )
    texts = {"--data-licence": told.data_licence, "--data-url": told.data_url}
    for option, text in (*texts.items(), *(("--author", author) for author in told.authors)):
        if text is not None and (not text.strip() or not text.isprintable() or len(text) > LONGEST_LINE):
            raise SegbenchError(f"{option} is one line of text, up to {LONGEST_LINE:,} characters, found {text[:60]!r}")
    if told.data_url is not None and not told.data_url.startswith(("http://", "https://")):
        raise SegbenchError(f"--data-url is an address, https://..., found {told.data_url[:100]!r}")
    if told.licence is None:
        return told
    try:
        licence = str(canonicalize_license_expression(told.licence))
    except InvalidLicenseExpression:
        licence = " "
    if " " in licence or licence.startswith("LicenseRef-"):  # bioimage.io takes one of the list, no expression
        raise SegbenchError(
            f"--licence takes an identifier of the SPDX list, such as CC-BY-4.0, MIT or Apache-2.0, found "
            f"{told.licence[:60]!r}"
        )
    return dataclasses.replace(told, licence=licence)


def _target(to: Path, model: TrainedModel, told: Told) -> Path:
    """Return the package's file; SegbenchError where it is there, and is anything but a package of the same run."""
    name = told.name or package_name(model.method, model.task.name, model.train_tissue, model.run_id or model.name)
    target = to / f"{name}.zip" if to.is_dir() or to.suffix.lower() != ".zip" else to
    if target.exists():
        try:
            run_id = ModelFacts.read(read_member(target, FACTS), str(target)).run_id
        except SegbenchError:
            run_id = None
        if run_id != model.run_id:
            raise SegbenchError(f"{target} is there, and is no package of this run: move it, or name another --to")
    return target


def _missing(told: Told, data: PreparedDataset | None, record: Record) -> list[str]:
    """Return what nobody told, or what is not here, a line each."""
    notes = []
    if told.licence is None:
        notes.append("no --licence: the package says that the model's licence is not told, so nobody may use it yet")
    if told.data_licence is None:
        notes.append("no --data-licence: the package says that the data's licence is not told")
    if not told.authors:
        notes.append("no --author: the package names none, and bioimage.io asks for one")
    if data is None:
        notes.append(
            f"dataset {record.attempt.dataset!r} is not prepared here as it was then: no intervals, and 'models "
            "recommend' cannot compare images with it"
        )
    return notes


def _finished(out: ResultsFolder, model: TrainedModel) -> AttemptFolder:
    for attempt in reversed(out.attempts(model.run_id or model.name)):
        if attempt.has_record() and attempt.believed_record().attempt.status is Status.DONE:
            return attempt
    raise SegbenchError(f"run {model.run_id} has no finished attempt in {out}")


def _prepared(record: Record) -> PreparedDataset | None:
    spec = known_datasets().specs.get(record.attempt.dataset)
    found = None if spec is None else find_prepared(spec)
    return found if found is not None and found.fingerprint == record.attempt.dataset_fingerprint else None


def _facts(
    model: TrainedModel, attempt: AttemptFolder, record: Record, data: PreparedDataset | None, told: Told
) -> ModelFacts:
    row, card = record.attempt, get_card(model.method)
    intervals, likeness = _from_data(model, attempt, data)
    tissue = "" if model.train_tissue == "all" else f" of {model.train_tissue}"
    return ModelFacts(
        name=told.name or package_name(model.method, model.task.name, model.train_tissue, row.run_id),
        title=f"{card.title} for {model.task.target}{tissue} ({model.task.name})",
        run_id=row.run_id,
        method=model.method,
        method_title=card.title,
        method_revision=model.method_revision,
        category=card.category,
        trained=card.trained,
        task=model.task.name,
        channels=model.task.channels,
        target=model.task.target,
        train_tissue=model.train_tissue,
        seed=model.seed,
        made_at=row.ended_at.isoformat(),
        segbench_version=row.segbench_version,
        method_licence=card.licence,
        licence=told.licence,
        authors=told.authors,
        citation=card.paper,
        url=card.url,
        n_parameters=row.n_parameters,
        pixel_size_um=model.recipe.pixel_size_um,
        diameter_px=model.diameter_px,
        window=(model.recipe.preparation.window,) * 2,
        model_bytes=sum(path.stat().st_size for path in _model_files(model).values()),
        training=training_facts(record, card),
        data=DataFacts(
            name=row.dataset, kind=row.dataset_kind, fingerprint=row.dataset_fingerprint, licence=told.data_licence
        ),
        scores=score_rows(record, intervals),
        preparation=model.recipe.preparation.to_dict(),
        likeness=likeness,
    )


def _from_data(
    model: TrainedModel, attempt: AttemptFolder, data: PreparedDataset | None
) -> tuple[dict[str, tuple[float, float]], tuple[tuple[float, ...], ...]]:
    """Return what needs the prepared data: intervals by test tissue, and what training windows look like."""
    if data is None:
        return {}, ()
    intervals: dict[str, tuple[float, float]] = {}
    predictions = attempt.job.predictions("test")
    if (predictions / "predictions.json").is_file():
        tissues = data.index("test")["tissue"].to_list()
        labels = data.labels_path("test", model.task.target)
        intervals = accuracy_intervals(labels, predictions, tissues, data.origins("test"))
    windows = np.load(data.images_path("train"), mmap_mode="r")
    rows = np.asarray(data.rows("train", model.train_tissue))
    chosen = rows[np.unique(np.linspace(0, rows.size - 1, min(rows.size, _MOST_LIKENESS)).astype(int))]
    channels = [data.channels.index(name) for name in model.task.channels]
    described = describe_windows(windows[row][channels] for row in chosen)
    return intervals, tuple(tuple(round(float(value), 5) for value in line) for line in described)


def _model_files(model: TrainedModel) -> dict[str, Path]:
    if model.folder is None:
        return {}
    return {
        path.relative_to(model.folder).as_posix(): path for path in sorted(model.folder.rglob("*")) if path.is_file()
    }


def _files(
    model: TrainedModel, attempt: AttemptFolder, facts: ModelFacts, told: Told, scratch: Path, *, gpu: bool,
    progress: Callable[[str], None] | None,
) -> tuple[dict[str, Path | bytes], bool]:  # fmt: skip
    """Return what the package holds, by name, and whether nothing is found in the test window."""
    examples = _examples(attempt)
    window = np.asarray(examples["images"][:1], np.float32) / np.float32(255)
    np.save(scratch / TEST_INPUT, window)
    formats = scratch / "formats"
    formats.mkdir()
    predicted = predict_windows(
        model, scratch / TEST_INPUT, scratch / "job", gpu=gpu, formats=formats, progress=progress
    )
    labels = label_map(predicted[0], (predicted.height, predicted.width))
    native = _model_files(model)
    packed, along = _packed(model)
    entries = _entries(model, list(native), scratch / "job")
    if entries[0].network is None:
        np.save(scratch / TEST_OUTPUT, labels[None])
    else:  # what bioimage.io's own steps make of it
        (formats / Path(entries[0].network["output"]).name).replace(scratch / TEST_OUTPUT)
    files: dict[str, Path | bytes] = {
        **{f"{MODEL}/{name}": path for name, path in native.items()},
        **{f"{EXPECTED}/{path.name}": path for path in sorted(predicted.folder.iterdir())},
        **{f"{WEIGHTS}/{path.name}": path for path in sorted(formats.iterdir())},
        **{f"{FILES}/{name}": path for name, path in along.items()},
        TEST_INPUT: scratch / TEST_INPUT,
        TEST_OUTPUT: scratch / TEST_OUTPUT,
        SAMPLE_INPUT: _tiff(examples["images"][0]),
        SAMPLE_OUTPUT: _tiff(labels.astype(np.uint16)),
        EXAMPLES: _compressed(examples),
        COVER: cover_png(window[0], labels),
        LOCK: _lock(model),
        DESCRIPTION: json.dumps(describe(dataclasses.replace(packed, name=facts.name)), indent=1).encode(),
        FACTS: facts.model_dump_json(indent=1).encode(),
        README: model_card(facts, model).encode(),
    }
    if any(entry.file == NO_WEIGHTS for entry in entries):
        files[NO_WEIGHTS] = empty_state_dict()
    files[RDF] = to_yaml(describe_package(facts, entries, _sums(files), told.data_url))
    return files, not labels.any()


def _examples(attempt: AttemptFolder) -> dict[str, npt.NDArray[Any]]:
    """Return some test windows of a run with truth and prediction, the one with the most cells found first."""
    try:
        with np.load(attempt.example_arrays, allow_pickle=False) as stored:
            kept = {name: stored[name] for name in ("images", "truth", "prediction", "ap50")}
        tissues = np.asarray(json.loads(attempt.example_facts.read_text())["tissues"], dtype=str)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise SegbenchError(f"{attempt.path} holds no test window to show and test with: score the run again") from None
    found = [int(labels.max()) for labels in kept["prediction"]]
    best = int(np.argmax(found))
    first_of_tissue = [n for n in range(len(tissues)) if tissues[n] not in tissues[:n] and n != best]
    order = [best, *first_of_tissue, *(n for n in range(len(tissues)) if n != best and n not in first_of_tissue)]
    chosen = order[:_MOST_EXAMPLES]
    return {**{name: array[chosen] for name, array in kept.items()}, "tissues": tissues[chosen]}


def _packed(model: TrainedModel) -> tuple[TrainedModel, dict[str, Path]]:
    """Return a model whose settings name no file of this machine, and the files that they named, by name."""
    along: dict[str, Path] = {}
    settings = dict(model.settings)
    for name, value in model.settings.items():
        if isinstance(value, str) and value and Path(value).expanduser().is_file():
            path = Path(value).expanduser()
            file = f"{name}{path.suffix}"
            along[file], settings[name] = path, f"{PACKED}{file}"
    return dataclasses.replace(model, settings=settings), along


def _entries(model: TrainedModel, names: Sequence[str], job: Path) -> list[WeightsEntry]:
    """Return the weights in bioimage.io's formats, the ones as they were trained first; a network's stand alone."""
    native = native_entry(model, names)
    others = [
        WeightsEntry(kind, f"{WEIGHTS}/{told['file']}", told["comment"], told["facts"], told["network"])
        for kind, told in sorted(read_json(JobFolder(job).formats).items())
    ]
    networks = [each for each in others if each.network is not None]
    if networks:
        return networks[:1]
    found = [
        *([] if native is None else [native]),
        *(each for each in others if each.format != getattr(native, "format", "")),
    ]
    return found or [placeholder_entry(model)]


def _lock(model: TrainedModel) -> bytes:
    environment = get_card(model.method).environment
    if environment == ENGINE:
        pins = "".join(f"{name}=={version}\n" for name, version in sorted(model.versions.items()) if name != "python")
        return f"# segbench's own environment; of it the method uses\n{pins}".encode()
    files = lock_files(environment)
    variant = ANY if files.serves_both else "cpu" if files.has("cpu") else "gpu"
    try:
        text = files.text(variant)
    except SegbenchError:
        text = "".join(f"{name}=={version}\n" for name, version in sorted(lock_versions(environment).items()))
    return f"# environment {environment}; the run's lock had hash {model.lock_hash}\n{text}".encode()


def _tiff(planes: npt.NDArray[Any]) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.squeeze(planes), compression="zlib", photometric="minisblack")
    return buffer.getvalue()


def _compressed(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _sums(files: Mapping[str, Path | bytes]) -> dict[str, str]:
    import hashlib

    return {
        name: hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_sha256(content)
        for name, content in files.items()
    }


def empty_state_dict() -> bytes:
    """Return PyTorch's zip file of a state dict without any tensor, which needs no PyTorch to be written."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (
            ("data.pkl", pickle.dumps({}, protocol=2)),
            ("byteorder", b"little"),
            ("version", b"3\n"),
        ):
            archive.writestr(zipfile.ZipInfo(f"none/{name}", (1980, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()
