"""What an evaluation is: COCO's scores pooled and by group, each image's counts, and the matched detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics import matching
from segbench.engine.metrics.coco import IOU_THRESHOLDS, accumulate, order_by_score
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import polars as pl

AP50, AP75 = 0, 5
"""Where 0.5 and 0.75 stand in `IOU_THRESHOLDS`."""
MAX_DETECTIONS = 3000
"""The published benchmark's limit of detections an image."""
METRICS = ("map", "ap50", "ap75", "ar", "ar50", "ar75")
"""The six metrics, as `Scores` names them."""

AreaRanges = Mapping[str, tuple[float, float]]
"""By name: the smallest and the largest area in pixels, both included."""
COCO_AREAS: AreaRanges = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}
"""COCO's area ranges (``pycocotools.cocoeval.Params``)."""
LIVECELL_AREAS: AreaRanges = {"small": (0, 324), "medium": (324, 961), "large": (961, 1e5**2)}
"""LIVECell's area ranges, 18 and 31 pixels squared (Edlund et al., Nature Methods 18, 2021; ``coco_evaluation.py``)."""
AREAS: Mapping[str, AreaRanges] = {"coco": COCO_AREAS, "livecell": LIVECELL_AREAS}
"""The sets of area ranges by name."""


@dataclass(frozen=True)
class Scores:
    """COCO's precision and recall of one subset of images, as pycocotools' ``COCOeval.eval`` holds them.

    A metric is -1.0 where the subset has no truth, exactly as pycocotools says it.

    Examples
    --------
    >>> import numpy as np
    >>> import segbench
    >>> truth = np.array([[1, 1, 0, 2], [1, 1, 0, 2]])
    >>> scores = segbench.evaluate(truth, truth).pooled
    >>> scores.map, scores.n_truth, scores.precision.shape
    (1.0, 2, (10, 101))
    """

    map: float
    """Mean of `precision` over IoU thresholds and recalls."""
    ap50: float
    """Mean of `precision` over recalls at IoU 0.5."""
    ap75: float
    """Mean of `precision` over recalls at IoU 0.75."""
    ar: float
    """Mean of `recall` over IoU thresholds."""
    ar50: float
    """Recall at IoU 0.5."""
    ar75: float
    """Recall at IoU 0.75."""
    n_images: int
    """How many images the subset has, with or without cells."""
    n_truth: int
    """How many true cells count."""
    n_predictions: int
    """How many predicted cells there are, those beyond the limit of detections included."""
    precision: npt.NDArray[np.float64] = field(repr=False)
    """(T, R), ``eval["precision"]``."""
    recall: npt.NDArray[np.float64] = field(repr=False)
    """(T,), ``eval["recall"]``."""
    score_thresholds: npt.NDArray[np.float64] = field(repr=False)
    """(T, R), ``eval["scores"]``: the score of the detection at which each recall is reached."""

    @classmethod
    def from_arrays(
        cls,
        precision: npt.NDArray[np.float64],
        recall: npt.NDArray[np.float64],
        score_thresholds: npt.NDArray[np.float64],
        *,
        n_images: int,
        n_truth: int,
        n_predictions: int,
    ) -> Scores:
        """Return the six metrics of precision (T, R) and recall (T,), averaged as pycocotools' ``summarize`` does."""
        return cls(
            map=mean_of_valid(precision),
            ap50=mean_of_valid(precision[AP50]),
            ap75=mean_of_valid(precision[AP75]),
            ar=mean_of_valid(recall),
            ar50=float(recall[AP50]),
            ar75=float(recall[AP75]),
            n_images=n_images,
            n_truth=n_truth,
            n_predictions=n_predictions,
            precision=precision,
            recall=recall,
            score_thresholds=score_thresholds,
        )

    def metrics(self) -> dict[str, float]:
        """Return the six metrics by name."""
        return {name: getattr(self, name) for name in METRICS}

    def row(self) -> dict[str, float | None]:
        """Return the six metrics by name with None in the place of -1, which says that there was no truth."""
        return known(self.metrics())


def known(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Return the metrics with None in the place of COCO's -1, which says that there was no truth."""
    return {name: None if value == -1 else value for name, value in metrics.items()}


def mean_of_valid(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values above -1, or -1.0 where there is none: COCO's average."""
    valid = values[values > -1]
    return float(np.mean(valid)) if valid.size else -1.0


@dataclass(frozen=True)
class ImageCounts:
    """Whole numbers and sums of each of N images, from which every cell metric follows by adding images up.

    They count all predictions: COCO's limit of detections does not apply to them.
    """

    n_truth: npt.NDArray[np.int64]
    """(N,), true cells."""
    n_predictions: npt.NDArray[np.int64]
    """(N,), predicted cells."""
    true_positives: npt.NDArray[np.int64]
    """(N, T), matched pairs at each IoU threshold."""
    matched_iou: npt.NDArray[np.float64]
    """(N, T), the sum of their IoU."""
    pq_matches: npt.NDArray[np.int64]
    """(N,), pairs with IoU above 0.5 (0.5 itself does not count in panoptic quality)."""
    pq_iou: npt.NDArray[np.float64]
    """(N,), the sum of their IoU."""
    aji_intersection: npt.NDArray[np.int64]
    """(N,), the numerator of the aggregated Jaccard index, in pixels."""
    aji_union: npt.NDArray[np.int64]
    """(N,), its denominator, in pixels."""
    seg: npt.NDArray[np.float64]
    """(N,), over true cells, the sum of the IoU with the prediction that covers more than half of the cell."""
    splits: npt.NDArray[np.int64]
    """(N,), true cells that hold two or more predictions by more than half of each prediction's area."""
    merges: npt.NDArray[np.int64]
    """(N,), predictions that hold two or more true cells by more than half of each true cell's area."""
    groups: tuple[str, ...] | None = None
    """(N,), each image's group."""

    @classmethod
    def from_tables(
        cls, counts: npt.NDArray[np.int64], sums: npt.NDArray[np.float64], groups: tuple[str, ...] | None
    ) -> ImageCounts:
        """Return the columns of `matching`'s tables by name."""
        return cls(
            n_truth=counts[:, matching.N_TRUTH],
            n_predictions=counts[:, matching.N_PREDICTIONS],
            true_positives=counts[:, matching.TRUE_POSITIVES :],
            matched_iou=sums[:, matching.MATCHED_IOU :],
            pq_matches=counts[:, matching.PQ_MATCHES],
            pq_iou=sums[:, matching.PQ_IOU],
            aji_intersection=counts[:, matching.AJI_INTERSECTION],
            aji_union=counts[:, matching.AJI_UNION],
            seg=sums[:, matching.SEG],
            splits=counts[:, matching.SPLITS],
            merges=counts[:, matching.MERGES],
            groups=groups,
        )

    def __len__(self) -> int:
        return int(self.n_truth.size)

    def columns(self) -> dict[str, npt.NDArray[Any] | list[str]]:
        """Return flat columns of equal length, a row an image, ready for a data frame or a table.

        ``true_positives`` and ``matched_iou`` become a column a threshold:
        ``tp_50`` ... ``tp_95``, ``iou_50`` ... ``iou_95``.
        """
        columns: dict[str, npt.NDArray[Any] | list[str]] = {"image": np.arange(len(self))}
        if self.groups is not None:
            columns["group"] = list(self.groups)
        columns |= {"n_truth": self.n_truth, "n_predictions": self.n_predictions}
        names = [f"{round(100 * t)}" for t in IOU_THRESHOLDS]
        columns |= {f"tp_{name}": self.true_positives[:, t] for t, name in enumerate(names)}
        columns |= {f"iou_{name}": self.matched_iou[:, t] for t, name in enumerate(names)}
        rest = ("pq_matches", "pq_iou", "aji_intersection", "aji_union", "seg", "splits", "merges")
        return columns | {name: getattr(self, name) for name in rest}

    def frame(self) -> pl.DataFrame:
        """Return ``columns`` as a Polars frame, one row an image."""
        import polars as pl

        return pl.DataFrame(self.columns())


@dataclass(frozen=True)
class Detections:
    """The M predictions of all images in the images' order, with what they match."""

    images: npt.NDArray[np.int32]
    """(M,), which image, ascending."""
    scores: npt.NDArray[np.float64]
    """(M,)."""
    matches: npt.NDArray[np.uint16]
    """(M,), bit t is set where the prediction matches a true cell at IoU threshold t."""
    kept: npt.NDArray[np.bool_]
    """(M,), False for predictions beyond the limit of detections of their image."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The result of one matching: all images together, each group of images apart, and what each image counts.

    The six metrics over all images are at hand by name: ``map`` (mean of AP at IoU 0.5, 0.55, ... 0.95), ``ap50``,
    ``ap75``, ``ar`` (mean recall over the same thresholds), ``ar50`` and ``ar75``. Each lies in 0..1, and is -1.0 where
    there is no true cell, as pycocotools has it.

    Examples
    --------
    >>> import numpy as np
    >>> import segbench
    >>> truth = np.array([[1, 1, 0, 2], [1, 1, 0, 2]])
    >>> found = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])  # one of two cells, with IoU 0.75
    >>> result = segbench.evaluate(truth, found)
    >>> result
    Evaluation(map=0.303, ap50=0.505, ap75=0.505, ar=0.3, ar50=0.5, ar75=0.5; 1 image, 2 true cells, 1 predicted)
    >>> result.ar50
    0.5
    >>> result.images.true_positives[:, :6].tolist()  # of the one image, at IoU 0.5, 0.55, ... 0.75
    [[1, 1, 1, 1, 1, 1]]
    """

    pooled: Scores
    """Over all images."""
    groups: dict[str, Scores]
    """By group (tissue), in alphabetical order; empty where no groups were given."""
    areas: dict[str, Scores]
    """Over all images, by range of the cells' areas; empty where no ranges were asked for."""
    images: ImageCounts = field(repr=False)
    """What each image adds to the cell metrics: see `cell_metrics`."""
    detections: Detections = field(repr=False)
    """What `confidence_intervals` draws from."""
    told: tuple[str, ...] = field(default=(), repr=False)
    """What reading the files left out or suspects, each in one line."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the scores or is suspected of the maps, each in one line."""
        kept = np.bincount(self.detections.images[self.detections.kept], minlength=len(self.images))
        # of a sweep, what has vanished is not kept either, but no prediction any more
        beyond = self.images.n_predictions - kept
        cut = np.flatnonzero(beyond > 0)
        if not cut.size:
            return self.told
        return (*self.told, beyond_limit(int(beyond[cut].sum()), cut.size, int(kept[cut[0]])))

    @property
    def map(self) -> float:
        """Mean of AP over IoU 0.5, 0.55, ... 0.95, over all images."""
        return self.pooled.map

    @property
    def ap50(self) -> float:
        """AP at IoU 0.5, over all images."""
        return self.pooled.ap50

    @property
    def ap75(self) -> float:
        """AP at IoU 0.75, over all images."""
        return self.pooled.ap75

    @property
    def ar(self) -> float:
        """Mean of recall over IoU 0.5, 0.55, ... 0.95, over all images."""
        return self.pooled.ar

    @property
    def ar50(self) -> float:
        """Recall at IoU 0.5, over all images."""
        return self.pooled.ar50

    @property
    def ar75(self) -> float:
        """Recall at IoU 0.75, over all images."""
        return self.pooled.ar75

    def ap50_of_images(self) -> npt.NDArray[np.float64]:
        """Return AP50 of each image (N,) alone; NaN where an image has no true cell.

        Examples
        --------
        >>> import numpy as np
        >>> import segbench
        >>> truth = np.array([[1, 1, 0, 2], [1, 1, 0, 2]])
        >>> empty = np.zeros_like(truth)
        >>> segbench.evaluate([truth, truth, empty], [truth, empty, truth]).ap50_of_images().tolist()
        [1.0, 0.0, nan]
        """
        order = ordered_by_score(self.detections.scores, self.detections.images)
        order = order[self.detections.kept[order]]
        by_image = order[np.argsort(self.detections.images[order], kind="stable")]
        cuts = np.searchsorted(self.detections.images[by_image], np.arange(len(self.images) + 1))
        found = np.full(len(self.images), np.nan)
        for n in np.flatnonzero(self.images.n_truth):
            own = by_image[cuts[n] : cuts[n + 1]]
            n_truth = int(self.images.n_truth[n])
            precision, _, _ = accumulate(own, self.detections.matches, self.detections.scores, n_truth)
            found[n] = mean_of_valid(precision[AP50])
        return found

    def metrics(self) -> dict[str, float]:
        """Return the six metrics over all images by name."""
        return self.pooled.metrics()

    def subsets(self) -> dict[str, Scores]:
        """Return the scores of ``all`` images and of each group, by name."""
        return {"all": self.pooled, **self.groups}

    def frame(self) -> pl.DataFrame:
        """Return one row for all images (``subset`` 'all'), one a group and one an area range ('area small', ...).

        Returns
        -------
        Columns subset, images, truth and predictions (how many there are), and the six metrics; a metric is null where
        the subset has no true cell.
        """
        import polars as pl

        subsets = [*self.subsets().items(), *((f"area {name}", scores) for name, scores in self.areas.items())]
        rows = [
            {"subset": name, "images": scores.n_images, "truth": scores.n_truth, "predictions": scores.n_predictions}
            | scores.row()
            for name, scores in subsets
        ]
        return pl.DataFrame(rows, schema=frame_schema())

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name}={value:.4g}" for name, value in self.metrics().items())
        n = self.pooled.n_images
        counts = (
            f"{n:,} image{'s' * (n != 1)}, {self.pooled.n_truth:,} true cells, {self.pooled.n_predictions:,} predicted"
        )
        groups = f"; groups {', '.join(self.groups)}" if self.groups else ""
        areas = f"; areas {', '.join(self.areas)}" if self.areas else ""
        return f"Evaluation({metrics}; {counts}{groups}{areas})"

    def _repr_html_(self) -> str:
        return self.frame()._repr_html_()


def frame_schema() -> dict[str, Any]:
    """Return the columns and types of every frame of scores, so that one without truth has the same."""
    import polars as pl

    counts = dict.fromkeys(("images", "truth", "predictions"), pl.Int64)
    return {"subset": pl.String, **counts, **dict.fromkeys(METRICS, pl.Float64)}


def assemble(
    detections: Detections,
    order: npt.NDArray[np.int32],
    images: ImageCounts,
    areas: dict[str, Scores] | None = None,
) -> Evaluation:
    """Accumulate matched detections pooled and per group, from one ``order`` (M,) by descending score."""
    order = order if detections.kept.all() else order[detections.kept[order]]
    n_images, n_truth = len(images), int(images.n_truth.sum())
    pooled = Scores.from_arrays(
        *accumulate(order, detections.matches, detections.scores, n_truth),
        n_images=n_images,
        n_truth=n_truth,
        n_predictions=int(images.n_predictions.sum()),
    )
    by_group: dict[str, Scores] = {}
    if images.groups is not None:
        names, group_of_image = np.unique(np.asarray(images.groups, dtype=object), return_inverse=True)
        group_of = group_of_image.astype(np.int16 if names.size < 2**15 else np.int64)[detections.images[order]]
        sorted_order = order[np.argsort(group_of, kind="stable")]
        cuts = np.concatenate([[0], np.cumsum(np.bincount(group_of, minlength=names.size))])
        for g, name in enumerate(names):
            members = group_of_image == g
            n_truth = int(images.n_truth[members].sum())
            by_group[str(name)] = Scores.from_arrays(
                *accumulate(sorted_order[cuts[g] : cuts[g + 1]], detections.matches, detections.scores, n_truth),
                n_images=int(members.sum()),
                n_truth=n_truth,
                n_predictions=int(images.n_predictions[members].sum()),
            )
    return Evaluation(pooled, by_group, areas or {}, images, detections)


def scores_by_area(
    ranges: AreaRanges,
    detections: Detections,
    order: npt.NDArray[np.int32],
    areas: npt.NDArray[np.int32],
    matched_areas: npt.NDArray[np.int32],
    truth_areas: npt.NDArray[np.int32],
    n_images: int,
) -> dict[str, Scores]:
    """Return COCO's scores for true cells of each range of areas.

    As in ``COCOeval``, a true cell outside of the range is neither to be found nor an error to find, and a prediction
    that matches nothing counts only if its own area lies in the range.

    Parameters
    ----------
    ranges
        Bounds in pixels, included.
    detections, order
        The M matched predictions and their order by score.
    areas, matched_areas
        (M,), a prediction's own area, and that of the true cell that it matches (0: none).
    truth_areas
        (G,).
    n_images
        How many images there are.
    """
    order = order[detections.kept[order]]
    everywhere = np.uint16((1 << IOU_THRESHOLDS.size) - 1)
    result = {}
    for name, (low, high) in ranges.items():
        truth_counts = (truth_areas >= low) & (truth_areas <= high)
        match_counts = (matched_areas >= low) & (matched_areas <= high)
        own_counts = (areas >= low) & (areas <= high)
        to_ignored = np.where(match_counts, 0, detections.matches).astype(np.uint16)
        unmatched = np.where(own_counts, 0, everywhere & ~detections.matches).astype(np.uint16)
        n_truth = int(np.count_nonzero(truth_counts))
        result[name] = Scores.from_arrays(
            *accumulate(order, detections.matches, detections.scores, n_truth, to_ignored | unmatched),
            n_images=n_images,
            n_truth=n_truth,
            n_predictions=int(np.count_nonzero(own_counts)),
        )
    return result


def ordered_by_score(
    detections_scores: npt.NDArray[np.float64], images: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """Return the stable order (M,) by descending score; a score that is NaN or infinite raises SegbenchError."""
    wrong = np.flatnonzero(~np.isfinite(detections_scores))
    if wrong.size:
        found = "NaN" if np.isnan(detections_scores[wrong[0]]) else "an infinite score"
        raise SegbenchError(f"scores[{images[wrong[0]]}] holds {found}; scores are finite numbers")
    return order_by_score(detections_scores)


def checked_groups(groups: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the groups as a tuple of names; a lone string, one name for all, raises SegbenchError."""
    if groups is None:
        return None
    if isinstance(groups, str):
        raise SegbenchError(f"groups is the text {groups!r}; give one name a map, or the path of a CSV file")
    return tuple(str(group) for group in groups)


def check_group_count(groups: tuple[str, ...] | None, n_images: int) -> None:
    """Raise SegbenchError unless there is one group an image."""
    if groups is not None and len(groups) != n_images:
        raise SegbenchError(f"groups has {len(groups)} names for {n_images} label maps; give one name a map")


def beyond_limit(n: int, images: int, limit: int) -> str:
    """Return in one line that predictions are left out for being beyond the limit of detections.

    Examples
    --------
    >>> beyond_limit(1096, 1, 3000)
    '1,096 predictions of 1 image are beyond --max-detections 3000: they are not scored'
    """
    what = f"{n:,} prediction{'s' * (n != 1)} of {images:,} image{'s' * (images != 1)}"
    return f"{what} {'are' if n != 1 else 'is'} beyond --max-detections {limit}: they are not scored"


def checked_limit(max_detections: int) -> int:
    """Return the limit of detections; SegbenchError unless it is a whole number from 1 to 2^31 - 1."""
    if isinstance(max_detections, bool) or not isinstance(max_detections, int | np.integer):
        raise SegbenchError(f"max_detections is {max_detections!r}; give a whole number of at least 1")
    if max_detections > 2**31 - 1:
        raise SegbenchError(f"max_detections is {max_detections}; give at most {2**31 - 1}")
    if max_detections < 1:
        raise SegbenchError(f"max_detections is {max_detections}; give at least 1")
    return int(max_detections)
