"""A run keeps the windows that every run of its task keeps, and its own worst, median and best of all test windows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.run.examples import choose_examples, choose_telling, write_examples
from segbench.methods.job import Task
from segbench.methods.predictions import LabelInstances, PredictionSet, PredictionWriter

N = 30


def cells(n: int) -> np.ndarray:
    """Return a label map with four cells, of which a prediction is to find n."""
    labels = np.zeros((32, 32), np.int32)
    for cell in range(n):
        labels[8 * cell : 8 * cell + 6, 2:12] = cell + 1
    return labels


def kept(folder: Path, found: list[int]) -> tuple[dict, dict]:
    """Write and read the examples of a run that finds so many of four cells in each of N windows."""
    folder.mkdir()
    truth = np.stack([cells(4 if n else 0) for n in range(N)])
    np.save(folder / "labels.npy", truth)
    np.save(folder / "images.npy", np.full((N, 1, 32, 32), 0.5, np.float32))
    with PredictionWriter(folder / "predictions", "labels", N, 32, 32) as writer:
        for n in found:
            writer.add(LabelInstances(cells(n), np.full(n, 0.9)))
    predictions = PredictionSet(folder / "predictions")
    attempt = AttemptFolder(folder, "00000000000a", 1).make()
    names = [f"image-{n}" for n in range(N)]
    task = Task(name="drawn-cell-1ch", dataset="drawn", channels=("image",), target="cell")
    write_examples(
        attempt, task, "f00d", folder / "images.npy", [0], folder / "labels.npy", predictions, ["lung"] * N,
        [4 if n else 0 for n in range(N)], names, evaluate_prediction_set(truth, predictions),
    )  # fmt: skip
    with np.load(attempt.example_arrays) as stored:
        return dict(stored), json.loads(attempt.example_facts.read_text())


def test_the_worst_and_the_best_of_the_whole_test_set_are_kept_with_their_scores(tmp_path: Path) -> None:
    common = choose_examples(["lung"] * N, [0, *[4] * (N - 1)])
    worst, *_, best = (n for n in range(1, N) if n not in common)
    found = [0, *[2] * (N - 1)]
    found[worst], found[best] = 0, 4
    arrays, facts = kept(tmp_path / "a", found)
    assert facts["telling"]["worst"] == worst
    assert facts["telling"]["best"] == best
    assert arrays["rows"].tolist()[: len(common)] == common, "what every run keeps comes first"
    assert {worst, best, facts["telling"]["median"]} <= set(arrays["rows"].tolist())
    assert len(set(arrays["rows"].tolist())) == len(arrays["rows"]) == len(facts["images"])
    place = arrays["rows"].tolist().index(worst)
    assert (arrays["ap50"][place], facts["images"][place]) == (0.0, f"image-{worst}")
    assert not arrays["prediction"][place].any()
    assert arrays["every_ap50"].shape == (N,)
    assert np.isnan(arrays["every_ap50"][0]), "a window without a true cell has no score"
    assert arrays["every_ap50"][best] == 1


def test_where_no_window_has_a_score_none_is_the_worst() -> None:
    assert choose_telling(np.full(3, np.nan), np.zeros(3, np.int64)) == {}
    assert choose_telling(np.array([0.4]), np.array([7])) == {"worst": 0, "median": 0, "best": 0}
