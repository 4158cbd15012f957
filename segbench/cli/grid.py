"""``segbench grid``: plan, launch, follow and cancel a grid of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, WideOption, print_table
from segbench.cli._options import Asked, How, Needs, spread
from segbench.engine.results.folder import ResultsFolder

if TYPE_CHECKING:
    from segbench.engine.scheduler import Summary

app = typer.Typer(no_args_is_help=True)


@app.command()
@spread
def plan(
    asked: Asked,
    needs: Needs,
    how: How,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="Expect the time on so many GPUs.")] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Of the nodes that --gpus imagines.")] = 8,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Show the runs of a grid, which are done already, what they ask for and how long they may take; runs nothing.

    hours are expected from the store's finished runs, else from what `segbench methods measure` found, else the
    study's published hours, else a rate of the method's family (expected_from). A run that asks for less memory than
    its method was measured to hold is told with what fits, or gets it with --fit. With --gpus or --address the runs are
    placed on paper as the launch would place them. Without them the plan is for this machine: for its processor where
    it has no GPU; --gpu plans for GPUs all the same. A run's id is final once its dataset is prepared (final_id).

    Examples:

      segbench grid plan

      segbench grid plan --preset paper --gpus 450 --gpus-per-node 4

      segbench grid plan --dataset dsb2018 --method stardist --epochs 20
    """
    from segbench.engine.grid.starts import missing_weights
    from segbench.engine.scheduler import plan as make_plan
    from segbench.engine.scheduler.forecast import forecast, place_of

    place = place_of(how.options(), gpus, gpus_per_node, on_gpus=how.cpu is False or needs.asks_for_gpus())
    planned = make_plan(asked.request(needs.change()), out, place.device, fit=place.options.fit)
    expected = forecast(planned, place)
    totals = {} if format is Format.TABLE else {"runs": len(planned), **expected.totals()}
    print_table([{**one.row(), **totals} for one in planned], format)
    if format is Format.TABLE:
        typer.echo(f"{len(planned):,} runs, {len(planned) - expected.runs:,} done")
        notes = dict.fromkeys(note for one in planned for note in one.notes)
        for line in (*expected.lines(), *notes, *missing_weights(one.run for one in planned)):
            typer.echo(line)
        typer.echo(place.told())
    elif place.assumed:
        typer.echo(place.told(), err=True)


@app.command()
@spread
def launch(asked: Asked, needs: Needs, how: How, out: OutOption = DEFAULT_OUT) -> None:
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
    from segbench.engine.scheduler import launch as run_launch
    from segbench.engine.scheduler.display import LaunchDisplay

    request, options = asked.request(needs.change()), how.options()
    with LaunchDisplay() as display:
        runs, summary = run_launch(request, out, options, display.observe, display.prepare)
    if summary is None:
        typer.echo(f"nothing to run: all {len(runs)} runs of this grid are done already in {out}")
        return
    _tell_summary(summary, len(runs), out)


@app.command()
@spread
def retry(
    needs: Needs,
    how: How,
    status: Annotated[
        list[str] | None,
        typer.Option(
            "--status",
            help="How a run's last attempt ended (failed, the default; timeout, out-of-memory, diverged, cancelled, "
            "lost, or all); can be repeated.",
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", help="Take an option of the launch back, such as timeout; can be repeated."),
    ] = None,
    out: OutOption = DEFAULT_OUT,
) -> None:
    """Run those of the last launch's runs again that failed, or ended as --status says; with other resources if asked.

    They are run as in that launch: every option of how that is not given here is the launch's.

    Examples:

      segbench grid retry --status failed

      segbench grid retry --status out-of-memory --memory-gb 64 --out /shared/results

      segbench grid retry --status timeout --without timeout
    """
    from segbench.engine.results.statuses import ENDED, Status
    from segbench.engine.scheduler import last_options
    from segbench.engine.scheduler import retry as run_retry
    from segbench.engine.scheduler.display import LaunchDisplay
    from segbench.errors import unknown_name

    ways = [way for way in ENDED if way is not Status.DONE]
    wished = status or [Status.FAILED]
    for name in wished:
        if name not in ways and name != "all":
            raise unknown_name("status", name, [*ways, "all"])
    wanted = ways if "all" in wished else [Status(name) for name in wished]
    with LaunchDisplay() as display:
        options = how.options(last_options(out, display.observe), without or ())
        runs, summary = run_retry(out, wanted, options, display.observe, needs.change())
    if summary is None:
        typer.echo(f"nothing to run: no run of the last launch in {out} is {' or '.join(wanted)}")
        return
    _tell_summary(summary, len(runs), out)


def _tell_summary(summary: Summary, runs: int, out: ResultsFolder) -> None:
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
    _wide: WideOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the launch until it ends; Ctrl-C leaves it running.")
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
    rows = found.frame()
    if format is not Format.TABLE:
        rows = rows.with_columns(**found.totals())
    print_table(rows, format)
    if format is Format.TABLE:
        counts = ", ".join(f"{n} {name}" for name, n in sorted(found.counts().items()))
        launch = f"a launch runs (process {found.pid} on {found.host})" if found.driven else "no launch runs"
        dashboard = found.launch.get("dashboard") if found.driven else None
        typer.echo(f"{counts or 'no runs'}; {launch}" + (f"; Ray's dashboard: {dashboard}" if dashboard else ""))


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the attempt has ended.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt; default the newest.")] = None,
    path: Annotated[bool, typer.Option("--path", help="Print where the log lies, not the log.")] = False,
    out: OutOption = DEFAULT_OUT,
) -> None:
    """Print the log of a run's newest attempt: all that the method and its library wrote.

    Examples:

      segbench grid logs 3fa9

      segbench grid logs 3fa9 --follow --out /shared/results
    """
    import contextlib

    from segbench.engine.results.status import find_log, log_text

    folder = find_log(out, run, attempt)
    if path:
        typer.echo(folder.job.log)
        return
    with contextlib.suppress(KeyboardInterrupt):
        for piece in log_text(folder, follow, out.launch.is_held):
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

    from segbench.engine.results.status import request_cancel
    from segbench.errors import SegbenchError

    request_cancel(out)
    deadline = time.monotonic() + wait
    while out.launch.is_held():
        if time.monotonic() > deadline:
            raise SegbenchError(f"asked the launch in {out} to stop; it has not within {wait:.0f} s")
        time.sleep(0.2)
    typer.echo("cancelled")
