"""How a launch is shown by the process that runs it: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from segbench.engine.grid import Run
from segbench.engine.results.status import describe_progress
from segbench.engine.scheduler.events import Event, Finished, Note, Opened, Progressed, Started
from segbench.terminal import drawn, plain

_PLAIN_EVERY_S = 20.0


class LaunchDisplay:
    """Shows the events of a launch; use it as a context manager and hand ``observe`` to the launch."""

    def __init__(self) -> None:
        self.console = Console(file=drawn(sys.stderr), soft_wrap=True)
        self._live: Live | None = None
        self._progress = Progress(
            TextColumn("[bold]runs[/bold]"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        self._bar = self._progress.add_task("runs", total=None, note="")
        self._total = 0
        self._ended = self._failed = 0
        self._began = time.monotonic()
        self._running: dict[str, tuple[str, str, float]] = {}
        self._told: dict[str, float] = {}
        self._preparing = ""

    def __enter__(self) -> LaunchDisplay:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def prepare(self, what: str, done: int, total: int) -> None:
        """Show how far the preparation of a dataset is."""
        what = plain(what)
        self._preparing = f"preparing {what}: {done}/{total}" if done < total else ""
        if self._live is None and (done == total or self._due(f"prepare {what}")):
            self.console.print(f"preparing {what}: {done}/{total}", markup=False, highlight=False)

    def observe(self, event: Event) -> None:
        """Take one event of the scheduler."""
        if isinstance(event, Note):
            self._say(event.text)
        elif isinstance(event, Opened):
            self._total = event.total
            self._progress.update(self._bar, total=event.total)
            self._say(
                f"{event.total} runs to do" + (f"; Ray's dashboard: {event.dashboard}" if event.dashboard else "")
            )
        elif isinstance(event, Started):
            self._running[event.run.id] = (_title(event.run), "starting", time.monotonic())
            if self._live is None:
                self._say(f"started  {_title(event.run)}")
        elif isinstance(event, Progressed):
            title, _, since = self._running.get(event.run.id, (_title(event.run), "", time.monotonic()))
            doing = describe_progress(dict(event.line))
            self._running[event.run.id] = (title, doing, since)
            if self._live is None and self._due(event.run.id):
                self._say(f"running  {title}: {doing}")
        elif isinstance(event, Finished):
            self._finished(event)

    def _finished(self, event: Finished) -> None:
        _, _, since = self._running.pop(event.run.id, ("", "", time.monotonic()))
        seconds = time.monotonic() - since
        outcome = event.outcome
        if event.retried:
            self._say(f"{outcome.status.value:8} {_title(event.run)}: {outcome.error}; {event.note}")
            return
        self._ended += 1
        good = outcome.status == "done"
        self._failed += not good
        rest = f"AP50 {outcome.ap50:.3f}" if outcome.ap50 is not None else (outcome.error or "")
        self._say(
            f"{outcome.status.value:8} {_title(event.run)} in {seconds:.0f} s: {rest}", style="green" if good else "red"
        )
        left = self._total - self._ended
        eta = (time.monotonic() - self._began) / self._ended * left
        note = f"{self._failed} failed, " if self._failed else ""
        self._progress.update(
            self._bar, completed=self._ended, note=f"{note}about {eta / 60:.0f} min left" if left else ""
        )

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(Text(plain(text), style=style or ""))

    def _due(self, key: str) -> bool:
        now = time.monotonic()
        if now - self._told.get(key, 0.0) < _PLAIN_EVERY_S:
            return False
        self._told[key] = now
        return True

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for title, doing, since in self._running.values():
            table.add_row(Text(title), Text(doing), f"{time.monotonic() - since:.0f} s")
        return Group(table, Text(self._preparing), self._progress)


def _title(run: Run) -> str:
    seed = f" seed {run.seed}" if run.seed else ""
    part = f" {run.train_images} images" if run.train_images else ""
    return plain(f"{run.method} / {run.task.name} / {run.train_tissue}{part}{seed} ({run.id})")
