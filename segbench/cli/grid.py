"""``segbench grid``: plan, launch, follow and cancel a grid of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, print_table

if TYPE_CHECKING:
    from segbench.engine.grid import ResourceChange
    from segbench.engine.scheduler import Summary
    from segbench.engine.scheduler.request import GridRequest

app = typer.Typer(no_args_is_help=True, help="Plan, launch and follow a grid: method x task x training tissue x seed.")

PresetOption = Annotated[
    str | None, typer.Option("--preset", "-p", help="demo (the default), paper (138 runs) or full (954).")
]
FileOption = Annotated[Path | None, typer.Option("--grid", "-g", help="A grid file (YAML).")]
DatasetOption = Annotated[str | None, typer.Option("--dataset", "-d", help="Every task of this dataset.")]
MethodOption = Annotated[list[str] | None, typer.Option("--method", "-m", help="Only this method; can be repeated.")]
TaskOption = Annotated[list[str] | None, typer.Option("--task", "-t", help="Only this task; can be repeated.")]
TissueOption = Annotated[
    list[str] | None,
    typer.Option("--tissue", help="Only this training tissue ('all' for all together); can be repeated."),
]
SeedOption = Annotated[list[int] | None, typer.Option("--seed", help="Only this seed; can be repeated.")]
ScaleOption = Annotated[float | None, typer.Option("--budget-scale", min=1e-6, help="Epochs or iterations times this.")]
EpochsOption = Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs, for methods that count epochs.")]
IterationsOption = Annotated[
    int | None, typer.Option("--iterations", min=1, help="Iterations, for methods that count iterations.")
]
BatchOption = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images a step, over all devices.")]
GpusOption = Annotated[float | None, typer.Option("--num-gpus", min=0, help="GPUs a run; below 1, a share of one.")]
CpusOption = Annotated[float | None, typer.Option("--num-cpus", min=0.1, help="CPU cores a run.")]
GpuMemoryOption = Annotated[
    float | None, typer.Option("--gpu-memory-gb", min=0.1, help="Memory that each GPU of a run must have, in GB.")
]
AcceleratorOption = Annotated[
    str | None, typer.Option("--accelerator", help="Kind of GPU that a run must have, as Ray names it (A100).")
]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", help="KEY=VALUE that a run's node must have; can be repeated.")
]
TimeoutOption = Annotated[float | None, typer.Option(min=1, help="Stop a run after so many seconds.")]
ClusterFileOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster-file", help="Of an autoscaling cluster ('ray up' or RayCluster): runs may wait for its nodes."
    ),
]
CheckpointOption = Annotated[
    float,
    typer.Option(
        "--checkpoint-every", min=1, help="Seconds of training between checkpoints, where a method keeps them."
    ),
]
RetriesOption = Annotated[
    int,
    typer.Option("--retries", min=0, help="Try a run that failed so often again; lost ones are tried again anyway."),
]
MemoryOption = Annotated[float | None, typer.Option("--memory-gb", min=0.1, help="Memory a run, in GB.")]


@app.command()
def plan(
    preset: PresetOption = None, grid: FileOption = None, dataset: DatasetOption = None, method: MethodOption = None,
    task: TaskOption = None, tissue: TissueOption = None, seed: SeedOption = None, budget_scale: ScaleOption = None,
    epochs: EpochsOption = None, iterations: IterationsOption = None, batch_size: BatchOption = None,
    num_gpus: GpusOption = None, num_cpus: CpusOption = None, memory_gb: MemoryOption = None,
    gpu_memory_gb: GpuMemoryOption = None,
    address: Annotated[str | None, typer.Option(help="Expect the time on this Ray cluster ('auto': here).")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="Expect the time on so many GPUs.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Of the nodes that --gpus imagines.")] = 8,
    out: OutOption = DEFAULT_OUT, format: FormatOption = Format.TABLE,
) -> None:  # fmt: skip
    """Show the runs of a grid, which are done already, what they ask for and how long they may take; runs nothing.

    hours are expected from the store's finished runs, else the study's published hours, else a rate of the method's
    family (expected_from). With --gpus or --address the runs are placed on paper as the launch would place them. A
    run's id is final once its dataset is prepared (final_id).

    Examples:

      segbench grid plan

      segbench grid plan --preset paper --gpus 450 --gpus-per-node 4

      segbench grid plan --dataset dsb2018 --method stardist --epochs 20
    """
    from segbench.engine.order import GPU, uniform_nodes
    from segbench.engine.scheduler.forecast import forecast
    from segbench.engine.scheduler.planning import plan as make_plan
    from segbench.engine.scheduler.ray_session import connected_cluster
    from segbench.errors import SegbenchError

    if address is not None and gpus is not None:
        raise SegbenchError("give one of --address (that cluster) and --gpus (an imagined one), found both")
    request = _request(
        preset, grid, dataset, method, task, tissue, seed, budget_scale, epochs, iterations, batch_size, num_gpus,
        num_cpus, memory_gb, gpu_memory_gb,
    )  # fmt: skip
    nodes, device = None, None
    if address is not None:
        nodes, device = connected_cluster(address)
    elif gpus is not None:
        nodes, device = uniform_nodes(gpus, gpus_per_node), GPU
    planned = make_plan(request, out, device)
    expected = forecast(planned, nodes)
    print_table([one.row() for one in planned], format)
    if format is Format.TABLE:
        typer.echo(f"{len(planned):,} runs, {len(planned) - expected.runs:,} done")
        for line in expected.lines():
            typer.echo(line)


@app.command()
def launch(
    preset: PresetOption = None, grid: FileOption = None, dataset: DatasetOption = None, method: MethodOption = None,
    task: TaskOption = None, tissue: TissueOption = None, seed: SeedOption = None, budget_scale: ScaleOption = None,
    epochs: EpochsOption = None, iterations: IterationsOption = None, batch_size: BatchOption = None,
    num_gpus: GpusOption = None, num_cpus: CpusOption = None, memory_gb: MemoryOption = None,
    gpu_memory_gb: GpuMemoryOption = None,
    out: OutOption = DEFAULT_OUT,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster ('auto' for this machine's).")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run without GPUs.")] = False,
    local_cpus: Annotated[int | None, typer.Option(min=1, help="Cores for the local Ray; default all.")] = None,
    timeout: TimeoutOption = None, accelerator: AcceleratorOption = None, label: LabelOption = None,
    retries: RetriesOption = 0, checkpoint_every: CheckpointOption = 600.0,
    cluster_file: ClusterFileOption = None,
) -> None:  # fmt: skip
    """Run what is not done yet of a grid, on a local Ray or a cluster. Launching again goes on where it stopped.

    With no option it is the demo: three methods on synthetic data. Ctrl-C cancels; what had finished stays.
    Runs that were lost with their worker or node are tried again; one that ran out of memory once more with
    half its batch, where its method allows that.

    Examples:

      segbench grid launch

      segbench grid launch --dataset dsb2018 --tissue all --tissue 256x256 --budget-scale 0.05

      segbench grid launch --preset paper --address auto --out /shared/results

      segbench grid launch --preset paper --address auto --out /shared/results
      --accelerator A100 --timeout 200000 --retries 1
    """
    from segbench.cli._progress import LaunchDisplay
    from segbench.engine.scheduler import LaunchOptions, Retries
    from segbench.engine.scheduler.launching import launch as run_launch

    request = _request(
        preset, grid, dataset, method, task, tissue, seed, budget_scale, epochs, iterations, batch_size, num_gpus,
        num_cpus, memory_gb, gpu_memory_gb,
    )  # fmt: skip
    options = LaunchOptions(
        out=out,
        address=address,
        cpu=cpu,
        num_cpus=local_cpus,
        timeout_s=timeout,
        accelerator=accelerator,
        labels=_labels(label),
        retries=Retries(failed=retries),
        checkpoint_every_s=checkpoint_every,
        cluster_file=cluster_file,
    )
    with LaunchDisplay() as display:
        runs, summary = run_launch(request, options, display.observe, display.prepare)
    if summary is None:
        typer.echo(f"nothing to run: all {len(runs)} runs of this grid are done already in {out}")
        return
    _tell_summary(summary, len(runs), out)


@app.command()
def retry(
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            help="How a run's last attempt ended (failed, the default; timeout, out-of-memory, diverged, cancelled, "
            "lost, or all); can be repeated.",
        ),
    ] = None,
    out: OutOption = DEFAULT_OUT,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster; default the last launch's.")] = None,
    cpu: Annotated[
        bool | None, typer.Option("--cpu/--gpu", help="Run without GPUs, or with; default as the last launch.")
    ] = None,
    local_cpus: Annotated[int | None, typer.Option(min=1, help="Cores for the local Ray; default all.")] = None,
    timeout: TimeoutOption = None, accelerator: AcceleratorOption = None, label: LabelOption = None,
    num_gpus: GpusOption = None, num_cpus: CpusOption = None, memory_gb: MemoryOption = None,
    gpu_memory_gb: GpuMemoryOption = None, retries: RetriesOption = 0, checkpoint_every: CheckpointOption = 600.0,
    cluster_file: ClusterFileOption = None,
) -> None:  # fmt: skip
    """Run those of the last launch's runs again that failed, or ended as --status says; with other resources if asked.

    Examples:

      segbench grid retry --status failed

      segbench grid retry --status out-of-memory --memory-gb 64 --out /shared/results
    """
    from segbench.cli._progress import LaunchDisplay
    from segbench.engine.results.launch_files import read_grid_file
    from segbench.engine.results.record import Status
    from segbench.engine.scheduler import LaunchOptions, Retries
    from segbench.engine.scheduler.launching import retry as run_retry
    from segbench.errors import unknown_name

    ways = [way for way in Status if way is not Status.DONE]
    asked = status or [Status.FAILED]
    for name in asked:
        if name not in ways and name != "all":
            raise unknown_name("status", name, [*ways, "all"])
    wanted = ways if "all" in asked else [Status(name) for name in asked]
    last = read_grid_file(out)
    options = LaunchOptions(
        out=out, address=address or last.get("address"), cpu=last.get("cpu", False) if cpu is None else cpu,
        num_cpus=local_cpus, timeout_s=timeout or last.get("timeout_s"),
        accelerator=accelerator or last.get("accelerator"), labels=_labels(label) or last.get("labels", {}),
        retries=Retries(failed=retries), checkpoint_every_s=checkpoint_every, cluster_file=cluster_file,
    )  # fmt: skip
    with LaunchDisplay() as display:
        runs, summary = run_retry(
            wanted, options, display.observe, _resources(num_gpus, num_cpus, memory_gb, gpu_memory_gb)
        )
    if summary is None:
        typer.echo(f"nothing to run: no run of the last launch in {out} is {' or '.join(wanted)}")
        return
    _tell_summary(summary, len(runs), out)


def _tell_summary(summary: Summary, runs: int, out: Path) -> None:
    counts = {status: summary.count(status) for status in dict.fromkeys(o.status for o in summary.outcomes)}
    told = ", ".join(f"{count} {status.value}" for status, count in counts.items()) or "none ended"
    skipped = runs - len(summary.outcomes)
    already = f"; {skipped} of {runs} were done before" if skipped and not summary.cancelled else ""
    typer.echo(f"{'cancelled: ' if summary.cancelled else ''}{told}{already}")
    failed = [outcome for outcome in summary.outcomes if outcome.status != "done"]
    for outcome in failed[:10]:
        typer.echo(f"  {outcome.run_id} {outcome.status.value}: {outcome.error}")
    if failed:
        typer.echo(f"see: segbench grid status --out {out}, segbench grid logs {failed[0].run_id} --out {out}")
    typer.echo(f"ask:  segbench sql 'select * from leaderboard' --out {out}\nlook: segbench report --out {out}")
    if summary.cancelled:
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(1)


@app.command()
def status(
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow the launch until it ends; Ctrl-C leaves it running.")
    ] = False,
    every: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two looks of --watch.")] = 2.0,
) -> None:
    """Show what is running, done and failed, and why, with the path of its log; works from any terminal and machine.

    --watch shows the running launch alone, and reads only small files: it can be left open.

    Examples:

      segbench grid status

      segbench grid status --watch

      segbench grid status --format json --out /shared/results
    """
    from segbench.engine.results.status import grid_status

    if watch:
        from segbench.cli._progress import watch_launch

        watch_launch(out, every)
        return
    found = grid_status(out)
    columns = ("run_id", "method", "task", "train_tissue", "seed", "status", "doing", "error", "log")
    print_table([{column: row[column] for column in columns} for row in found.rows], format)
    if format is Format.TABLE:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(found.counts().items()))
        launch = f"a launch runs (process {found.pid} on {found.host})" if found.driven else "no launch runs"
        dashboard = found.launch.get("dashboard") if found.driven else None
        typer.echo(f"{counts or 'no runs'}; {launch}" + (f"; Ray's dashboard: {dashboard}" if dashboard else ""))


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt has ended.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt; default the newest.")] = None,
    path: Annotated[bool, typer.Option("--path", help="Print where the log lies, not the log.")] = False,
    out: OutOption = DEFAULT_OUT,
) -> None:
    """Print the log of a run's newest attempt: all that the method and its library wrote.

    Examples:

      segbench grid logs 3fa9

      segbench grid logs 3fa9 -f --out /shared/results
    """
    import contextlib

    from segbench.engine.results.launch_files import is_driven
    from segbench.engine.results.status import find_attempt, log_text

    folder = find_attempt(out, run, attempt)
    if path:
        typer.echo(folder / "log.txt")
        return
    with contextlib.suppress(KeyboardInterrupt):
        for piece in log_text(folder, follow, lambda: is_driven(out)):
            typer.echo(piece, nl=False)


@app.command()
def cancel(
    out: OutOption = DEFAULT_OUT,
    wait: Annotated[float, typer.Option(min=0, help="Wait so many seconds for it to end.")] = 60.0,
) -> None:
    """Stop the launch that runs in a results folder; what has finished stays, and launching again goes on.

    Example:

      segbench grid cancel --out /shared/results
    """
    import time

    from segbench.engine.results.launch_files import is_driven
    from segbench.engine.results.status import request_cancel
    from segbench.errors import SegbenchError

    request_cancel(out)
    deadline = time.monotonic() + wait
    while is_driven(out):
        if time.monotonic() > deadline:
            raise SegbenchError(f"asked the launch in {out} to stop; it has not within {wait:.0f} s")
        time.sleep(0.2)
    typer.echo("cancelled")


def _request(
    preset: str | None, grid: Path | None, dataset: str | None, method: list[str] | None, task: list[str] | None,
    tissue: list[str] | None, seed: list[int] | None, budget_scale: float | None, epochs: int | None,
    iterations: int | None, batch_size: int | None, num_gpus: float | None, num_cpus: float | None,
    memory_gb: float | None, gpu_memory_gb: float | None,
) -> GridRequest:  # fmt: skip
    from segbench.engine.grid import BudgetChange, Filters
    from segbench.engine.scheduler.request import GridRequest

    resources = _resources(num_gpus, num_cpus, memory_gb, gpu_memory_gb)
    return GridRequest(
        preset=preset,
        grid_file=grid,
        dataset=dataset,
        filters=Filters(
            methods=tuple(method or ()), tasks=tuple(task or ()), tissues=tuple(tissue or ()), seeds=tuple(seed or ())
        ),
        budget=BudgetChange(scale=budget_scale, epochs=epochs, iterations=iterations, batch_size=batch_size),
        resources=resources,
    )


def _resources(
    num_gpus: float | None, num_cpus: float | None, memory_gb: float | None, gpu_memory_gb: float | None
) -> ResourceChange:
    from pydantic import ValidationError

    from segbench.engine.grid import ResourceChange
    from segbench.errors import SegbenchError

    try:
        return ResourceChange(num_gpus=num_gpus, num_cpus=num_cpus, memory_gb=memory_gb, gpu_memory_gb=gpu_memory_gb)
    except ValidationError as error:
        first = error.errors()[0]
        raise SegbenchError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from None


def _labels(given: list[str] | None) -> dict[str, str]:
    from segbench.errors import SegbenchError

    labels = {}
    for one in given or []:
        key, equals, value = one.partition("=")
        if not (key and equals):
            raise SegbenchError(f"--label takes KEY=VALUE, found {one!r}")
        labels[key] = value
    return labels
