"""Lays tables out for people: within a terminal's width by leaving columns out, in full on a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_GAP = 3
"""Spaces between two columns."""
_EDGES = 2
"""Spaces at the edges of a table."""
_NARROWEST = 24
"""A text of several words is broken into lines, at its words, of no fewer characters than this."""
_ANY_WIDTH = 1_000_000
_TELLING = ("method", "task", "test_task", "name", "status")
"""Columns without which a row cannot be read."""
_WORDS = {
    "tissue": "tissue",
    "train_tissue": "tissue",
    "test_tissue": "tissue",
    "windows": "window",
    "suite": "suite",
    "layout": "layout",
    "train_s": "T",
    "T": "T",
    "fingerprint": "fingerprint",
}
"""What only segbench means by a column's name, by the word that the glossary explains."""


def show_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str | None = None, *, wide: bool | None = False
) -> None:
    """Print a table on standard output.

    On a terminal columns that do not fit are left out, and named below the table; ``wide`` keeps them all. On a pipe
    every row is one line.

    Parameters
    ----------
    rows
        Values by column.
    columns
        In order, the most telling first.
    title
        Stands above.
    wide
        Keep every column, and fold what does not fit; None where the command has no option for that.
    """
    from rich.console import Console

    texts = [[short(row[column]) for column in columns] for row in rows]
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else _ANY_WIDTH
    shown = fitting(columns, texts, _ANY_WIDTH if wide else width)
    numeric = [any(isinstance(row[column], int | float) for row in rows) for column in columns]
    table = _table(columns, texts, shown, numeric, title, one_line=not terminal)
    # with a width alone Rich takes a terminal that says that it is dumb to have 80 columns
    console = Console(width=width, height=25, soft_wrap=not terminal)
    console.print(table)
    if not rows:
        console.print("no rows")
    words = explained([columns[n] for n in shown]) if terminal and rows else []
    if words:
        console.print(f"the words: segbench help {' '.join(words)}", style="dim", markup=False)
    left = [column for n, column in enumerate(columns) if n not in shown]
    if left:
        hint = "" if wide is None else " (--wide shows them)"
        console.print(f"not shown for lack of room: {', '.join(left)}{hint}", style="dim", markup=False)


def explained(columns: Sequence[str]) -> list[str]:
    """Return the words among columns' names that only segbench uses so, as 'segbench help' takes them.

    Examples
    --------
    >>> explained(["split", "tissue", "windows", "cells_nuclear"]), explained(["method", "train_s"])
    (['tissue', 'window'], ['T'])
    """
    return list(dict.fromkeys(_WORDS[column] for column in columns if column in _WORDS))


def fitting(columns: Sequence[str], texts: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return which columns to show within a width: all that fit, or the first, what a row is about, and from the left.

    Empty columns go first, and one that is too wide does not take narrower ones after it along.

    Examples
    --------
    >>> fitting(["run", "method", "error"], [["0a1b", "cellpose", "x" * 60]], 40)
    [0, 1]
    >>> fitting(["run", "method", "error"], [["0a1b", "cellpose", "x" * 60]], 80)
    [0, 1, 2]
    """
    needs = [_needed(column, [row[n] for row in texts]) for n, column in enumerate(columns)]
    empty = {n for n in range(len(columns)) if texts and all(row[n] == "-" for row in texts)}
    shown = [0] if columns else []
    # what a row is about, then what stands first, and what is empty at last
    for n in sorted(range(1, len(columns)), key=lambda n: (n in empty, columns[n] not in _TELLING, n)):
        if _total(needs, [*shown, n]) <= width:
            shown.append(n)
    return sorted(shown)


def short(value: Any) -> str:
    """Return a cell as people read it: floats to four digits, lists with commas, one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return " ".join(str(value).splitlines())


def _total(needs: Sequence[int], shown: Sequence[int]) -> int:
    return sum(needs[n] for n in shown) + _GAP * (len(shown) - 1) + _EDGES


def _needed(column: str, cells: Sequence[str]) -> int:
    """Return the fewest characters in which a column reads well: its longest word, or a line of several words."""
    return max(_narrowest(text) for text in _with(column, cells))


def _with(column: str, cells: Sequence[str]) -> Iterator[str]:
    yield column
    yield from cells


def _narrowest(text: str) -> int:
    words = max((len(word) for word in text.split()), default=0)
    return max(words, min(len(text), _NARROWEST))


def _table(
    columns: Sequence[str], texts: Sequence[Sequence[str]], shown: Sequence[int], numeric: Sequence[bool],
    title: str | None, *, one_line: bool,
) -> Table:  # fmt: skip
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for n in shown:
        least = _needed(columns[n], [row[n] for row in texts])
        table.add_column(
            Text(columns[n]), justify="right" if numeric[n] else "left", overflow="fold", no_wrap=one_line,
            min_width=None if one_line else least,
        )  # fmt: skip
    for row in texts:
        table.add_row(*(Text(row[n]) for n in shown))
    return table
