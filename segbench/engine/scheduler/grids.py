"""Grids for Python: plan one and launch one by plain keyword arguments."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from segbench.engine.grid import Run
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.mirror import open_results
from segbench.engine.results.statuses import Status
from segbench.engine.results.store import query
from segbench.engine.scheduler import planning
from segbench.engine.scheduler.options import LaunchOptions
from segbench.engine.scheduler.planning import Planned
from segbench.engine.scheduler.request import GridRequest

if TYPE_CHECKING:
    import polars as pl

    from segbench.engine.scheduler.forecast import Forecast, Place

Names = str | Sequence[str]
GridLike = str | PathLike[str] | Mapping[str, Any]
Executor = Literal["ray", "inline"]

_ENDED = """\
select runs.run_id, runs.status, scored.ap50, timings.train_s, runs.error
from runs_latest as runs
left join timings using (run_id)
left join accuracy as scored
    on scored.run_id = runs.run_id and scored.test_task = runs.task
    and scored.test_tissue = 'all' and scored.operation = 'none'"""


@dataclass(frozen=True, repr=False)
class Plan(Sequence[Planned]):
    """The runs of a grid in its order, each with what it asks for, how long it may take and whether it is done.

    Examples
    --------
    >>> import segbench
    >>> plan = segbench.plan(preset="paper", methods="stardist")
    >>> len(plan), plan[0].run.task.name, plan[0].run.budget.epochs
    (5, 'tissuenet-nuclear-1ch', 100)
    """

    runs: tuple[Planned, ...]
    """One a run."""
    place: Place
    """Where they are expected to go."""

    @overload
    def __getitem__(self, n: int) -> Planned: ...
    @overload
    def __getitem__(self, n: slice) -> Sequence[Planned]: ...
    def __getitem__(self, n: int | slice) -> Planned | Sequence[Planned]:
        return self.runs[n]

    def __len__(self) -> int:
        return len(self.runs)

    def frame(self) -> pl.DataFrame:
        """Return one row a run, as ``segbench grid plan`` prints them.

        Returns
        -------
        Columns id, method, task, train_tissue, ``train_images`` (null where not known), seed, ``status`` ('to do', or
        how its latest attempt ended), budget, num_gpus, num_cpus, memory_gb (what it asks for), ``hours`` and
        ``gpu_hours`` (expected), ``expected_from`` (history, measured, published or default) and ``final_id`` (false
        while the dataset is not prepared).
        """
        import polars as pl

        figures = ("num_gpus", "num_cpus", "memory_gb", "hours", "gpu_hours")
        types = dict.fromkeys(figures, pl.Float64)
        return pl.DataFrame([one.row() for one in self.runs], schema_overrides=types, infer_schema_length=None)

    def forecast(self) -> Forecast:
        """Return what is left to do in hours, and when it would have ended where the nodes are known.

        Raises
        ------
        SegbenchError
            No node can hold one of the runs.
        """
        from segbench.engine.scheduler.forecast import forecast

        return forecast(self.runs, self.place)

    def __repr__(self) -> str:
        counts = Counter(str(one.status) for one in self.runs)
        return f"Plan({', '.join(f'{n:,} {status}' for status, n in counts.items())})"

    def _repr_html_(self) -> str:
        return self.frame()._repr_html_()


@dataclass(frozen=True)
class LaunchedRun:
    """How a run of a launch stands, whether this launch or one before has ended it.

    Examples
    --------
    >>> import segbench
    >>> run = segbench.plan(preset="demo", methods="watershed")[0].run
    >>> one = segbench.LaunchedRun(run, "timeout", ap50=None, train_s=None, error="stopped after 60 s")
    >>> one.run.task.name, one.status
    ('synthetic-nuclear-1ch', 'timeout')
    """

    run: Run
    status: str
    """``done``, ``failed``, ``timeout``, ``out-of-memory``, ``diverged``, ``cancelled``, ``lost``, or ``to do``."""
    ap50: float | None
    """On the task's whole test set; None where it is not done."""
    train_s: float | None
    """T, the seconds of training; None where it is not done or not trained."""
    error: str | None
    """Why it is not done, in one line."""


@dataclass(frozen=True, repr=False)
class Launched(Sequence[LaunchedRun]):
    """How a launch ended, run by run in the grid's order; what `launch` returns.

    Examples
    --------
    >>> from pathlib import Path
    >>> import segbench
    >>> runs = [planned.run for planned in segbench.plan(preset="demo", methods="watershed")]
    >>> ended = [segbench.LaunchedRun(run, "done", ap50=0.8, train_s=None, error=None) for run in runs]
    >>> launched = segbench.Launched(tuple(ended), Path("segbench-results"), cancelled=False)
    >>> launched, launched.failed
    (Launched(2 done in 'segbench-results'), ())
    """

    runs: tuple[LaunchedRun, ...]
    """One a run of the grid."""
    out: Path
    """The results folder on this machine, for `Results`."""
    cancelled: bool
    """It was stopped before its end."""

    @overload
    def __getitem__(self, n: int) -> LaunchedRun: ...
    @overload
    def __getitem__(self, n: slice) -> Sequence[LaunchedRun]: ...
    def __getitem__(self, n: int | slice) -> LaunchedRun | Sequence[LaunchedRun]:
        return self.runs[n]

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def failed(self) -> tuple[LaunchedRun, ...]:
        """The runs that are not done."""
        return tuple(one for one in self.runs if one.status != "done")

    def counts(self) -> dict[str, int]:
        """Return how many runs have each status."""
        return dict(Counter(one.status for one in self.runs))

    def frame(self) -> pl.DataFrame:
        """Return one row a run: run_id, method, task, train_tissue, seed, status, ap50, train_s (seconds), error."""
        import polars as pl

        text = ("run_id", "method", "task", "train_tissue", "status", "error")
        types = {**dict.fromkeys(text, pl.String), "seed": pl.Int64, "ap50": pl.Float64, "train_s": pl.Float64}
        rows = [
            {
                "run_id": one.run.id,
                "method": one.run.method,
                "task": one.run.task.name,
                "train_tissue": one.run.train_tissue,
                "seed": one.run.seed,
                "status": one.status,
                "ap50": one.ap50,
                "train_s": one.train_s,
                "error": one.error,
            }
            for one in self.runs
        ]
        return pl.DataFrame(rows, schema_overrides=types)

    def __repr__(self) -> str:
        told = ", ".join(f"{n:,} {status}" for status, n in self.counts().items())
        return f"Launched({'cancelled: ' if self.cancelled else ''}{told} in {str(self.out)!r})"

    def _repr_html_(self) -> str:
        return self.frame()._repr_html_()


def plan(
    *,
    preset: str | None = None,
    grid: GridLike | None = None,
    dataset: str | None = None,
    methods: Names = (),
    tasks: Names = (),
    tissues: Names = (),
    seeds: int | Sequence[int] = (),
    budget_scale: float | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    start: str | None = None,
    recipe: str | None = None,
    num_gpus: float | None = None,
    num_cpus: float | None = None,
    memory_gb: float | None = None,
    gpu_memory_gb: float | None = None,
    out: str | PathLike[str] = "segbench-results",
    executor: Executor = "ray",
    address: str | None = None,
    cpu: bool = False,
    fit: bool = False,
    accelerator: str | None = None,
    gpus: int | None = None,
    gpus_per_node: int = 8,
) -> Plan:
    """Return the runs of a grid: which are done, what they ask for and how long they may take; runs nothing.

    Parameters
    ----------
    preset
        ``"demo"``, ``"paper"`` (138 runs) or ``"full"`` (954); with no preset, grid, dataset or tasks it is the demo.
    grid
        The path of a grid file (YAML), or what would stand in it, as ``{"methods": [...], "tasks": [...]}``.
    dataset
        Every task of this dataset.
    methods, tasks, tissues, seeds
        Only these of the grid: one, or several. A training tissue is a name, or ``all`` for all together. Presets and
        datasets are run with the seeds that are given (0 where none are).
    budget_scale
        Epochs or iterations times this.
    epochs, iterations
        For methods that count epochs, or iterations.
    batch_size
        Images a training step, over all devices.
    start
        Where every training starts: ``"random"``, ``"published-backbone"``, ``"generalist"`` (the method's released
        model of cells; with ``epochs=0`` it is applied as it is), or the path of a file of weights.
    recipe
        ``"cells"``, what finds cells best, every choice made on validation data; ``"study"``, the paper and its scripts
        to the letter (which ``preset="paper"`` asks for); ``"cards"``, the methods' cards as they are. None for what
        the grid says, which is ``"cells"`` where it says nothing.
    num_gpus, num_cpus, memory_gb, gpu_memory_gb
        What each run asks of its node, in place of what its method's card says; below 1, a share of a GPU.
    out
        The results folder or its URL, whose finished runs tell how long others will take.
    executor, address, cpu, fit, accelerator
        Where and how they would run, as in `launch`.
    gpus, gpus_per_node
        Expect the time on so many GPUs of nodes that have so many each.

    Returns
    -------
    A sequence of the runs, in the grid's order.

    Raises
    ------
    SegbenchError
        For unknown names (with the nearest), values that no run can have, a grid file that does not fit, and an
        ``address`` where no cluster answers.

    Examples
    --------
    >>> import segbench
    >>> plan = segbench.plan(preset="paper", methods=["swin-s"], tasks="livecell-wholecell")
    >>> plan
    Plan(9 to do)
    >>> plan.frame().select("method", "train_tissue", "num_gpus").rows()[:2]
    [('swin-s', 'all', 4.0), ('swin-s', 'A172', 4.0)]
    """
    from segbench.engine.scheduler.forecast import place_of

    request = GridRequest.of(
        preset=preset,
        grid=grid,
        dataset=dataset,
        methods=methods,
        tasks=tasks,
        tissues=tissues,
        seeds=seeds,
        budget={"scale": budget_scale, "epochs": epochs, "iterations": iterations, "batch_size": batch_size},
        resources={
            "num_gpus": num_gpus,
            "num_cpus": num_cpus,
            "memory_gb": memory_gb,
            "gpu_memory_gb": gpu_memory_gb,
        },
        start=start,
        recipe=recipe,
    )
    options = LaunchOptions.of(executor=executor, address=address, cpu=cpu, fit=fit, accelerator=accelerator)
    place = place_of(options, gpus, gpus_per_node)
    return Plan(tuple(planning.plan(request, open_results(out), place.device, fit=fit)), place)


def launch(
    *,
    preset: str | None = None,
    grid: GridLike | None = None,
    dataset: str | None = None,
    methods: Names = (),
    tasks: Names = (),
    tissues: Names = (),
    seeds: int | Sequence[int] = (),
    budget_scale: float | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
    start: str | None = None,
    recipe: str | None = None,
    num_gpus: float | None = None,
    num_cpus: float | None = None,
    memory_gb: float | None = None,
    gpu_memory_gb: float | None = None,
    out: str | PathLike[str] = "segbench-results",
    executor: Executor = "ray",
    address: str | None = None,
    cpu: bool = False,
    fit: bool = False,
    local_cpus: int | None = None,
    timeout_s: float | None = None,
    retries: int = 0,
    checkpoint_every_s: float = 600.0,
    accelerator: str | None = None,
    labels: Mapping[str, str] | None = None,
    cluster_file: str | PathLike[str] | None = None,
    progress: bool = False,
) -> Launched:
    """Run what is not done yet of a grid, and return how every run of it stands.

    Launching again goes on where it stopped: a run that is done is never done twice. An interrupt (Ctrl-C) cancels;
    what had finished stays. Datasets are prepared and environments built first, where that is not done.

    Parameters
    ----------
    preset, grid, dataset, methods, tasks, tissues, seeds
        Which runs, as in `plan`.
    budget_scale, epochs, iterations, batch_size, start, recipe
        How long they are trained, and from where, as in `plan`.
    recipe
        ``"cells"``, what finds cells best, every choice made on validation data; ``"study"``, the paper and its scripts
        to the letter (which ``preset="paper"`` asks for); ``"cards"``, the methods' cards as they are. None for what
        the grid says, which is ``"cells"`` where it says nothing.
    num_gpus, num_cpus, memory_gb, gpu_memory_gb
        What each run asks of its node, as in `plan`.
    out
        The results folder, made if missing, or a URL (``s3://bucket/path``).
    executor
        ``"ray"``: on a local Ray or a cluster, as many runs at a time as fit. ``"inline"``: one after the other in this
        process, without Ray, so that a debugger can follow; same ids, same scores.
    address
        A running Ray cluster (``"auto"`` for this machine's); None starts a local Ray.
    cpu
        Run without GPUs even where there are some.
    fit
        Raise a run's share of a GPU, or its memory on a processor, to what its method was measured to hold
        (``segbench methods measure``); without it that is told alone.
    local_cpus
        Cores of this machine that runs get together; None for all.
    timeout_s
        Stop a run after so many seconds.
    retries
        Try a run that failed so often again; those that were lost with their worker are tried again anyway.
    checkpoint_every_s
        Seconds of training between two checkpoints, where a method keeps them.
    accelerator
        Kind of GPU that a run must have, as Ray names it (``"A100"``).
    labels
        Labels that a run's node must have.
    cluster_file
        Of an autoscaling cluster: runs may wait for its nodes.
    progress
        Show on standard error what is running, as ``segbench grid launch`` does.

    Returns
    -------
    A sequence of the grid's runs with their statuses. A run that failed raises nothing: see ``failed``.

    Raises
    ------
    SegbenchError
        As `plan`; for datasets that cannot be prepared, environments that cannot be built, a results folder that
        another launch holds, and machines that cannot hold a run. Nothing is run then.

    Examples
    --------
    The demo's first method, on synthetic images of nuclei:

    >>> import tempfile
    >>> import segbench
    >>> with tempfile.TemporaryDirectory() as out:
    ...     launched = segbench.launch(
    ...         methods="watershed", tasks="synthetic-nuclear-1ch", out=out, executor="inline", cpu=True
    ...     )
    ...     best = segbench.Results(out).leaderboard()
    >>> launched.frame().select("method", "task", "status").rows()
    [('watershed', 'synthetic-nuclear-1ch', 'done')]
    >>> best["ap50"].to_list() == launched.frame()["ap50"].to_list()
    True
    """
    from segbench.engine.scheduler.launching import launch as launch_request

    request = GridRequest.of(
        preset=preset,
        grid=grid,
        dataset=dataset,
        methods=methods,
        tasks=tasks,
        tissues=tissues,
        seeds=seeds,
        budget={"scale": budget_scale, "epochs": epochs, "iterations": iterations, "batch_size": batch_size},
        resources={
            "num_gpus": num_gpus,
            "num_cpus": num_cpus,
            "memory_gb": memory_gb,
            "gpu_memory_gb": gpu_memory_gb,
        },
        start=start,
        recipe=recipe,
    )
    options = LaunchOptions.of(
        executor=executor,
        address=address,
        cpu=cpu,
        fit=fit,
        num_cpus=local_cpus,
        timeout_s=timeout_s,
        checkpoint_every_s=checkpoint_every_s,
        accelerator=accelerator,
        labels=dict(labels or {}),
        cluster_file=cluster_file,
        retries={"failed": retries},
    )
    folder = open_results(out)
    with _shown(progress) as shown:
        runs, summary = launch_request(request, folder, options, **shown)
    cancelled = summary is not None and summary.cancelled
    return Launched(_ended(runs, folder), folder.path, cancelled)


@contextlib.contextmanager
def _shown(progress: bool) -> Iterator[dict[str, Any]]:
    """Give what a launch tells its progress to: nothing, or the display of the command."""
    if not progress:
        yield {}
        return
    from segbench.engine.scheduler.display import LaunchDisplay

    with LaunchDisplay() as display:
        yield {"observe": display.observe, "prepare_progress": display.prepare}


def _ended(runs: Sequence[Run], folder: ResultsFolder) -> tuple[LaunchedRun, ...]:
    known: dict[str, tuple[Any, ...]] = {}
    if folder.has_store():
        known = {run_id: tuple(rest) for run_id, *rest in query(folder, _ENDED).rows()}
    return tuple(LaunchedRun(run, *known.get(run.id, (Status.TO_DO.value, None, None, None))) for run in runs)
