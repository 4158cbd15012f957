"""Measures, on a results folder, how much each choice matters in which segbench differs from the paper.

Run: python benchmarks/paper_differences.py DIR, for the folder of a launch whose data are prepared here
(`segbench grid launch` for the demo). What ``docs/analyses.md`` says under "Where this differs from the paper" is what
it prints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

import segbench
from segbench.engine.data import PreparedDataset, open_prepared
from segbench.engine.data.morphology import _SMOOTH, _measure
from segbench.engine.run.whole import evaluate_whole
from segbench.methods.predictions import PredictionSet

TEST = "test"


def recall(results: segbench.Results) -> None:
    """Pooled recall against the mean over images."""
    rows = results.query(
        "select method, task, avg(accuracy.ar50) as pooled, avg(ar50_per_image) as per_image from accuracy "
        "join cell_metrics using (run_id, test_task, test_tissue, method, task) "
        "where test_tissue = 'all' and operation = 'none' and test_task = task group by all order by task, method"
    )
    for method, task, pooled, per_image in rows.iter_rows():
        print(f"recall           {method} on {task}: AR50 pooled {pooled:.4f}, mean over images {per_image:.4f}")


def windows(data: PreparedDataset) -> None:
    """How often a pixel of a test image is in a window."""
    index = data.index(TEST)
    side = np.load(data.images_path(TEST), mmap_mode="r").shape[-1]
    times = []
    for _, image in index.group_by("image"):
        seen = np.zeros((int(image["y"].max()) + side, int(image["x"].max()) + side), np.int32)
        for y, x in image.select("y", "x").iter_rows():
            seen[y : y + side, x : x + side] += 1
        times.append(seen.ravel())
    every = np.concatenate(times)
    print(f"windows          {data.spec.name}: a pixel is in {every.mean():.2f} windows, in {every.max()} at most")


def cut_cells(data: PreparedDataset) -> None:
    """The mean shape of the test cells with and without those that a window's border cuts."""
    cells = data.cells().filter(pl.col("split") == TEST)
    for (target,), group in cells.group_by(["target"], maintain_order=True):
        whole = group.filter(~pl.col("cut"))
        print(
            f"cut cells        {data.spec.name} {target}: {1 - whole.height / group.height:.0%} are cut; mean area "
            f"{group['area'].mean():.1f} px with them, {whole['area'].mean():.1f} without; elongation "
            f"{group['elongation'].mean():.3f} and {whole['elongation'].mean():.3f}"
        )


def outlines(data: PreparedDataset) -> None:
    """The mean shape of whole test cells by the smoothed outline, and by the chain of pixels as it is."""
    for target in data.targets:
        found = []
        for labels in np.load(data.labels_path(TEST, target), mmap_mode="r"):
            k = int(labels.max(initial=0))
            if k:
                shapes = [_measure(np.ascontiguousarray(labels, np.int32), k, smooth) for smooth in (_SMOOTH, 0)]
                whole = ~shapes[0][3]
                found.append(
                    np.stack([[elongation[whole], convexity[whole]] for _, elongation, convexity, _ in shapes])
                )
        smoothed, raw = np.concatenate(found, axis=2).mean(axis=2)
        print(
            f"outline          {data.spec.name} {target}: elongation {smoothed[0]:.3f} smoothed, "
            f"{raw[0]:.3f} by the pixels; convexity {smoothed[1]:.3f} and {raw[1]:.3f}"
        )


def structures(data: PreparedDataset, target: str, other: str, predictions: Path, name: str) -> None:
    """The best radius by a disk and by a cross, and what it gives."""
    truth = np.load(data.labels_path(TEST, other))
    operation = "dilate" if target == "nuclear" else "erode"
    for structure in ("disk", "cross"):
        radii = {operation: range(21 if operation == "dilate" else 11)}
        swept = segbench.sweep(truth, PredictionSet(predictions), structure=structure, **radii)  # type: ignore[arg-type]
        _, radius = swept.best("map")
        best = f"best at {radius} px, mAP {swept[operation, radius].map:.4f}"
        print(f"post-operation   {name}: {operation} by a {structure}: {best}")


def main() -> None:
    """Print the size of each difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    results = segbench.Results(folder)
    recall(results)
    runs = results.query(
        "select dataset, task, target, method, min(folder) as folder from attempts "
        "where status = 'done' and train_tissue = 'all' group by all order by task, method"
    )
    for name in runs["dataset"].unique(maintain_order=True):
        data = open_prepared(name)
        windows(data)
        cut_cells(data)
        outlines(data)
    for dataset, task, target, method, attempt in runs.iter_rows():
        data = open_prepared(dataset)
        predictions = folder / attempt / "predictions" / TEST
        whole = evaluate_whole(data, target, PredictionSet(predictions))
        print(f"whole images     {method} on {task}: mAP {whole.map:.4f}")
        others = [name for name in data.targets if name != target]
        for other in others:
            structures(data, target, other, predictions, f"{method} on {task}")


if __name__ == "__main__":
    main()
