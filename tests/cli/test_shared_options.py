"""The options that commands share: declared once, and none forgotten."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from segbench.cli import grid, runs
from segbench.cli._options import OPTION_OF, Asked, How, Needs, spread
from segbench.engine.grid import ResourceChange
from segbench.engine.scheduler import LaunchOptions, Retries
from segbench.errors import SegbenchError


@dataclasses.dataclass(frozen=True)
class Group:
    size: Annotated[int, typer.Option("--size", "-s", min=1, help="How large.")] = 3
    path: Annotated[Path | None, typer.Option("--path")] = None


def command(name: Annotated[str, typer.Argument()], group: Group, loud: bool = False) -> None:
    """Say it."""
    typer.echo(f"{name} {group} {loud}")


def names(group: type) -> set[str]:
    return {field.name for field in dataclasses.fields(group)}


def test_every_option_of_a_launch_can_be_typed() -> None:
    assert set(OPTION_OF) == names(How)
    assert set(OPTION_OF.values()) == set(LaunchOptions.model_fields)
    assert names(Needs) == set(ResourceChange.model_fields)


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        (grid.plan, (Asked, Needs, How)),
        (grid.launch, (Asked, Needs, How)),
        (grid.retry, (Needs, How)),
        (runs.repeat, (Needs, How)),
    ],
)
def test_the_commands_take_the_same_options(command: object, groups: tuple[type, ...]) -> None:
    taken = inspect.signature(command).parameters  # type: ignore[arg-type]
    for group in groups:
        assert names(group) <= set(taken)


def test_what_is_not_given_stays_as_it_was() -> None:
    last = LaunchOptions(cpu=True, timeout_s=5, labels={"a": "b"}, retries=Retries(failed=3, lost=1))
    assert How().options() == LaunchOptions()
    assert How().options(last) == last
    assert How(cpu=False, inline=True, label=["c=d"], retries=0).options(last) == last.changed(
        cpu=False, executor="inline", labels={"c": "d"}, retries=Retries(failed=0, lost=1)
    )
    assert How().options(last, without=["timeout", "--label", "retries"]) == LaunchOptions(cpu=True)
    for how, without, words in (
        (How(label=["a"]), (), "KEY=VALUE"),
        (How(), ("time",), "did you mean timeout"),
    ):
        with pytest.raises(SegbenchError, match=words):
            how.options(last, without)


def test_a_command_takes_the_fields_of_its_groups_as_options() -> None:
    app = typer.Typer()
    app.command()(spread(command))
    assert "x Group(size=3, path=None) False" in _output(app, "x")
    assert "x Group(size=4, path=PosixPath('p')) True" in _output(app, "-s", "4", "x", "--path", "p", "--loud")
    assert "How large." in _output(app, "--help")
    assert CliRunner().invoke(app, ["x", "--size", "0"]).exit_code == 2


def _output(app: typer.Typer, *words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout
