"""Writes a model's README: a Hugging Face model card that people read and bioimage.io takes as documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segbench.engine.models.facts import ModelFacts, TissueScore
from segbench.engine.models.trained import TrainedModel

_UNKNOWN = "not told by whoever made this package"


def model_card(facts: ModelFacts, model: TrainedModel) -> str:
    """Return the card as Markdown, with the fields that Hugging Face reads at its head."""
    return "\n\n".join(
        [
            _head(facts),
            f"# {facts.title}",
            _about(facts),
            "## Use\n\n" + _use(facts),
            "## Training\n\n" + _table(_training(facts)),
            "## Preparation of images\n\n" + _preparation(model),
            "## Validation\n\n" + _validation(facts),
            "## Limits\n\n" + _limits(facts),
            "## Licences and citation\n\n" + _table(_licences(facts)),
        ]
    )


def _head(facts: ModelFacts) -> str:
    import yaml

    fields: dict[str, Any] = {
        "library_name": "segbench",
        "pipeline_tag": "image-segmentation",
        "tags": ["segbench", "bioimage.io", "instance-segmentation", "microscopy", facts.method, facts.target],
    }
    if facts.licence is not None:
        fields["license"] = facts.licence.lower()
    if facts.scores:
        metrics = [
            {"type": name, "name": name, "value": round(value, 4)}
            for name in ("accuracy", "map", "ap50", "ap75")
            if (value := getattr(facts.scores[0], name)) is not None
        ]
        dataset = {"name": facts.data.name, "type": facts.data.name, "split": "test"}
        fields["model-index"] = [
            {
                "name": facts.name,
                "results": [{"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}],
            }
        ]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _about(facts: ModelFacts) -> str:
    source = f" ({facts.citation})" if facts.citation else ""
    trained = "all its tissues" if facts.train_tissue == "all" else f"its tissue {facts.train_tissue}"
    how = f"It was trained on {trained} of dataset {facts.data.name}" if facts.trained else "It is not trained"
    return (
        f"{facts.method_title}{source} segments {facts.target} from {' and '.join(facts.channels)}. {how}, and scored "
        f"by segbench {facts.segbench_version} with the evaluator that every method there is scored with."
    )


def _use(facts: ModelFacts) -> str:
    return (
        f"    segbench models test {facts.name}.zip\n    segbench models apply {facts.name}.zip IMAGES --to OUT\n\n"
        "The package holds weights and text, and no code: segbench builds the environment of the method from its own "
        "lock. It is a model of bioimage.io's format 0.5, too; `bioimageio.yaml` says who can run which weights."
    )


def _training(facts: ModelFacts) -> list[tuple[str, str]]:
    t = facts.training
    budget = {"epochs": t.epochs, "iterations": t.iterations, "batch size": t.batch_size}
    gpu = f"{t.num_gpus:g} x {', '.join(t.gpu_names)}" if t.gpu_names else "no GPU"
    memory = {"host": t.peak_memory_bytes, "GPU": t.peak_gpu_memory_bytes}
    return [
        ("data", f"{facts.data.name} (fingerprint {facts.data.fingerprint})"),
        ("training windows, cells", f"{_count(t.images)}, {_count(t.cells)}"),
        ("validation windows", _count(t.val_images)),
        ("budget", ", ".join(f"{value} {name}" for name, value in budget.items() if value is not None)),
        ("training time", "not trained" if t.seconds is None else f"{t.seconds:,.1f} s"),
        ("prediction", "unknown" if t.predict_image_s is None else f"{t.predict_image_s:.3g} s a window"),
        ("hardware", f"{gpu}; {t.cpu_name or 'unknown processor'}, {t.num_cpus:g} cores"),
        ("peak memory", ", ".join(f"{n} {b / 1e9:.2g} GB" for n, b in memory.items() if b) or "unknown"),
        ("parameters", _count(facts.n_parameters)),
        ("seed, run", f"{facts.seed}, {facts.run_id} (revision {facts.method_revision} of the method)"),
    ]


def _preparation(model: TrainedModel) -> str:
    recipe, how = model.recipe, model.recipe.preparation
    low, high = how.percentiles
    clahe = f"CLAHE with tiles of {how.clahe_kernel} pixels and a clip limit of {how.clahe_clip:g}"
    lines = [
        f"- channels, in this order: {', '.join(model.task.channels)}",
        f"- percentiles {low:g} and {high:g} of the image and channel become 0 and 1",
        f"- {clahe if how.clahe_kernel else 'no CLAHE'}",
        f"- windows of {how.window} pixels",
    ]
    if recipe.rescaling is not None:
        lines.append("- images were rescaled before; segbench does it again, and undoes it in the result")
    if recipe.pixel_size_um is not None:
        lines.append(f"- a pixel of a window is {recipe.pixel_size_um:.4g} um")
    if model.diameter_px is not None:
        lines.append(f"- the median diameter of the training cells is {model.diameter_px:.3g} pixels")
    return "\n".join(lines)


def _validation(facts: ModelFacts) -> str:
    if not facts.scores:
        return "It has not been scored."
    header = ("test tissue", "accuracy", "95 % interval", "mAP", "AP50", "AP75", "AR", "windows", "cells")
    rows = [_score_row(score) for score in facts.scores]
    return (
        "On test images that it has not seen. Accuracy is the mean of COCO's mAP, AP50, AP75, AR50 and AR75 (3,000 "
        "detections a window); intervals are of resamples of the images.\n\n"
        + _grid(header, rows)
        + "\n\nTo validate it on images with known cells: `segbench models apply`, then `segbench evaluate`."
    )


def _score_row(score: TissueScore) -> list[str]:
    low, high = score.accuracy_low, score.accuracy_high
    between = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    metrics = [score.map, score.ap50, score.ap75, score.ar]
    shown = ["" if value is None else f"{value:.3f}" for value in (score.accuracy, *metrics)]
    return [score.test_tissue, shown[0], between, *shown[1:], str(score.n_images), str(score.n_truth)]


def _limits(facts: ModelFacts) -> str:
    scored = [s for s in facts.scores if s.accuracy is not None and s.test_tissue != "all"]
    worst = min(scored, key=lambda score: score.accuracy or 0.0, default=None)
    told = "" if worst is None else f" It does worst on {worst.test_tissue} (accuracy {worst.accuracy:.3f})."
    return (
        f"It knows {facts.target} at the scale and staining of {facts.data.name}; `segbench models recommend` tells "
        f"how far other images lie from what it was trained on.{told} Not for clinical use."
    )


def _licences(facts: ModelFacts) -> list[tuple[str, str]]:
    return [
        ("model", facts.licence or _UNKNOWN),
        ("training data", facts.data.licence or _UNKNOWN),
        ("the method's library", facts.method_licence or "unknown"),
        ("authors", ", ".join(facts.authors) or _UNKNOWN),
        ("cite", f"{facts.citation} {facts.url}".strip() or "the method's library"),
    ]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return _grid(("", ""), [list(row) for row in rows])


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def summary(facts: ModelFacts) -> Mapping[str, Any]:
    """Return a row of a table of models."""
    pooled = facts.pooled
    return {
        "name": facts.name,
        "method": facts.method,
        "task": facts.task,
        "train_tissue": facts.train_tissue,
        "accuracy": None if pooled is None else pooled.accuracy,
        "low": None if pooled is None else pooled.accuracy_low,
        "high": None if pooled is None else pooled.accuracy_high,
        "megabytes": facts.model_bytes / 1e6,
        "licence": facts.licence,
    }
