"""Compares training in half precision with float32, step by step, for every method that PyTorch trains.

    python benchmarks/precision_check.py                          # all of them, ten steps
    python benchmarks/precision_check.py --steps 3 swin-t solov2

Small networks with every part of the published ones, on drawn discs, on the processor, where autocast goes through the
code that it goes through on a GPU. Prints a row a method and precision: how far the loss of the first step, on the same
weights, and of any step is from float32's, as a share of float32's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.methods import Arrays, Budget, Devices, Job, Task

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "methods" / "mmdet"))

from narrow_networks import narrow  # noqa: E402 - the networks of the tests


@dataclass(frozen=True)
class Small:
    """What a method trains on here."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    size: int = 64
    """Pixels of a window's side."""


# every anchor and every proposal is in the loss: of proposals whose scores are nearly equal, as those of a new network
# are, rounding alone would choose others, and the losses would differ for that
_FEW = {"rois": 4096}
_ALL: Mapping[str, Any] = {
    "model.rpn_head.anchor_generator.ratios": [0.5, 2.0],
    "model.train_cfg.rpn.sampler.num": 8192,
    "model.train_cfg.rpn_proposal.nms_pre": 8192,
    "model.train_cfg.rpn_proposal.max_per_img": 8192,
    "model.train_cfg.rpn_proposal.nms.iou_threshold": 1.0,
}
_DETECTRON2: Mapping[str, Any] = {"width": 32, "train_scales": (1.0,), "test_scale": 1.0}
METHODS: Mapping[str, Small] = {
    "mask-rcnn": Small(_FEW),
    "ms-rcnn": Small(_FEW),
    "cascade-mask-rcnn-seesaw": Small(_FEW),
    "swin-t": Small(_FEW),
    "swin-s": Small(_FEW),
    "hrnet": Small(_FEW),
    "res2net": Small(_FEW),
    "rf-next": Small(_FEW),
    "solov2": Small(),
    "mask2former": Small({"queries": 20}),
    "rtmdet-ins": Small(),
    "resnest": Small(
        {
            **_DETECTRON2, "backbone": "resnest14d", "box_units": 64, "box_convolutions": 1, "mask_convolutions": 2,
            "roi_batch": 4096, "rpn_batch": 8192, "candidates_train": 300, "proposals_train": 12, "proposals_nms": 0.5,
        }
    ),
    "centermask2": Small(
        {**_DETECTRON2, "backbone": "ese_vovnet19b_slim", "roi_batch": 64, "candidates_train": 100}
    ),
    "cellpose": Small({"crop": 32, "diam_mean": 14.0}),
}  # fmt: skip


def measure(
    names: Sequence[str], steps: int, folder: Path, precisions: Sequence[str] = ()
) -> dict[str, dict[str, list[float]]]:
    """Return the losses of every step, by method and precision; raises RuntimeError with what went wrong.

    Parameters
    ----------
    precisions
        Beside float32, for the methods that declare them; all that a method declares where there are none.
    """
    found: dict[str, dict[str, Any]] = {}
    for environment in sorted({get_card(name).environment for name in names}):
        mine = [name for name in names if get_card(name).environment == environment]
        declared = get_card(mine[0]).precisions
        wanted = [one for one in declared if one == "float32" or not precisions or one in precisions]
        jobs = [write_job(name, steps, folder) for name in mine]
        report = folder / f"{environment}.json"
        built = environments.ensure(environment, gpu=False)
        variables = {**environments.subprocess_env(built), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        script = ROOT / "benchmarks" / "precision_steps.py"
        command = [str(built.python), "-W", "ignore", str(script), str(report), ",".join(wanted), *map(str, jobs)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr[-3000:])
        found |= json.loads(report.read_text())
    return found


def write_job(name: str, steps: int, folder: Path) -> Path:
    """Write a job of so many steps of two windows on four drawn ones."""
    small, card = METHODS[name], get_card(name)
    images, labels = draw_discs(4, small.size, 1, seed=1)
    np.save(folder / f"{name}_x.npy", images)
    np.save(folder / f"{name}_y.npy", labels)
    options: dict[str, Any] = {}
    if card.family == "mmdet":
        options = {"options": {**narrow(name), **(_ALL if "proposals" in card.settings else {})}}
    epochs = card.budget.unit == "epochs"
    job = Job(
        run_id=name,
        method=method_object(name),
        task=Task("discs", "drawn", ("nuclear",), "nuclear"),
        budget=Budget(2, epochs=-(-steps // 2)) if epochs else Budget(2, iterations=max(4, steps)),
        seed=1,
        output=str(folder / name),
        train=Arrays(str(folder / f"{name}_x.npy"), (0,), None, str(folder / f"{name}_y.npy")),
        settings={**card.defaults, **options, **small.settings},
        devices=Devices(num_cpus=1),
    )
    (folder / name).mkdir()
    job.write(folder / f"{name}.json")
    return folder / f"{name}.json"


def difference(half: Sequence[float], whole: Sequence[float]) -> float:
    """Return the largest difference of a step's loss, as a share of float32's."""
    if len(half) != len(whole):
        return float("nan")  # steps that a scaler skipped for a loss that is no number
    return float(np.max(np.abs(np.subtract(half, whole)) / np.abs(whole)))


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    unknown = set(arguments.methods) - set(METHODS)
    if unknown:
        parser.error(f"no network for {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    table = Table("method", "precision", "loss, first to last step", "float32's", "first step", "largest difference")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.methods or list(METHODS), arguments.steps, Path(folder))
    for name, losses in found.items():
        for precision, mine in losses.items():
            whole = losses["float32"]
            if isinstance(mine, str):
                sys.stderr.write(f"{name} in {precision}: {mine}\n")
                failed += 1
            elif precision != "float32":
                shares = [f"{difference(mine[:n], whole[:n]):.2%}" for n in (1, len(whole))]
                both = [f"{each[0]:.4g} to {each[-1]:.4g}" for each in (mine, whole)]
                table.add_row(name, precision, *both, *shares)
    Console(width=120).print(table)
    return failed


if __name__ == "__main__":
    sys.exit(main())
