"""Times the preparation of a download of LIVECell's size and oddities, made up on the spot, and prints its peak memory.

As in the real one: 5,387 listed images of 520 x 704 pixels with about 1.69 million outlined cells; 3,253 entries of
train of which 65 list an image again, 570 of val, and 1,564 of test for 1,512 files; entries of one file have
annotations of their own. Images are smooth noise (no benchmark of methods), outlines have 40 corners, and neighbours
overlap.

Run ``python benchmarks/bench_livecell.py [--share 0.1] [--workers 2]``; in full it writes about 3 GB of download.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from measured import prepare_measured
from scipy import ndimage
from tifffile import imwrite

from segbench.engine.data import DatasetSpec

HEIGHT, WIDTH = 520, 704
ENTRIES = {"train": (3253, 65), "val": (570, 0), "test": (1564, 52)}
"""Entries of each split, and how many of them list a file again."""
CELLS = 1_686_352
TYPES = ("A172", "BT474", "BV2", "Huh7", "MCF7", "SHSY5Y", "SKOV3", "SkBr3")
CORNERS = 40


def main() -> None:
    """Make the download, prepare it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the images")
    parser.add_argument("--workers", type=int, default=2, help="threads of the preparation")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-livecell-") as scratch:
        began = time.perf_counter()
        n_entries, n_cells = write_download(Path(scratch) / "LIVECell", given.share)
        print(
            f"{n_entries:,} entries with {n_cells:,} cells, written in {time.perf_counter() - began:.0f} s", flush=True
        )
        spec = DatasetSpec("livecell", "livecell", str(Path(scratch) / "LIVECell"))
        measured = prepare_measured(spec, Path(scratch) / "cache", given.workers)
        print(measured.told())
        for note in measured.notes:
            print(f"note: {note}")


def write_download(folder: Path, share: float) -> tuple[int, int]:
    """Write images and annotations as the download lays them out; return the entries and their cells."""
    rng = np.random.default_rng(0)
    shapes = outlines(rng)
    # grey levels that compress as well as phase contrast's do
    base = ndimage.gaussian_filter(rng.normal(size=(HEIGHT + 64, WIDTH + 64)), 4)
    grey = ((base - base.min()) / np.ptp(base) * 200 + 20).astype(np.uint8)
    annotations = folder / "annotations" / "LIVECell"
    annotations.mkdir(parents=True)
    totals = [0, 0]
    for split, (entries, again) in ENTRIES.items():
        entries, again = max(2, round(entries * share)), round(again * share)
        images = folder / "images" / f"livecell_{'test' if split == 'test' else 'train_val'}_images"
        images.mkdir(parents=True, exist_ok=True)
        names = [f"{TYPES[n % 8]}_Phase_{split}_{n:05d}.tif" for n in range(entries - again)]
        for n, name in enumerate(names):
            top, left = rng.integers(0, 64, 2)
            picture = grey[top : top + HEIGHT, left : left + WIDTH].copy()
            picture[0, : 3 * 8] = n % 251, n // 251, len(split), *range(21)  # no two pictures are the same
            imwrite(images / name, picture, compression="lzw")
        listed = names + names[:again]
        n_cells = write_annotations(annotations / f"livecell_coco_{split}.json", listed, shapes, rng)
        totals = [totals[0] + len(listed), totals[1] + n_cells]
    return totals[0], totals[1]


def outlines(rng: np.random.Generator) -> list[npt.NDArray[np.float64]]:
    """Return some hundred outlines of cells around (0, 0), (corners, 2) x and y in pixels."""
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    shapes = []
    for _ in range(300):
        radii = rng.uniform(8, 17) * (1 + 0.15 * np.sin(rng.integers(2, 5) * angles + rng.uniform(0, 6)))
        stretch = rng.uniform(0.8, 1.4)
        shapes.append(np.stack([radii * np.cos(angles) * stretch, radii * np.sin(angles) / stretch], axis=1))
    return shapes


def write_annotations(
    path: Path, names: list[str], shapes: list[npt.NDArray[np.float64]], rng: np.random.Generator
) -> int:
    """Write one split's COCO file; return how many cells it has."""
    mean = CELLS / sum(entries for entries, _ in ENTRIES.values())
    n_cells = 0
    with path.open("w") as file:
        listed = (
            f'{{"id": {n + 1}, "width": {WIDTH}, "height": {HEIGHT}, "file_name": "{name}"}}'
            for n, name in enumerate(names)
        )
        file.write('{"images": [' + ", ".join(listed) + '], "annotations": [')
        for n in range(len(names)):
            count = max(1, int(rng.poisson(mean)))
            for text in cells_of_an_image(count, shapes, rng):
                n_cells += 1
                file.write(", " * (n_cells > 1))
                file.write(f'{{"id": {n_cells}, "image_id": {n + 1}, "category_id": 1, "iscrowd": 0, {text}}}')
        file.write('], "categories": [{"id": 1, "name": "cell"}]}')
    return n_cells


def cells_of_an_image(count: int, shapes: list[npt.NDArray[np.float64]], rng: np.random.Generator) -> Iterator[str]:
    """Yield the outline and area of each cell as JSON, on a grid with some disorder."""
    columns = int(np.ceil(np.sqrt(count * WIDTH / HEIGHT)))
    rows = -(-count // columns)
    for n in rng.permutation(rows * columns)[:count]:
        shape = shapes[int(rng.integers(len(shapes)))]
        x = (n % columns + 0.5) * WIDTH / columns + rng.normal(0, 2)
        y = (n // columns + 0.5) * HEIGHT / rows + rng.normal(0, 2)
        points = np.clip(shape + np.array([x, y]), 0, (WIDTH, HEIGHT)).round(2)
        area = 0.5 * abs(np.dot(shape[:, 0], np.roll(shape[:, 1], 1)) - np.dot(shape[:, 1], np.roll(shape[:, 0], 1)))
        yield f'"segmentation": [{points.ravel().tolist()}], "area": {area:.1f}'


if __name__ == "__main__":
    main()
