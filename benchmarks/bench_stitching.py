"""Measures what tiles cost: cells near the seams and away from them, on large drawn images whose truth is known.

Each method segments the image untiled (where memory allows it), in naive tiles, by its library's own tiling where it
has one, and by ``segbench models apply``'s windows. Cells are near a seam where their middle lies within some pixels of
a line on which a window ends. Chance, too, sets the cells there apart from the others: "beyond untiled" is the
difference less that of the untiled image at the same places. Intervals are of 95 %, of squares of the image that are
drawn again, the same squares for both of two ways that are compared. ``--large SIDE`` measures time and memory
(watershed).

    python benchmarks/bench_stitching.py --side 4096 --methods watershed stardist cellpose
    python benchmarks/bench_stitching.py --large 20000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from segbench.engine.data.large import prepare_large
from segbench.engine.data.recipe import Recipe
from segbench.engine.data.source import RawImage
from segbench.engine.data.spec import PreparationSettings
from segbench.engine.data.windows import positions
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.models.applying import ApplyOptions, apply
from segbench.engine.models.images import image_files
from segbench.engine.models.predictor import Predictor
from segbench.engine.models.segmenting import segment, tiling
from segbench.engine.models.trained import TrainedModel
from segbench.engine.run import environments
from segbench.engine.run.process import modules_of
from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Devices, Job, Task
from segbench.methods.predictions import LabelInstances
from segbench.small_files import read_json

TASK = Task("drawn-nuclear-1ch", "drawn", ("nuclear",), "nuclear")
SETTINGS = PreparationSettings()
SPACING = 30
"""Pixels between the centres of neighbouring cells, before they are shifted."""
OURS = "segbench models apply"
PEERS = ("untiled", "predict_instances_big", "eval's own tiles")
"""Ways whose cells at the seams ``models apply``'s are compared with."""
EPOCHS, TRAINING_SIDE = 12, 2048
"""Of a small training, on a drawn image of that side: cells are found, not as well as can be."""


BLOCK, RESAMPLES = 256, 2000
"""Pixels of the squares that are drawn again, and how often they are."""


@dataclass(frozen=True)
class Map:
    """A label map, and what is asked of it more than once."""

    labels: npt.NDArray[Any]
    sizes: npt.NDArray[np.int64]
    middles: npt.NDArray[np.float64]
    """(k + 1, 2), of every label; of one without pixels 0."""

    @classmethod
    def of(cls, labels: npt.NDArray[Any]) -> Map:
        """Measure a label map."""
        flat = labels.ravel()
        sizes = np.bincount(flat)
        places = [np.arange(side, dtype=np.float64) for side in labels.shape]
        sums = [
            np.bincount(flat, np.broadcast_to(at, labels.shape).ravel(), minlength=sizes.size)
            for at in (places[0][:, None], places[1])
        ]
        return cls(labels, sizes, np.stack(sums, axis=1) / np.maximum(sizes, 1)[:, None])

    def blocks(self) -> npt.NDArray[np.int64]:
        """Return in which square of the image the middle of each label lies."""
        y, x = (self.middles // BLOCK).astype(np.int64).T
        across: npt.NDArray[np.int64] = y * (-(-self.labels.shape[1] // BLOCK)) + x
        return across


@dataclass(frozen=True)
class Score:
    """How well some cells were found."""

    tallies: npt.NDArray[np.float64]
    """(squares, 4): the sum of the IoU of cells that were found, how many were, how many not, how many too many."""
    cells: int
    split: int
    """True cells of which two predictions or more have a fifth each."""

    @property
    def pq(self) -> float:
        """Panoptic quality."""
        return float(pq_of(self.tallies.sum(axis=0)))


@dataclass(frozen=True)
class Scores:
    """How well all cells were found, those near seams, and those away from them."""

    everywhere: Score
    seam: Score
    away: Score

    def difference(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the panoptic quality at seams less that away from them, for each row of weights of the squares."""
        return pq_of(weights @ self.seam.tallies) - pq_of(weights @ self.away.tallies)


def pq_of(tallies: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the panoptic quality of tallies (..., 4)."""
    found: npt.NDArray[np.float64] = tallies[..., 0] / (tallies[..., 1] + (tallies[..., 2] + tallies[..., 3]) / 2)
    return found


def drawn_again(squares: int) -> npt.NDArray[np.float64]:
    """Return how often each square counts: once in the first row, in the others as it is drawn."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(squares, np.full(squares, 1 / squares), RESAMPLES)
    return np.concatenate([np.ones((1, squares)), drawn])


def interval(values: npt.NDArray[np.float64]) -> str:
    """Return a value, the first, with the interval of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return f"{values[0]:+.4f} ({low:+.4f} to {high:+.4f})"


def draw(height: int, width: int, seed: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int32]]:
    """Return an image of bright ellipses of several sizes, many of which touch, on uneven ground, and their labels."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 300.0, np.float32)
    labels = np.zeros((height, width), np.int32)
    label = 0
    for cy in range(SPACING // 2, height, SPACING):
        for cx in range(SPACING // 2, width, SPACING):
            if rng.uniform() < 0.12:
                continue
            label += 1
            y0, x0 = cy + rng.normal(0, 4), cx + rng.normal(0, 4)
            a, b, turn = rng.uniform(7, 15), rng.uniform(6, 12), rng.uniform(0, np.pi)
            top, left = max(0, int(y0) - 17), max(0, int(x0) - 17)
            y, x = np.mgrid[top : min(height, top + 35), left : min(width, left + 35)]
            u = (y - y0) * np.cos(turn) + (x - x0) * np.sin(turn)
            v = (x - x0) * np.cos(turn) - (y - y0) * np.sin(turn)
            far = (u / a) ** 2 + (v / b) ** 2
            place = np.s_[y[0, 0] : y[-1, 0] + 1, x[0, 0] : x[0, -1] + 1]
            own = (far < 1) & (labels[place] == 0)
            labels[place][own] = label
            image[place][own] += (rng.uniform(500, 2500) * (1 - 0.6 * far))[own]
    rows = np.linspace(0, 3 * np.pi, height, dtype=np.float32)[:, None]
    image *= 1 + 0.25 * np.sin(rows + np.linspace(0, 2 * np.pi, width, dtype=np.float32))
    image += rng.normal(0, 60, image.shape).astype(np.float32)
    return image.clip(0, 65535).astype(np.uint16), labels


def prepared(image: npt.NDArray[Any], side: int, step: int) -> tuple[list[tuple[int, int]], npt.NDArray[np.float32]]:
    """Return the windows of an image, prepared, and where they lie; the whole image where the side is as large."""
    settings = replace(SETTINGS, window=side, step=step)
    rows = len(positions(image.shape[0], side, step, "shift"))
    found = prepare_large(RawImage("drawn", "", image[None], {}), settings, keep_empty=True)
    some = [next(found) for _ in range(rows)]
    return [corner for row in some for corner in row.corners], np.concatenate([row.pixels for row in some])


def overlaps(truth: npt.NDArray[Any], found: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the pairs (truth, found) of labels that share a pixel, and how many pixels they share."""
    n = int(found.max()) + 1
    pairs, counts = np.unique(truth.ravel().astype(np.int64) * n + found.ravel(), return_counts=True)
    return np.stack([pairs // n, pairs % n], axis=1), counts


def near(found: Map, seams: list[npt.NDArray[np.int64]], margin: int) -> npt.NDArray[np.bool_]:
    """Return for each label whether its middle lies within a margin of a seam of the rows or columns.

    By their middles, for of the cells that a line touches many are large, and large cells are found better.
    """
    at = np.zeros(found.sizes.size, np.bool_)
    for axis, lines in enumerate(seams):
        at |= np.abs(found.middles[:, axis, None] - lines[None]).min(axis=1) <= margin
    return at & (found.sizes > 0) & (np.arange(at.size) > 0)


def scores(truth: Map, found: Map, seams: list[npt.NDArray[np.int64]], margin: int) -> Scores:
    """Return how well all cells were found, those near seams, and those away from them."""
    pairs, shared = overlaps(truth.labels, found.labels)
    both = (pairs > 0).all(axis=1)
    pairs, shared = pairs[both], shared[both]
    ious = shared / (truth.sizes[pairs[:, 0]] + found.sizes[pairs[:, 1]] - shared)
    matched = ious > 0.5
    iou = np.zeros(truth.sizes.size)
    iou[pairs[matched, 0]] = ious[matched]
    extra = found.sizes > 0
    extra[pairs[matched, 1]] = False
    extra[0] = False
    there = truth.sizes > 0
    there[0] = False
    parts = np.bincount(pairs[shared > 0.2 * truth.sizes[pairs[:, 0]], 0], minlength=iou.size)
    squares = int(np.prod([-(-side // BLOCK) for side in truth.labels.shape]))
    own, others = truth.blocks(), found.blocks()

    def of(mine: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> Score:
        hit, lost, more = mine & (iou > 0), mine & (iou == 0), theirs & extra
        counted = (own[hit], iou[hit]), (own[hit], None), (own[lost], None), (others[more], None)
        tallies = np.stack([np.bincount(at, weights, minlength=squares) for at, weights in counted], axis=1)
        return Score(tallies.astype(np.float64), int(mine.sum()), int((parts[mine] > 1).sum()))

    at = near(truth, seams, margin), near(found, seams, margin)
    every = np.ones(extra.size, np.bool_)
    return Scores(of(there, every), of(there & at[0], at[1]), of(there & ~at[0], ~at[1]))


def seams_of(size: int, side: int, step: int) -> npt.NDArray[np.int64]:
    """Return where windows begin and end along a side, but for the image's own ends."""
    starts = positions(size, side, step, "shift")
    return np.array(sorted({n for at in starts for n in (at, at + side)} - {0, size}), np.int64)


def model_of(
    method: str, image: npt.NDArray[Any], truth: npt.NDArray[Any], kept: Path, epochs: int = EPOCHS
) -> TrainedModel:
    """Return a model of a method, trained on windows of another drawn image where it is trained at all."""
    card = get_card(method)
    sizes = np.bincount(truth.ravel())[1:]
    diameter = float(np.median(np.sqrt(sizes[sizes > 0] * (4 / np.pi))))
    budget = card.budget
    if card.trained:
        budget = replace(budget, batch_size=4, epochs=epochs, steps_per_epoch=None)
    model = TrainedModel(
        name=method,
        method=method,
        task=TASK,
        settings=card.defaults,
        budget=budget,
        recipe=Recipe(TASK.channels, SETTINGS, diameters={TASK.target: diameter}),
        folder=JobFolder(kept / method).model if card.trained else None,
    )
    if card.trained and not JobFolder(kept / method).model_marker.is_file():
        train(model, image, truth, kept / method)
    return model


def train(model: TrainedModel, image: npt.NDArray[Any], truth: npt.NDArray[Any], folder: Path) -> None:
    """Train a model on the windows of an image, a quarter of which are for validation."""
    folder.mkdir(parents=True, exist_ok=True)
    _, windows = prepared(image, SETTINGS.window, SETTINGS.window)
    _, labels = prepared_labels(truth)
    files = JobFolder(folder)
    np.save(folder / "images.npy", windows)
    np.save(folder / "labels.npy", labels)
    cut = len(windows) // 4

    def arrays(rows: range) -> Arrays:
        return Arrays(str(folder / "images.npy"), (0,), tuple(rows), str(folder / "labels.npy"))

    job = Job(
        run_id="bench",
        method=method_object(model.method),
        task=TASK,
        budget=model.budget,
        seed=0,
        output=str(folder),
        train=arrays(range(cut, len(windows))),
        val=arrays(range(cut)),
        settings=model.settings,
        devices=Devices(num_cpus=len(os.sched_getaffinity(0))),
    )
    job.write(files.job)
    environment = environments.ensure(get_card(model.method).environment, gpu=False)
    variables = environments.subprocess_env(environment, modules=modules_of(model.method))
    began = time.monotonic()
    done = subprocess.run(job.command(files.job, environment.python), env=variables, check=False, capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{model.method} was not trained: {read_json(files.result).get('error')}, see {files.log}")
    print(f"{model.method}: trained on {len(windows) - cut} windows in {time.monotonic() - began:.0f} s", flush=True)


def prepared_labels(truth: npt.NDArray[Any]) -> tuple[list[tuple[int, int]], npt.NDArray[np.int32]]:
    """Return the label maps of the windows of an image side by side."""
    side = SETTINGS.window
    corners = [(y, x) for y in positions(truth.shape[0], side, side, "shift")
               for x in positions(truth.shape[1], side, side, "shift")]  # fmt: skip
    maps = [np.unique(truth[y : y + side, x : x + side], return_inverse=True) for y, x in corners]
    numbered = [found.reshape(side, side) + (0 if values[0] == 0 else 1) for values, found in maps]
    return corners, np.stack(numbered).astype(np.int32)


def untiled(model: TrainedModel, image: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return what a method finds in the whole image at once."""
    _, whole = prepared(image, image.shape[0], image.shape[0])
    with Predictor(model) as predictor:
        predictor.ask(whole)
        (found,) = predictor.answer()
    assert isinstance(found, LabelInstances)
    return found.labels


def naive(model: TrainedModel, image: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return what a method finds in windows side by side, pasted as they are."""
    corners, windows = prepared(image, SETTINGS.window, SETTINGS.window)
    out = np.zeros(image.shape, np.int32)
    with Predictor(model) as predictor:
        predictor.ask(windows)
        for (y, x), found in zip(corners, predictor.answer(), strict=True):
            assert isinstance(found, LabelInstances)
            labels = found.labels[: image.shape[0] - y, : image.shape[1] - x]
            out[y : y + 256, x : x + 256] = np.where(labels > 0, labels + int(out.max()), 0)
    return out


def stitched(model: TrainedModel, image: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return what ``models apply`` finds."""
    with Predictor(model) as predictor:
        return segment(image[None], model, predictor).labels


def stardist_big(model: TrainedModel, image: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Return what StarDist's ``predict_instances_big`` finds, in its own blocks, in the method's environment."""
    _, whole = prepared(image, image.shape[0], image.shape[0])
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        np.save(folder / "image.npy", whole[0, 0])
        environment = environments.ensure("tensorflow", gpu=False)
        variables = environments.subprocess_env(environment) | {"CUDA_VISIBLE_DEVICES": "", "TF_USE_LEGACY_KERAS": "1"}
        told = {"model": str(model.folder), "percentiles": list(model.settings["percentiles"]), "folder": text}
        command = [str(environment.python), "-c", _BIG, json.dumps(told)]
        subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return np.asarray(np.load(folder / "labels.npy"), np.int32)


_BIG = """
import json, sys
from pathlib import Path
import numpy as np
from csbdeep.utils import normalize
from stardist.models import StarDist2D
told = json.loads(sys.argv[1])
folder, path = Path(told["folder"]), Path(told["model"])
model = StarDist2D(None, name=path.name, basedir=str(path.parent))
image = normalize(np.load(folder / "image.npy"), *told["percentiles"])
labels, _ = model.predict_instances_big(image, axes="YX", block_size=1024, min_overlap=128, context=128)
np.save(folder / "labels.npy", labels)
"""


def compare(method: str, given: argparse.Namespace, kept: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each way to segment a drawn image with a method."""
    side, margin = given.side, given.margin
    image, truth = draw(side, side, 0)
    model = model_of(method, *draw(given.training_side, given.training_side, 1), kept, given.epochs)
    own = tiling(model)
    ours = [seams_of(side, own.window, own.step)] * 2
    ways = {"untiled": untiled, "naive tiles": naive, OURS: stitched}
    if method == "stardist":
        ways = {"untiled": untiled, "predict_instances_big": stardist_big, **ways}
    if side > 4096:
        del ways["untiled"]
    if method == "cellpose" and "untiled" in ways:
        # its network never sees more than a tile: their flows are averaged, and the dynamics run on the whole image
        ways = {"eval's own tiles": ways.pop("untiled"), **ways}
    true, weights = Map.of(truth), drawn_again((-(-side // BLOCK)) ** 2)
    found: dict[str, Map] = {}
    for name, way in ways.items():
        seams = [seams_of(side, 256, 256)] * 2 if name == "naive tiles" else ours
        began = time.monotonic()
        one = found[name] = Map.of(way(model, image))
        seconds = time.monotonic() - began
        here = scores(true, one, seams, margin)
        told = {
            "method": method, "way": name, "PQ": here.everywhere.pq, "at seams": here.seam.pq, "away": here.away.pq,
            "difference": interval(here.difference(weights)), "cells at seams": here.seam.cells,
            "split there": here.seam.split, "cells": int((one.sizes[1:] > 0).sum()), "true": here.everywhere.cells,
            "seconds": seconds,
        }  # fmt: skip
        if (whole := found.get(next(iter(ways)))) is not one and whole is not None and side <= 4096:
            there = scores(true, whole, seams, margin)
            told["untiled there"] = there.seam.pq - there.away.pq
            told["beyond untiled"] = interval(here.difference(weights) - there.difference(weights))
        for peer in (other for other in PEERS if name == OURS and other in found):
            its = pq_of(weights @ scores(true, found[peer], ours, margin).seam.tallies)
            told[f"at seams more than {peer}"] = interval(pq_of(weights @ here.seam.tallies) - its)
        yield told


class Memory(threading.Thread):
    """Samples what this process and its children hold for themselves, without pages of files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.children = 0
        self._stop_it = threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self._stop_it.wait(0.1):
            self.own = max(self.own, _anonymous(os.getpid()))
            children = psutil.Process().children(recursive=True)
            self.children = max(self.children, sum(_anonymous(one.pid) for one in children))

    def stop(self) -> None:
        """Look no more."""
        self._stop_it.set()
        self.join()


def _anonymous(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("RssAnon:", "RssShmem:"))) * 1024


def large(side: int, folder: Path, forms: tuple[str, ...]) -> None:
    """Print the time and memory of an image of a side, from its file to those of its cells."""
    import tifffile

    block, truth = draw(2000, 2000, 0)

    def tiles() -> Iterator[npt.NDArray[np.uint16]]:
        for top in range(0, side, 512):
            for left in range(0, side, 512):
                yield np.roll(block, (-top, -left), (0, 1))[:512, :512].copy()

    path = folder / "large.tif"
    tifffile.imwrite(path, tiles(), shape=(side, side), dtype=np.uint16, tile=(512, 512))
    model = model_of("watershed", block, truth, folder)
    memory, began = Memory(), time.monotonic()
    memory.start()
    (one,) = apply(model, image_files([str(path)]), folder / "out", ApplyOptions(write=forms))
    seconds = time.monotonic() - began
    memory.stop()
    if one.error:
        raise SystemExit(one.error)
    print(
        f"{side:,} x {side:,} pixels, watershed, {', '.join(forms)}: {one.cells:,} cells in {seconds:.0f} s; "
        f"segbench held {memory.own / 1e9:.2f} GB, "
        f"the method's process {memory.children / 1e9:.2f} GB (without pages of files)"
    )


def main() -> None:
    """Compare the ways, or measure a large image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--margin", type=int, default=12, help="pixels from a seam within which a cell is near it")
    parser.add_argument("--methods", nargs="+", default=["watershed"], choices=["watershed", "stardist", "cellpose"])
    parser.add_argument("--models", type=Path, help="folder that keeps the trained models; else they are trained anew")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the trainings")
    parser.add_argument("--training-side", type=int, default=TRAINING_SIDE, help="of the image that is trained on")
    parser.add_argument("--large", type=int, metavar="SIDE", help="measure one image of that side instead")
    parser.add_argument("--write", default="tiff,table", help="forms that --large writes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stitching-") as scratch:
        if given.large:
            large(given.large, Path(scratch), tuple(given.write.split(",")))
            return
        for method in given.methods:
            for row in compare(method, given, given.models or Path(scratch)):
                told = (
                    f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
                )
                print("; ".join(told), flush=True)


if __name__ == "__main__":
    main()
