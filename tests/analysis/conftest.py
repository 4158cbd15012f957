"""Stores made by hand, run by run, for analyses whose answers can be worked out on paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from segbench.analysis.source import Source
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import METRICS, EvaluationRow, Record, ResampleTable, TissueRow
from segbench.engine.results.store import StoreWriter

CHANNELS = {("nuclear", 1): ["nuclear"], ("wholecell", 1): ["membrane"]}


def evaluation(
    test_task: str, test_tissue: str, score: float | Mapping[str, float | None] | None, **fields: Any
) -> EvaluationRow:
    """Return an evaluation in which every metric is ``score``, or which has the metrics that it names."""
    metrics = {name: score.get(name) if isinstance(score, Mapping) else score for name in METRICS}
    counts = {"n_images": 10, "n_truth": 100, "n_predictions": 100}
    return EvaluationRow(test_task=test_task, test_tissue=test_tissue, **metrics, **{**counts, **fields})


class Results:
    """A results folder to be filled with runs, then asked."""

    def __init__(self, out: Path, make_record: Callable[..., Record]) -> None:
        self.out = out
        self._make = make_record
        self.records: list[Record] = []

    def run(
        self,
        method: str,
        task: str,
        scores: float | Mapping[str, Any] | None,
        *,
        kind: str | None = None,
        train_s: float | None = 3600.0,
        other: tuple[EvaluationRow, ...] = (),
        tissues: tuple[TissueRow, ...] = (),
        resamples: Sequence[float] = (),
        **row: Any,
    ) -> None:
        """Add a finished run: a task like tissuenet-nuclear-2ch, scores by test tissue (or over all), its time."""
        dataset, target, *rest = task.rsplit("-", 2) if task.endswith("ch") else task.rsplit("-", 1)
        n_channels = int(rest[0][0]) if rest else 1
        phase = dataset.endswith("livecell")
        both = ["nuclear", "membrane"]
        channels = ["phase"] if phase else CHANNELS.get((target, n_channels), both)
        rows = scores if isinstance(scores, Mapping) else {"all": scores}
        fields: dict[str, Any] = {
            "method": method,
            "method_title": method.title(),
            "task": task,
            "dataset": dataset,
            "dataset_kind": kind or ("synthetic" if dataset.startswith("synthetic") else dataset),
            "target": target,
            "channels": channels,
            "n_channels": n_channels,
            "batch_size": 8,
            "epochs": 50,
            "usability": 0.5,
        }
        record = self._make(
            run_id=f"{len(self.records):012d}",
            phases={} if train_s is None else {"train": train_s},
            **{**fields, **row},
        )
        scored = [evaluation(task, tissue, score) for tissue, score in rows.items()]
        drawn = [ResampleTable(test_task=task, columns={key: list(resamples) for key in METRICS})] if resamples else []
        rows = {"evaluations": [*scored, *other], "tissues": list(tissues), "resamples": drawn}
        self.records.append(record.model_copy(update=rows))

    def source(self) -> Source:
        """Write the store and return the source that reads it."""
        StoreWriter(ResultsFolder(self.out)).add(self.records)
        return Source.of_results(ResultsFolder(self.out))


def shape(
    tissue: str,
    *,
    split: str = "test",
    target: str = "nuclear",
    dataset: str = "tissuenet",
    n_images: int = 10,
    **fields: Any,
) -> TissueRow:
    """Return a row of the table tissues."""
    values = {"area": 100.0, "elongation": 0.5, "convexity": 0.9, "pixel_size_um": None, "n_cells": 50, **fields}
    return TissueRow(
        dataset_fingerprint="f" * 16,
        dataset=dataset,
        split=split,
        target=target,
        tissue=tissue,
        n_images=n_images,
        **values,
    )


@pytest.fixture
def results(tmp_path: Path, make_record: Callable[..., Record]) -> Results:
    """Return an empty results folder."""
    return Results(tmp_path / "out", make_record)


@pytest.fixture(scope="session")
def published() -> Source:
    """Return the published scores."""
    return Source.of_published()


@pytest.fixture
def make_evaluation() -> Callable[..., EvaluationRow]:
    """Return the maker of evaluations."""
    return evaluation


@pytest.fixture
def make_shape() -> Callable[..., TissueRow]:
    """Return the maker of tissue rows."""
    return shape
