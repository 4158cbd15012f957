"""``segbench grid``: plan, launch, follow and cancel a grid of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, print_table

if TYPE_CHECKING:
    from segbench.engine.planning import GridRequest

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
MemoryOption = Annotated[float | None, typer.Option("--memory-gb", min=0.1, help="Memory a run, in GB.")]


@app.command()
def plan(
    preset: PresetOption = None, grid: FileOption = None, dataset: DatasetOption = None, method: MethodOption = None,
    task: TaskOption = None, tissue: TissueOption = None, seed: SeedOption = None, budget_scale: ScaleOption = None,
    epochs: EpochsOption = None, iterations: IterationsOption = None, batch_size: BatchOption = None,
    num_gpus: GpusOption = None, num_cpus: CpusOption = None, memory_gb: MemoryOption = None,
    address: Annotated[str | None, typer.Option(help="Expect the time on this Ray cluster ('auto': here).")] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="Expect the time on so many GPUs.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Of the nodes that --gpus imagines.")] = 8,
    out: OutOption = DEFAULT_OUT, format: FormatOption = Format.TABLE,
) -> None:  # fmt: skip
    """Show the runs of a grid, which are done already, what they ask for and how long they may take; runs nothing.

    hours are expected from the store's finished runs, else the study's published hours, else a rate of the method's family
    (expected_from). With --gpus or --address the runs are placed on paper as the launch would place them. A run's id is
    final once its dataset is prepared (final_id).

    Examples:

      segbench grid plan

      segbench grid plan --preset paper --gpus 450 --gpus-per-node 4

      segbench grid plan --dataset dsb2018 --method stardist --epochs 20
    """
    from segbench.engine.order import GPU, uniform_nodes
    from segbench.engine.planning import connected_cluster, forecast
    from segbench.engine.planning import plan as make_plan
    from segbench.errors import SegbenchError

    if address is not None and gpus is not None:
        raise SegbenchError("give one of --address (that cluster) and --gpus (an imagined one), found both")
    request = _request(
        preset, grid, dataset, method, task, tissue, seed, budget_scale, epochs, iterations, batch_size, num_gpus,
        num_cpus, memory_gb,
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
    out: OutOption = DEFAULT_OUT,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster ('auto' for this machine's).")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Run without GPUs.")] = False,
    local_cpus: Annotated[int | None, typer.Option(min=1, help="Cores for the local Ray; default all.")] = None,
    timeout: Annotated[float | None, typer.Option(min=1, help="Stop a run after so many seconds.")] = None,
) -> None:  # fmt: skip
    """Run what is not done yet of a grid, on a local Ray or a cluster. Launching again goes on where it stopped.

    With no option it is the demo: three methods on synthetic data. Ctrl-C cancels; what had finished stays.

    Examples:

      segbench grid launch

      segbench grid launch --dataset dsb2018 --tissue all --tissue 256x256 --budget-scale 0.05

      segbench grid launch --preset paper --address auto --out /shared/results
    """
    from segbench.cli._progress import LaunchDisplay
    from segbench.engine.planning import launch as run_launch
    from segbench.engine.scheduler import LaunchOptions

    request = _request(
        preset, grid, dataset, method, task, tissue, seed, budget_scale, epochs, iterations, batch_size, num_gpus,
        num_cpus, memory_gb,
    )  # fmt: skip
    options = LaunchOptions(out=out, address=address, cpu=cpu, num_cpus=local_cpus, timeout_s=timeout)
    with LaunchDisplay() as display:
        runs, summary = run_launch(request, options, display.observe, display.prepare)
    if summary is None:
        typer.echo(f"nothing to run: all {len(runs)} runs of this grid are done already in {out}")
        return
    counts = {status: summary.count(status) for status in dict.fromkeys(o.status for o in summary.outcomes)}
    told = ", ".join(f"{count} {status.value}" for status, count in counts.items()) or "none ended"
    skipped = len(runs) - len(summary.outcomes)
    already = f"; {skipped} of {len(runs)} were done before" if skipped and not summary.cancelled else ""
    typer.echo(f"{'cancelled: ' if summary.cancelled else ''}{told}{already}")
    failed = [outcome for outcome in summary.outcomes if outcome.status != "done"]
    for outcome in failed[:10]:
        typer.echo(f"  {outcome.run_id} {outcome.status.value}: {outcome.error}")
    if failed:
        typer.echo(f"see: segbench grid status --out {out}")
    typer.echo(f"ask:  segbench sql 'select * from leaderboard' --out {out}\nlook: segbench report --out {out}")
    if summary.cancelled:
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(1)


@app.command()
def status(out: OutOption = DEFAULT_OUT, format: FormatOption = Format.TABLE) -> None:
    """Show what is running, done and failed, and why; works from any terminal.

    Examples:

      segbench grid status

      segbench grid status --format json --out /shared/results
    """
    from segbench.engine.status import grid_status

    found = grid_status(out)
    columns = ("run_id", "method", "task", "train_tissue", "seed", "status", "doing", "error")
    print_table([{column: row[column] for column in columns} for row in found.rows], format)
    if format is Format.TABLE:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(found.counts().items()))
        launch = f"a launch runs (process {found.pid} on {found.host})" if found.driven else "no launch runs"
        typer.echo(f"{counts or 'no runs'}; {launch}")


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

    from segbench.engine.scheduler import is_driven
    from segbench.engine.status import request_cancel
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
    memory_gb: float | None,
) -> GridRequest:  # fmt: skip
    from pydantic import ValidationError

    from segbench.engine.grid import BudgetChange, Filters, ResourceChange
    from segbench.engine.planning import GridRequest
    from segbench.errors import SegbenchError

    try:
        resources = ResourceChange(num_gpus=num_gpus, num_cpus=num_cpus, memory_gb=memory_gb)
    except ValidationError as error:
        first = error.errors()[0]
        raise SegbenchError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from None
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
