"""Writes what bioimage.io wants to know of a model: its description, format 0.5, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segbench.engine.grid.cards import method_object
from segbench.engine.models.facts import ModelFacts
from segbench.engine.models.packages import (
    COVER,
    README,
    SAMPLE_INPUT,
    SAMPLE_OUTPUT,
    TEST_INPUT,
    TEST_OUTPUT,
    WEIGHTS,
)
from segbench.engine.models.trained import MODEL, TrainedModel

FORMAT = "0.5.12"
"""The oldest format 0.5.x with all that is used here: bioimage.io's core of 2026 reads no newer one."""
NO_WEIGHTS = f"{WEIGHTS}/none.pth"
"""The file of an empty state dict, for methods without weights: bioimage.io knows no model without any."""
_NAMED = (README, COVER, TEST_INPUT, TEST_OUTPUT, SAMPLE_INPUT, SAMPLE_OUTPUT)
_TORCH, _HDF5 = b"PK\x03\x04", b"\x89HDF"


@dataclass(frozen=True)
class WeightsEntry:
    """Weights in one of bioimage.io's formats."""

    format: str
    """``pytorch_state_dict``, ``keras_hdf5``, ``torchscript``, ..."""
    file: str
    """Its name in the package."""
    comment: str
    facts: Mapping[str, Any]
    network: Mapping[str, Any] | None = None
    """Of a network alone, what bioimage.io does before and after it: ``preprocessing`` and ``postprocessing``."""


def native_entry(model: TrainedModel, files: Sequence[str]) -> WeightsEntry | None:
    """Return the entry of the weights as the method saved them; None where they are in no format of bioimage.io.

    Parameters
    ----------
    model
        With its folder.
    files
        The files of that folder, by name.
    """
    if model.folder is None:
        comment = "no weights: the method is not trained, and what it needs comes with its library or its settings"
        return WeightsEntry("pytorch_state_dict", NO_WEIGHTS, comment, _torch_facts(model, None, {}))
    for name in files:
        with (model.folder / name).open("rb") as file:
            head = file.read(4)
        if head == _TORCH and not name.endswith(".npz"):
            others = {other: _json(model.folder / other) for other in files if other.endswith(".json")}
            comment = "as the method saved them; the module that takes them is the method itself, by segbench"
            return WeightsEntry("pytorch_state_dict", f"{MODEL}/{name}", comment, _torch_facts(model, name, others))
        if head == _HDF5:
            comment = "the weights alone, as the method's library saved them: segbench builds the network"
            version = next((model.versions[n] for n in ("tensorflow", "tensorflow-cpu") if n in model.versions), "2")
            return WeightsEntry("keras_hdf5", f"{MODEL}/{name}", comment, {"tensorflow_version": version})
    return None


def _torch_facts(model: TrainedModel, weights: str | None, files: Mapping[str, Any]) -> dict[str, Any]:
    arguments = {
        "method": method_object(model.method), "task": asdict(model.task), "settings": dict(model.settings),
        "budget": asdict(model.budget), "weights": weights, "files": dict(files), "seed": model.seed,
    }  # fmt: skip
    return {
        "architecture": {
            "callable": "network", "import_from": "segbench.methods.bioimageio", "kwargs": _plain(arguments),
        },
        "pytorch_version": model.versions.get("torch", "2.0").partition("+")[0],
        "strict": False,
    }  # fmt: skip


def placeholder_entry(model: TrainedModel) -> WeightsEntry:
    """Return the entry of an empty state dict, for weights in no format that bioimage.io knows."""
    comment = f"empty: the weights are those in {MODEL}/, in the method's own format, which segbench alone reads"
    return WeightsEntry("pytorch_state_dict", NO_WEIGHTS, comment, _torch_facts(model, "", {}))


def describe_package(
    facts: ModelFacts, entries: Sequence[WeightsEntry], sums: Mapping[str, str], data_url: str | None
) -> dict[str, Any]:
    """Return the content of ``bioimageio.yaml``.

    Parameters
    ----------
    facts
        What is known of the model.
    entries
        Its weights, the ones that the others were made from first.
    sums
        The SHA-256 of every file of the package but the description itself, by name.
    data_url
        Where the data can be had; the scores stand in bioimage.io's own table only with it.
    """
    described: dict[str, Any] = {
        "type": "model",
        "format_version": FORMAT,
        "name": _clean(facts.title)[:128],
        "description": _sentence(facts),
        "authors": [{"name": author} for author in facts.authors],
        "documentation": {"source": README, "sha256": sums[README]},
        "covers": [{"source": COVER, "sha256": sums[COVER]}],
        "tags": ["segbench", "instance-segmentation", "cells", facts.method, facts.target, *facts.channels],
        "version": "1",
        "timestamp": facts.made_at,
        "inputs": [_input(facts, sums, entries[0].network)],
        "outputs": [_output(facts, sums, entries[0].network)],
        "weights": _weights(entries, sums),
        "attachments": [
            {"source": name, "sha256": digest}
            for name, digest in sorted(sums.items())
            if name not in {*_NAMED, *(entry.file for entry in entries)}
        ],
        "config": {"bioimageio": _bioimageio(facts, data_url), "segbench": _plain(facts.model_dump(mode="json"))},
    }
    if facts.url and facts.citation:
        described["cite"] = [{"text": facts.citation, "url": facts.url}]
    if facts.licence is not None:
        described["license"] = facts.licence
    described["config"]["segbench"].pop("likeness")
    return described


def to_yaml(described: Mapping[str, Any]) -> bytes:
    """Return a description as YAML, in the order of its fields."""
    import yaml

    return str(yaml.safe_dump(dict(described), sort_keys=False, allow_unicode=True, width=120)).encode()


def _sentence(facts: ModelFacts) -> str:
    trained = "all tissues" if facts.train_tissue == "all" else facts.train_tissue
    how = f"trained on {trained} of {facts.data.name}" if facts.trained else "not trained"
    text = (
        f"{facts.method_title}, {how}: {facts.target} from {' and '.join(facts.channels)}. It sees windows of "
        f"{facts.window[0]} x {facts.window[1]} pixels as segbench prepares them (percentiles of the image to 0..1, "
        f"then CLAHE); {README} says how, and 'segbench models apply' does it."
    )
    return text[:1024]


def _space(facts: ModelFacts, name: str, size: Any) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "space", "id": name, "size": size}
    if facts.pixel_size_um is not None:
        axis |= {"unit": "micrometer", "scale": facts.pixel_size_um}
    return axis


def _input(facts: ModelFacts, sums: Mapping[str, str], network: Mapping[str, Any] | None) -> dict[str, Any]:
    names = [name if name.isidentifier() else f"channel{n}" for n, name in enumerate(facts.channels)]
    return {
        "id": "image",
        "description": "a prepared window",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": names},
            *(_space(facts, axis, size) for axis, size in zip("yx", facts.window, strict=True)),
        ],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        **({} if network is None else {"preprocessing": _plain(network["preprocessing"])}),
        **_tensors(TEST_INPUT, SAMPLE_INPUT, sums),
    }


def _output(facts: ModelFacts, sums: Mapping[str, str], network: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "instances",
        "description": "label map: 0 is background; where masks overlap the one with the higher score is on top",
        "axes": [
            {"type": "batch"},
            *(_space(facts, axis, {"tensor_id": "image", "axis_id": axis}) for axis in "yx"),
            *([] if network is None else [{"type": "channel", "channel_names": ["instances"]}]),
        ],
        "data": {"type": "int32"},
        **({} if network is None else {"postprocessing": _plain(network["postprocessing"])}),
        **_tensors(TEST_OUTPUT, SAMPLE_OUTPUT, sums),
    }


def _tensors(test: str, sample: str, sums: Mapping[str, str]) -> dict[str, Any]:
    return {
        "test_tensor": {"source": test, "sha256": sums[test]},
        "sample_tensor": {"source": sample, "sha256": sums[sample]},
    }


def _weights(entries: Sequence[WeightsEntry], sums: Mapping[str, str]) -> dict[str, Any]:
    first = entries[0].format
    return {
        entry.format: {
            "source": entry.file,
            "sha256": sums[entry.file],
            "comment": entry.comment,
            **({} if entry.format == first else {"parent": first}),
            **entry.facts,
        }
        for entry in entries
    }


def _bioimageio(facts: ModelFacts, data_url: str | None) -> dict[str, Any]:
    training, hours = facts.training, None if facts.training.seconds is None else facts.training.seconds / 3600
    hardware = ", ".join(training.gpu_names) or training.cpu_name
    told: dict[str, Any] = {
        "architecture_type": facts.method_title[:32],
        "modality": " and ".join(facts.channels),
        "target_structure": [facts.target],
        "task": "instance segmentation",
        "model_parameter_count": facts.n_parameters,
        "training": {
            "training_epochs": training.epochs,
            "training_batch_size": training.batch_size,
            "training_duration": hours,
        },
        "environmental_impact": {"hardware_type": hardware, "hours_used": hours},
    }
    if training.predict_image_s is not None:
        told["inference_time"] = (
            f"{training.predict_image_s:.3g} s a window of {facts.window[0]} x {facts.window[1]} on {hardware}"
        )
    if data_url is not None and facts.scores:
        told["evaluations"] = [_evaluation(facts, data_url)]
    return {name: value for name, value in told.items() if value is not None}


def _evaluation(facts: ModelFacts, data_url: str) -> dict[str, Any]:
    metrics = ("accuracy", "map", "ap50", "ap75", "ar")
    long = {
        "accuracy": "mean of mAP, AP50, AP75, AR50 and AR75", "map": "COCO's mean average precision, 3,000 detections",
        "ap50": "average precision at IoU 0.5", "ap75": "average precision at IoU 0.75", "ar": "average recall",
    }  # fmt: skip
    scored = [score for score in facts.scores if score.accuracy is not None]
    return {
        "dataset_id": facts.data.name,
        "dataset_source": data_url,
        "dataset_role": "test",
        "sample_count": scored[0].n_images if scored else 0,
        "evaluation_factors": [score.test_tissue[:16] for score in scored],
        "evaluation_factors_long": [f"test images of {score.test_tissue}" for score in scored],
        "metrics": list(metrics),
        "metrics_long": [long[name] for name in metrics],
        "results": [[round(getattr(score, name), 4) for score in scored] for name in metrics],
    }


def _clean(text: str) -> str:
    """Return a name in the characters that bioimage.io allows."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_+- ()" else " " for c in text).strip()


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _plain(value: Any) -> Any:
    """Return nested data as YAML's own kinds: lists for tuples."""
    return json.loads(json.dumps(value))
