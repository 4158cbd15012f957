"""The command line's root: puts the command groups together and tells errors in one line."""

from __future__ import annotations

import os
import sys

import typer

from segbench import __version__
from segbench.cli import analyze, data, evaluate, gallery, grid, methods, models, plot, report, runs, sql, store, sweep
from segbench.cli._common import tell_error
from segbench.errors import SegbenchError

app = typer.Typer(
    name="segbench",
    help="Train, compare and publish cell segmentation methods on equal terms.\n\n"
    "Start with [bold]segbench grid launch[/bold]: three methods on synthetic data, in minutes, "
    "then [bold]segbench report[/bold].",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(grid.app, name="grid")
app.add_typer(data.app, name="data")
app.add_typer(methods.app, name="methods")
app.add_typer(models.app, name="models")
app.add_typer(gallery.app, name="gallery")
app.add_typer(analyze.app, name="analyze")
app.add_typer(runs.app, name="runs")
app.add_typer(store.app, name="store")
app.command()(evaluate.evaluate)
app.command()(sweep.sweep)
app.command()(sql.sql)
app.command()(report.report)
app.command()(plot.plot)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"segbench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Hold the options of every command."""


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit status 2."""
    try:
        app()
    except SegbenchError as error:
        tell_error(str(error))
        sys.exit(2)
    except SystemExit as end:
        # Typer ends with 1 where the reader of a pipe (head, less) has gone, and leaves this behind: not an error
        sys.exit(0 if type(sys.stdout).__name__ == "PacifyFlushWrapper" else end.code)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: not an error, and the interpreter must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a cache that is a file, a disk that is full: what no command has told in its own words
        where = f" ({error.filename})" if error.filename else ""
        tell_error(f"{error.strerror or error}{where}")
        sys.exit(2)
