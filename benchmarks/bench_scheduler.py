"""Measures what segbench's driver adds to a run that does nothing, beside Ray Tune and bare Ray tasks, and its memory.

    pip install "ray[tune]"        # only for the comparison with Tune
    python benchmarks/bench_scheduler.py

All in turns on one local Ray of two cores, a core a run; the median of the rounds.

bare tasks          ray.remote tasks that return at once, all submitted, then fetched
bare with record    the same, and each writes the record that a run leaves: a file, flushed to the disk
segbench, no-op     the driver's execute with an attempt that only writes its record: the driver, its files and store
                    included, the method's process excluded
bare, process       bare ray.remote tasks of the real attempt (as below), without the driver
segbench, process   the same with the real attempt: data, the process of a method that does nothing, evaluation of
                    its nothing
Tune                Ray Tune's Tuner with a function that returns its result at once, at Tune's own settings

Wall time a run, and the CPU time of the driver's own process a run. What else the machine does is in the wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import importlib.util
import io
import logging
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from segbench.engine.data import DatasetSpec, dataset_tasks, dataset_tissues, ensure_prepared
from segbench.engine.grid import Block, Catalogue, DatasetFacts, GridSpec, Run, cards, expand
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import StoreWriter
from segbench.engine.run.attempt import run_attempt
from segbench.engine.run.request import AttemptRequest
from segbench.engine.run.rows import attempt_row
from segbench.engine.scheduler import Event, Finished, LaunchOptions
from segbench.engine.scheduler.driver import execute

DATASET = DatasetSpec("bench", "synthetic", None, {"layout": "tissuenet", "seed": 0, "scale": 0.02})
TUNE_GOAL, BARE_GOAL = 10.0, 1.5
REPORTED = (1_000, 5_000, 10_000)
METHOD = '''
"""A method that does nothing."""
import numpy as np
from segbench.methods.predictions import LabelInstances
from segbench.methods.watershed import Watershed
import dataclasses


class Nothing(Watershed):
    card = dataclasses.replace(Watershed.card, name="nothing", title="Nothing", libraries=())

    def import_library(self, job):
        pass

    def predict(self, job, images):
        for image in images:
            yield LabelInstances(np.zeros(image.shape[-2:], np.int32), np.zeros(0))
'''


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="of a round of tasks and of no-op runs")
    parser.add_argument("--process-runs", type=int, default=6, help="of a round with the method's process")
    parser.add_argument("--tune-runs", type=int, default=24, help="trials of a round of Tune")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-runs", type=int, default=max(REPORTED), help="0 to leave the memory out")
    parser.add_argument("--profile", action="store_true", help="show where the driver's time goes, and nothing else")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, own_ray(Path(folder)):
        bench = Bench(Path(folder))
        if options.profile:
            profile(lambda: bench.no_op(options.runs))
            return
        overhead(bench, options)
        if options.memory_runs:
            bench.memory(options.memory_runs)


def overhead(bench: Bench, options: argparse.Namespace) -> None:
    """Measure every way in turns and print the medians."""
    ways: dict[str, tuple[Callable[[int], None], int]] = {
        "bare tasks": (bench.bare, options.runs),
        "bare with record": (bench.bare_with_record, options.runs),
        "segbench, no-op": (bench.no_op, options.runs),
        "bare, process": (bench.bare_with_process, options.process_runs),
        "segbench, process": (bench.with_process, options.process_runs),
    }
    if all(importlib.util.find_spec(name) for name in ("fsspec", "pandas", "pyarrow", "requests", "tensorboardX")):
        ways["Tune"] = (bench.tune, options.tune_runs)
    else:
        print('Tune is left out: pip install "ray[tune]" for the comparison')
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    bench.bare(20)
    for _ in range(options.rounds):
        for name, (way, n) in ways.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            way(n)
            wall[name].append((time.perf_counter() - began) / n * 1e3)
            cpu[name].append((time.process_time() - began_cpu) / n * 1e3)
    print(f"{'':20} {'runs':>6} {'wall, ms a run':>15} {'driver CPU, ms':>15}   load {os.getloadavg()[0]:.0f}")
    for name, (_, n) in ways.items():
        print(f"{name:20} {n:6} {statistics.median(wall[name]):15.2f} {statistics.median(cpu[name]):15.2f}")
    ours = statistics.median(wall["segbench, no-op"])
    for name, peer in (("no-op", "bare tasks"), ("no-op", "bare with record"), ("process", "bare, process")):
        ratio = statistics.median(wall[f"segbench, {name}"]) / statistics.median(wall[peer])
        print(f"segbench, {name} is {ratio:.2f} times {peer} (goal at most {BARE_GOAL:g})")
    if "Tune" in ways:
        of_tune = statistics.median(wall["Tune"])
        whole = statistics.median(wall["segbench, process"])
        print(f"Tune is {of_tune / ours:.0f} times segbench, no-op (goal at least {TUNE_GOAL:g})")
        print(f"Tune is {of_tune / whole:.2f} times segbench with the method's process, which Tune has none of")


class Bench:
    """The ways that are compared, on the Ray that is there."""

    def __init__(self, folder: Path) -> None:
        import ray

        self.folder = folder
        ensure_prepared(DATASET)
        self._bare = ray.remote(max_retries=0, max_calls=0)(nothing)
        self._recorded = ray.remote(max_retries=0, max_calls=0)(only_record)
        self._attempt = ray.remote(max_retries=0, max_calls=0)(run_attempt)
        self._rounds = 0

    def bare(self, n: int) -> None:
        """Submit tasks that return at once, and wait for them."""
        import ray

        ray.get([self._bare.remote(i) for i in range(n)])

    def bare_with_record(self, n: int) -> None:
        """Submit tasks that write a record, and wait for them."""
        self._bare_attempts(self._recorded, runs_of("watershed", n))

    def bare_with_process(self, n: int) -> None:
        """Submit the real attempts of a method that does nothing as tasks, and wait for them."""
        self._bare_attempts(self._attempt, runs_of("nothing", n))

    def no_op(self, n: int) -> None:
        """Run segbench's driver with an attempt that writes its record only."""
        self._execute(runs_of("watershed", n), only_record)

    def with_process(self, n: int) -> None:
        """Run segbench's driver with the real attempt and a method that does nothing."""
        self._execute(runs_of("nothing", n))

    def tune(self, n: int) -> None:
        """Run Ray Tune over a function that returns its result at once."""
        from ray import tune

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            results = tune.Tuner(
                tune.with_resources(tuned, {"cpu": 1}),
                param_space={"seed": tune.grid_search(list(range(n)))},
                run_config=tune.RunConfig(storage_path=str(self._out()), verbose=0),
            ).fit()
        assert len(results) == n
        assert not results.errors

    def memory(self, n: int) -> None:
        """Print the driver's memory on the way through so many no-op runs."""
        process = psutil.Process()
        ended = 0
        print(f"{'runs ended':>10} {'driver, MiB':>12}")
        print(f"{0:10} {process.memory_info().rss / 2**20:12.1f}")

        def observe(event: Event) -> None:
            nonlocal ended
            if isinstance(event, Finished):
                ended += 1
                if ended in REPORTED or ended == n:
                    print(f"{ended:10} {process.memory_info().rss / 2**20:12.1f}", flush=True)

        runs = runs_of("watershed", n)
        began, began_cpu = time.perf_counter(), time.process_time()
        self._execute(runs, only_record, observe)
        wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        print(
            f"{n:,} no-op runs: {wall:.1f} s, {wall / n * 1e3:.2f} ms a run, {cpu / n * 1e3:.2f} ms of the driver's CPU"
        )

    def _bare_attempts(self, task: Any, runs: list[Run]) -> None:
        """Submit an attempt of each run as a Ray task, and wait for all."""
        import ray

        out = self._out()
        requests = [
            AttemptRequest(run=run, attempt=1, dataset=DATASET, out=out, use_gpu=False, submitted_at=time.time())
            for run in runs
        ]
        ray.get([task.remote(request) for request in requests])
        ended = [request.folder.recorded_attempt().get("status") for request in requests]
        assert ended == [Status.DONE] * len(runs), ended[:1]

    def _execute(
        self,
        runs: list[Run],
        attempt: Callable[[AttemptRequest], None] | None = None,
        observe: Callable[[Event], None] = lambda _: None,
    ) -> None:
        out = self._out()
        given = {} if attempt is None else {"attempt": attempt}
        options = LaunchOptions(cpu=True)
        summary = execute(
            runs,
            {DATASET.name: DATASET},
            options,
            StoreWriter(out),
            observe,
            expect=lambda *_: 0.0,
            **given,
        )
        assert summary.count(Status.DONE) == len(runs), [o for o in summary.outcomes if o.status is not Status.DONE][:1]

    def _out(self) -> ResultsFolder:
        self._rounds += 1
        return ResultsFolder(self.folder / f"out-{self._rounds}").make()


def nothing(number: int) -> int:
    """Return at once."""
    return number


def tuned(config: dict[str, int]) -> dict[str, int]:
    """Return a result at once."""
    return {"score": config["seed"]}


def only_record(request: AttemptRequest) -> None:
    """Leave the record of a finished attempt, and do nothing else."""
    row = attempt_row(request, Status.DONE, None, datetime.now(UTC), {})
    request.folder.make().write_record(Record(attempt=row, phases={"wait": 0.0, "predict": 0.0}), request.claim)


def runs_of(method: str, n: int) -> list[Run]:
    """Return so many runs of a method, which differ in their seed."""
    task = dataset_tasks(DATASET)[0]
    facts = DatasetFacts((task,), dataset_tissues(DATASET), ensure_prepared(DATASET).fingerprint)
    block = Block(methods=(method,), tasks=(task.name,), seeds=tuple(range(n)))
    return expand(GridSpec(blocks=(block,)), Catalogue({DATASET.name: facts}))


def profile(work: Callable[[], None]) -> None:
    """Print where the driver's process spends its time."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    pstats.Stats(profiler, stream=sys.stdout).sort_stats("cumulative").print_stats(45)


@contextlib.contextmanager
def own_ray(folder: Path) -> Iterator[None]:
    """Start a local Ray of two cores with a cache of its own, and install the method that does nothing."""
    plugin = folder / "plugin"
    info = plugin / "nothing_method-1.0.dist-info"
    info.mkdir(parents=True)
    (plugin / "nothing_method.py").write_text(METHOD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nothing-method\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[segbench.methods]\nnothing = nothing_method:Nothing\n")
    sys.path.insert(0, str(plugin))
    os.environ |= {
        "PYTHONPATH": os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "SEGBENCH_CACHE": str(folder / "cache"),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    cards.forget()
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=128 * 2**20,
    )
    try:
        yield
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
