"""``segbench analyze``: every analysis of a results folder, or of the published scores, as a command."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.analysis import ANALYSES, Analysis, Option
from segbench.cli._common import (
    DEFAULT_OUT,
    Format,
    FormatOption,
    OutOption,
    WideOption,
    numbers_by_name,
    print_table,
    tell_coloured,
)

if TYPE_CHECKING:
    from segbench.analysis.result import Result

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


class Store(enum.StrEnum):
    """Where an analysis reads."""

    RESULTS = "results"
    PUBLISHED = "published"


StoreOption = Annotated[
    Store, typer.Option("--store", "-s", help="The results folder, or the published scores of 18 methods.")
]
PartOption = Annotated[
    str | None, typer.Option("--part", help="Print this further table of the analysis instead of the main one.")
]


def _command(analysis: Analysis) -> Callable[..., None]:
    """Return an analysis as a function that Typer can make a command of."""

    def run(out: Any, store: Store, format: Format, part: str | None = None, **given: Any) -> None:
        from segbench.analysis.results import Results

        results = Results.published() if store is Store.PUBLISHED else Results(out)
        _show(results.analyse(analysis.name, **_options(analysis, given)), format, part)

    shared: dict[str, tuple[Any, Any]] = {
        "out": (OutOption, DEFAULT_OUT),
        "store": (StoreOption, Store.RESULTS),
        "format": (FormatOption, Format.TABLE),
        "wide": (WideOption, False),
    }
    if analysis.parts:
        shared["part"] = (PartOption, None)
    own = {name: parameter for option in analysis.options for name, parameter in _parameters(option).items()}
    positional = {option.name for option in analysis.options if option.positional}
    ordered = sorted({**shared, **own}.items(), key=lambda item: (item[0] not in positional, item[0] not in shared))
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in ordered
        ]
    )
    run.__annotations__ = {name: annotation for name, (annotation, _) in ordered}
    run.__doc__ = analysis.about + (f"\n\nParts: {', '.join(analysis.parts)}." if analysis.parts else "")
    return run


def _parameters(option: Option) -> dict[str, tuple[Any, Any]]:
    """Return the parameters of a command that stand for an option: their annotations and defaults."""
    told = typer.Argument(help=option.about)
    if not option.positional:
        told = typer.Option(*(option.flags or (f"--{option.name.replace('_', '-')}",)), help=option.about)
    if option.many or option.pairs:
        kind: Any = list[str] | None
    else:
        kind = option.type if option.required or option.default is not None else option.type | None
    default = None if option.many else option.default
    found = {option.name: (Annotated[kind, told], inspect.Parameter.empty if option.required else default)}
    if option.none_flag:
        off = typer.Option(option.none_flag, help=f"{option.name.capitalize()} nothing.")
        found[f"no_{option.name}"] = (Annotated[bool, off], False)
    return found


def _options(analysis: Analysis, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given on the command line as the analysis takes it; what was left out is left to its defaults."""
    from segbench.errors import SegbenchError

    options: dict[str, Any] = {}
    for option in analysis.options:
        value = given[option.name]
        if given.get(f"no_{option.name}"):
            if value:
                raise SegbenchError(f"{option.flags[0]} and {option.none_flag} contradict each other: give one")
            options[option.name] = ()
        elif option.pairs and value:
            options[option.name] = numbers_by_name(value, option.flags[0], option.pairs)
        elif value is not None and value != []:
            options[option.name] = value
    return options


for _analysis in ANALYSES.values():
    app.command(_analysis.name)(_command(_analysis))


def _show(result: Result, format: Format, part: str | None = None) -> None:
    """Print the table and, for people, what it says; warnings go to standard error whatever the format."""
    from segbench.analysis.undertrained import mark_methods

    table = result.table if part is None else result.part(part)
    if format is Format.TABLE:
        # A person has the name that commands take, and no use for a column in which nothing stands
        empty = [
            name
            for name in table.columns
            if table.height and table[name].cast(str, strict=False).fill_null("").eq("").all()
        ]
        table = mark_methods(table).drop(["title", *empty], strict=False)
    print_table(table, format, title=f"{result.name}{'' if part is None else f', {part}'}: {result.source}")
    if format is Format.TABLE:
        for sentence in result.findings:
            typer.echo(f"- {sentence}")
    for sentence in result.warnings:
        tell_coloured(f"note: {sentence}", typer.colors.YELLOW)
