"""The published study's scores as a Polars frame, to compare with and to start from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from segbench.engine.study import scores as published

if TYPE_CHECKING:
    import polars as pl


def scores() -> pl.DataFrame:
    """Return the published table: method, task, train_tissue, accuracy, usability (0..1), hours (null where unknown).

    Examples
    --------
    >>> scores().shape
    (138, 6)
    """
    import polars as pl

    return pl.DataFrame([asdict(row) for row in published.scores()], infer_schema_length=None)
