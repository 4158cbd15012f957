"""Lets a model predict windows in its method's own process, and compares that with what it is known to predict."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.metrics import paint_instances
from segbench.engine.models.packages import Package
from segbench.engine.models.trained import TrainedModel
from segbench.engine.run import environments
from segbench.errors import SegbenchError
from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Devices, Job
from segbench.methods.predictions import Instances, LabelInstances, PredictionSet
from segbench.small_files import read_json

_LIMIT_S = 3600
_WINDOWS = "test"
SAME_IOU = 0.98
"""Instances that overlap so much are the same: libraries round differently on other machines."""


def predict_windows(
    model: TrainedModel,
    images: Path,
    folder: Path,
    *,
    gpu: bool = False,
    formats: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> PredictionSet:
    """Return what a model predicts for windows, in its method's environment, which is built where needed.

    Parameters
    ----------
    model
        The model.
    images
        A .npy (N, C, H, W) float32 in 0..1, the channels as the model sees them.
    folder
        A new folder for the job.
    gpu
        Whether it may use a GPU.
    formats
        An empty folder into which the method writes its weights in the formats of other programs, where it knows any.
    progress
        Is told what the building of the environment says.

    Raises
    ------
    SegbenchError
        The environment cannot be built, or the prediction fails.
    """
    card, target = get_card(model.method), method_object(model.method)
    environment = environments.ensure(card.environment, gpu=gpu and card.resources.num_gpus > 0, progress=progress)
    channels = tuple(range(len(model.task.channels)))
    job = Job(
        run_id=model.run_id or model.name,
        method=target,
        task=model.task,
        budget=model.budget,
        seed=model.seed,
        output=str(folder.absolute()),
        predict={_WINDOWS: Arrays(str(images.absolute()), channels)},
        settings=dict(model.settings),
        devices=Devices(num_gpus=min(1.0, card.resources.num_gpus) if gpu else 0.0),
        model=None if model.folder is None else str(model.folder),
        formats=None if formats is None else str(formats.absolute()),
    )
    files = JobFolder(folder.absolute())
    files.path.mkdir(parents=True)
    job.write(files.job)
    variables = environments.subprocess_env(environment, ("segbench", target.partition(":")[0]))
    try:
        done = subprocess.run(
            job.command(files.job, environment.python),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            cwd=files.path,
        )
    except subprocess.TimeoutExpired:
        raise SegbenchError(f"{model.method} has not predicted after {_LIMIT_S} s") from None
    if done.returncode != 0:
        told = read_json(files.result).get("error") or (done.stderr.strip().splitlines() or ["it left no result"])[-1]
        raise SegbenchError(f"{model.method} cannot predict with this model: {told}")
    return PredictionSet(files.predictions(_WINDOWS))


@dataclass(frozen=True)
class Reproduced:
    """How a package's expected output compares with what its model predicts here."""

    name: str
    method: str
    exact: bool
    """Pixel for pixel the same instances, in any order."""
    expected: int
    """Instances that the package expects."""
    found: int
    """Instances that were found."""
    same: int
    """Expected instances with a found one of IoU 0.98 or more."""
    worst_iou: float
    """The lowest IoU of an expected instance with its best found one; 1 where none is expected."""
    score_apart: float
    """The largest difference of the scores of instances that are the same."""
    agrees: bool
    """Exact, or within the tolerance: all instances the same by IoU, none more."""


def reproduce_package(
    package: Package, *, gpu: bool = False, progress: Callable[[str], None] | None = None
) -> Reproduced:
    """Let a package's model predict its test window, and compare that with the expected output."""
    with TemporaryDirectory(prefix="segbench-test-") as scratch:
        images = Path(scratch) / "images.npy"
        np.save(images, np.asarray(package.test_input(), np.float32))
        found = predict_windows(package.model, images, Path(scratch) / "job", gpu=gpu, progress=progress)
        return compare(package.facts.name, package.model.method, package.expected()[0], found[0], _shape(found))


def compare(name: str, method: str, expected: Instances, found: Instances, shape: tuple[int, int]) -> Reproduced:
    """Compare two predictions of one window (H, W), whatever the order of their instances."""
    first, second = masks_of(expected, shape), masks_of(found, shape)
    if not len(first):
        iou = np.zeros((0, len(second)))
    else:
        overlap = first.astype(np.float64) @ second.T.astype(np.float64)
        union = first.sum(1)[:, None] + second.sum(1)[None] - overlap
        iou = overlap / np.maximum(union, 1)
    best = iou.max(axis=1, initial=0.0)
    partner = iou.argmax(axis=1) if iou.size else np.zeros(len(first), np.int64)
    same = best >= SAME_IOU
    apart = [abs(float(expected.scores[n] - found.scores[partner[n]])) for n in np.flatnonzero(same)]
    worst = float(best.min(initial=1.0))
    agrees = bool(same.all()) and len(first) == len(second)
    return Reproduced(
        name=name,
        method=method,
        exact=agrees and worst == 1.0,
        expected=len(first),
        found=len(second),
        same=int(same.sum()),
        worst_iou=worst,
        score_apart=max(apart, default=0.0),
        agrees=agrees,
    )


def label_map(instances: Instances, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Return a prediction as a label map (H, W): where masks overlap, the one with the higher score is on top."""
    if isinstance(instances, LabelInstances):
        return np.asarray(instances.labels, np.int32)
    return paint_instances(instances, shape)[0]


def masks_of(instances: Instances, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return each instance's pixels in column-major order, (k, H * W)."""
    n = len(instances.scores)
    if isinstance(instances, LabelInstances):
        flat = np.asarray(instances.labels).T.reshape(-1)
        return np.asarray(flat[None] == np.arange(1, n + 1)[:, None], np.bool_)
    masks = np.zeros((n, shape[0] * shape[1]), np.bool_)
    for mask, counts in zip(masks, instances.counts, strict=True):
        edges = np.cumsum(counts, dtype=np.int64)
        for start, stop in zip(edges[0::2], edges[1::2], strict=False):
            mask[start:stop] = True
    return masks


def _shape(found: PredictionSet) -> tuple[int, int]:
    return found.height, found.width
