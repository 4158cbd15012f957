"""Diagnoses two experts against each other on the same CODEX fields, and three published tools against each of them.

    SEGBENCH_TESTDATA=... python benchmarks/two_experts.py > segbench/engine/study/experts.csv

What two experts make of one image says how much of a score against either of them is habit. The fields, the experts'
masks and those of the tools are murphygroup/CellSegmentationEvaluator's (MIT).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import tifffile

from segbench.engine.metrics.diagnosis import diagnose_labels

FIELDS = ("X003_Y004", "X004_Y003")
EXPERTS = ("expert1", "expert2")
TOOLS = ("Cellpose-0.6.1", "DeepCell-0.9.0_membrane", "CellProfiler")
EVERY_CELL = 10_000
"""Limit of detections, above the cells of a field: 3,000 would leave out some of an expert's."""


def masks(data: Path, who: str) -> list[npt.NDArray[np.int32]]:
    """Return one's label maps of the fields."""
    folder = data / "codex-two-experts"
    return [tifffile.imread(folder / field / f"mask_{who}.tif").astype(np.int32) for field in FIELDS]


def compare(data: Path) -> pl.DataFrame:
    """Return a row for everyone against each expert and each metric, with what is lost to which kind of error."""
    rows = []
    for truth in EXPERTS:
        for who in (*EXPERTS, *TOOLS):
            if who == truth:
                continue
            found = diagnose_labels(masks(data, truth), masks(data, who), max_detections=EVERY_CELL)
            cells = (
                found.cells().filter(parted_by="all").select("mean_iou", "boundary_iou", "boundary_px", "area_ratio")
            )
            named = found.gaps().drop("subset").with_columns(truth=pl.lit(truth), scored=pl.lit(who))
            counts = (sum(np.unique(labels).size - 1 for labels in masks(data, name)) for name in (truth, who))
            n_truth, n_scored = counts
            rows.append(named.join(cells, how="cross").with_columns(n_truth=pl.lit(n_truth), n_scored=pl.lit(n_scored)))
    front = ["truth", "scored", "n_truth", "n_scored"]
    table = pl.concat(rows).select(*front, pl.exclude(*front))
    return table.with_columns(pl.col(pl.Float64).round(4))


if __name__ == "__main__":
    sys.stdout.write(compare(Path(os.environ["SEGBENCH_TESTDATA"])).write_csv())
