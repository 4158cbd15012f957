"""How long work is followed: live on a terminal, in plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from segbench.terminal import drawn, plain

if TYPE_CHECKING:
    from segbench.engine.data.source import ProgressCallback
    from segbench.engine.results.folder import ResultsFolder
    from segbench.engine.results.status import LaunchState

_SILENT_S = 15.0


def watch_launch(out: ResultsFolder, every_s: float) -> None:
    """Show where the launch of a results folder stands until it has ended, or the user has seen enough."""
    from segbench.engine.results.status import launch_state

    console = Console(file=drawn(sys.stdout), soft_wrap=True)
    state = launch_state(out)
    live = Live(_watched(state), console=console, auto_refresh=False) if console.is_terminal else None
    told = ""
    with live or contextlib.nullcontext(), contextlib.suppress(KeyboardInterrupt):
        while True:
            if live is not None:
                live.update(_watched(state), refresh=True)
            elif state.line() != told:
                told = state.line()
                console.print(plain(told), markup=False, highlight=False)
            if not state.driven:
                return
            time.sleep(every_s)
            state = launch_state(out)


@contextlib.contextmanager
def transfer(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show on standard error how much of a file has come; gives what is told the bytes and how many there are."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda came, total: bar.update(task, completed=came, total=total)


def _watched(state: LaunchState) -> Group:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for column in ("run", "method", "task", "train_tissue", "seed", "doing", "log"):
        table.add_column(column, overflow="fold")
    for row in state.running:
        cells = [row[key] for key in ("run_id", "method", "task", "train_tissue", "seed", "doing", "log")]
        table.add_row(*(Text("-" if cell is None else plain(str(cell))) for cell in cells))
    silent = f"; silent for {state.age_s:.0f} s" if state.driven and state.age_s > _SILENT_S else ""
    return Group(table, Text(plain(state.line() + silent), style="bold"))


@contextlib.contextmanager
def split_progress(name: str, doing: str = "preparing", did: str = "prepared") -> Iterator[ProgressCallback]:
    """Show a bar for each split on a terminal, and a line for each finished split elsewhere; on standard error."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=drawn(sys.stderr), soft_wrap=True)
    if not console.is_terminal:

        def tell(split: str, done: int, total: int) -> None:
            if done == total:
                typer.echo(f"{did} {name} {split}: {total} images", err=True)

        yield tell
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars: dict[str, Any] = {}

        def draw(split: str, done: int, total: int) -> None:
            if split not in bars:
                bars[split] = progress.add_task(plain(f"{doing} {name} {split}"), total=total)
            progress.update(bars[split], completed=done)

        yield draw
