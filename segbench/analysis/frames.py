"""The small table tools that analyses share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl


def groups(frame: pl.DataFrame, keys: Sequence[str]) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Yield each group of rows with equal keys, in order of first appearance, with its keys by name."""
    for values, group in frame.group_by(list(keys), maintain_order=True):
        yield dict(zip(keys, values, strict=True)), group


def mean(column: pl.Series) -> float:
    """Return the mean of what is not null; NaN for nothing."""
    value = column.mean()
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def median(column: pl.Series) -> float:
    """Return the median of what is not null; NaN for nothing."""
    value = column.median()
    return math.nan if value is None else float(value)  # type: ignore[arg-type]


def largest(column: pl.Series) -> int:
    """Return the greatest of a column of whole numbers, at least one of which is not null."""
    value = column.max()
    assert isinstance(value, int)
    return value
