"""What was typed wrongly, in one line: the command, the word, the nearest right one, and where to read on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import typer

from segbench.errors import near_names

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's error for what was typed wrongly. It brings a Click of its own or takes Click's: this is either's."""
_TAKEN_BACK = {
    "-o": "the results folder is --out; -o is the file that 'plot' and 'report' write",
    "-f": "-f is --format, of commands that print a table; 'grid logs' goes on with --follow",
    "-p": "-p is --preset, of grids; a part of an analysis is --part",
    "-m": "-m is --method; a metric is --metric",
    "-w": "-w is --weight, of 'analyze ranking'; to watch is --watch",
}
"""Letters that meant something else in some commands before each had one meaning."""


def usage_line(error: Any) -> str | None:
    """Return what an error of Typer's says in one line; None where it is the help of a group without a command."""
    kind = type(error).__name__
    if kind == "NoArgsIsHelpError":
        return None
    ctx = getattr(error, "ctx", None)
    where = "segbench" if ctx is None else str(ctx.command_path)
    return f"{where}: {_told(error, kind, ctx)} (see '{where} --help')"


def _told(error: Any, kind: str, ctx: Any) -> str:
    if kind == "NoSuchOption":
        return _no_option(error.option_name, ctx)
    text = " ".join(error.format_message().split()).replace("Value error, ", "").removesuffix(".")
    if kind == "MissingParameter" and error.param is not None:
        return f"{_called(error.param)} is missing{_of_choices(error.param)}"
    param = getattr(error, "param", None)
    if param is not None:
        problem = " ".join(error.message.split()).replace("Value error, ", "").removesuffix(".")
        return f"{_called(param)}: {_nearest(_plain(problem))}"
    return text[:1].lower() + text[1:]


def _no_option(name: str, ctx: Any) -> str:
    if name in _TAKEN_BACK:
        return f"no option {name}: {_TAKEN_BACK[name]}"
    known = [one for param in ctx.command.params for one in (*param.opts, *param.secondary_opts)] if ctx else []
    near = near_names(name, (one for one in known if one.startswith("--")))
    return f"no option {name}" + (f"; did you mean {' or '.join(near)}?" if near else "")


def _called(param: Any) -> str:
    """Return a parameter as a person sees it: its longest option, or its argument's name in capitals."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    return str(max(param.opts, key=len))


def _of_choices(param: Any) -> str:
    choices = getattr(getattr(param, "type_descriptor", None), "choices", None)
    return f": one of {', '.join(map(str, choices))}" if choices else ""


def _nearest(problem: str) -> str:
    """Return a message about a wrong choice with the nearest right one.

    Examples
    --------
    >>> _nearest("'geojosn' is not one of 'coco', 'geojson', 'imagej'")
    "unknown 'geojosn'; did you mean geojson? Known: coco, geojson, imagej"
    """
    match = re.fullmatch(r"(.*) is not one of ('.*')", problem)
    if match is None:
        return problem
    found, known = match[1], re.findall(r"'([^']*)'", match[2])
    return f"unknown {found}; {hint(found.strip(chr(39)), known)}Known: {', '.join(known)}"


def hint(found: str, known: Iterable[str]) -> str:
    """Return the question after the nearest names, with a space behind it; empty where none is near."""
    near = near_names(found, known)
    return f"did you mean {' or '.join(near)}? " if near else ""


def _plain(problem: str) -> str:
    """Return a validator's message in the words of the other errors."""
    for pattern, words in (
        (r"Input should be a valid integer.*", "must be a whole number"),
        (r"Input should be a valid number.*", "must be a number"),
        (r"Input should be greater than or equal to ", "must be at least "),
        (r"Input should be less than or equal to ", "must be at most "),
        (r"Input should be ", "must be "),
        (r"(.*) is not a valid (?:integer|int)", r"must be a whole number, found \1"),
        (r"(.*) is not a valid float", r"must be a number, found \1"),
    ):
        problem = re.sub(f"^{pattern}", words, problem)
    return problem
