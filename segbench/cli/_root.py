"""The command line's root: finds the command that is asked for, and tells errors in one line."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from segbench import __version__
from segbench.cli._common import tell_error
from segbench.cli._lazy import RootGroup
from segbench.cli._mistakes import UsageError, usage_line
from segbench.errors import SegbenchError
from segbench.terminal import guard

app = typer.Typer(
    name="segbench",
    cls=RootGroup,
    help="Train, compare and publish cell segmentation methods on equal terms.\n\n"
    "Start with [bold]segbench grid launch[/bold]: three methods on synthetic data, in minutes, "
    "then [bold]segbench report[/bold]. With images of your own: [bold]segbench init[/bold]. "
    "What the words mean: [bold]segbench help words[/bold].",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"segbench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Hold the options of every command."""


def run() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit status 2."""
    guard()
    try:
        sys.exit(_status(app(prog_name="segbench", standalone_mode=False)))
    except SegbenchError as error:
        tell_error(str(error))
        sys.exit(2)
    except UsageError as error:
        line = usage_line(error)
        if line is None:  # a group without a command: its help
            error.show()  # type: ignore[attr-defined]
        else:
            tell_error(line)
        sys.exit(2)
    except typer.Abort:
        tell_error("stopped")
        sys.exit(1)
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


def _status(returned: Any) -> int:
    """Return the exit status of what Typer gives back: a command's value, or the status that it has raised."""
    return returned if isinstance(returned, int) else 0
