"""Tells what a score is made of: kinds of error as shares of the gap, cells by size and density, calibration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import boundaries, matching
from segbench.engine.metrics.attribution import Faults, mended_precision, shares_of
from segbench.engine.metrics.batches import LARGEST_LABEL, LabelMaps, Progress, checked_map, paired
from segbench.engine.metrics.coco import IOU_THRESHOLDS, MATCH_THRESHOLDS
from segbench.engine.metrics.evaluation import (
    AP50,
    AP75,
    MAX_DETECTIONS,
    beyond_limit,
    check_group_count,
    checked_groups,
    checked_limit,
    ordered_by_score,
)
from segbench.engine.metrics.faults import BEYOND, KINDS, LOOSE, MERGED, MISSED, RIGHT, SPLIT, SPURIOUS, find_faults
from segbench.engine.metrics.instances import checked_runs, masks_of_set, scores_of_set
from segbench.engine.metrics.labels import ScoreArrays
from segbench.errors import SegbenchError
from segbench.methods.predictions import MaskInstances, PredictionSet

if TYPE_CHECKING:
    import polars as pl

GAP_METRICS = ("map", "ap50", "ap75")
"""Whose gaps are told."""
STRATA = 4
"""Cells are told apart by quarters of their number."""
SCORE_BINS = 10
_NEIGHBOURS = 5
_OF_TRUE_CELLS = (MISSED, SPLIT, MERGED, LOOSE)
_WHOLE = ("n_truth", "found", "missed", "split", "merged", "loose", "spurious")
_MEASURES = ("mean_iou", "boundary_iou", "boundary_px", "boundary_95_px", "area_ratio")


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What the errors of an evaluation are; what `diagnose` returns.

    Examples
    --------
    >>> import numpy as np
    >>> import segbench
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]])
    >>> found = np.array([[1, 1, 2, 2, 0, 0, 0, 0, 3, 3]])  # the first cell is split, the second missed
    >>> gap = segbench.diagnose(truth, found, scores=[0.5, 0.5, 0.9]).gaps().filter(metric="ap75")
    >>> gap.select("gap", "missed", "split", "spurious").row(0)
    (0.663..., 0.252..., 0.410..., 0.0)
    """

    gap_rows: Sequence[dict[str, Any]] = field(repr=False)
    stratum_rows: Sequence[dict[str, Any]] = field(repr=False)
    calibration_rows: Sequence[dict[str, Any]] = field(repr=False)
    notes: tuple[str, ...] = ()
    """What was left out or is suspected of the maps, each in one line."""

    def gaps(self) -> pl.DataFrame:
        """Return one row a subset ('all', then each group) and metric (``map``, ``ap50``, ``ap75``).

        Returns
        -------
        Columns subset, metric, ``score`` (the metric, 0..1), ``gap`` = 1 - score, and the shares of the gap that
        ``missed``, ``split``, ``merged``, ``spurious`` and ``loose`` cells have, which add up to it; null where the
        subset has no true cell. A share can be negative: that of an error without which others would cost more.
        """
        import polars as pl

        text, numbers = ("subset", "metric"), ("score", "gap", *KINDS)
        return pl.DataFrame(
            self.gap_rows, schema={**dict.fromkeys(text, pl.String), **dict.fromkeys(numbers, pl.Float64)}
        )

    def cells(self) -> pl.DataFrame:
        """Return what became of the true cells at IoU 0.5, together and by quarters of their size and density.

        Returns
        -------
        One row a subset, ``parted_by`` 'all'; and of all images one a quarter of the true cells by their 'size'
        (pixels) and 'density' (true cells in 10,000 pixels around them), from ``low`` to ``high``. ``n_truth`` is the
        sum of ``found``, ``missed``, ``split``, ``merged`` and ``loose``; ``spurious`` predictions are parted by their
        own size, and not by density. Of the cells that are found: ``mean_iou``, ``boundary_iou``, the distance between
        the outlines in pixels (``boundary_px``, and its 95th percentile ``boundary_95_px``), all means over cells, and
        the median of predicted to true area (``area_ratio``).
        """
        import polars as pl

        types = {
            "subset": pl.String,
            "parted_by": pl.String,
            "stratum": pl.Int64,
            "low": pl.Float64,
            "high": pl.Float64,
        }
        return pl.DataFrame(
            self.stratum_rows,
            schema={**types, **dict.fromkeys(_WHOLE, pl.Int64), **dict.fromkeys(_MEASURES, pl.Float64)},
        )

    def calibration(self) -> pl.DataFrame:
        """Return how often predictions of a score are right (IoU 0.5), one row a subset and range of scores.

        Returns
        -------
        Columns subset, ``bin``, ``low`` and ``high`` (of the scores in it), ``n`` predictions, their ``mean_score`` and
        the share of them that is ``correct``. Scores from 0 to 1 are told apart by tenths, others by tenths of
        their number.
        """
        import polars as pl

        types = {"subset": pl.String, "bin": pl.Int64, "low": pl.Float64, "high": pl.Float64, "n": pl.Int64}
        return pl.DataFrame(self.calibration_rows, schema={**types, "mean_score": pl.Float64, "correct": pl.Float64})

    def __repr__(self) -> str:
        told = self.gap_rows[GAP_METRICS.index("ap50")]
        if told["gap"] is None:
            return "Diagnosis(no true cell)"
        parts = ", ".join(f"{kind} {told[kind]:.3f}" for kind in KINDS)
        return f"Diagnosis(ap50 {told['score']:.3f}; {parts})"

    def _repr_html_(self) -> str:
        return self.gaps()._repr_html_()


@dataclass(frozen=True)
class _Image:
    """One image's true cells and predictions with what is wrong with them."""

    scores: npt.NDArray[np.float64]
    areas: npt.NDArray[np.int64]
    of_predictions: npt.NDArray[np.uint8]
    truth_areas: npt.NDArray[np.int64]
    of_truth: npt.NDArray[np.uint8]
    carriers: npt.NDArray[np.int32]
    density: npt.NDArray[np.float64]
    measures: npt.NDArray[np.float64]
    """(G, 5), by `_MEASURES`; NaN of cells that are not found."""


def diagnose_labels(
    truth: LabelMaps,
    predictions: LabelMaps,
    scores: ScoreArrays | None = None,
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    *,
    progress: Progress | None = None,
) -> Diagnosis:
    """Diagnose predicted label maps; the arguments are those of `evaluate_labels`, and so are the scores."""

    def images() -> Iterator[_Image]:
        n = -1
        for n, (true_map, found_map) in enumerate(paired(truth, predictions)):
            pair = checked_map(true_map, "truth", n), checked_map(found_map, "predictions", n)
            if pair[0].shape != pair[1].shape:
                raise SegbenchError(
                    f"truth[{n}] is {pair[0].shape} pixels, predictions[{n}] {pair[1].shape}; "
                    "both maps of a pair have one shape"
                )
            given = None if scores is None else _of_map(scores, n)
            yield _label_image(*pair, given, limit, n)
            if progress is not None:
                progress(n + 1)
        if scores is not None and len(scores) != n + 1:
            raise SegbenchError(f"scores has {len(scores)} arrays for {n + 1} label maps; give one array a map")

    names, limit = checked_groups(groups), checked_limit(max_detections)
    return _diagnosis(list(images()), names, limit)


def diagnose_prediction_set(
    truth: LabelMaps,
    prediction_set: PredictionSet,
    groups: Sequence[str] | None = None,
    max_detections: int = MAX_DETECTIONS,
    *,
    progress: Progress | None = None,
) -> Diagnosis:
    """Diagnose a folder of predictions, whatever its kind: label maps or possibly overlapping masks."""
    if prediction_set.kind == "labels":
        scores = scores_of_set(prediction_set)
        return diagnose_labels(truth, prediction_set.labels, scores, groups, max_detections, progress=progress)
    names, limit = checked_groups(groups), checked_limit(max_detections)
    images = []
    for n, (labels, found) in enumerate(paired(truth, masks_of_set(prediction_set))):
        images.append(_mask_image(checked_map(labels, "truth", n), found, limit, n))
        if progress is not None:
            progress(n + 1)
    return _diagnosis(images, names, limit)


def _of_map(scores: ScoreArrays, n: int) -> npt.NDArray[np.float64]:
    if n >= len(scores):
        raise SegbenchError(f"scores has {len(scores)} arrays for more label maps; give one array a map")
    try:
        return np.asarray(scores[n], dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        raise SegbenchError(f"scores[{n}] is {scores[n]!r:.60}; give one number a label of map {n}") from None


def _label_image(
    truth: npt.NDArray[Any], found: npt.NDArray[Any], given: npt.NDArray[np.float64] | None, limit: int, n: int
) -> _Image:
    true_map, truth_areas = _numbered(truth, f"truth[{n}]")
    found_map, areas = _numbered(found, f"predictions[{n}]")
    scores = np.ones(areas.size) if given is None else given
    if scores.size != areas.size:
        raise SegbenchError(
            f"scores[{n}] has {scores.size} scores, predictions[{n}] {areas.size} labels; give one a label"
        )
    pairs = _pairs(true_map, found_map, areas.size)

    def outlines(boxes: npt.NDArray[np.int32], matched: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        found_boxes, _ = boundaries.find_boxes(found_map, areas.size)
        return boundaries.compare_labels(true_map, found_map, boxes, found_boxes, matched, boundaries.BAND_PX)

    return _image(true_map, truth_areas, areas, scores, pairs, limit, outlines)


def label_faults(
    truth: npt.NDArray[Any], found: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return what is right or wrong with each cell of two label maps (H, W) at IoU 0.5: what pictures show.

    Returns
    -------
    of_truth, of_predictions
        (G,) and (D,), in ascending order of the labels: `faults.RIGHT` to `faults.LOOSE`, as a diagnosis counts them
        where all predictions score alike.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 3]])
    >>> of_truth, of_predictions = label_faults(truth, np.array([[1, 2, 2, 0, 0, 4, 4]]))
    >>> of_truth.tolist() == [RIGHT, MERGED, RIGHT], of_predictions.tolist() == [SPLIT, RIGHT, RIGHT]
    (True, True)
    """
    true_map, truth_areas = _numbered(truth, "truth")
    found_map, areas = _numbered(found, "predictions")
    pairs = _pairs(true_map, found_map, areas.size)
    order = np.arange(areas.size)
    of_predictions, of_truth, _, _ = find_faults(*pairs, truth_areas, areas, order, MATCH_THRESHOLDS[:1])
    return of_truth[0], of_predictions[0]


def _pairs(
    true_map: npt.NDArray[np.int32], found_map: npt.NDArray[np.int32], n_found: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return which true cells, and how many pixels, each prediction of two numbered maps shares, for `find_faults`."""
    of_truth, of_found, pixels = matching.label_pairs(true_map.reshape(-1), found_map.reshape(-1))
    real = (of_truth > 0) & (of_found > 0)
    of_truth, of_found, pixels = of_truth[real] - 1, of_found[real] - 1, pixels[real]
    by_prediction = np.lexsort((of_truth, of_found))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(of_found, minlength=n_found))])
    return of_truth[by_prediction], pixels[by_prediction], offsets


def _mask_image(truth: npt.NDArray[Any], found: MaskInstances, limit: int, n: int) -> _Image:
    true_map, truth_areas = _numbered(truth, f"truth[{n}]")
    runs, cuts = checked_runs(found, true_map.size, n)
    areas = np.zeros(len(found.scores), np.int32)
    flat = np.ascontiguousarray(true_map.T).reshape(-1)
    of_truth, pixels, offsets = matching.mask_pairs(flat, truth_areas.size + 1, runs, cuts, areas)
    scores = np.ascontiguousarray(found.scores, dtype=np.float64)

    def outlines(boxes: npt.NDArray[np.int32], matched: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        return boundaries.compare_masks(true_map, boxes, runs, cuts, matched, boundaries.BAND_PX)

    pairs = of_truth[: offsets[-1]] - 1, pixels[: offsets[-1]], offsets
    return _image(true_map, truth_areas, areas.astype(np.int64), scores, pairs, limit, outlines)


def _image(
    true_map: npt.NDArray[np.int32],
    truth_areas: npt.NDArray[np.int64],
    areas: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    pairs: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
    limit: int,
    outlines: Any,
) -> _Image:
    order = np.argsort(-scores, kind="stable")[:limit]
    of_predictions, of_truth, carriers, matched = find_faults(*pairs, truth_areas, areas, order, MATCH_THRESHOLDS)
    boxes, centres = boundaries.find_boxes(true_map, truth_areas.size)
    measures = np.full((truth_areas.size, len(_MEASURES)), np.nan)
    found = np.flatnonzero(matched >= 0)
    if found.size:
        partners = matched[found]
        measures[found, 0] = _ious(pairs, truth_areas, areas, found, partners)
        measures[found, 1:4] = outlines(boxes, np.column_stack([found, partners]).astype(np.int32))
        measures[found, 4] = areas[partners] / truth_areas[found]
    return _Image(scores, areas, of_predictions, truth_areas, of_truth, carriers, _density(centres), measures)


def _ious(
    pairs: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
    truth_areas: npt.NDArray[np.int64],
    areas: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    partners: npt.NDArray[np.int32],
) -> npt.NDArray[np.float64]:
    of_truth, pixels, offsets = pairs
    keys = np.repeat(np.arange(areas.size, dtype=np.int64), np.diff(offsets)) * truth_areas.size + of_truth
    common = pixels[np.searchsorted(keys, partners.astype(np.int64) * truth_areas.size + found)]
    ious: npt.NDArray[np.float64] = common / (truth_areas[found] + areas[partners] - common)
    return ious


def _numbered(labels: npt.NDArray[Any], what: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return a map with its labels replaced by 1, 2, ... in ascending order, and their areas."""
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if lowest < 0:
        raise SegbenchError(f"{what} has the label {lowest}; labels go from 0, the background, up")
    if highest > LARGEST_LABEL:
        raise SegbenchError(f"{what} has the label {highest}; labels go from 0 to {LARGEST_LABEL}")
    if highest <= max(labels.size, 1 << 16):
        counts = np.bincount(labels.reshape(-1).astype(np.int64, copy=False), minlength=highest + 1)
        counts[0] = 0
        numbers = np.where(counts > 0, np.cumsum(counts > 0), 0).astype(np.int32)
        return np.ascontiguousarray(numbers[labels]), counts[counts > 0]
    present, flat, counts = np.unique(labels, return_inverse=True, return_counts=True)
    background = int(present[0] == 0)
    numbered = (flat.reshape(labels.shape) + (1 - background)).astype(np.int32)
    return np.ascontiguousarray(numbered), counts[background:].astype(np.int64)


def _density(centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the true cells in 10,000 pixels around each, by the distance to its fifth neighbour; NaN without any."""
    from scipy.spatial import cKDTree

    k = min(_NEIGHBOURS, len(centres) - 1)
    if k < 1:
        return np.full(len(centres), np.nan)
    distances = np.asarray(cKDTree(centres).query(centres, k=k + 1)[0])[:, -1]
    return np.asarray(1e4 * k / (np.pi * np.maximum(distances, 1e-9) ** 2))


@dataclass(frozen=True)
class _Cells:
    """The predictions and true cells of all images, end to end."""

    image: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    areas: npt.NDArray[np.int64]
    of_predictions: npt.NDArray[np.uint8]
    truth_image: npt.NDArray[np.int64]
    truth_areas: npt.NDArray[np.int64]
    of_truth: npt.NDArray[np.uint8]
    carriers: npt.NDArray[np.int64]
    density: npt.NDArray[np.float64]
    measures: npt.NDArray[np.float64]

    @classmethod
    def of(cls, images: Sequence[_Image]) -> _Cells:
        n_found, n_true = ([getattr(one, name).size for one in images] for name in ("areas", "truth_areas"))
        starts = np.concatenate([[0], np.cumsum(n_found)])
        carriers = [
            np.where(one.carriers >= 0, one.carriers + start, -1) for one, start in zip(images, starts, strict=False)
        ]
        return cls(
            image=np.repeat(np.arange(len(images)), n_found),
            scores=np.concatenate([one.scores for one in images]),
            areas=np.concatenate([one.areas for one in images]),
            of_predictions=np.concatenate([one.of_predictions for one in images], axis=1),
            truth_image=np.repeat(np.arange(len(images)), n_true),
            truth_areas=np.concatenate([one.truth_areas for one in images]),
            of_truth=np.concatenate([one.of_truth for one in images], axis=1),
            carriers=np.concatenate(carriers, axis=1).astype(np.int64),
            density=np.concatenate([one.density for one in images]),
            measures=np.concatenate([one.measures for one in images]),
        )


def _diagnosis(images: Sequence[_Image], groups: tuple[str, ...] | None, limit: int) -> Diagnosis:
    if not images:
        raise SegbenchError("truth and predictions hold no label maps; give at least one pair")
    check_group_count(groups, len(images))
    cells = _Cells.of(images)
    order = ordered_by_score(cells.scores, cells.image.astype(np.int32))
    subsets: dict[str, npt.NDArray[np.bool_]] = {"all": np.ones(len(images), np.bool_)}
    if groups is not None:
        of_image = np.asarray(groups, dtype=object)
        subsets |= {str(name): of_image == name for name in sorted(set(groups))}
    gaps: list[dict[str, Any]] = []
    strata: list[dict[str, Any]] = []
    bins: list[dict[str, Any]] = []
    for name, members in subsets.items():
        gaps += _gap_rows(name, cells, order, members)
        strata.append(
            {"subset": name, "parted_by": "all", "stratum": 0, "low": None, "high": None}
            | _told(cells, members[cells.truth_image], members[cells.image])
        )
        bins += _calibration_rows(name, cells, members[cells.image] & (cells.of_predictions[AP50] != BEYOND))
    strata += [*_stratum_rows("size", cells), *_stratum_rows("density", cells)]
    beyond = cells.of_predictions[AP50] == BEYOND
    cut = np.unique(cells.image[beyond]).size
    notes = (beyond_limit(int(beyond.sum()), cut, limit),) if cut else ()
    return Diagnosis(gaps, strata, bins, notes)


def _gap_rows(
    name: str, cells: _Cells, order: npt.NDArray[np.int32], members: npt.NDArray[np.bool_]
) -> Iterator[dict[str, Any]]:
    order, mine = order[members[cells.image[order]]], members[cells.truth_image]
    if not mine.any():
        for metric in GAP_METRICS:
            yield {"subset": name, "metric": metric, "score": None, "gap": None} | dict.fromkeys(KINDS)
        return
    precision = np.stack(
        [
            mended_precision(
                Faults(cells.of_predictions[t], cells.of_truth[t, mine], cells.carriers[t, mine]), cells.scores, order
            )
            for t in range(IOU_THRESHOLDS.size)
        ]
    )
    for metric, chosen in (("map", slice(None)), ("ap50", slice(AP50, AP50 + 1)), ("ap75", slice(AP75, AP75 + 1))):
        # the score itself as Scores takes it, to the last bit
        score = float(np.mean(np.ascontiguousarray(precision[chosen, 0, 0])))
        shares = shares_of(precision[chosen].mean(axis=(0, 3)))
        yield {"subset": name, "metric": metric, "score": score, "gap": 1 - score} | shares


def _told(
    cells: _Cells, true: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_] | None
) -> dict[str, int | float | None]:
    """Return what became of some true cells at IoU 0.5, and the spurious ones of some predictions."""
    of_truth, measures = cells.of_truth[AP50, true], cells.measures[true]
    counts = np.bincount(of_truth, minlength=len(KINDS) + 1)
    row: dict[str, int | float | None] = {"n_truth": of_truth.size, "found": int(counts[RIGHT])}
    row |= {KINDS[kind - 1]: int(counts[kind]) for kind in _OF_TRUE_CELLS}
    row["spurious"] = None if found is None else int(np.count_nonzero(cells.of_predictions[AP50, found] == SPURIOUS))
    measures = measures[of_truth == RIGHT]
    if not len(measures):
        return row | dict.fromkeys(_MEASURES)
    row |= {name: float(measures[:, n].mean()) for n, name in enumerate(_MEASURES[:-1])}
    return row | {_MEASURES[-1]: float(np.median(measures[:, -1]))}


def _stratum_rows(by: str, cells: _Cells) -> Iterator[dict[str, Any]]:
    values = cells.truth_areas.astype(np.float64) if by == "size" else cells.density
    known = values[np.isfinite(values)]
    if not known.size:
        return
    # equal sizes may leave fewer than four
    edges = np.unique(np.quantile(known, np.linspace(0, 1, STRATA + 1)))
    edges = edges if edges.size > 1 else np.repeat(edges, 2)
    for n, (low, high) in enumerate(itertools.pairwise(edges)):
        last = n == edges.size - 2
        true = (values >= low) & ((values <= high) if last else (values < high))
        found = None
        if by == "size":
            # predictions smaller or larger than every true cell belong to the outer quarters
            found = ((cells.areas >= low) | (n == 0)) & ((cells.areas < high) | last)
        yield {"subset": "all", "parted_by": by, "stratum": n + 1, "low": float(low), "high": float(high)} | _told(
            cells, true, found
        )


def _calibration_rows(name: str, cells: _Cells, chosen: npt.NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    scores, right = cells.scores[chosen], cells.of_predictions[AP50, chosen] == RIGHT
    if not scores.size:
        return
    if scores.min() >= 0 and scores.max() <= 1:
        edges = np.linspace(0, 1, SCORE_BINS + 1)
    else:
        edges = np.quantile(scores, np.linspace(0, 1, SCORE_BINS + 1))
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, SCORE_BINS - 1)
    for n in np.unique(place):
        mine = scores[place == n]
        yield {
            "subset": name,
            "bin": int(n),
            "low": float(mine.min()),
            "high": float(mine.max()),
            "n": int(mine.size),
            "mean_score": float(mine.mean()),
            "correct": float(right[place == n].mean()),
        }
