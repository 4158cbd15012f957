"""Which runs were not trained to the end: with a part of their card's budget, or with a loss that still fell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl

from segbench.engine.grid.cards import get_card
from segbench.errors import SegbenchError
from segbench.methods.card import Budget

MARK = " (undertrained)"
"""Stands behind the title of a method in every table, sentence and figure that is made of an undertrained run."""
FALLING = 0.05
"""A loss still fell where the last sixth of its curve is lower than the sixth before by this share of all it fell."""
WHOLE = 0.999
"""The share of a budget that is all of it, for figures are rounded to whole epochs."""
SCHEMA = {
    **dict.fromkeys(["run_id", "suite", "method", "task", "train_tissue"], pl.String),
    "seed": pl.Int32,
    "undertrained": pl.String,
}


def find_undertrained(runs: pl.DataFrame) -> pl.DataFrame:
    """Return the trained runs, and why one counts as undertrained.

    Parameters
    ----------
    runs
        What ``undertrained.sql`` returns: a row a trained run.

    Returns
    -------
    Columns run_id, suite, method, task, train_tissue, seed, and ``undertrained``: the reason in words, or null.
    """
    budgets: dict[str, Budget | None] = {}
    rows = []
    for row in runs.iter_rows(named=True):
        if row["method"] not in budgets:
            budgets[row["method"]] = _budget_of(row["method"])
        reasons = [*_part_of_budget(row, budgets[row["method"]]), *_still_falling(row)]
        told = "; ".join(reasons) or None
        rows.append({**{name: row[name] for name in SCHEMA if name in row}, "undertrained": told})
    return pl.DataFrame(rows, schema=SCHEMA)


def budget_share(row: Mapping[str, Any], budget: Budget) -> float | None:
    """Return the share of a card's budget that a run had, of its passes or of the images of its steps; None: unknown.

    Examples
    --------
    >>> budget_share({"epochs": 50, "batch_size": 4, "iterations": None}, Budget(batch_size=8, epochs=500))
    0.1
    """
    if budget.epochs is not None and row.get("epochs"):
        share = float(row["epochs"]) / budget.epochs
        if budget.steps_per_epoch is not None and row.get("steps_per_epoch"):
            steps = row["steps_per_epoch"] * row["batch_size"]
            share *= steps / (budget.steps_per_epoch * budget.batch_size)
        return share
    if budget.iterations is not None and row.get("iterations"):
        return float(row["iterations"] * row["batch_size"]) / (budget.iterations * budget.batch_size)
    return None


def mark_methods(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose names of methods are marked as its titles are, for a reader who sees the names alone."""
    if not {"title", "method"} <= set(table.columns):
        return table
    marked = pl.col("title").fill_null("").str.ends_with(MARK)
    return table.with_columns(pl.when(marked).then(pl.col("method") + MARK).otherwise(pl.col("method")).alias("method"))


def _budget_of(method: str) -> Budget | None:
    try:
        return get_card(method).budget
    except SegbenchError:
        # its distribution is not installed here: nothing is known of its budget
        return None


def _part_of_budget(row: Mapping[str, Any], budget: Budget | None) -> list[str]:
    share = None if budget is None else budget_share(row, budget)
    if share is None or share >= WHOLE:
        return []
    return [f"{_percent(share)} of its card's budget"]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def _still_falling(row: Mapping[str, Any]) -> list[str]:
    first, before, last = row["first_loss"], row["before_loss"], row["last_loss"]
    if None in (first, before, last) or row["points"] < 3:
        return []
    fall = max(first, before) - last
    if not (math.isfinite(fall) and fall > 0) or before - last <= FALLING * fall:
        return []
    return ["its loss still fell at the end"]
