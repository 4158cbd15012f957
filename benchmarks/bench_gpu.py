"""How fast each method trains and predicts on a GPU, beside the limit of its own model and its library's own loops.

    python benchmarks/bench_gpu.py --data windows.npz             # on a GPU: all torch methods
    python benchmarks/bench_gpu.py --cpu mask-rcnn cellpose       # in small, on a processor
    python benchmarks/bench_gpu.py --before earlier.json          # with the ratio to an earlier run's --out

A process a method, in the method's environment, held to four cores, one after another (the next one loads meanwhile).
Each trains by `Method.train` for some seconds: to warm up, for the windows a second, then for the GPU's busy share (the
union of its kernels' times over the wall's, by PyTorch's profiler). It predicts with what it has learned, repeats the
training step on one batch that is on the device already, and then lets the upstream library predict and train on the
same windows, with the same network and as many reading processes. Without --data the windows are drawn.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import importlib
import io
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
FAMILIES = {"mmdet": "gpu_mmdet", "detectron2": "gpu_detectron2", "cellpose": "gpu_cellpose"}
STEPS = {"gpu_mmdet": 1000, "gpu_detectron2": 200, "gpu_cellpose": 240}
"""Steps of a training that is ended as soon as it is measured: so few that most of them are told."""
BATCH, SIDE, CORES = 8, 256, 4
_ANNOTATIONS = ("Optimizer.", "enumerate(", "ProfilerStep", "autograd::")
"""Ranges that PyTorch marks on the device's time line, which are no kernels."""


def objects() -> dict[str, str]:
    """Return ``module:Class`` of every method by its name, as the project's metadata have them."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = project["entry-points"]["segbench.methods"]
    return found


def family_of(target: str) -> str | None:
    """Return the module of this folder that knows a method's upstream library; None where there is none."""
    return next((module for family, module in FAMILIES.items() if f"methods.{family}" in target), None)


class EnoughError(Exception):
    """What there was to measure of a training is measured."""


class Paced:
    """Notes when which step was done; measures the pace, then the device's kernels, then ends the training.

    Each of these lasts ``seconds``, and three steps at least.

    Parameters
    ----------
    seconds
        Of each part.
    device
        Of the training.
    profile
        Whether the main thread is profiled in a part of its own.
    whole
        Let the training go on to its end.
    """

    def __init__(self, seconds: float, device: Any, profile: bool, whole: bool) -> None:
        from segbench.methods.base import Progress

        self._progress = Progress(Path(os.devnull))
        self._seconds, self._device, self._whole = seconds, device, whole
        self._profile = cProfile.Profile() if profile else None
        self._kernels: Any = None
        self._part, self._since = 0, (time.perf_counter(), 0)
        self.steps = 0
        self.busy: float | None = None
        self.step_s: float | None = None
        self.kernels: str = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)

    def train(self, *, step: int | None = None, steps: int | None = None, **told: Any) -> None:
        """Take note; raises EnoughError after the last part."""
        self._progress.train(step=step, steps=steps, **told)
        if step is None:
            return
        now, self.steps = time.perf_counter(), step
        if self._part > 3 or step < self._since[1] + 3 or now - self._since[0] < self._seconds:
            return
        # the parts: warming up, the pace, the kernels, a profile
        if self._part == 1:
            self.step_s = (now - self._since[0]) / (step - self._since[1])
        if self._part == 2 and self._kernels is not None:
            self._stop()
        self._part += 1
        if self._part == 2 and self._device.type == "cuda":
            self._start(step)
        if self._part == 3 and self._profile is not None:
            self._profile.enable()
        elif self._part == 3:
            self._part = 4
        if self._part == 4:
            self.end()
            if not self._whole:
                raise EnoughError
        self._since = (time.perf_counter(), step)

    def _start(self, step: int) -> None:
        import torch

        torch.cuda.synchronize()
        self._kernels = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        self._kernels.__enter__()
        self._since = (time.perf_counter(), step)

    def _stop(self) -> None:
        import torch

        torch.cuda.synchronize()
        wall = time.perf_counter() - self._since[0]
        self._kernels.__exit__(None, None, None)
        events = [
            e
            for e in self._kernels.profiler.kineto_results.events()
            if e.device_type().name == "CUDA" and not e.name().startswith(_ANNOTATIONS)
        ]
        spans = sorted((e.start_ns(), e.start_ns() + e.duration_ns()) for e in events)
        busy, end = 0, 0
        for start, stop in spans:
            busy += max(0, stop - max(start, end))
            end = max(end, stop)
        self.busy = busy / 1e9 / wall
        by_name: dict[str, list[int]] = {}
        for event in events:
            by_name.setdefault(event.name()[:90], []).append(event.duration_ns())
        slowest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:25]
        self.kernels = "\n".join(f"{sum(ns) / 1e6:9.1f} ms {len(ns):7d} x {name}" for name, ns in slowest)
        self._kernels = None

    def end(self) -> None:
        """Stop what is still measuring."""
        if self._profile is not None:
            self._profile.disable()
        if self._kernels is not None:
            self._stop()

    def rate(self, batch: int) -> float | None:
        """Return the windows a second."""
        return None if self.step_s is None else batch / self.step_s

    def profile(self) -> str:
        """Return where the main thread spent its time in the last part."""
        return "" if self._profile is None else lines_of(self._profile)


def lines_of(profile: cProfile.Profile) -> str:
    """Return the functions that took longest themselves, and with what they called."""
    text = io.StringIO()
    for order in ("tottime", "cumulative"):
        with suppress(TypeError):  # nothing was profiled
            pstats.Stats(profile, stream=text).strip_dirs().sort_stats(order).print_stats(32)
    return text.getvalue()


def child(path: Path) -> None:
    """Measure one method in this process, which its environment's Python runs; figures go to a file as they come."""
    asked = json.loads(path.read_text())
    found: dict[str, Any] = {"method": asked["method"]}
    to = Path(asked["to"])

    @contextmanager
    def part(name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except NotImplementedError as error:
            found[f"{name}_not"] = str(error)
        except Exception as error:  # the other parts go on
            found[f"{name}_not"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            found.setdefault("traces", []).append(traceback.format_exc())
        found.setdefault("seconds", {})[name] = time.perf_counter() - began
        to.write_text(json.dumps(found))

    with part("load"):
        job, method, images = loaded(asked)
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    sys.stdin.readline()
    if "load_not" not in found:
        measure(asked, job, method, images, found, part)
    to.write_text(json.dumps({**found, "done": True}))


def loaded(asked: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return the job, its method with everything read and built, and the windows to predict."""
    from segbench.methods.base import ImageStack
    from segbench.methods.job import Arrays, Devices, Job, Task

    module, _, name = asked["object"].partition(":")
    method = getattr(importlib.import_module(module), name)()
    card, batch = method.card, asked["batch"]
    budget = dataclasses.replace(card.budget, batch_size=batch)
    windows, steps = asked["windows"], asked["steps"]
    if budget.iterations is not None:
        budget = dataclasses.replace(budget, iterations=steps)
    else:
        budget = dataclasses.replace(budget, epochs=max(1, round(steps * batch / windows)))
    folder = Path(asked["folder"])
    train = Arrays(str(folder / "train_images.npy"), (0,), None, str(folder / "train_labels.npy"))
    test = Arrays(str(folder / "test_images.npy"), (0,))
    job = Job(
        run_id="bench", method=asked["object"], task=Task("t", "d", ("nuclear",), "nuclear"), budget=budget, seed=0,
        output=str(folder / asked["method"]), train=train, predict={"test": test},
        settings={**card.defaults, **(card.check_settings if asked["cpu"] else {}), **asked["settings"]},
        devices=Devices(0.0 if asked["cpu"] else 1.0, asked["cores"]),
    )  # fmt: skip
    Path(job.output).mkdir(parents=True)
    method.import_library(job)
    method.load(job, ImageStack(train), None)
    return job, method, ImageStack(test)


def measure(
    asked: dict[str, Any], job: Any, method: Any, images: Any, found: dict[str, Any], part: Callable[[str], Any]
) -> None:
    """Fill ``found`` with the figures of one method."""
    import torch

    from segbench.methods.checkpoints import Checkpoints

    family = importlib.import_module(asked["family"])
    device, batch = method._device, asked["batch"]
    with part("train"):
        paced = Paced(asked["part_s"], device, asked["profile"], asked["whole"])
        checkpoints = Checkpoints(None)
        checkpoints.begin([])
        try:
            method.train(job, paced, checkpoints)
        except EnoughError:
            # what Cellpose does after its training, and the others have no need of
            getattr(method, "_adopt_diameter", lambda: None)()
        finally:
            paced.end()
            found |= {"train": paced.rate(batch), "busy": paced.busy, "kernels": paced.kernels}
            found["train_profile"], found["steps"] = paced.profile(), paced.steps
            if device.type == "cuda":
                found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    steps = max(3, min(asked["most_steps"], round(asked["part_s"] / (paced.step_s or 1))))
    with part("predict"):
        predict(asked, job, method, images, found)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with part("limit"):
        found["limit"] = family.model_only(method, job, steps)
    if asked["peers"]:
        with part("upstream_predict"):
            few = type(images)(dataclasses.replace(images.arrays, rows=tuple(range(min(len(images), asked["few"])))))
            found["upstream_predict"] = family.upstream_prediction(method, job, few)
        with part("upstream_train"):
            folder = Path(job.output) / "upstream"
            folder.mkdir()
            found["upstream_train"] = family.upstream_training(method, job, steps, folder)


def predict(asked: dict[str, Any], job: Any, method: Any, images: Any, found: dict[str, Any]) -> None:
    """Predict the windows twice, the first time to warm up, and once more with a profile where that is asked for."""
    import torch

    calibrated = getattr(method, "calibrate", None)
    if calibrated is not None and asked["calibrate"]:
        calibrated(job, None)
    some = type(images)(dataclasses.replace(images.arrays, rows=tuple(range(min(len(images), asked["few"])))))
    list(method.predict(job, some))
    began = time.perf_counter()
    instances = [len(each.scores) for each in method.predict(job, images)]
    found["predict"] = len(images) / (time.perf_counter() - began)
    found["instances"] = sum(instances) / len(instances)
    if method._device.type == "cuda":
        found["predict_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    if asked["profile"]:
        profile = cProfile.Profile()
        profile.runcall(lambda: list(method.predict(job, some)))
        found["predict_profile"] = lines_of(profile)


def write_windows(data: Path | None, folder: Path, side: int, few: bool) -> tuple[int, int]:
    """Write the windows as the engine's prepared arrays; return how many there are to train on, and to predict."""
    import numpy as np

    if data is not None:
        with np.load(data) as packed:
            arrays = {name: packed[name] for name in packed.files}
    else:
        from segbench.engine.run.check import draw_discs

        arrays = {}
        for seed, (split, n) in enumerate({"train": 16 if few else 320, "test": 8 if few else 96}.items()):
            images, labels = draw_discs(n, side, seed=seed, n_discs=90 * side * side // 65536)
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    for name, array in arrays.items():
        kind = np.float32 if name.endswith("images") else np.int32
        scale = 255 if array.dtype == np.uint8 and kind is np.float32 else 1
        np.save(folder / f"{name}.npy", array.astype(kind) / kind(scale) if scale > 1 else array.astype(kind))
    cells = [int(labels.any()) for labels in np.load(folder / "train_labels.npy", mmap_mode="r")]
    return sum(cells), len(np.load(folder / "test_images.npy", mmap_mode="r"))


class Started:
    """A method's process: it loads at once and measures when it is told to."""

    def __init__(self, name: str, options: argparse.Namespace, folder: Path, windows: int, turn: int) -> None:
        target, family = objects()[name], family_of(objects()[name])
        self.to = folder / f"{name}.json"
        asked = {
            "method": name, "object": target, "family": family, "to": str(self.to), "folder": str(folder),
            "batch": options.batch, "windows": windows, "cpu": options.cpu, "cores": options.cores,
            "settings": {}, "part_s": options.part_s, "profile": options.profile is not None,
            "most_steps": 4 if options.cpu else 40, "steps": 12 if options.cpu else STEPS[str(family)],
            "few": options.few,
            # its predictions are empty, and quick, until its rate has fallen
            "whole": family == "gpu_cellpose",
            "peers": name not in options.without_peers, "calibrate": family == "gpu_cellpose",
        }  # fmt: skip
        job = folder / f"{name}-asked.json"
        job.write_text(json.dumps(asked))
        python, variables = environment_of(target, options)
        cores = os.cpu_count() or 1
        mine = {(turn * options.cores + n) % cores for n in range(options.cores)}
        variables["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "benchmarks")])
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            variables[variable] = str(options.cores)
        self._log = (folder / f"{name}.log").open("w")
        self.log = folder / f"{name}.log"
        self.process = subprocess.Popen(
            [python, __file__, "--child", str(job)], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True, preexec_fn=lambda: os.sched_setaffinity(0, mine),
        )  # fmt: skip

    def measure(self, limit_s: float) -> dict[str, Any]:
        """Let it measure now, and return what it found."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        while (line := self.process.stdout.readline()) and line.strip() != "READY":
            pass
        try:
            self.process.communicate("go\n", timeout=limit_s)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()
        found: dict[str, Any] = json.loads(self.to.read_text()) if self.to.exists() else {}
        if not found.get("done"):
            said = self.log.read_text().strip().splitlines() or ["it said nothing"]
            found["ended"] = f"after {limit_s:.0f} s or by itself: {said[-1][:200]}"
        return found


def environment_of(target: str, options: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """Return the Python of a method's environment, and the variables to start it with."""
    variables = dict(os.environ)
    if options.cpu:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    module, _, name = target.partition(":")
    card = getattr(importlib.import_module(module), name).card
    own = os.environ.get(f"SEGBENCH_ENV_{card.environment.upper()}")
    if own is not None:
        return own, variables
    from segbench.engine.run import environments

    environment = environments.ensure(card.environment, gpu=not options.cpu)
    return str(environment.python), {**variables, **environments.subprocess_env(environment)}


def told(value: Any, form: str = "{:.1f}") -> str:
    """Return a figure as text."""
    return "-" if value is None else form.format(value)


def ratio(one: float | None, other: float | None) -> str:
    """Return how many times ``other`` is in ``one``."""
    return "-" if not one or not other else f"{one / other:.2f}"


HEADER = (
    "method", "trained, windows/s", "step alone, windows/s", "share of that", "GPU busy", "upstream trains, windows/s",
    "times upstream", "predicted, windows/s", "cells found a window", "upstream predicts, windows/s", "times upstream",
    "peak GPU memory, GB",
)  # fmt: skip


def row(found: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Return a method's figures as the table has them."""
    train, limit, predicted = (found.get(name) for name in ("train", "limit", "predict"))
    busy = found.get("busy")
    cells = [
        found["method"], told(train), told(limit), ratio(train, limit), told(busy and 100 * busy, "{:.0f} %"),
        told(found.get("upstream_train")), ratio(train, found.get("upstream_train")), told(predicted),
        told(found.get("instances"), "{:.0f}"), told(found.get("upstream_predict")),
        ratio(predicted, found.get("upstream_predict")), told(found.get("peak_gb")),
    ]  # fmt: skip
    if before:
        cells += [ratio(train, before.get("train")), ratio(predicted, before.get("predict"))]
    return cells


def main() -> None:
    """Print a row a method, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all trained torch methods by default")
    parser.add_argument("--data", type=Path, help="an .npz with train_images, train_labels, test_images, test_labels")
    parser.add_argument("--cpu", action="store_true", help="on the processor, in small")
    parser.add_argument("--out", type=Path, help="all figures as JSON")
    parser.add_argument("--markdown", type=Path, help="the table")
    parser.add_argument("--before", type=Path, help="the --out of an earlier run: adds the ratios to it")
    parser.add_argument("--profile", type=Path, help="where the time goes, as text; takes longer")
    parser.add_argument("--batch", type=int, help=f"{BATCH}; on a processor 2")
    parser.add_argument("--cores", type=int, default=CORES, help="of each method's process")
    parser.add_argument("--without-peers", nargs="*", default=[], metavar="METHOD", help="leave upstream's loops out")
    parser.add_argument("--part-s", type=float, default=2, help="seconds of each part of a measurement: 2")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no method after so many")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    small = options.cpu
    options.batch = options.batch or (2 if small else BATCH)
    options.few = 4 if small else 32
    known = [name for name, target in objects().items() if family_of(target)]
    unknown = set(options.methods) - set(known)
    if unknown:
        parser.error(f"no figures for {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    before = {each["method"]: each for each in json.loads(options.before.read_text())} if options.before else {}
    with tempfile.TemporaryDirectory(prefix="segbench-gpu-") as text:
        folder = Path(text)
        windows, _ = write_windows(options.data, folder, 64 if small else SIDE, small)
        run_all(options, options.methods or known, folder, windows, before)


def run_all(
    options: argparse.Namespace, names: list[str], folder: Path, windows: int, before: dict[str, dict[str, Any]]
) -> None:
    """Measure one method after another; the next ones load while the last one measures, where there are the cores."""
    header = list(HEADER) + (["trains, times before", "predicts, times before"] if before else [])
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join('---' for _ in header)} |"]
    print("\n".join(lines), flush=True)
    began, done = time.monotonic(), []
    ahead = 3 if (os.cpu_count() or 1) >= 4 * options.cores else 1
    waiting = list(names)
    started: list[tuple[str, Started]] = []
    while waiting or started:
        while waiting and len(started) < ahead:
            name = waiting.pop(0)
            started.append((name, Started(name, options, folder, windows, len(names) - len(waiting))))
        name, process = started.pop(0)
        if time.monotonic() - began > options.seconds:
            process.process.kill()
            process.process.wait()
            found: dict[str, Any] = {"ended": "there was no time left"}
        else:
            found = process.measure(3600 if options.cpu else max(60, 40 * options.part_s))
        found["method"] = name
        done.append(found)
        lines.append(f"| {' | '.join(row(found, before.get(name, {})))} |")
        print(lines[-1], flush=True)
        for reason in (f"{key}: {value}" for key, value in found.items() if key == "ended" or key.endswith("_not")):
            print(f"  {name}, {reason}", file=sys.stderr, flush=True)
        write_all(options, lines, done)


def write_all(options: argparse.Namespace, lines: list[str], done: list[dict[str, Any]]) -> None:
    """Write what is known so far to where it was asked for."""
    bulky = ("train_profile", "predict_profile", "kernels", "traces")
    if options.out:
        options.out.write_text(json.dumps([{k: v for k, v in each.items() if k not in bulky} for each in done]))
    if options.markdown:
        notes = [
            f"- {each['method']}, {key.removesuffix('_not')}: {value}"
            for each in done for key, value in each.items() if key == "ended" or key.endswith("_not")
        ]  # fmt: skip
        options.markdown.write_text("\n".join([*lines, "", *notes]) + "\n")
    if options.profile:
        parts = []
        for each in done:
            parts += [f"######## {each['method']}: {key}\n{each[key]}" for key in bulky if key in each]
        options.profile.write_text("\n\n".join(map(str, parts)))


if __name__ == "__main__":
    main()
