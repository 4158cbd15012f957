"""What an evaluation is: COCO's precision and recall of one subset of images, pooled and per group."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IOU_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""(T,), COCO's IoU thresholds. ``np.arange`` gives other last bits."""
RECALL_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
"""(R,), the recalls at which COCO reads precision."""
AP50, AP75 = 0, 5
"""Where 0.5 and 0.75 stand in `IOU_THRESHOLDS`."""
MAX_DETECTIONS = 3000
"""The published benchmark's limit of detections an image."""


@dataclass(frozen=True)
class Scores:
    """COCO's precision and recall of one subset of images, as pycocotools' ``COCOeval.eval`` holds them.

    A metric is -1.0 where the subset has no truth, exactly as pycocotools says it.
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

        def mean(values: npt.NDArray[np.float64]) -> float:
            valid = values[values > -1]
            return float(np.mean(valid)) if valid.size else -1.0

        return cls(
            map=mean(precision),
            ap50=mean(precision[AP50]),
            ap75=mean(precision[AP75]),
            ar=mean(recall),
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
        return {name: getattr(self, name) for name in ("map", "ap50", "ap75", "ar", "ar50", "ar75")}


@dataclass(frozen=True)
class Evaluation:
    """The result of one matching: all images together, and each group of images apart."""

    pooled: Scores
    """Over all images."""
    groups: dict[str, Scores]
    """By group (tissue), in alphabetical order; empty where no groups were given."""
