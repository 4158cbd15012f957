"""Turns images' counts into the usual metrics of cell segmentation: F1, panoptic quality, AJI, SEG, splits, merges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.coco import IOU_THRESHOLDS
from segbench.engine.metrics.evaluation import AP50, Evaluation, ImageCounts
from segbench.errors import SegbenchError

if TYPE_CHECKING:
    import polars as pl

Ratio = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CellMetrics:
    """The cell metrics of each image, or of images put together. NaN where there is nothing to measure on.

    Shapes: (N,) for N images, () for one number over all; with thresholds (N, T) and (T,).
    """

    f1: Ratio = field(repr=False)
    """(..., T): 2 TP / (2 TP + FP + FN) at each IoU threshold."""
    average_precision: Ratio = field(repr=False)
    """(..., T): TP / (TP + FP + FN), what the label-map tools (and the published scripts for six methods) call AP."""
    detection_quality: Ratio
    """DQ = TP / (TP + FP / 2 + FN / 2), pairs with IoU > 0.5 (Kirillov et al., CVPR 2019)."""
    segmentation_quality: Ratio
    """SQ, the mean IoU of those pairs; 0 without any."""
    panoptic_quality: Ratio
    """PQ = DQ x SQ."""
    aggregated_jaccard: Ratio
    """AJI (Kumar et al., IEEE TMI 2017): each true cell with the prediction of best IoU, sum of intersections over sum
    of unions, to which the predictions that no cell took are added."""
    seg: Ratio
    """SEG (Cell Tracking Challenge): mean over true cells of the IoU with the prediction that covers more than half of
    it, or 0."""
    mean_matched_iou: Ratio
    """Mean IoU of the pairs with IoU >= 0.5."""
    splits: npt.NDArray[np.int64]
    """True cells split into two or more predictions."""
    merges: npt.NDArray[np.int64]
    """Predictions that merge two or more true cells."""

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the metrics by flat names: ``f1_50`` ... ``f1_95``, ``tp_fp_fn_ap_50`` ..., ``pq``, ``aji``, ..."""
        names = [f"{round(100 * t)}" for t in IOU_THRESHOLDS]
        return (
            {f"f1_{name}": self.f1[..., t] for t, name in enumerate(names)}
            | {f"tp_fp_fn_ap_{name}": self.average_precision[..., t] for t, name in enumerate(names)}
            | {
                "dq": self.detection_quality,
                "sq": self.segmentation_quality,
                "pq": self.panoptic_quality,
                "aji": self.aggregated_jaccard,
                "seg": self.seg,
                "mean_matched_iou": self.mean_matched_iou,
                "splits": self.splits,
                "merges": self.merges,
            }
        )


def cell_metrics(evaluation: Evaluation, *, per_image: bool = False) -> pl.DataFrame:
    """Return what other tools measure of cells: F1, TP / (TP + FP + FN), panoptic quality, AJI, SEG, splits and merges.

    Parameters
    ----------
    evaluation
        What `evaluate` returned, or one radius of a `sweep`; nothing is matched again.
    per_image
        False: cells are counted over all images of a subset, so that every cell weighs the same. True: each image has
        its own row.

    Returns
    -------
    One row for all images (``subset`` 'all') and one a group; or one row an image, with its position ``image`` and,
    where there are groups, its ``group``. Columns ``f1_50`` ... ``f1_95`` (by IoU threshold in percent),
    ``tp_fp_fn_ap_50`` ... (what label-map tools call average precision), ``dq``, ``sq``, ``pq``, ``aji``, ``seg``,
    ``mean_matched_iou`` (all in 0..1), ``splits`` and ``merges`` (counts). What cannot be measured, for there are no
    cells, is null.

    Raises
    ------
    SegbenchError
        ``evaluation`` is something else.

    Notes
    -----
    With overlapping predictions the pairs are those of COCO's greedy matching by score; the definitions of PQ and
    AJI expect predictions that do not overlap.

    Examples
    --------
    >>> import numpy as np
    >>> import segbench
    >>> truth = np.array([[[1, 1, 1, 1, 0, 2, 2]], [[3, 3, 0, 0, 0, 0, 0]]])
    >>> found = np.array([[[1, 1, 1, 0, 0, 2, 2]], [[0, 0, 0, 0, 0, 8, 8]]])
    >>> result = segbench.evaluate(truth, found, groups=["lung", "skin"])
    >>> metrics = segbench.cell_metrics(result).select("subset", "f1_50", "pq", "seg", "splits")
    >>> metrics.rows()
    [('all', 0.666..., 0.583..., 0.583..., 0), ('lung', 1.0, 0.875, 0.875, 0), ('skin', 0.0, 0.0, 0.0, 0)]
    >>> segbench.cell_metrics(result, per_image=True).select("image", "group", "f1_50").rows()
    [(0, 'lung', 1.0), (1, 'skin', 0.0)]
    """
    import polars as pl

    if not isinstance(evaluation, Evaluation):
        raise SegbenchError(
            f"evaluation is of type {type(evaluation).__name__}; give what evaluate(truth, predictions) returns"
        )
    images = evaluation.images
    if per_image:
        names = {} if images.groups is None else {"group": list(images.groups)}
        found = measure_cells(images, pooled=False).columns()
        return pl.DataFrame({"image": np.arange(len(images)), **names, **found}).fill_nan(None)
    rows = []
    for group in [None, *evaluation.groups]:
        columns = measure_cells(images, group=group).columns()
        rows.append({"subset": group or "all"} | {name: value.item() for name, value in columns.items()})
    return pl.DataFrame(rows).fill_nan(None)


def measure_cells(images: ImageCounts, *, pooled: bool = True, group: str | None = None) -> CellMetrics:
    """Return the cell metrics of an evaluation's images.

    Parameters
    ----------
    images
        The counts of N images: ``Evaluation.images``.
    pooled
        True: counts are added up over the images first, so that every cell weighs the same, and every metric
        is one number. False: one value an image.
    group
        Only the images of this group.

    Examples
    --------
    >>> from segbench.engine.metrics import evaluate_labels
    >>> truth = np.array([[[1, 1, 1, 1, 0, 2, 2]]])
    >>> found = np.array([[[1, 1, 1, 0, 0, 2, 2]]])
    >>> metrics = measure_cells(evaluate_labels(truth, found).images)
    >>> float(metrics.f1[0]), float(metrics.panoptic_quality), float(metrics.seg)
    (1.0, 0.875, 0.875)
    """
    chosen = np.ones(len(images), np.bool_)
    if group is not None:
        chosen = np.array([name == group for name in images.groups or ()], dtype=np.bool_)

    def total(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(column[chosen].sum(axis=0)) if pooled else column[chosen]

    n_truth, n_predictions = total(images.n_truth), total(images.n_predictions)
    tp = total(images.true_positives)
    cells = (n_truth + n_predictions)[..., None]
    detection_quality = _ratio(2 * total(images.pq_matches), n_truth + n_predictions)
    segmentation_quality = _ratio(total(images.pq_iou), total(images.pq_matches), empty=0.0)
    return CellMetrics(
        f1=_ratio(2 * tp, cells),
        average_precision=_ratio(tp, cells - tp),
        detection_quality=detection_quality,
        segmentation_quality=segmentation_quality,
        panoptic_quality=detection_quality * segmentation_quality,
        aggregated_jaccard=_ratio(total(images.aji_intersection), total(images.aji_union)),
        seg=_ratio(total(images.seg), n_truth),
        mean_matched_iou=_ratio(total(images.matched_iou)[..., AP50], tp[..., AP50]),
        splits=total(images.splits),
        merges=total(images.merges),
    )


def _ratio(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any], empty: float = np.nan) -> Ratio:
    above, below = np.broadcast_arrays(numerator, denominator)
    result = np.full(above.shape, empty, dtype=np.float64)
    np.divide(above, below, out=result, where=below > 0)
    return result
