"""Scores label maps after every radius of a post-operation, from one distance computation and one histogram a map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import matching
from segbench.engine.metrics.batches import Batch, LabelMaps, Progress, mapped, paired, paired_batches
from segbench.engine.metrics.coco import MATCH_THRESHOLDS
from segbench.engine.metrics.evaluation import (
    MAX_DETECTIONS,
    METRICS,
    Detections,
    Evaluation,
    ImageCounts,
    assemble,
    check_group_count,
    checked_groups,
    checked_limit,
    ordered_by_score,
)
from segbench.engine.metrics.instances import masks_of_set, paint_instances, scores_of_set
from segbench.engine.metrics.labels import ScoreArrays, batch_scores, refuse_negative, refuse_other_counts
from segbench.engine.metrics.postoperations import (
    Operation,
    Structure,
    checked_operation,
    checked_radii,
    post_operation_levels,
)
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.predictions import PredictionSet

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, repr=False)
class Sweep(Mapping[tuple[Operation, int], Evaluation]):
    """The evaluations of a sweep by (operation, radius in pixels), in the order asked for; what `sweep` returns.

    Examples
    --------
    >>> import numpy as np
    >>> import segbench
    >>> truth = np.array([[1, 1, 1, 1, 1, 0, 0, 2]])
    >>> found = np.array([[0, 0, 4, 0, 0, 0, 0, 0]])  # the middle pixel of five
    >>> swept = segbench.sweep(truth, found, dilate=[0, 1, 2])
    >>> swept
    Sweep(dilate 0, 1, 2)
    >>> swept.best("map"), swept["dilate", 2].ar50
    (('dilate', 2), 0.5)
    """

    evaluations: Mapping[tuple[Operation, int], Evaluation]
    """By operation (``dilate``, ``erode``) and radius in pixels."""

    def __getitem__(self, key: tuple[Operation, int]) -> Evaluation:
        return self.evaluations[key]

    def __iter__(self) -> Iterator[tuple[Operation, int]]:
        return iter(self.evaluations)

    def __len__(self) -> int:
        return len(self.evaluations)

    def best(self, metric: str = "map", group: str | None = None) -> tuple[Operation, int]:
        """Return the operation and radius with the greatest value of a metric; of equally good ones, the first.

        Parameters
        ----------
        metric
            One of ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.
        group
            Within this group of images; None for all.

        Raises
        ------
        SegbenchError
            For an unknown metric or group.
        """
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
        subset = "all" if group is None else group
        for found in self.values():
            if subset not in found.subsets():
                raise unknown_name("group", subset, found.groups)
        return max(self, key=lambda key: self[key].subsets()[subset].metrics()[metric])

    def frame(self) -> pl.DataFrame:
        """Return one row an operation, radius and subset ('all', then each group).

        Returns
        -------
        Columns operation, radius (pixels), subset, predictions (how many cells are left) and the six metrics; a metric
        is null where the subset has no true cell.
        """
        import polars as pl

        rows = [
            {"operation": operation, "radius": radius, "subset": name, "predictions": scores.n_predictions}
            | scores.row()
            for (operation, radius), found in self.items()
            for name, scores in found.subsets().items()
        ]
        text, counts = ("operation", "subset"), ("radius", "predictions")
        types = {**dict.fromkeys(text, pl.String), **dict.fromkeys(counts, pl.Int64)}
        return pl.DataFrame(rows, schema_overrides={**types, **dict.fromkeys(METRICS, pl.Float64)})

    def __repr__(self) -> str:
        by_operation: dict[str, list[int]] = {}
        for operation, radius in self:
            by_operation.setdefault(operation, []).append(radius)
        told = "; ".join(f"{operation} {', '.join(map(str, radii))}" for operation, radii in by_operation.items())
        return f"Sweep({told})"

    def _repr_html_(self) -> str:
        return self.frame()._repr_html_()


def sweep_labels(
    truth: LabelMaps,
    predictions: LabelMaps,
    operation: Operation = "dilate",
    radii: Sequence[int] = range(21),
    scores: ScoreArrays | None = None,
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    *,
    structure: Structure = "disk",
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[int, Evaluation]:
    """Return, by radius, the evaluation of predictions that are dilated or eroded by it.

    Each result equals that of `evaluate_labels` on the maps that `apply_post_operation` gives. Scores follow the
    labels: the detections of labels that vanish go, the others keep their score and their place among ties.

    Parameters
    ----------
    truth, predictions, scores, groups, max_detections, threads, progress
        As in `evaluate_labels`; the scores are those of the predicted maps as they come.
    operation, structure
        As in `apply_post_operation`; the truth is left as it is.
    radii
        Whole pixels from 0 to 500, in any order.

    Raises
    ------
    SegbenchError
        As `evaluate_labels` and `apply_post_operation`.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 1, 1, 1, 0, 0, 2]]])
    >>> found = np.array([[[0, 0, 4, 0, 0, 0, 0, 0]]])  # the middle pixel of five
    >>> {radius: result.pooled.ar50 for radius, result in sweep_labels(truth, found, radii=[0, 1, 2]).items()}
    {0: 0.0, 1: 0.5, 2: 0.5}
    """
    checked_operation(operation, structure)
    names, limit = checked_groups(groups), checked_limit(max_detections)
    steps = checked_radii(radii)

    def match(batch: Batch) -> tuple[npt.NDArray[Any], ...]:
        grown, levels = _levels(batch, operation, structure, np.array(steps))
        n = batch.offsets.size - 1
        given, cuts = np.zeros(0), np.zeros(n + 1, np.int64)
        if scores is not None:
            given, cuts = batch_scores(scores, batch.first, n)
        counts, sums, lowest, matches, kept, n_labels = matching.match_sweep(
            batch.truth,
            grown,
            levels,
            batch.offsets,
            given,
            cuts,
            len(steps),
            operation == "erode",
            limit,
            MATCH_THRESHOLDS,
        )
        refuse_negative(lowest, batch)
        if scores is not None:
            refuse_other_counts(n_labels, np.diff(cuts), batch.first)
        else:
            given = np.ones(matches.shape[1])
        return counts, sums, matches, kept, n_labels, given

    parts = list(mapped(match, paired_batches(truth, predictions), threads, progress))
    if not parts:
        raise SegbenchError("truth and predictions hold no label maps; give at least one pair")
    counts, sums, matches, kept = (np.concatenate([part[i] for part in parts], axis=1) for i in range(4))
    n_labels, all_scores = (np.concatenate([part[i] for part in parts]) for i in (4, 5))
    if scores is not None and len(scores) != len(n_labels):
        raise SegbenchError(f"scores has {len(scores)} arrays for {len(n_labels)} label maps; give one array a map")
    check_group_count(names, len(n_labels))
    images = np.repeat(np.arange(len(n_labels), dtype=np.int32), n_labels)
    order = ordered_by_score(all_scores, images)
    return {
        radius: assemble(
            Detections(images, all_scores, matches[step], kept[step]),
            order,
            ImageCounts.from_tables(counts[step], sums[step], names),
        )
        for step, radius in enumerate(steps)
    }


def sweep_prediction_set(
    truth: LabelMaps,
    prediction_set: PredictionSet,
    operation: Operation = "dilate",
    radii: Sequence[int] = range(21),
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    *,
    structure: Structure = "disk",
    threads: int = 1,
    progress: Progress | None = None,
) -> dict[int, Evaluation]:
    """Sweep a folder of predictions, whatever its kind; overlapping masks are first painted, the best on top.

    Post-operations need to know where a neighbour begins, so they are defined on label maps only: see
    `paint_instances`. Radius 0 of painted masks is therefore not quite the evaluation of the masks themselves.
    """
    if prediction_set.kind == "labels":
        scores = scores_of_set(prediction_set)
        return sweep_labels(
            truth, prediction_set.labels, operation, radii, scores, groups, max_detections,
            structure=structure, threads=threads, progress=progress,
        )  # fmt: skip
    shape = (prediction_set.height, prediction_set.width)
    painted = [paint_instances(found, shape)[1] for found in masks_of_set(prediction_set)]

    def maps() -> Iterator[npt.NDArray[np.int32]]:
        for _, found in paired(range(len(painted)), masks_of_set(prediction_set)):
            yield paint_instances(found, shape)[0]

    return sweep_labels(
        truth,
        maps(),
        operation,
        radii,
        painted,
        groups,
        max_detections,
        structure=structure,
        threads=threads,
        progress=progress,
    )


def _levels(
    batch: Batch, operation: Operation, structure: Structure, radii: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
    """Return label and level of all the batch's pixels, laid out flat."""
    grown, levels = np.empty(batch.truth.size, np.int32), np.empty(batch.truth.size, np.uint16)
    for n, shape in enumerate(batch.shapes):
        pixels = slice(batch.offsets[n], batch.offsets[n + 1])
        labels = batch.predictions[pixels].reshape(shape)
        grown_map, level_map = post_operation_levels(labels, operation, structure, radii)
        grown[pixels], levels[pixels] = grown_map.reshape(-1), level_map.reshape(-1)
    grown.flags.writeable = levels.flags.writeable = False
    return grown, levels
