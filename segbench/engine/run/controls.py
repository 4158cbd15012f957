"""Makes the predictions of a control from the truth of the test windows: no method's process takes part in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from segbench.engine.data import PreparedDataset
from segbench.engine.data.annotators import annotated_again
from segbench.engine.grid import Run
from segbench.engine.grid.controls import ANNOTATORS, CONTROLS, ONE_CELL, SHUFFLED, TRUTH, VORONOI
from segbench.engine.run.job import TEST
from segbench.engine.run.request import AttemptRequest
from segbench.errors import SegbenchError
from segbench.methods.job import Job
from segbench.methods.predictions import LabelInstances, PredictionWriter
from segbench.methods.stages import PREDICT, stage

Labels = npt.NDArray[np.int32]
Truth = npt.NDArray[np.int32]


def predict_control(request: AttemptRequest, data: PreparedDataset) -> None:
    """Write the predictions of a control for the test windows, and a job that says what they are.

    Raises
    ------
    SegbenchError
        The test images do not allow it: there is one picture only, or none with several annotators.
    """
    run, files = request.run, request.folder.job
    truth = np.load(data.labels_path(TEST, run.task.target), mmap_mode="r")
    files.path.mkdir(parents=True, exist_ok=True)
    Job(
        run_id=run.id, method=run.method, task=run.task, budget=run.budget, seed=run.seed, output=str(files.path),
        settings=run.settings,
    ).write(files.job)  # fmt: skip
    with stage(files.path, PREDICT, files.log):
        maps = _MAKERS[run.method](truth, data, run)
        with PredictionWriter(files.predictions(TEST), "labels", *truth.shape) as writer:
            for labels in maps:
                writer.add(LabelInstances(labels, np.ones(int(labels.max(initial=0)))))


def scored_windows(run: Run, data: PreparedDataset) -> Sequence[int] | None:
    """Return the test windows that a run is scored on; None for all, which holds for all but one control."""
    if run.method != ANNOTATORS:
        return None
    return sorted(row for pictures in annotated_again(data, TEST) for windows in pictures for row in windows)


def shifted(origins: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Return for each window another one, of another picture; each is taken once.

    The pictures are put in a random order, and every window gets that which is as many further on as the largest
    picture has windows.

    Raises
    ------
    SegbenchError
        Half of the windows or more are of one picture.

    Examples
    --------
    >>> taken = shifted(["a", "a", "b", "c"], seed=0)
    >>> sorted(taken.tolist()), [["a", "a", "b", "c"][n] for n in taken][:2]
    ([0, 1, 2, 3], ['b', 'c'])
    """
    names, numbers, counts = np.unique(np.asarray(origins), return_inverse=True, return_counts=True)
    if 2 * counts.max() > len(origins):
        raise SegbenchError(
            f"{counts.max():,} of {len(origins):,} test windows are of one picture ({names[counts.argmax()]}): "
            f"{SHUFFLED} needs others to take the truth from"
        )
    order = np.argsort(np.random.default_rng([seed, 1]).permutation(len(names))[numbers], kind="stable")
    taken = np.empty(len(origins), np.int64)
    taken[order] = np.roll(order, -int(counts.max()))
    return taken


def voronoi(shape: tuple[int, int], cells: int, rng: np.random.Generator) -> Labels:
    """Return a label map (H, W) of as many cells about random points: each pixel is of the point that is nearest.

    Examples
    --------
    >>> voronoi((1, 4), 4, np.random.default_rng(0)).max()
    np.int32(4)
    """
    labels = np.zeros(shape, np.int32)
    if not cells:
        return labels
    points = rng.choice(labels.size, size=min(cells, labels.size), replace=False)
    labels.flat[points] = np.arange(1, points.size + 1)
    nearest = scipy.ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    found: Labels = labels[tuple(nearest)]
    return found


def _truth(truth: Truth, data: PreparedDataset, run: Run) -> Iterator[Labels]:  # noqa: ARG001
    yield from (np.asarray(labels) for labels in truth)


def _shuffled(truth: Truth, data: PreparedDataset, run: Run) -> Iterator[Labels]:
    yield from (np.asarray(truth[row]) for row in shifted(data.origins(TEST), run.seed))


def _one_cell(truth: Truth, data: PreparedDataset, run: Run) -> Iterator[Labels]:  # noqa: ARG001
    yield from (np.ones(labels.shape, np.int32) for labels in truth)


def _voronoi(truth: Truth, data: PreparedDataset, run: Run) -> Iterator[Labels]:  # noqa: ARG001
    for row, labels in enumerate(truth):
        yield voronoi(labels.shape, int(labels.max(initial=0)), np.random.default_rng([run.seed, 2, row]))


def _annotators(truth: Truth, data: PreparedDataset, run: Run) -> Iterator[Labels]:  # noqa: ARG001
    pictures = annotated_again(data, TEST)
    if not pictures:
        raise SegbenchError(
            f"no test picture of dataset {data.spec.name!r} has several annotations: {ANNOTATORS} compares those of "
            "one picture (list it once for each, in files of different names)"
        )
    taken: dict[int, int] = {}
    for images in pictures:
        for own, others in zip(images, [*images[1:], images[0]], strict=True):
            taken |= dict(zip(own, others, strict=True))
    for row, labels in enumerate(truth):
        yield np.asarray(truth[taken[row]]) if row in taken else np.zeros(labels.shape, np.int32)


_MAKERS: dict[str, Callable[[Any, PreparedDataset, Run], Iterator[Labels]]] = {
    TRUTH: _truth,
    SHUFFLED: _shuffled,
    ONE_CELL: _one_cell,
    VORONOI: _voronoi,
    ANNOTATORS: _annotators,
}
assert set(_MAKERS) == set(CONTROLS)
