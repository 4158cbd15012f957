"""The study's guideline for training data (all tissues, else the same, else the most transferable), put to the test."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.frames import groups
from segbench.analysis.variance import SEEDS, TISSUES, Estimate, contrast, mean_estimate
from segbench.engine.study.tissues import ALL_TISSUES

ALL_AGAINST_SAME = "all tissues against the same tissue"
ALL_AGAINST_OTHER = "all tissues against the most transferable other"
SAME_AGAINST_OTHER = "the same tissue against the most transferable other"
RULES = (ALL_AGAINST_SAME, ALL_AGAINST_OTHER, SAME_AGAINST_OTHER)
SCHEMA = {
    **dict.fromkeys(["suite", "rule"], pl.String),
    **dict.fromkeys(["difference", "low", "high", "p"], pl.Float64),
    "tissues": pl.Int64,
    "verdict": pl.String,
}


def judge(found: Estimate) -> str:
    """Return whether the first of two is better: ``holds``, ``loses``, or ``open`` where the interval has 0 in it."""
    if found.p is None or found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "open"
    return "holds" if found.value > 0 else "loses"


def try_guideline(cells: pl.DataFrame) -> pl.DataFrame:
    """Return each rule of the guideline with the difference that it made on the tissues of a suite.

    A tissue is one observation: its difference is the mean over the methods and tasks that have both models. Which
    other tissue is the most transferable is told by the tissues that are not the one in question.

    Parameters
    ----------
    cells
        Columns suite, dataset, task, method, train_tissue, test_tissue, value; over seeds.
    """
    rows: list[dict[str, Any]] = []
    if not cells.height:
        return pl.DataFrame(schema=SCHEMA)
    known = cells.drop_nulls("value").filter(pl.col("test_tissue") != ALL_TISSUES)
    for key, suite in groups(known, ["suite"]):
        gaps: dict[str, dict[tuple[str, str], list[float]]] = {rule: {} for rule in RULES}
        for fit, group in groups(suite, ["dataset", "task", "method"]):
            for tissue, differences in _differences(group).items():
                for rule, gap in differences.items():
                    gaps[rule].setdefault((fit["dataset"], tissue), []).append(gap)
        for rule, by_tissue in gaps.items():
            if not by_tissue:
                continue
            found = mean_estimate(np.array([np.mean(values) for values in by_tissue.values()]), TISSUES)
            rows.append(
                {
                    **key,
                    "rule": rule,
                    "difference": found.value,
                    "low": found.low,
                    "high": found.high,
                    "p": found.p,
                    "tissues": len(by_tissue),
                    "verdict": judge(found),
                }
            )
    return pl.DataFrame(rows, schema=SCHEMA)


def tell_guideline(table: pl.DataFrame, metric: str) -> list[str]:
    """Return one sentence a rule: that it held, that it lost, or that this is open."""
    told = []
    for row in table.iter_rows(named=True):
        over = f"{row['tissues']} test tissue{'s' * (row['tissues'] != 1)}"
        ends = "" if row["low"] is None else f", 95 % interval {row['low']:+.2f} to {row['high']:+.2f}"
        verdict = {
            "holds": "the study's guideline holds here",
            "loses": "the study's guideline loses here",
            "open": "whether the study's guideline holds here is open",
        }[row["verdict"]]
        told.append(f"{row['suite']}: {row['rule']}: {metric} {row['difference']:+.2f} over {over}{ends}: {verdict}")
    return told


def compare_seeds(first: pl.DataFrame, second: pl.DataFrame) -> Estimate:
    """Return the difference of two models' scores (columns seed, score), each over its own seeds."""
    terms = [(sign, frame["score"].to_numpy(), None, True) for sign, frame in ((1.0, first), (-1.0, second))]
    return contrast(terms, of=SEEDS)


def _differences(group: pl.DataFrame) -> dict[str, dict[str, float]]:
    """Return, by test tissue, what each rule made of one method on one task."""
    values = {
        (train, test): value for train, test, value in group.select("train_tissue", "test_tissue", "value").rows()
    }
    single = sorted({train for train, _ in values} - {ALL_TISSUES})
    found: dict[str, dict[str, float]] = {}
    for tissue in sorted({test for _, test in values}):
        all_, same = values.get((ALL_TISSUES, tissue)), values.get((tissue, tissue))
        other = values.get((_most_transferable(values, single, tissue), tissue))
        pairs = {ALL_AGAINST_SAME: (all_, same), ALL_AGAINST_OTHER: (all_, other), SAME_AGAINST_OTHER: (same, other)}
        found[tissue] = {rule: a - b for rule, (a, b) in pairs.items() if a is not None and b is not None}
    return found


def _most_transferable(values: dict[tuple[str, str], float], single: list[str], tissue: str) -> str:
    """Return the training tissue, not this one, whose models do best on tissues that are neither; '' where none is."""
    best, name = -1.0, ""
    for train in single:
        others = [value for (a, b), value in values.items() if a == train and b not in (train, tissue)]
        if train != tissue and others and (mean := float(np.mean(others))) > best:
            best, name = mean, train
    return name
