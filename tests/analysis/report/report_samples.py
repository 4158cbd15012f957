"""Makes results folders with real records and real example windows, for the tests of the report."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from segbench.engine.grid.cards import all_cards
from segbench.engine.metrics.faults import KINDS
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import AttemptRow, EvaluationRow, GapRow, HistoryRow, Record, Status, TissueRow
from segbench.engine.results.store import StoreWriter
from segbench.methods.card import Budget

TISSUES = ("Breast", "Colon", "Epidermis", "Esophagus", "Pancreas", "Tonsil")
TASKS = {
    "synthetic-nuclear-1ch": (("nuclear",), "nuclear"),
    "synthetic-nuclear-2ch": (("nuclear", "membrane"), "nuclear"),
    "synthetic-wholecell-1ch": (("membrane",), "wholecell"),
    "synthetic-wholecell-2ch": (("nuclear", "membrane"), "wholecell"),
}
OTHER = {"synthetic-nuclear-1ch": "synthetic-wholecell-1ch", "synthetic-wholecell-1ch": "synthetic-nuclear-1ch"}
RADII = range(7)
USABILITY = {"watershed": 0.7, "stardist": 0.59, "cellpose": 0.67}
METHODS = {"watershed": "Watershed", "stardist": "StarDist", "cellpose": "Cellpose"}
SKILL = {"watershed": 0.45, "stardist": 0.62, "cellpose": 0.7}
START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def make_record(
    method: str,
    title: str,
    task: str = "synthetic-nuclear-1ch",
    train_tissue: str = "all",
    seed: int = 0,
    status: Status = Status.DONE,
    error: str | None = None,
    log_tail: str | None = None,
    skill: float = 0.6,
    tissues: Sequence[str] = TISSUES,
    epochs: int | None = None,
) -> Record:
    """Return the record of one attempt whose scores follow ``skill``, trained to the end where no epochs are given."""
    card = all_cards().get(method)
    budget = card.budget if card else Budget(batch_size=4, epochs=10)
    channels, target = TASKS.get(task, (("nuclear",), "nuclear"))
    run_id = f"{method}-{task}-{train_tissue}-{seed}".lower().replace(" ", "-")
    trained = method != "watershed"
    draw = random.Random(run_id)
    done = status is Status.DONE

    def row(
        tissue: str, test_task: str, operation: str = "none", radius: int = 0, level: float = skill
    ) -> EvaluationRow:
        place = 0 if tissue == "all" else list(tissues).index(tissue) - 1
        level += 0.1 * (tissue == train_tissue) - 0.03 * place + draw.uniform(-0.02, 0.02)
        level = max(0.05, min(0.85, level))
        return EvaluationRow(
            test_task=test_task,
            test_tissue=tissue,
            operation=operation,
            radius=radius,
            map=level * 0.8,
            ap50=level,
            ap75=level * 0.85,
            ar=level * 0.9,
            ar50=level * 1.1,
            ar75=level * 0.95,
            n_images=12,
            n_truth=840,
            n_predictions=800,
        )

    evaluations = []
    if done:
        evaluations = [row(tissue, task) for tissue in ("all", *tissues)]
        if task in OTHER:
            operation, best = ("dilate", 3) if target == "nuclear" else ("erode", 2)
            evaluations += [row(tissue, OTHER[task], level=skill - 0.25) for tissue in ("all", *tissues)]
            evaluations += [
                row(tissue, OTHER[task], operation, radius, skill - 0.2 - 0.03 * abs(radius - best))
                for tissue in ("all", *tissues)
                for radius in RADII
            ]
    shares = ((0.2, 0.1, 0.4, 0.2, 0.1), (0.4, 0.1, 0.1, 0.1, 0.3))
    train_s = {"watershed": 0.0, "stardist": 95.0}.get(method, 160.0) + draw.uniform(0, 5)
    phases = {"wait": 1.0, "environment": 2.0, "data": 0.5, "import": 4.0, "load": 0.3, "predict": 3.0, "evaluate": 2.0}
    return Record(
        attempt=AttemptRow(
            run_id=run_id,
            attempt=1,
            status=status,
            error=error,
            log_tail=log_tail,
            method=method,
            method_title=title,
            method_revision=1,
            family=method,
            environment="engine",
            category="classical",
            trained=trained,
            attention=False,
            usability=USABILITY.get(method),
            task=task,
            dataset="synthetic",
            dataset_kind="synthetic",
            dataset_fingerprint="f00d",
            channels=list(channels),
            n_channels=len(channels),
            target=target,
            train_tissue=train_tissue,
            seed=seed,
            settings={"sigma": 1.0, "note": "plain"},
            batch_size=budget.batch_size or 4,
            epochs=(epochs or budget.epochs) if trained else None,
            iterations=budget.iterations if trained and not epochs else None,
            n_train_images=120,
            n_train_cells=8400,
            versions={"numpy": "2.4.6"},
            segbench_version="0.1.0",
            host="bench-1",
            cpu_name="a CPU",
            num_cpus=2,
            num_gpus=0,
            started_at=START,
            ended_at=START + timedelta(seconds=train_s + 20),
            folder=f"runs/{run_id}/attempt-001",
        ),
        phases={**phases, "train": train_s} if trained else phases,
        evaluations=evaluations,
        gaps=[
            GapRow(
                test_task=task,
                test_tissue=row.test_tissue,
                metric=metric,
                score=row.ap50,
                gap=1 - row.ap50,
                **{
                    kind: (1 - row.ap50) * share
                    for kind, share in zip(KINDS, shares[method != "watershed"], strict=True)
                },
            )
            for row in evaluations
            if row.test_task == task and row.operation == "none" and row.ap50 is not None
            for metric in ("map", "ap50", "ap75")
        ],
        history=[HistoryRow(epoch=n, loss=1 / min(n, 4), val_loss=1.2 / min(n, 4)) for n in range(1, 13)]
        if trained
        else [],
        tissues=[
            TissueRow(
                dataset_fingerprint="f00d",
                dataset="synthetic",
                split=split,
                target=target,
                tissue=tissue,
                n_images=12 + 7 * (n * 3 % 5),
                n_cells=840,
                area=120.0 + 10 * n,
                elongation=0.7 - 0.05 * (n * n % 5),
                convexity=0.9 - 0.02 * n,
                pixel_size_um=0.5,
            )
            for split in ("train", "test")
            for n, tissue in enumerate(("all", *tissues))
        ],
    )


def write_examples(
    out: Path,
    record: Record,
    tissues: Sequence[str] = TISSUES,
    size: int = 96,
    windows: int = 2,
    telling: dict[str, int] | None = None,
) -> None:
    """Write the example windows of a record: discs as truth, moved and partly forgotten discs as prediction.

    With ``telling`` they are some of 50 test windows, of which these are its worst, median and best.
    """
    folder = out / record.attempt.folder
    folder.mkdir(parents=True, exist_ok=True)
    k = windows * len(tissues)
    truth = np.stack([discs(size, seed) for seed in range(k)])
    prediction = np.zeros_like(truth)
    skill = SKILL.get(record.attempt.method, 0.6)
    for n in range(k):
        draw = np.random.default_rng(n)
        for label in range(1, truth[n].max() + 1):
            shift = draw.integers(-2, 3, 2) * (2 if skill < 0.5 else 1)
            if draw.random() < skill + 0.2:
                prediction[n][np.roll(truth[n] == label, shift, axis=(0, 1))] = label
    noise = np.random.default_rng(0)
    plane = (truth > 0) * 120 + noise.normal(50, 12, truth.shape)
    images = np.stack([plane] * len(record.attempt.channels), axis=1).clip(0, 255).astype(np.uint8)
    names = [f"{tissue}-{n}" for tissue in tissues for n in range(windows)]
    np.savez(
        folder / "examples.npz",
        rows=np.arange(k),
        images=images,
        truth=truth,
        prediction=prediction,
        ap50=np.linspace(skill, skill - 0.3, k),
        **({"every_ap50": np.linspace(skill, skill - 0.3, 50, dtype=np.float32)} if telling else {}),
    )
    meta: dict[str, Any] = {
        "task": record.attempt.task,
        "dataset": "synthetic",
        "fingerprint": "f00d",
        "tissues": [tissue for tissue in tissues for _ in range(windows)],
        "images": names,
        "channels": record.attempt.channels,
        **({"telling": telling} if telling else {}),
    }
    (folder / "examples.json").write_text(json.dumps(meta))


def discs(size: int, seed: int) -> np.ndarray:
    """Return a label map (size, size) of discs that do not touch."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    rows, columns = np.indices(labels.shape)
    for _ in range(60):
        row, column = draw.integers(8, size - 8, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 <= draw.integers(16, 50)
        near = (rows - row) ** 2 + (columns - column) ** 2 <= 100
        if not labels[near].any():
            labels[disc] = labels.max() + 1
    return labels


def make_results(out: Path) -> Path:
    """Fill a folder with three methods on four tasks, one also trained on single tissues, and one failed run."""
    records = [
        make_record(name, title, task, skill=SKILL[name] - 0.05 * n)
        for n, task in enumerate(TASKS)
        for name, title in METHODS.items()
    ]
    records += [make_record("stardist", "StarDist", train_tissue=tissue, skill=0.5) for tissue in TISSUES]
    StoreWriter(ResultsFolder(out)).add(
        [
            *records,
            make_record(
                "cellpose",
                "Cellpose",
                train_tissue="Tonsil",
                status=Status.OUT_OF_MEMORY,
                error="needed more memory than the 4 GB it was granted",
                log_tail="epoch 3\nMemoryError",
            ),
        ]
    )
    for record in records:
        write_examples(out, record, TISSUES[:3])
    return out
