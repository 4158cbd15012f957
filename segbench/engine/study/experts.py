"""How far two experts agree who outlined the same cells, and how three published tools do against either, as facts.

The fields, the experts' masks and the tools' are of murphygroup/CellSegmentationEvaluator: two CODEX fields of 1,008 x
1,344 pixels, whole cells. The figures are segbench's own diagnosis of them, printed by ``benchmarks/two_experts.py``.
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def agreement() -> pl.DataFrame:
    """Return a row for each pair of who is taken for the truth and who is scored against it, and each metric.

    Returns
    -------
    Columns truth, scored, n_truth and n_scored (cells), metric, score and gap (0..1) with the gap's shares, and of the
    cells that are found at IoU 0.5 mean_iou, boundary_iou, boundary_px and area_ratio.

    Examples
    --------
    >>> import polars as pl
    >>> experts = pl.col("scored").str.starts_with("expert")
    >>> agreement().filter(experts, metric="ap50").select("truth", "scored", "score").rows()
    [('expert1', 'expert2', 0.1539), ('expert2', 'expert1', 0.1692)]
    """
    import polars as pl

    text = (importlib.resources.files("segbench.engine.study") / "experts.csv").read_bytes()
    return pl.read_csv(text)
