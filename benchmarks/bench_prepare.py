"""Times the preparation of the real test sets against scikit-image in one process, as deepcell-toolbox prepares images.

The baseline does the same work the usual way: read an image, percentiles, ``skimage.exposure.equalize_adapthist`` with
kernel_size 128 (deepcell-toolbox's ``histogram_normalization``), windows by slicing, ``relabel_sequential``, and, timed
apart, the cells' shapes by ``regionprops`` and its hulls. Ours does all of it, shapes included, with one worker (CPU
time against CPU time) and with one worker a core (wall time against wall time). The windows are compared.

Run ``SEGBENCH_TESTDATA=... python benchmarks/bench_prepare.py [--limit N]``. With ``--large SIDE`` it needs no data: it
writes a two-channel tiled TIFF of that side with its cells, prepares it, and prints time and peak memory.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measured import prepare_measured
from pycocotools import mask as coco_mask
from skimage.exposure import equalize_adapthist, rescale_intensity
from skimage.io import imread
from skimage.measure import perimeter, regionprops
from skimage.segmentation import relabel_sequential
from tifffile import imwrite

from segbench.engine.data import DatasetSpec, PreparedDataset, ensure_prepared
from segbench.engine.data.cache import default_workers

Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
WINDOW, STEP = 256, 192
_SCRATCH = "BENCH_PREPARE_SCRATCH"


def main() -> None:
    """Time both sets and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, help="only the first N images of every split in the baseline's table")
    parser.add_argument("--large", type=int, metavar="SIDE", help="instead: a two-channel tiled TIFF of this side")
    given = parser.parse_args()
    if given.large is not None:
        measure_large(given.large, Path(os.environ[_SCRATCH]))
        return
    limit = given.limit
    folder = os.environ.get("SEGBENCH_TESTDATA")
    if not folder:
        sys.exit("SEGBENCH_TESTDATA is not set: the real data are not here")
    root = Path(folder)
    specs = {
        "dsb2018": DatasetSpec("dsb2018", "folder", str(root / "dsb2018-fluorescence"), {"target": "nuclear"}),
        "t98g": DatasetSpec("t98g", "livecell", str(root / "t98g-phase-livecell-layout")),
    }
    warm_up()
    for name, spec in specs.items():
        compare(name, spec, limit)


def measure_large(side: int, folder: Path) -> None:
    """Write a large image with its cells tile by tile, prepare it with one worker, and print time and peak memory."""
    rng = np.random.default_rng(0)
    tile, spacing = 512, 40
    texture = [rng.integers(100, 200, (tile, tile), np.uint16) for _ in range(8)]

    def tiles(size: int, kind: str) -> Iterator[npt.NDArray[Any]]:
        across = -(-size // spacing)
        for channel in range(1 if kind == "labels" else 2):
            for top in range(0, size, tile):
                for left in range(0, size, tile):
                    y, x = np.ogrid[top : top + tile, left : left + tile]
                    inside = (y % spacing - 20) ** 2 + (x % spacing - 20) ** 2 < (15 - 3 * channel) ** 2
                    if kind == "labels":
                        yield np.where(inside, y // spacing * across + x // spacing + 1, 0).astype(np.uint32)
                    else:
                        yield (texture[(top // tile + left // tile) % 8] + 900 * inside).astype(np.uint16)

    data = folder / "large"
    data.mkdir()
    for name, size in (("train", side), ("test", 2 * tile)):
        how = {"tile": (tile, tile), "compression": "zlib", "bigtiff": True, "photometric": "minisblack"}
        imwrite(data / f"{name}.tif", tiles(size, "image"), shape=(2, size, size), dtype=np.uint16, **how)
        imwrite(data / f"{name}-mask.tif", tiles(size, "labels"), shape=(size, size), dtype=np.uint32, **how)
    rows = [f"{name}.tif,{name}-mask.tif,{name}" for name in ("train", "test")]
    (data / "index.csv").write_text("\n".join(["image,mask,split", *rows]) + "\n")
    spec = DatasetSpec("large", "folder", str(data), {"target": "cell", "channels": ["nucleus", "membrane"]})
    print(
        f"{side} x {side} pixels, two channels of 16 bits and labels of 32 bits: {side**2 * 8 / 1e9:.1f} GB in memory"
    )
    print(prepare_measured(spec, folder / "cache", 1).told())


def warm_up() -> None:
    """Compile (or load) the numba functions outside the clock."""
    run(DatasetSpec("x", "synthetic", None, {"layout": "livecell", "train": 1, "val": 1, "test": 1, "scale": 0.1}), 1)


def compare(name: str, spec: DatasetSpec, limit: int | None) -> None:
    """Print one set's times, ratios and the largest difference between the two preparations."""
    folder = Path(str(spec.source))
    pairs = folder_pairs(folder) if spec.kind == "folder" else livecell_pairs(folder)
    splits = {split: items[:limit] for split, items in pairs.items()}

    read_wall, read_cpu, shapes_cpu = time.perf_counter(), time.process_time(), 0.0
    windows: dict[str, list[npt.NDArray[np.float32]]] = {}
    for split, items in splits.items():
        windows[split] = []
        for load in items:
            image, labels = load()
            for pixels, numbered in baseline_windows(image, labels):
                if split == "train" and not numbered.any():
                    continue
                windows[split].append(pixels)
                began = time.process_time()
                baseline_shapes(numbered)
                shapes_cpu += time.process_time() - began
    base_wall, base_cpu = time.perf_counter() - read_wall, time.process_time() - read_cpu

    prepared, _, one_cpu = run(spec, 1)
    _, wall, _ = run(spec, default_workers())
    print(
        f"{name}: {sum(map(len, pairs.values()))} images, {sum(prepared.index(s).height for s in splits)} windows, "
        f"{prepared.cells().height} cells in windows"
    )
    print(f"  baseline, one process: {base_wall:.2f} s wall, {base_cpu:.2f} s CPU, of which shapes {shapes_cpu:.2f} s")
    print(f"  segbench: {one_cpu:.2f} s CPU with 1 worker; {wall:.2f} s wall with {default_workers()} workers")
    if limit is None:
        print(f"  ratio with shapes: CPU {base_cpu / one_cpu:.1f}x, wall {base_wall / wall:.1f}x")
        alone = base_cpu - shapes_cpu
        print(
            f"  ratio to the baseline without shapes (ours with): CPU {alone / one_cpu:.1f}x, "
            f"wall {(base_wall - shapes_cpu) / wall:.1f}x"
        )
    print(f"  largest difference of a pixel: {difference(prepared, windows, limit):.1e}\n")


def run(spec: DatasetSpec, workers: int) -> tuple[PreparedDataset, float, float]:
    """Prepare into a new cache; return the dataset, wall seconds and CPU seconds, hashing and writing included."""
    os.environ["SEGBENCH_CACHE"] = tempfile.mkdtemp(prefix="bench-prepare-", dir=os.environ[_SCRATCH])
    wall, cpu = time.perf_counter(), time.process_time()
    prepared = ensure_prepared(spec, workers=workers)
    return prepared, time.perf_counter() - wall, time.process_time() - cpu


def baseline_windows(
    image: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Yield normalised windows with labels numbered anew, with scikit-image."""
    low, high = np.percentile(image, (0.1, 99.9))
    scaled = rescale_intensity(image, (low, high), (0.0, 1.0)) if high > low else np.zeros_like(image)
    whole = equalize_adapthist(scaled, kernel_size=128) if high > low else scaled
    pad = [(0, max(0, WINDOW - side)) for side in image.shape]
    whole, labels = np.pad(whole, pad), np.pad(labels, pad)
    for y in starts(whole.shape[0]):
        for x in starts(whole.shape[1]):
            piece = labels[y : y + WINDOW, x : x + WINDOW]
            yield whole[y : y + WINDOW, x : x + WINDOW].astype(np.float32), relabel_sequential(piece)[0]


def starts(side: int) -> list[int]:
    """Return where windows begin, the last one moved inward."""
    found = list(range(0, side - WINDOW + 1, STEP))
    return found if found[-1] + WINDOW == side else [*found, side - WINDOW]


def baseline_shapes(labels: npt.NDArray[np.int64]) -> list[tuple[float, float, float]]:
    """Return area, elongation and convexity of every cell by scikit-image's region properties."""
    return [
        (
            region.area,
            (region.axis_minor_length / region.axis_major_length) ** 2 if region.axis_major_length else 1.0,
            perimeter(region.image_convex) / region.perimeter if region.perimeter else 1.0,
        )
        for region in regionprops(labels)
    ]


def difference(
    prepared: PreparedDataset, windows: dict[str, list[npt.NDArray[np.float32]]], limit: int | None
) -> float:
    """Return the largest difference between our windows and the baseline's, in the same order."""
    largest = 0.0
    for split, theirs in windows.items():
        ours = np.load(prepared.images_path(split), mmap_mode="r")[:, 0]
        if limit is None and len(theirs) != len(ours):
            sys.exit(f"{split}: {len(ours)} windows of ours, {len(theirs)} of the baseline")
        largest = max(largest, *(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=False)))
    return largest


def folder_pairs(folder: Path) -> dict[str, list]:  # type: ignore[type-arg]
    """Return a loader an image for each split of a folder dataset."""
    splits: dict[str, list] = {"train": [], "val": [], "test": []}  # type: ignore[type-arg]
    with (folder / "index.csv").open() as file:
        for row in csv.DictReader(file):

            def load(row: dict[str, str] = row) -> Pair:
                return imread(folder / row["image"]).astype(np.float64), imread(folder / row["mask"]).astype(np.int64)

            splits[row["split"]].append(load)
    return splits


def livecell_pairs(folder: Path) -> dict[str, list]:  # type: ignore[type-arg]
    """Return a loader an image for each split of a LIVECell download."""
    splits: dict[str, list] = {}  # type: ignore[type-arg]
    paths = {path.name: path for path in folder.rglob("*.tif")}
    for split in ("train", "val", "test"):
        raw = json.loads((folder / "annotations" / "LIVECell" / f"livecell_coco_{split}.json").read_text())
        splits[split] = []
        for image in raw["images"]:
            cells = [a["segmentation"] for a in raw["annotations"] if a["image_id"] == image["id"]]

            def load(image: dict = image, cells: list = cells) -> Pair:  # type: ignore[type-arg]
                size = image["height"], image["width"]
                masks = [coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(cell, *size))) > 0 for cell in cells]
                labels = np.zeros(size, np.int64)
                for n, mask in sorted(enumerate(masks, start=1), key=lambda item: -item[1].sum()):
                    labels[mask] = n
                return imread(paths[image["file_name"]]).astype(np.float64), labels

            splits[split].append(load)
    return splits


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as scratch:
        os.environ[_SCRATCH] = scratch
        main()
