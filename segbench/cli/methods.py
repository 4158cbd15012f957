"""``segbench methods``: the cards of the methods, their environments, and whether they work here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, WideOption, parse_settings, print_table
from segbench.cli._lazy import CommandGroup

if TYPE_CHECKING:
    from segbench.engine.results.measurements import Measurement
    from segbench.engine.run.installed import Installed
    from segbench.methods.card import Card

app = typer.Typer(no_args_is_help=True)

weights_app = typer.Typer(
    help="Released weights: list them, fetch them into the cache, add a file that was downloaded elsewhere.",
    no_args_is_help=True,
)
app.add_typer(weights_app, name="weights", cls=CommandGroup)

GpuOption = Annotated[
    bool | None,
    typer.Option("--gpu/--cpu", help="The build for NVIDIA GPUs or for processors; by default what this machine has."),
]


@app.command("list")
def list_methods(
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
    implemented: Annotated[bool, typer.Option("--implemented", help="Only those that can be run.")] = False,
) -> None:
    """List every installed method with its published budget, and those that are broken with the reason.

    Examples:

      segbench methods list

      segbench methods list --implemented --format csv
    """
    from segbench.engine.run.installed import installed_methods

    found = [one for one in installed_methods() if one.state == "ready" or not implemented]
    rows = [_row(one) for one in found]
    if format is Format.TABLE:
        rows = [{name: value for name, value in row.items() if name != "reason"} for row in rows]
    print_table(rows, format)
    if format is Format.TABLE:
        for one in found:
            if one.reason:
                typer.echo(f"broken: {one.reason}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The method, as `segbench methods list` names it.")],
    differences: Annotated[
        bool,
        typer.Option("--deviations", help="Show where it differs from the study's paper and scripts, and why."),
    ] = False,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Show all that is known of one method: budget, settings with what they mean and allow, versions, sources.

    Examples:

      segbench methods show stardist

      segbench methods show solov2 --deviations

      segbench methods show cellpose --format json
    """
    from segbench.engine.grid.cards import distribution_of, get_card
    from segbench.engine.run.environments import lock_versions, problem_of

    card = get_card(name)
    if differences:
        from segbench.methods.deviations import deviations

        print_table([vars(one) for one in deviations(card)], format, title=f"{card.title}: deviations")
        return
    versions = lock_versions(card.environment) if problem_of(card.environment) is None else {}
    facts = dict(_facts(card, versions), distribution=distribution_of(name))
    if format is Format.JSON:
        import json

        typer.echo(json.dumps(facts, indent=1))
        return
    settings = facts.pop("settings") if format is Format.TABLE else {}
    print_table([{"field": field, "value": _text(value)} for field, value in _flat(facts)], format)
    if settings:
        rows = [{"setting": name, **{k: _text(v) for k, v in told.items()}} for name, told in settings.items()]
        print_table(rows, format, title="Settings")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new method's name: lower case, digits and hyphens.")],
    to: Annotated[Path, typer.Option("--to", help="The folder in which its own folder is made.")] = Path(),
) -> None:
    """Write a small package with a method that trains: its module, entry points, lock and test.

    Examples:

      segbench methods new bright-pixels

      segbench methods new bright-pixels --to ~/methods
    """
    from segbench.engine.run.new_method import write_package

    folder = write_package(name, to)
    typer.echo(f"{folder}: {', '.join(str(p.relative_to(folder)) for p in sorted(folder.rglob('*.*')) if p.is_file())}")
    typer.echo(f"next: pip install -e {folder}, segbench methods check {name}")


@app.command()
def install(
    names: Annotated[
        list[str] | None, typer.Argument(help="Environments or methods; all that can be run by default.")
    ] = None,
    gpu: GpuOption = None,
) -> None:
    """Build the environments in which methods run, ahead of the first run that needs them.

    Examples:

      segbench methods install

      segbench methods install stardist

      segbench methods install tensorflow --gpu
    """
    from segbench.engine.run.environments import ensure
    from segbench.engine.run.installed import environments_of

    for environment in environments_of(names):
        built = ensure(environment, gpu=_has_gpu() if gpu is None else gpu, progress=_say)
        typer.echo(f"{environment}: {built.python} ({len(built.versions)} packages, lock {built.lock_hash})")


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Methods; all that can be run by default.")] = None,
    gpu: GpuOption = None,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Train each method for a few steps on drawn discs and predict, in its own environment and process.

    Ends with status 1 where one fails. After so few steps a method may find nothing: that is no failure.

    Examples:

      segbench methods check

      segbench methods check stardist cellpose
    """
    import dataclasses

    from segbench.engine.grid.cards import method_object
    from segbench.engine.run.check import check_method
    from segbench.engine.run.installed import installed_methods

    wanted = names or [one.name for one in installed_methods() if one.state == "ready"]
    for name in wanted:
        method_object(name)  # a misspelt or planned name ends this before anything is built
    results = []
    for name in wanted:
        _say(f"{name}: checking")
        results.append(check_method(name, gpu=_has_gpu() if gpu is None else gpu, progress=_say))
    print_table(
        [{**dataclasses.asdict(r), "ok": "ok" if r.ok else "failed", "seconds": round(r.seconds, 1)} for r in results],
        format,
    )
    if not all(result.ok for result in results):
        raise typer.Exit(1)


@app.command()
def measure(
    names: Annotated[list[str] | None, typer.Argument(help="Methods; all that can be run by default.")] = None,
    gpu: GpuOption = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Windows a training step; give two. By default 2 and 4, half and all on a GPU."),
    ] = None,
    side: Annotated[int, typer.Option(min=64, help="Of a window, pixels: a multiple of 64.")] = 256,
    channels: Annotated[int, typer.Option(min=1, max=3, help="Of a window.")] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Another value of a setting; of one method."),
    ] = None,
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Measure memory and windows a second of training and prediction: a few real steps at two batch sizes.

    Each method runs through its own library on drawn cells, a process for each stage and size. The rows go into the
    table measurements of the results folder's store; plans and launches expect times from them, and tell of runs
    that ask for less memory. On a GPU the memory is what the library's own counter tells, else the process's.

    Examples:

      segbench methods measure stardist cellpose

      segbench methods measure --gpu --batch 4 --batch 8 --out /shared/results

      segbench methods measure segment-anything --set model=vit_b --set points_per_side=16
    """
    from segbench.engine.grid.cards import get_card, method_object
    from segbench.engine.results.measurements import keep_measurement
    from segbench.engine.results.store import StoreWriter
    from segbench.engine.run.installed import installed_methods
    from segbench.engine.run.measure import What, default_batches, measure_method
    from segbench.engine.scheduler.gpus import smallest_gpu_gb
    from segbench.errors import SegbenchError
    from segbench.methods.setting import check_values

    settings = parse_settings(changes or [])
    if settings and len(names or []) != 1:
        raise SegbenchError("--set is for one method's settings: name one method")
    wanted = names or [one.name for one in installed_methods() if one.state == "ready"]
    for name in wanted:
        method_object(name)  # a misspelt or planned name ends this before anything is built
        check_values("--set", get_card(name).settings, settings)
    if out.url is not None:
        raise SegbenchError(f"{out} is not on this machine: measure into a local --out, then 'segbench store merge' it")
    on_gpu = _has_gpu() if gpu is None else gpu
    memory = int(smallest_gpu_gb() * 1e9) or None if on_gpu else None
    found, failed = [], []
    for name in wanted:
        batches = tuple(sorted(set(batch))) if batch else default_batches(get_card(name), gpu=on_gpu)
        try:
            rows = measure_method(name, What(batches, side, channels, on_gpu, memory, settings), _say)
        except SegbenchError as error:
            failed.append(f"{name}: {error}")
            continue
        keep_measurement(out, rows)
        StoreWriter(out).add_measurements()
        found.extend(rows)
    print_table([_measured(row) for row in found], format)
    for line in failed:
        _say(line)
    if failed:
        raise typer.Exit(1)


@app.command()
def run(
    job: Annotated[Path, typer.Argument(help="A job file; every attempt leaves one in its folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="The new folder for what it writes.")] = None,
    gpu: GpuOption = None,
) -> None:
    """Run one job again by hand, in its method's environment: no Ray, no store.

    Progress comes as JSON lines; the job, the log, the model, the predictions and result.json go into a new folder:
    that of --to, or the job's own where nothing is in it yet, else job-RUN here. An attempt is never written to. The
    exit status is the run's: 0 done, 1 failed.

    Examples:

      segbench methods run segbench-results/runs/3f2a.../attempt-001/job.json

      segbench methods run segbench-results/runs/3f2a.../attempt-001/job.json --to again
    """
    import subprocess

    from segbench.engine.grid.cards import get_card, method_of
    from segbench.engine.run.by_hand import job_by_hand
    from segbench.engine.run.environments import ensure, subprocess_env
    from segbench.methods.job import Job

    new = job_by_hand(job, to)
    read = Job.read(new)
    card = get_card(method_of(read.method))
    environment = ensure(card.environment, gpu=_has_gpu() if gpu is None else gpu, progress=_say)
    _say(f"writing into {new.parent}")
    command, variables = read.command(new, environment.python), subprocess_env(environment, (read.method,))
    raise typer.Exit(subprocess.run(command, env=variables, cwd=new.parent, check=False).returncode)


@weights_app.command("list")
def list_weights(format: FormatOption = Format.TABLE, _wide: WideOption = False) -> None:
    """List the released weights that methods can start from: for whom, whether they are here, size, licence, source.

    A training starts from them with `segbench grid launch --start generalist` (or published-backbone); with --epochs 0
    a generalist is applied as it is. Where no checksum is published, that of the first file that came is kept.

    Examples:

      segbench methods weights list

      segbench methods weights list --format json
    """
    from segbench.methods.weights import RELEASED

    rows = [
        {
            "name": one.name,
            "methods": ", ".join(one.methods),
            "here": "yes" if one.there() else "no",
            "kind": one.kind,
            "megabytes": one.megabytes,
            "licence": one.licence,
            "sha256": one.sha256,
            "url": one.url,
            "file": str(one.path),
        }
        for one in RELEASED.values()
    ]
    print_table(rows, format)


@weights_app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Weights, as `segbench methods weights list` names them.")],
) -> None:
    """Download released weights into the cache and verify them; size and licence are said before.

    Examples:

      segbench methods weights fetch stardist-2d-versatile-fluo

      segbench methods weights fetch cellpose-cyto3 cellpose-cyto3-size
    """
    from segbench.cli._progress import transfer
    from segbench.methods.weights import fetch as fetch_weights
    from segbench.methods.weights import released

    for one in [released(name) for name in names]:
        size = "size not told" if one.megabytes is None else f"{one.megabytes:,.0f} MB"
        _say(f"{one.name}: {size}, licence {one.licence}, from {one.url}")
        with transfer(one.name) as told:
            sha256 = fetch_weights(one.name, told)
        typer.echo(f"{one.name}: {one.path}, SHA-256 {sha256}")


@weights_app.command("add")
def add_weights(
    name: Annotated[str, typer.Argument(help="Weights, as `segbench methods weights list` names them.")],
    file: Annotated[Path, typer.Argument(help="The file, downloaded elsewhere.")],
) -> None:
    """Take a local file as released weights, once it is found to be the published one; it is copied into the cache.

    Example:

      segbench methods weights add stardist-2d-versatile-fluo ~/Downloads/python_2D_versatile_fluo.zip
    """
    from segbench.methods.weights import add, released

    sha256 = add(name, file)
    one = released(name)
    told = "the published file" if one.sha256 else "no checksum is published: this one is kept and compared from now on"
    typer.echo(f"{one.name}: {one.path}, SHA-256 {sha256} ({told}); licence {one.licence}")


def _measured(row: Measurement) -> dict[str, Any]:
    return {
        "method": row.method,
        "stage": row.stage,
        "batch": row.batch,
        "device": row.device,
        "windows_per_s": None if row.windows_per_s is None else float(f"{row.windows_per_s:.3g}"),
        "memory_gb": None if row.bytes is None else round(row.bytes / 1e9, 2),
    }


def _row(one: Installed) -> dict[str, Any]:
    card = one.card
    return {
        "method": one.name,
        "title": card and card.title,
        "category": card and card.category,
        "environment": card and card.environment,
        "trained": card and card.trained,
        "epochs": card and card.budget.epochs,
        "iterations": card and card.budget.iterations,
        "batch": card and card.budget.batch_size,
        "gpus": card and card.resources.num_gpus,
        "usability": card and card.usability.composite,
        "state": one.state,
        "distribution": one.distribution,
        "reason": one.reason,
    }


def _facts(card: Card, versions: dict[str, str]) -> dict[str, Any]:
    import dataclasses

    facts = {field.name: getattr(card, field.name) for field in dataclasses.fields(card)}
    facts |= {name: dataclasses.asdict(facts[name]) for name in ("budget", "resources", "usability")}
    facts["start"] = None if card.start is None else dataclasses.asdict(card.start)
    facts["libraries"] = {name: versions.get(name) for name in card.libraries}
    facts["check_settings"] = dict(card.check_settings)
    facts["settings"] = {
        name: {
            "default": setting.default,
            "unit": setting.unit,
            "allowed": setting.allowed(),
            "of": "prediction" if setting.prediction or not card.trained else "training",
            "meaning": setting.doc,
        }
        for name, setting in card.settings.items()
    }
    return facts


def _flat(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _text(value: Any) -> str:
    """Return a value as text, so that a column of them stands on the left."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "-" if value is None or value == "" else str(value)


def _has_gpu() -> bool:
    import shutil

    return shutil.which("nvidia-smi") is not None


def _say(line: str) -> None:
    typer.echo(line, err=True)
