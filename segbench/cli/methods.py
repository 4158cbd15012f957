"""``segbench methods``: the cards of the methods, their environments, and whether they work here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.cli._common import Format, FormatOption, print_table

if TYPE_CHECKING:
    from segbench.methods.card import Card

app = typer.Typer(help="List the methods, build their environments, check that they work here.", no_args_is_help=True)

GpuOption = Annotated[
    bool | None,
    typer.Option("--gpu/--cpu", help="The build for NVIDIA GPUs or for processors; by default what this machine has."),
]


@app.command("list")
def list_methods(
    format: FormatOption = Format.TABLE,
    implemented: Annotated[bool, typer.Option("--implemented", help="Only those that can be run.")] = False,
) -> None:
    """List every installed method with its published budget.

    Examples:

      segbench methods list

      segbench methods list --implemented --format csv
    """
    from segbench.engine.grid.cards import all_cards

    cards = [card for card in all_cards().values() if card.implemented or not implemented]
    print_table([_row(card) for card in cards], format)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The method, as `segbench methods list` names it.")],
    format: FormatOption = Format.TABLE,
) -> None:
    """Show all that is known of one method: budget, settings, libraries with versions, score rule, sources.

    Examples:

      segbench methods show stardist

      segbench methods show cellpose --format json
    """
    from segbench.engine.grid.cards import distribution_of, get_card
    from segbench.engine.run.environments import lock_versions

    card = get_card(name)
    versions = lock_versions(card.environment) if card.implemented else {}
    facts = dict(_facts(card, versions), distribution=distribution_of(name))
    if format is Format.JSON:
        import json

        typer.echo(json.dumps(facts, indent=1))
    else:
        print_table([{"field": field, "value": _text(value)} for field, value in _flat(facts)], format)


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
    from segbench.engine.grid.cards import all_cards
    from segbench.engine.run.environments import ensure, environment_names

    cards = all_cards()
    known = environment_names()
    wanted: dict[str, None] = {}
    for name in names or [card.environment for card in cards.values() if card.implemented]:
        wanted[cards[name].environment if name in cards and name not in known else _environment(name, known, cards)] = (
            None
        )
    for environment in wanted:
        built = ensure(environment, gpu=_has_gpu() if gpu is None else gpu, progress=_say)
        typer.echo(f"{environment}: {built.python} ({len(built.versions)} packages, lock {built.lock_hash})")


@app.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Methods; all that can be run by default.")] = None,
    gpu: GpuOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Train each method for a few steps on drawn discs and predict, in its own environment and process.

    Ends with status 1 where one fails. After so few steps a method may find nothing: that is no failure.

    Examples:

      segbench methods check

      segbench methods check stardist cellpose
    """
    import dataclasses

    from segbench.engine.grid.cards import all_cards, method_object
    from segbench.engine.run.check import check_method

    wanted = names or [name for name, card in all_cards().items() if card.implemented]
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
def run(
    job: Annotated[Path, typer.Argument(help="A job file, such as runs/ID/attempt-001/job.json.")],
    gpu: GpuOption = None,
) -> None:
    """Run one job again by hand, in its method's environment: no Ray, no store.

    Progress comes as JSON lines; the log, the model, the predictions and result.json go where the job says. The
    exit status is the run's: 0 done, 1 failed.

    Examples:

      segbench methods run segbench-results/runs/3f2a.../attempt-001/job.json
    """
    import subprocess

    from segbench.engine.grid.cards import all_cards, method_object
    from segbench.engine.run.environments import ensure, subprocess_env
    from segbench.errors import SegbenchError, unknown_name
    from segbench.methods.job import Job

    try:
        read = Job.read(job)
    except (OSError, ValueError) as error:
        raise SegbenchError(f"not a job file: {error}") from None
    environments = {method_object(name): card.environment for name, card in all_cards().items() if card.implemented}
    wanted = read.method
    if wanted not in environments:
        raise unknown_name("method class", wanted, environments)
    environment = ensure(environments[wanted], gpu=_has_gpu() if gpu is None else gpu, progress=_say)
    command = read.command(job, environment.python)
    raise typer.Exit(subprocess.run(command, env=subprocess_env(environment, (wanted,)), check=False).returncode)


def _row(card: Card) -> dict[str, Any]:
    return {
        "method": card.name,
        "title": card.title,
        "category": card.category,
        "environment": card.environment,
        "trained": card.trained,
        "epochs": card.budget.epochs,
        "iterations": card.budget.iterations,
        "batch": card.budget.batch_size,
        "gpus": card.resources.num_gpus,
        "usability": card.usability.composite,
        "state": "ready" if card.implemented else "planned",
    }


def _facts(card: Card, versions: dict[str, str]) -> dict[str, Any]:
    import dataclasses

    facts = dataclasses.asdict(card)
    facts["libraries"] = {name: versions.get(name) for name in card.libraries}
    return facts


def _flat(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _environment(name: str, known: list[str], cards: dict[str, Card]) -> str:
    from segbench.errors import unknown_name

    named = {card.environment for card in cards.values() if card.implemented}
    if name in known or name in named:
        return name
    raise unknown_name("environment or method", name, {*known, *cards})


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
