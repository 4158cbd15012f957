"""How good a segmentation is: COCO's AP and AR exactly as pycocotools computes them, for dense cells."""

from segbench.engine.metrics.evaluation import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    RECALL_THRESHOLDS,
    Evaluation,
    Scores,
)
from segbench.engine.metrics.faces import evaluate_instances, evaluate_labels, evaluate_prediction_set

__all__ = [
    "IOU_THRESHOLDS",
    "MAX_DETECTIONS",
    "RECALL_THRESHOLDS",
    "Evaluation",
    "Scores",
    "evaluate_instances",
    "evaluate_labels",
    "evaluate_prediction_set",
]
