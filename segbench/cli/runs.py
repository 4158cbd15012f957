"""``segbench runs``: list runs, show all that is needed to repeat one, and repeat it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, WideOption, parse_settings, print_table
from segbench.cli._options import How, Needs, spread
from segbench.engine.results.folder import ResultsFolder

if TYPE_CHECKING:
    from segbench.engine.scheduler.repeat import Repeated, RunFacts

app = typer.Typer(no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A run's id, or as much of its beginning as names it.")]


@app.command("list")
def list_(
    method: Annotated[str | None, typer.Option("--method", "-m", help="Only this method.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only this task.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only runs that ended so: done, failed, ...")] = None,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """List the runs, latest first, with their score and training time.

    Examples:

      segbench runs list

      segbench runs list --method stardist --status failed --format json
    """
    from segbench.analysis.results import Results

    print_table(Results(out).runs(method=method, task=task, status=status), format)


@app.command()
def show(
    run_id: IdArgument,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Show everything that is needed to repeat a run: method, data, budget, settings, versions, machine, attempts,
    scores.

    Examples:

      segbench runs show 28832d

      segbench runs show 28832d --format json
    """
    import json

    from segbench.engine.scheduler.repeat import run_facts

    facts = run_facts(out, run_id)
    if format is Format.JSON:
        typer.echo(json.dumps(facts.to_dict(), indent=1, default=str))
        return
    rows = [{"what": what, "value": _text(value)} for what, value in _facts(facts)]
    print_table(rows, format)
    if format is Format.CSV:
        return
    print_table(list(facts.attempts), format, title="attempts")
    print_table(
        [{"phase": phase, "seconds": seconds} for phase, seconds in facts.phases.items()], format, title="phases"
    )
    pooled = [row for row in facts.scores if row["test_tissue"] == "all" and row["operation"] == "none"]
    print_table(pooled, format, title="scores, pooled over the test tissues (all: --format json)")


IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="RUN...", help="Ids of finished runs, or as much of them as names each.")
]


@app.command()
def evaluate(
    run_ids: IdsArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every finished run.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Score whole test images, too, beside the windows.")] = False,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Score the predictions of finished runs again, with the metrics of this segbench.

    Each gets a new row, with an id of its own, that names the run as its of_run (view runs_again); the run's own scores
    stay, and the analyses keep to them. Ends with status 1 where one could not be scored.

    Examples:

      segbench runs evaluate 28832d

      segbench runs evaluate --all --whole --out /shared/results
    """
    from segbench.engine.scheduler.again import finished_runs

    _redo(out, finished_runs(out, run_ids or (), every), "evaluate", format, {}, whole=whole)


@app.command()
def predict(
    run_ids: IdsArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every finished run.")] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another value of a setting of prediction; can be repeated."),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Without GPUs even where there are some.")] = False,
    timeout: Annotated[float | None, typer.Option(min=1, help="Stop each after so many seconds.")] = None,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Predict with the models of finished runs again, with other settings of prediction, and score that.

    Nothing is trained, and a setting that has to do with training is refused. Each gets a new row, with an id of its
    own, that names the run as its of_run (view runs_again); the run's own predictions and scores stay. One after the
    other, on this machine. Ends with status 1 where one failed.

    Examples:

      segbench runs predict 28832d --set min_size=30

      segbench runs predict 28832d 9fa0 --set flow_threshold=0.6 --set cellprob_threshold=-1
    """
    from segbench.engine.scheduler.again import finished_runs

    chosen = parse_settings(changes or [])
    _redo(out, finished_runs(out, run_ids or (), every), "predict", format, chosen, cpu=cpu, timeout_s=timeout)


@app.command()
def robustness(
    run_ids: IdsArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every finished run of a method.")] = False,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="blur, noise, dim, smaller, larger, swap or jpeg; default all."),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Without GPUs even where there are some.")] = False,
    timeout: Annotated[float | None, typer.Option(min=1, help="Stop each process after so many seconds.")] = None,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Apply the models of finished runs to test images that are degraded in steps, and score what they find.

    Nothing is trained. Each gets a new row, with an id of its own, that names the run as its of_run; 'segbench analyze
    robustness' shows what was found. One after the other, on this machine. Ends with status 1 where one failed.

    Examples:

      segbench runs robustness --all

      segbench runs robustness 28832d --kind blur --kind jpeg
    """
    from segbench.engine.scheduler.again import finished_runs

    chosen = finished_runs(out, run_ids or (), every, controls=False)
    _redo(out, chosen, "predict", format, {}, robustness=kinds or ["all"], cpu=cpu, timeout_s=timeout)


def _redo(
    out: ResultsFolder, run_ids: list[str], begins: Literal["predict", "evaluate"], format: Format,
    settings: dict[str, Any], **how: Any,
) -> None:  # fmt: skip
    import dataclasses

    from segbench.engine.scheduler.again import redo

    note = partial(typer.echo, err=True)
    rows = []
    for number, done in enumerate(redo(out, run_ids, begins, settings, note=note, **how), 1):
        note(f"{number}/{len(run_ids)} {done.method} on {done.task}, run {done.of_run}: {done.error or done.status}")
        rows.append(dataclasses.asdict(done))
    print_table(rows, format)
    if not all(row["status"] == "done" for row in rows):
        raise typer.Exit(1)


@app.command()
@spread
def repeat(
    run_id: IdArgument,
    how: How,
    needs: Needs,
    source: OutOption = DEFAULT_OUT,
    into: Annotated[
        Path | None, typer.Option("--into", help="Keep the repetition in this results folder; else it is not kept.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="How far a score may lie off; default 0 for methods without training, else 0.05."),
    ] = None,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Run one run again and compare its scores; ends with status 1 where they lie further apart than the tolerance.

    For a trained method the pooled scores without post-operation count; without training every score does. It is run
    without GPUs where the run had none, unless --gpu says otherwise.

    Examples:

      segbench runs repeat 28832d

      segbench runs repeat 28832d --out segbench-results --into again --tolerance 0.02
    """
    import tempfile

    from segbench.engine.scheduler.display import LaunchDisplay
    from segbench.engine.scheduler.repeat import repeat_run, run_facts

    facts = run_facts(source, run_id)
    options, resources = how.options(), needs.change()
    if how.cpu is None and not facts.run["num_gpus"]:
        options = options.changed(cpu=True)
    with tempfile.TemporaryDirectory(prefix="segbench-repeat-") as scratch, LaunchDisplay() as display:
        repeated = repeat_run(
            facts, ResultsFolder.open(into or scratch), options, display.observe, tolerance, resources
        )
    _tell(repeated, format)
    if not repeated.agrees:
        raise typer.Exit(1)


def _facts(facts: RunFacts) -> list[tuple[str, Any]]:
    run = facts.run
    budget = {name: value for name, value in facts.budget.items() if value is not None}
    return [
        *((name, run[name]) for name in ("run_id", "status", "error", "method", "method_revision", "task")),
        *(
            (name, run[name])
            for name in ("train_tissue", "seed", "channels", "target", "dataset", "dataset_fingerprint")
        ),
        ("dataset_source", facts.source or "not registered here"),
        ("budget", budget),
        *((name, run[name]) for name in ("settings", "environment", "lock_hash", "versions", "segbench_version")),
        *((name, run[name]) for name in ("git_commit", "host", "cpu_name", "num_cpus", "gpu_names", "num_gpus")),
        *(
            (name, run[name])
            for name in ("peak_memory_bytes", "peak_gpu_memory_bytes", "started_at", "ended_at", "folder")
        ),
    ]


def _text(value: Any) -> str | None:
    import json

    return json.dumps(value, default=str) if isinstance(value, dict | list) else None if value is None else str(value)


def _tell(repeated: Repeated, format: Format) -> None:
    import json
    from math import isinf

    rows = [
        {
            "test_task": d.test_task,
            "test_tissue": d.test_tissue,
            "operation": d.operation,
            "radius": d.radius,
            "metric": d.metric,
            "first": d.first,
            "again": d.again,
            "apart": None if isinf(d.apart) else d.apart,
            "counts": d.counts,
        }
        for d in repeated.differences
    ]  # fmt: skip
    context = [{"what": what, "first": _text(a), "again": _text(b)} for what, (a, b) in repeated.context.items()]
    if format is Format.JSON:
        ids = {"run_id": repeated.first.run["run_id"], "again_run_id": repeated.again.run["run_id"]}
        status = {"status": repeated.again.run["status"], "error": repeated.again.run["error"]}
        verdict = {"agrees": repeated.agrees, "tolerance": repeated.tolerance}
        typer.echo(json.dumps({**ids, **status, **verdict, "differs": context, "scores": rows}, indent=1, default=str))
        return
    if format is Format.CSV:
        print_table(rows, format)
        return
    pooled = [row for row in rows if row["test_tissue"] == "all" and row["operation"] == "none"]
    print_table(pooled, format, title="scores, pooled over the test tissues (all: --format json)")
    print_table(context, format, title="what else differs")
    times = [facts.phases.get("train") for facts in (repeated.first, repeated.again)]
    if None not in times:
        typer.echo(f"training took {times[0]:.1f} s, and {times[1]:.1f} s again")
    if repeated.again.run["status"] != "done":
        typer.echo(f"the repetition ended as {repeated.again.run['status']}: {repeated.again.run['error']}")
    worst = max((d.apart for d in repeated.differences if d.counts), default=0.0)
    agree = "agree" if repeated.agrees else "do not agree"
    typer.echo(f"the two {agree}: scores that count lie at most {worst:.4g} apart, {repeated.tolerance:g} is allowed")
