"""What the command groups share: options, tables and how errors are told."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.engine.results.folder import ResultsFolder

if TYPE_CHECKING:
    import polars as pl


class Format(enum.StrEnum):
    """How a table is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class MaskKind(enum.StrEnum):
    """What the numbers of mask files mean."""

    LABELS = "labels"
    BINARY = "binary"
    COLOUR = "colour"


_WIDE: ContextVar[bool | None] = ContextVar("wide", default=None)
"""Whether the command that runs shows every column of its tables; None where it has no such option."""


def tell_error(text: str) -> None:
    """Tell an error on standard error in one line, red where colours are wanted (NO_COLOR is not set)."""
    tell_coloured(f"error: {text}", typer.colors.RED)


def tell_coloured(text: str, colour: str) -> None:
    """Tell a line on standard error, in a colour where colours are wanted."""
    typer.secho(text, fg=None if os.environ.get("NO_COLOR") else colour, err=True)


def tell_notes(notes: Sequence[str]) -> None:
    """Tell on standard error what was left out or is suspected, a line each."""
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def results_folder(out: str | os.PathLike[str] | ResultsFolder) -> ResultsFolder:
    """Return the results folder that ``--out`` names; for a URL its mirror, with the newest snapshot of its store."""
    folder = ResultsFolder.open(out)
    if folder.url is None:
        return folder
    from segbench.engine.results.mirror import open_results

    return open_results(folder)


OutOption = Annotated[
    ResultsFolder,
    typer.Option(
        "--out", envvar="SEGBENCH_OUT", parser=results_folder, metavar="DIR|URL",
        help="The results folder, for the store, the runs and the report; or a URL (s3://...).",
    ),
]  # fmt: skip


def _keep_wide(value: bool) -> None:
    _WIDE.set(value)


WideOption = Annotated[
    bool,
    typer.Option("--wide", callback=_keep_wide, help="Show every column of a table, however narrow the terminal is."),
]
"""Beside ``FormatOption`` in every command that prints a table; ``print_table`` knows what was given."""
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="How to print the table.")]
DEFAULT_OUT = ResultsFolder(Path("segbench-results"))


def print_table(
    rows: Sequence[Mapping[str, Any]] | pl.DataFrame, format: Format = Format.TABLE, title: str | None = None
) -> None:
    """Print rows on standard output as a table for people, or as CSV or JSON for programs.

    Parameters
    ----------
    rows
        Dictionaries with the same keys, or a Polars frame.
    format
        ``table`` rounds floats to four significant digits; ``csv`` and ``json`` keep every digit.
    title
        Stands above a table; not printed in CSV and JSON.
    """
    if not isinstance(rows, Sequence):
        columns, rows = list(rows.columns), rows.to_dicts()
    else:
        columns = list(rows[0]) if rows else []
    if format is Format.JSON:
        import json

        sys.stdout.write(json.dumps(list(rows), indent=1, default=str) + "\n")
    elif format is Format.CSV:
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_plain(row[column]) for column in columns] for row in rows)
    else:
        from segbench.cli._tables import show_table

        show_table(rows, columns, title, wide=_WIDE.get())


def numbers_by_name(given: Sequence[str], flag: str, wanted: str) -> dict[str, float]:
    """Return the numbers of ``NAME=NUMBER`` texts by name; another text raises SegbenchError.

    Examples
    --------
    >>> numbers_by_name(["usability=0", "accuracy=2.5"], "--weight", "NAME=NUMBER")
    {'usability': 0.0, 'accuracy': 2.5}
    """
    from segbench.errors import SegbenchError

    numbers: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            numbers[name] = float(number)
        except ValueError:
            raise SegbenchError(f"{flag} takes {wanted}, found {text!r}") from None
    return numbers


def _plain(value: Any) -> Any:
    import json

    return json.dumps(value, default=str) if isinstance(value, list | tuple | dict) else value


def parse_settings(changes: list[str]) -> dict[str, Any]:
    """Return what ``--set NAME=VALUE`` says, with values read as YAML."""
    import yaml

    from segbench.errors import SegbenchError

    chosen: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not (name and equals):
            raise SegbenchError(f"--set {change!r}: write it as NAME=VALUE")
        try:
            chosen[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SegbenchError(f"--set {change!r}: the value is no YAML") from None
    return chosen
