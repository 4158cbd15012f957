"""How the application of a model is followed: a bar on a terminal, a line an image elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from segbench.terminal import drawn, plain

if TYPE_CHECKING:
    from segbench.engine.models.applying import Applied, Progress
    from segbench.engine.models.several import Agreed

_EVERY_S = 30.0


class ApplyDisplay:
    """Tells on standard error which image is segmented, how far all is, and how long the rest takes."""

    def __init__(self) -> None:
        console = Console(file=drawn(sys.stderr), soft_wrap=True)
        what, left = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[left]}")
        columns = what, BarColumn(), TaskProgressColumn(), left
        self._bars = Bars(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = None if self._bars is None else self._bars.add_task("", total=1.0, left="")
        self._last = time.monotonic()
        self._left: float | None = None
        self._noted: set[str] = set()
        self._repeated = 0

    def __enter__(self) -> ApplyDisplay:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        if self._repeated:
            self.note(f"note: the same was noted {self._repeated:,} times more: images.csv has each image's notes")

    def note(self, text: str) -> None:
        """Tell a line of its own."""
        if self._bars is not None:
            self._bars.console.print(plain(text), markup=False, highlight=False)
        else:
            typer.echo(text, err=True)

    def progress(self, how: Progress) -> None:
        """Take in how far the work is."""
        self._left = how.left_s
        what = plain(f"{how.number}/{how.n_images} {how.image.path.name}")
        if self._bars is not None and self._task is not None:
            left = "" if how.left_s is None else f"{_time(how.left_s)} left"
            self._bars.update(self._task, description=what, completed=how.share, left=left)
        elif time.monotonic() - self._last > _EVERY_S and how.left_s is not None:
            self._last = time.monotonic()
            self.note(f"{what}: {how.share:.0%} of all, {_time(how.left_s)} left")

    def told(self, one: Applied) -> Applied:
        """Tell what became of an image; return it."""
        self._last = time.monotonic()
        if one.error:
            self.note(f"{one.name}: failed: {one.error}")
        elif not one.earlier:
            self.note(f"{one.name}: {one.cells:,} cells in {one.seconds:.1f} s")
            for note in one.notes:
                self._repeated += note in self._noted
                if note not in self._noted:
                    self._noted.add(note)
                    self.note(f"  note: {note}")
        return one

    def agreed(self, one: Agreed) -> None:
        """Tell how far the models agree on an image."""
        self.note(f"consensus, {one.name}: {one.cells:,} cells, agreement {one.agreement:.3f}")


def _time(seconds: float) -> str:
    """Return a time in words.

    Examples
    --------
    >>> _time(12.2), _time(200), _time(7300)
    ('12 s', '3 min', '2 h 2 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
