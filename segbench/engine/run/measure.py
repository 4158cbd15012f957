"""Measures what a method takes on this machine: a few real steps and predictions, a process for each batch size."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segbench import __version__
from segbench.engine.grid.cards import get_card, method_object
from segbench.engine.results.measurements import Measurement
from segbench.engine.run import environments
from segbench.engine.run.check import draw_discs
from segbench.errors import SegbenchError
from segbench.methods.card import Budget, Card
from segbench.methods.folder import JobFolder
from segbench.methods.job import Arrays, Devices, Job, Task
from segbench.small_files import read_json

_TILE = 64
_STEPS = 6
_LIMIT_S = 3600


@dataclass(frozen=True)
class What:
    """What is measured."""

    batches: Sequence[int]
    """Training batches; windows that go through the network at once in prediction are 1 and the smaller of these."""
    side: int = 256
    """Of a window, pixels: a multiple of 64."""
    channels: int = 1
    gpu: bool = False
    gpu_bytes: int | None = None
    """Memory of the GPU."""
    settings: dict[str, Any] | None = None
    """Changes to the card's settings."""


def measure_method(name: str, what: What, progress: Callable[[str], None]) -> list[Measurement]:
    """Return a row for each stage and batch size; the environment is built where needed.

    Raises
    ------
    SegbenchError
        For unknown methods, and for a method that fails here: the line says why.
    """
    card, target = get_card(name), method_object(name)
    settings = {**card.defaults, **(what.settings or {})}
    environment = environments.ensure(card.environment, gpu=what.gpu and card.resources.num_gpus > 0, progress=progress)
    cores = card.resources.cores(1 if what.gpu else 0)
    common: dict[str, Any] = {
        "measurement": uuid.uuid4().hex[:12],
        "method": name,
        "settings": settings,
        "precision": str(settings.get("precision", "float32")),
        "num_cpus": cores,
        "side": what.side,
        "n_channels": what.channels,
        "segbench_version": __version__,
        "host": platform.node(),
        "measured_at": datetime.now(UTC),
    }
    rows: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="segbench-measure-") as text:
        folder = Path(text)
        most = max(what.batches)
        windows = _draw(folder, _STEPS * most, what.side, what.channels)
        job = Job(
            run_id="measure", method=target, task=_task(what.channels), budget=card.budget, seed=0, output="",
            settings=settings, devices=Devices(1.0 if what.gpu and card.resources.num_gpus else 0.0, int(cores)),
        )  # fmt: skip
        model: str | None = None
        for batch in what.batches if card.trained else ():
            progress(f"{name}: training with batch {batch}")
            steps = replace(windows, rows=tuple(range(_STEPS * batch)))
            val = replace(windows, rows=tuple(range(batch)))
            trained = replace(
                job, budget=_few(card.budget, batch), train=steps, val=val, output=str(folder / f"t{batch}")
            )
            result = _run(trained, environment, what.gpu)
            model = str(JobFolder(Path(trained.output)).model)
            rows.append(_row(common, "train", batch, _training_rate(result, batch), result, what))
        together = sorted({1, min(what.batches)}) if _goes_together(card) else [1]
        for batch in together:
            progress(f"{name}: prediction of {batch} at once")
            first, rest = (replace(windows, labels=None, rows=tuple(range(n))) for n in (batch, 3 * batch))
            predicted = replace(
                job, output=str(folder / f"p{batch}"), model=model, most_at_once=batch,
                predict={"first": first, "then": rest},
            )  # fmt: skip
            result = _run(predicted, environment, what.gpu)
            rate = _prediction_rate(JobFolder(Path(predicted.output)).progress, 3 * batch)
            rows.append(_row(common, "predict", batch, rate, result, what))
    return rows


def default_batches(card: Card, *, gpu: bool) -> tuple[int, int]:
    """Return the batch sizes that are measured where none are given: small on a processor, the card's on a GPU."""
    whole = max(4, card.budget.batch_size) if gpu else 4
    return whole // 2, whole


def _goes_together(card: Card) -> bool:
    return card.family not in ("baseline", "stardist")


def _few(budget: Budget, batch: int) -> Budget:
    """Return a budget of six steps, told one by one or two by two."""
    if budget.iterations is not None:
        return replace(budget, batch_size=batch, iterations=_STEPS)
    if budget.steps_per_epoch is not None:
        return replace(budget, batch_size=batch, epochs=_STEPS // 2, steps_per_epoch=2)
    return replace(budget, batch_size=batch, epochs=2)


def _task(channels: int) -> Task:
    names = ("nuclear", "membrane", "third")[:channels]
    return Task(f"drawn-nuclear-{channels}ch", "drawn", names, "nuclear")


def _draw(folder: Path, n: int, side: int, channels: int) -> Arrays:
    """Write windows that are put together of drawn tiles with up to 6 cells each."""
    if side % _TILE:
        raise SegbenchError(f"--side {side}: give a multiple of {_TILE} pixels")
    across = side // _TILE
    tiles, labels = draw_discs(min(32, n * across**2), _TILE, channels)
    chosen = np.random.default_rng(0).integers(len(tiles), size=(n, across, across))
    x = np.zeros((n, channels, side, side), np.float32)
    y = np.zeros((n, side, side), np.int32)
    for window, row, column in np.ndindex(chosen.shape):
        place = (slice(row * _TILE, (row + 1) * _TILE), slice(column * _TILE, (column + 1) * _TILE))
        which = chosen[window, row, column]
        x[(window, slice(None), *place)] = tiles[which]
        y[(window, *place)] = np.where(labels[which] > 0, labels[which] + y[window].max(), 0)
    np.save(folder / "images.npy", x)
    np.save(folder / "labels.npy", y)
    return Arrays(str(folder / "images.npy"), tuple(range(channels)), None, str(folder / "labels.npy"))


def _run(job: Job, environment: environments.Environment, gpu: bool) -> dict[str, Any]:
    files = JobFolder(Path(job.output))
    files.path.mkdir()
    job.write(files.job)
    variables = environments.subprocess_env(environment, ("segbench", job.method.partition(":")[0].partition(".")[0]))
    if not gpu:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    with (files.path / "stderr.txt").open("wb") as log:
        subprocess.run(
            job.command(files.job, environment.python), env={**os.environ, **variables}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=log, check=False, cwd=files.path, timeout=_LIMIT_S,
        )  # fmt: skip
    result = read_json(files.result)
    if result.get("status") != "done":
        told = result.get("error") or (files.path / "stderr.txt").read_text().strip()[-300:] or "left no result"
        raise SegbenchError(f"{job.method.rpartition(':')[2]} with batch {job.budget.batch_size}: {told}")
    found: dict[str, Any] = result
    return found


def _training_rate(result: dict[str, Any], batch: int) -> float | None:
    seconds = result.get("step_s")
    if not seconds:
        steps = result.get("iterations") or 0
        seconds = result["timings"]["train"] / steps if steps else None
    return batch / seconds if seconds else None


def _prediction_rate(progress: Path, windows: int) -> float | None:
    """Return the windows a second of the second prediction: the first one traces and compiles."""
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    ends = [
        line["time"] for line in lines if line.get("phase") == "predict" and line.get("done") == line.get("total", 0)
    ]
    return windows / (ends[-1] - ends[0]) if len(ends) > 1 and ends[-1] > ends[0] else None


def _row(
    common: dict[str, Any], stage: Literal["train", "predict"], batch: int, rate: float | None, result: dict[str, Any],
    what: What,
) -> Measurement:  # fmt: skip
    names = result.get("gpu_names") or []
    on_gpu = what.gpu and bool(names)
    return Measurement(
        **common,
        stage=stage,
        batch=batch,
        device=names[0] if on_gpu else "cpu",
        device_bytes=what.gpu_bytes if on_gpu else None,
        windows_per_s=rate,
        bytes=result.get("peak_gpu_memory_bytes" if on_gpu else "peak_memory_bytes"),
        versions=result.get("versions") or {},
    )
