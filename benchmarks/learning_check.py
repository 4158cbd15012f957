"""Shows that methods learn: trains each on drawn discs in its own environment and scores what it finds.

    python benchmarks/learning_check.py                 # every preset
    python benchmarks/learning_check.py mask-rcnn solov2

Prints a row a method: the loss of the first and last tenth of training and their ratio, AP50 on the training images and
on images that it has not seen, the CPU time of the whole process and the peak memory. One thread, no GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.metrics import evaluate_prediction_set
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, Devices, Job, PredictionSet, Task
from segbench.methods.folder import JobFolder


@dataclass(frozen=True)
class Preset:
    """What a method trains on here, and for how long."""

    budget: Budget
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the card's settings."""
    size: int = 64
    """Pixels of an image's side."""
    n_train: int = 16
    n_discs: int = 6
    """Most discs in an image."""
    n_channels: int = 1


# MMDetection's methods at 64 px: few proposals and, where they have a residual network, a shallower one of its
# kind
_FEW = {"proposals": 60, "rois": 24, "learning_rate_batch": 2, "learning_rate": 0.02}
_R18 = {"model.backbone.depth": 18, "model.neck.in_channels": [64, 128, 256, 512]}
_ADAMW = {**_FEW, "optimizer": "AdamW", "learning_rate": 3e-4}
_BRIEF = Budget(batch_size=2, epochs=15)


# so few steps leave averages of momentum 0.99 behind, and post-processing by thresholds for certain networks at a loss
_LAGLESS = {"batch_norm_momentum": 0.9, "postprocessing": "tuned"}
_ONE_SCALE: Mapping[str, Any] = {"train_scales": (1.0,), "test_scale": 1.0, "milestones": (0.8,)}


PRESETS: Mapping[str, Preset] = {
    "stardist": Preset(
        Budget(batch_size=8, epochs=4, steps_per_epoch=60), {"patch_size": 64, "learning_rate": 1e-3}, 96, 32, 10
    ),
    "instanseg": Preset(
        Budget(batch_size=4, epochs=20, steps_per_epoch=10),
        {"layers": [16, 32, 64], "crop": 64, "window": 32, "learning_rate": 5e-3, "hot_start_epochs": 6},
    ),
    "cellpose": Preset(Budget(batch_size=8, epochs=14), {"crop": 80, "diam_mean": 14.0}, 96, 32, 10),
    "mesmer": Preset(Budget(batch_size=4, epochs=40), _LAGLESS),
    "featurenet": Preset(Budget(batch_size=4, epochs=20), {**_LAGLESS, "learning_rate": 1e-2}),
    "retinamask": Preset(Budget(batch_size=2, epochs=20), {**_LAGLESS, "postprocessing": "detections"}),
    "mask-rcnn": Preset(_BRIEF, {**_FEW, "options": _R18}, n_train=8),
    "ms-rcnn": Preset(_BRIEF, {**_ADAMW, "options": _R18}, n_train=8),
    "cascade-mask-rcnn-seesaw": Preset(_BRIEF, {**_ADAMW, "options": _R18}, n_train=8),
    "swin-t": Preset(_BRIEF, _ADAMW, n_train=8),
    "swin-s": Preset(_BRIEF, _ADAMW, n_train=8),
    # grids of as many pixels a step as in a window of 256 px
    # grids of as many pixels a step as in a window of 256 px; AdamW, since SGD would need many more steps
    "solov2": Preset(
        Budget(batch_size=2, epochs=30),
        {
            "optimizer": "AdamW",
            "learning_rate_batch": 2,
            "learning_rate": 1e-4,
            "options": {**_R18, "model.mask_head.num_grids": [10, 9, 6, 4, 3]},
        },
        n_train=8,
    ),
    "mask2former": Preset(
        Budget(batch_size=2, epochs=40),
        {
            "queries": 50,
            "learning_rate_batch": 2,
            "learning_rate": 2e-4,
            "options": {
                "model.backbone.depth": 18,
                "model.panoptic_head.in_channels": [64, 128, 256, 512],
                "model.train_cfg.num_points": 1024,
            },
        },
        n_train=8,
    ),
    # its branches of low resolution see 4 x 4 pixels of an image of 128: too few for batch statistics in one of 64
    "hrnet": Preset(Budget(batch_size=4, epochs=20), _ADAMW, size=128, n_train=16, n_discs=16),
    "res2net": Preset(_BRIEF, {**_ADAMW, "options": {"model.backbone.depth": 50}}, n_train=8),
    "resnest": Preset(
        Budget(batch_size=4, iterations=150),
        {
            **_ONE_SCALE,
            "backbone": "resnest14d",
            "deformable_groups": 0,
            "width": 32,
            "box_units": 128,
            "box_convolutions": 1,
            "mask_convolutions": 2,
            "roi_batch": 64,
            "proposals_train": 300,
            "learning_rate": 0.04,
        },
    ),
    "centermask2": Preset(
        Budget(batch_size=4, iterations=100),
        {
            **_ONE_SCALE,
            "backbone": "ese_vovnet19b_slim",
            "width": 32,
            "roi_batch": 200,
            "candidates_train": 500,
            "learning_rate": 0.02,
            "train_scales": (2.0,),
            "test_scale": 2.0,
        },
    ),
    # the network of rtmdet-ins-tiny
    "rtmdet-ins": Preset(
        Budget(batch_size=2, epochs=30),
        {
            "learning_rate_batch": 2,
            "learning_rate": 2e-3,
            "options": {
                "model.backbone.deepen_factor": 0.167,
                "model.backbone.widen_factor": 0.375,
                "model.neck.in_channels": [96, 192, 384],
                "model.neck.out_channels": 96,
                "model.neck.num_csp_blocks": 1,
                "model.bbox_head.in_channels": 96,
                "model.bbox_head.feat_channels": 96,
            },
        },
        n_train=8,
    ),
    "rf-next": Preset(_BRIEF, {**_ADAMW, "search_epochs": 4, "options": {"model.backbone.depth": 50}}, n_train=8),
}
N_TEST = 8


@dataclass(frozen=True)
class Learnt:
    """How a method's training went."""

    first_loss: float
    last_loss: float
    ap50_train: float
    ap50_test: float
    train_s: float
    cpu_s: float
    peak_gb: float


def learn(method: str, preset: Preset, folder: Path) -> Learnt:
    """Train and predict; raises RuntimeError with the log's end where the method fails."""
    arrays = {
        split: draw(folder, split, n, preset, seed)
        for seed, (split, n) in enumerate({"train": preset.n_train, "val": 4, "test": N_TEST}.items())
    }
    card = get_card(method)
    job = Job(
        run_id=method,
        method=method_object(method),
        budget=preset.budget,
        seed=1,
        output=str(folder / "run"),
        task=Task("discs", "drawn", ("nuclear", "membrane")[: preset.n_channels], "nuclear"),
        train=arrays["train"],
        val=arrays["val"],
        predict={name: dataclasses.replace(arrays[name], labels=None) for name in ("train", "test")},
        settings={**card.defaults, **preset.settings},
        devices=Devices(num_cpus=1),
    )
    files = JobFolder(Path(job.output))
    files.path.mkdir(exist_ok=True)
    job.write(files.job)
    environment = environments.ensure(card.environment, gpu=False)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    variables = environments.subprocess_env(environment, ("segbench", job.method.partition(":")[0]))
    subprocess.run(job.command(files.job, environment.python), env=variables, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(files.result.read_text())
    if result["status"] != "done":
        raise RuntimeError(f"{method}: {result['error']}\n{files.log.read_text()[-2000:]}")
    losses = [point["loss"] for point in result["history"] if point["loss"] is not None]
    tenth = max(1, len(losses) // 10)
    return Learnt(
        first_loss=float(np.mean(losses[:tenth])),
        last_loss=float(np.mean(losses[-tenth:])),
        ap50_train=ap50(folder, files, "train"),
        ap50_test=ap50(folder, files, "test"),
        train_s=result["timings"]["train"],
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_gb=result["peak_memory_bytes"] / 1e9,
    )


def draw(folder: Path, split: str, n: int, preset: Preset, seed: int) -> Arrays:
    """Write drawn images and labels of a split."""
    images, labels = draw_discs(n, preset.size, preset.n_channels, seed, preset.n_discs)
    np.save(folder / f"{split}_images.npy", images)
    np.save(folder / f"{split}_labels.npy", labels)
    channels = tuple(range(preset.n_channels))
    return Arrays(str(folder / f"{split}_images.npy"), channels, None, str(folder / f"{split}_labels.npy"))


def ap50(folder: Path, files: JobFolder, split: str) -> float:
    """Return the pooled AP50 of a split's predictions."""
    truth = np.load(folder / f"{split}_labels.npy")
    return float(evaluate_prediction_set(truth, PredictionSet(files.predictions(split))).pooled.ap50)


def main() -> int:
    """Run the presets that are named, all without a name; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(PRESETS)}")
    parser.add_argument("--keep", type=Path, help="a folder to keep each run in")
    arguments = parser.parse_args()
    unknown = set(arguments.methods) - set(PRESETS)
    if unknown:
        parser.error(f"no preset for {', '.join(sorted(unknown))}; there are {', '.join(PRESETS)}")
    headers = ("method", "steps", "loss", "ratio", "AP50 train", "AP50 unseen", "T, s", "CPU, s", "peak GB")
    table = Table(*headers, title="learning on drawn discs")
    failed = 0
    for method in arguments.methods or PRESETS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) if arguments.keep is None else arguments.keep / method
            folder.mkdir(parents=True, exist_ok=True)
            try:
                got = learn(method, PRESETS[method], folder)
            except RuntimeError as error:
                sys.stderr.write(f"{error}\n")
                failed += 1
                continue
            result = json.loads(JobFolder(folder / "run").result.read_text())
        table.add_row(
            method,
            str(result["iterations"]),
            f"{got.first_loss:.3g} -> {got.last_loss:.3g}",
            f"{got.last_loss / got.first_loss:.3f}",
            f"{got.ap50_train:.3f}",
            f"{got.ap50_test:.3f}",
            f"{got.train_s:.0f}",
            f"{got.cpu_s:.0f}",
            f"{got.peak_gb:.1f}",
        )
    Console(width=120).print(table)
    return failed


if __name__ == "__main__":
    sys.exit(main())
