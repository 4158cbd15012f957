"""How many training windows a second of CPU time each family's data path gives, before the network sees them.

    python benchmarks/bench_batches.py                      # every family, windows with about 100 and 400 cells
    python benchmarks/bench_batches.py mesmer --cells 400   # one
    python benchmarks/bench_batches.py --source /another/checkout/of/segbench

Windows of 256x256 with two channels are drawn into a folder, the method loads them in its own environment as a job
would, and then batches of 8 are taken from it as training takes them, on one core. CPU time depends little on what
else the machine does, but on how fast its cores are. `--source` measures another state of the code beside this one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METHODS = ("cellpose", "stardist", "mesmer", "retinamask", "featurenet", "mask-rcnn", "resnest")
"""One of each way to make batches."""
BATCH = 8


def draw(folder: Path, windows: int, cells: int) -> None:
    """Write windows with about so many cells: discs on a grid, a little moved, of two sizes."""
    import numpy as np

    rng = np.random.default_rng(0)
    across = round(cells**0.5)
    pitch = 256 // across
    rows, columns = np.mgrid[:pitch, :pitch]
    images, labels = np.zeros((windows, 2, 256, 256), np.float32), np.zeros((windows, 256, 256), np.int32)
    for n in range(windows):
        for number in range(across**2):
            top, left = (pitch * place for place in divmod(number, across))
            y, x, radius = *rng.uniform(0.4, 0.6, 2) * pitch, rng.uniform(0.3, 0.45) * pitch
            part = labels[n, top : top + pitch, left : left + pitch]
            part[np.hypot(rows - y, columns - x) < radius] = number + 1
        clean = np.where(labels[n] > 0, 0.7, 0.15)
        images[n] = np.clip(clean + rng.normal(0, 0.05, (2, 256, 256)), 0, 1)
    np.save(folder / "images-train.npy", images)
    np.save(folder / "labels-train.npy", labels)


def write_job(method: str, folder: Path, steps: int) -> Path:
    """Write a job of the card's settings on the windows."""
    from segbench.engine.grid.cards import get_card, method_object
    from segbench.methods import Arrays, Devices, Job, Task

    arrays = Arrays(str(folder / "images-train.npy"), (0, 1), None, str(folder / "labels-train.npy"))
    budget = get_card(method).budget
    known = {"iterations": steps} if budget.iterations is not None else {"epochs": steps}
    job = Job(
        run_id="batches", method=method_object(method), task=Task("t", "d", ("nuclear", "membrane"), "nuclear"),
        budget=dataclasses.replace(budget, batch_size=BATCH, **known), seed=0, output=str(folder / method),
        train=arrays, val=dataclasses.replace(arrays, rows=(0,)), settings=get_card(method).defaults,
        devices=Devices(num_cpus=1),
    )  # fmt: skip
    (folder / method).mkdir()
    job.write(folder / method / "job.json")
    return folder / method / "job.json"


def take(path: Path, steps: int) -> None:
    """Load in this process, take batches and print samples a CPU second; runs in the method's environment."""
    import importlib

    from segbench.methods.base import ImageStack
    from segbench.methods.job import Job

    job = Job.read(path)
    module, _, name = job.method.partition(":")
    method = getattr(importlib.import_module(module), name)()
    method.import_library(job)
    train, val = (None if arrays is None else ImageStack(arrays) for arrays in (job.train, job.val))
    method._warm_up = lambda _: None  # DeepCell's networks take a step when they are loaded
    method.load(job, train, val)
    batches = _GIVERS[method.card.family](method, job, steps + 1)
    next(batches)  # what is compiled or cached at the first use
    started, taken = time.process_time(), 0
    for _ in batches:
        taken += 1
    print(json.dumps({"samples_per_s": BATCH * taken / (time.process_time() - started)}))


def _deepcell(method: Any, job: Any, steps: int) -> Iterator[Any]:  # noqa: ARG001
    stage = method._stages[-1]
    if hasattr(stage.train, "take"):
        yield from stage.train.take(steps)
        return
    for _ in range(steps):
        yield next(stage.train)


def _stardist(method: Any, job: Any, steps: int) -> Iterator[Any]:
    import numpy as np

    from segbench.methods.stardist import augment

    model2d = method._stardist.models.model2d
    try:
        from segbench.methods.stardist_batches import use_threads

        use_threads(model2d, 1)
    except ModuleNotFoundError:  # an older state of the code
        pass
    rng, config = np.random.default_rng(0), method._model.config
    data = model2d.StarDistData2D(
        *method._train, batch_size=BATCH, n_rays=config.n_rays, length=steps, patch_size=config.train_patch_size,
        grid=config.grid, foreground_prob=job.settings["foreground_only"], augmenter=lambda x, y: augment(x, y, rng),
    )  # fmt: skip
    yield from data


def _cellpose(method: Any, job: Any, steps: int) -> Iterator[Any]:
    """Give what upstream's loop feeds the network (cellpose/train.py, train_seg)."""
    import numpy as np

    images, targets = method._windows
    trainer = method._cellpose.train
    for step in range(steps):
        chosen = [(step * BATCH + n) % len(images) for n in range(BATCH)]
        yield trainer.transforms.random_rotate_and_resize(
            [images[n] for n in chosen], Y=[targets[n][1:] for n in chosen], rescale=np.ones(BATCH, np.float32),
            scale_range=job.settings["scale_range"], xy=(job.settings["crop"],) * 2,
        )  # fmt: skip


def _mmdet(method: Any, job: Any, steps: int) -> Iterator[Any]:  # noqa: ARG001
    loader = method._runner.build_dataloader(method._runner._train_dataloader, seed=0)
    for _, batch in zip(range(steps), _endless(loader), strict=False):
        yield method._model.data_preprocessor(batch, training=True)


def _detectron2(method: Any, job: Any, steps: int) -> Iterator[Any]:  # noqa: ARG001
    from segbench.methods.base import ImageStack
    from segbench.methods.detectron2._data import train_loader

    stack = ImageStack(job.train)
    loader = train_loader(stack, range(len(stack)), job.settings, batch_size=BATCH, seed=job.seed, done=0, workers=0)
    for _, batch in zip(range(steps), loader, strict=False):
        yield batch


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


_GIVERS = {
    "deepcell": _deepcell, "stardist": _stardist, "cellpose": _cellpose, "mmdet": _mmdet, "detectron2": _detectron2,
}  # fmt: skip


def measure(method: str, folder: Path, steps: int, source: Path | None) -> str:
    """Return samples a CPU second of a method's data path, or what went wrong."""
    from segbench.engine.grid.cards import get_card
    from segbench.engine.run import environments

    environment = environments.ensure(get_card(method).environment, gpu=False)
    variables = {**environments.subprocess_env(environment), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if source is not None:
        variables["PYTHONPATH"] = str(source)
    job = write_job(method, folder, steps)
    done = subprocess.run(
        [environment.python, __file__, "--job", job, "--steps", str(steps)], env=variables, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    shutil.rmtree(job.parent)
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    return f"{json.loads(done.stdout.splitlines()[-1])['samples_per_s']:.0f}"


def main() -> None:
    """Print a row a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=list(METHODS), help="one of each family by default")
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 400], help="of a window, about")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--steps", type=int, default=6, help="batches of 8")
    parser.add_argument("--source", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job:
        take(asked.job, asked.steps)
        return
    os.nice(10)
    states = {str(asked.source): asked.source, "here": None} if asked.source else {"here": None}
    columns = [f"{cells} cells, {name}" for cells in asked.cells for name in states]
    print(f"| method, samples a CPU second | {' | '.join(columns)} |")
    print(f"| --- |{' --- |' * len(columns)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="segbench-batches-") as text:
        for cells in asked.cells:
            (Path(text) / str(cells)).mkdir()
            draw(Path(text) / str(cells), asked.windows, cells)
        for method in asked.methods:
            found = [
                measure(method, Path(text) / str(cells), asked.steps, source)
                for cells in asked.cells
                for source in states.values()
            ]
            print(f"| {method} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
