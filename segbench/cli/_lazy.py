"""The tree of commands, of which only the branch that is asked for is imported."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from segbench.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = {
    "init": "Begin with your own images: a prepared dataset, and a grid file whose budgets fit this machine's time.",
    "grid": "Plan, launch and follow a grid: method x task x training tissue x seed.",
    "data": "Datasets: list them, prepare your own, look at them.",
    "methods": "List the methods, build their environments, check that they work here.",
    "models": "Apply trained models to new images; package, check and share them.",
    "gallery": "Show trained models as a static site, which programs read, too.",
    "analyze": "Turn results into answers: which method, what makes a tissue hard, what to train on.",
    "runs": "List the runs of a results folder, show one, predict or score it again, repeat it.",
    "store": "Check the results against their records, rebuild, merge and export them.",
    "evaluate": "Score predicted cells against true ones: AP and AR exactly as pycocotools computes them, and others.",
    "sweep": "Score predictions after growing or shrinking their cells by each radius.",
    "sql": "Ask the store anything; it cannot be changed this way.",
    "report": "Write the results as one HTML file that needs no server and no network.",
    "plot": "Draw one figure of the report, without a browser.",
    "help": "Explain the words that segbench uses.",
}
"""Each in the module of its name, with what the list of commands says of it."""
_MODULES = {"help": "words"}


class CommandGroup(TyperGroup):
    """A group of commands that answers a misspelt one with the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return a command's name, the command and what is left of the arguments.

        Raises
        ------
        SegbenchError
            There is no such command.
        """
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            raise unknown_name(f"command of '{ctx.command_path}'", name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class RootGroup(CommandGroup):
    """The root, which imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (Typer's signature)
        """Return the names in the order in which they are told."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (Typer's signature)
        """Return a command or group of commands; None where there is none of the name."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = make_command(cmd_name)
        return self.commands[cmd_name]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return what a shell may put for a word, without importing a command."""
        self._tell_names()
        return super().shell_complete(ctx, incomplete)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, without importing a command."""
        self._tell_names()
        super().format_help(ctx, formatter)

    def _tell_names(self) -> None:
        for name, told in COMMANDS.items():
            self.commands.setdefault(name, TyperCommand(name, help=told))


def every_command() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that does something, with its name's words."""
    for name in COMMANDS:
        yield from _below((name,), make_command(name))


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _below((*words, name), inner)
    else:
        yield words, command


def make_command(name: str) -> Any:
    """Return a command, or a group of commands, having imported its module."""
    module = importlib.import_module(f"segbench.cli.{_MODULES.get(name, name)}")
    holder = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    holder.callback()(_hold)
    if hasattr(module, "app"):
        holder.add_typer(module.app, name=name, help=COMMANDS[name], cls=CommandGroup)
    else:
        holder.command(name)(getattr(module, f"{name}_", None) or getattr(module, name))
    group = typer.main.get_command(holder)
    assert isinstance(group, TyperGroup)
    return group.commands[name]


def _hold() -> None:
    """Make the holder a group, whose one command keeps its name."""
