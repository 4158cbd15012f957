"""How good a segmentation is: COCO's AP and AR exactly as pycocotools computes them, for dense cells."""

from segbench.engine.metrics.bootstrap import Interval, bootstrap_intervals, confidence_intervals, paired_samples
from segbench.engine.metrics.cells import CellMetrics, cell_metrics, measure_cells
from segbench.engine.metrics.coco import IOU_THRESHOLDS, RECALL_THRESHOLDS
from segbench.engine.metrics.coco_json import CocoEvaluation, evaluate_coco_json
from segbench.engine.metrics.diagnosis import Diagnosis, diagnose_labels, diagnose_prediction_set
from segbench.engine.metrics.evaluation import (
    AREAS,
    COCO_AREAS,
    LIVECELL_AREAS,
    MAX_DETECTIONS,
    METRICS,
    AreaRanges,
    Detections,
    Evaluation,
    ImageCounts,
    Scores,
)
from segbench.engine.metrics.instances import evaluate_instances, evaluate_prediction_set, paint_instances
from segbench.engine.metrics.labels import evaluate_labels
from segbench.engine.metrics.postoperations import apply_post_operation
from segbench.engine.metrics.sweep import Sweep, sweep_labels, sweep_prediction_set

__all__ = [
    "AREAS",
    "COCO_AREAS",
    "IOU_THRESHOLDS",
    "LIVECELL_AREAS",
    "MAX_DETECTIONS",
    "METRICS",
    "RECALL_THRESHOLDS",
    "AreaRanges",
    "CellMetrics",
    "CocoEvaluation",
    "Detections",
    "Diagnosis",
    "Evaluation",
    "ImageCounts",
    "Interval",
    "Scores",
    "Sweep",
    "apply_post_operation",
    "bootstrap_intervals",
    "cell_metrics",
    "confidence_intervals",
    "diagnose_labels",
    "diagnose_prediction_set",
    "evaluate_coco_json",
    "evaluate_instances",
    "evaluate_labels",
    "evaluate_prediction_set",
    "measure_cells",
    "paint_instances",
    "paired_samples",
    "sweep_labels",
    "sweep_prediction_set",
]
