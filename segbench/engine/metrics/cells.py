"""Turns images' counts into the usual metrics of cell segmentation: F1, panoptic quality, AJI, SEG, splits, merges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.metrics.coco import IOU_THRESHOLDS
from segbench.engine.metrics.evaluation import AP50, ImageCounts

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


def cell_metrics(images: ImageCounts, *, pooled: bool = True, group: str | None = None) -> CellMetrics:
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

    Notes
    -----
    With overlapping predictions the pairs are those of COCO's greedy matching by score; the definitions of PQ and
    AJI expect predictions that do not overlap.

    Examples
    --------
    >>> from segbench.engine.metrics import evaluate_labels
    >>> truth = np.array([[[1, 1, 1, 1, 0, 2, 2]]])
    >>> found = np.array([[[1, 1, 1, 0, 0, 2, 2]]])
    >>> metrics = cell_metrics(evaluate_labels(truth, found).images)
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
