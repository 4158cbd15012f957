"""What an analysis hands back: a table, what it says in sentences, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from segbench.errors import unknown_name


@dataclass(frozen=True)
class Result:
    """The answer of one analysis; the command line and the dashboard show all of it.

    Examples
    --------
    >>> import segbench
    >>> result = segbench.Results.published().analyse("modality")
    >>> result.name, result.source, result.table.height, result.warnings
    ('modality', 'the published scores', 0, ('the published table has no model applied to the other modality',))
    """

    name: str
    """The analysis's name on the command line."""
    source: str
    """Where the rows came from, for captions."""
    table: pl.DataFrame
    """The main table; empty, with its columns, where there is nothing to compute."""
    findings: tuple[str, ...]
    """One sentence for each thing found, generated from the table; empty where nothing can be said."""
    warnings: tuple[str, ...]
    """One sentence for each thing that limits the figures: what was left out, assumed or not computable."""
    sql: str
    """The query that the table was computed from."""
    parts: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Further tables by name; which ones an analysis gives stands in its docstring."""

    def part(self, name: str) -> pl.DataFrame:
        """Return a further table by name; raises SegbenchError with the names there are."""
        if name not in self.parts:
            raise unknown_name(f"part of {self.name}", name, self.parts)
        return self.parts[name]


def list_names(names: Iterable[str], limit: int = 5) -> str:
    """Return names for a sentence, the first few of many.

    Examples
    --------
    >>> list_names(["a", "b", "c"])
    'a, b and c'
    >>> list_names("abcdefg", limit=3)
    'a, b, c and 4 more'
    """
    every = list(names)
    if len(every) > limit:
        return f"{', '.join(every[:limit])} and {len(every) - limit} more"
    return " and ".join(filter(None, (", ".join(every[:-1]), *every[-1:])))


def unique(sentences: Iterable[str]) -> tuple[str, ...]:
    """Return the sentences in order, each once."""
    return tuple(dict.fromkeys(sentences))
