"""How a ranking stands other choices of weights, metrics and ways to normalise, each with Kendall's tau."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from scipy.special import ndtr
from scipy.stats import kendalltau, rankdata

from segbench.analysis.scores import Floats

SCHEMA = {
    **dict.fromkeys(["suite", "kind", "variant"], pl.String),
    "kendall_tau": pl.Float64,
    "first": pl.String,
    "most_moved": pl.String,
    "places_moved": pl.Int64,
}
_METRICS = ("map", "ap50", "ap75", "ar50", "ar75", "f1_50", "panoptic_quality", "aggregated_jaccard")
METRIC_NAMES = dict(zip(_METRICS, ("mAP", "AP50", "AP75", "AR50", "AR75", "F1 at IoU 0.5", "PQ", "AJI"), strict=True))
"""The metrics that a ranking is tried with in place of accuracy, by their columns."""
WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    "accuracy alone": (1, 0, 0),
    "without usability": (1, 0, 1),
    "without scalability": (1, 1, 0),
    "accuracy twice": (2, 1, 1),
    "accuracy a third": (0, 0, 0),
}
"""Weights of accuracy, usability and scalability; the last gives all tasks together the weight of each other part."""


def scalability_variants(hours: Floats, inputs: Sequence[str]) -> dict[str, Floats]:
    """Return scalability (methods) of times (methods x tasks) by other ways to normalise them."""
    means = [hours[:, [one == name for one in inputs]].mean(axis=1) for name in dict.fromkeys(inputs)]
    every = list(hours.T)
    return {
        "sample deviation": _mean([_normal(column, 1) for column in means]),
        "every task by itself": _mean([_normal(column, 0) for column in every]),
        "mean of all tasks": _mean([_normal(hours.mean(axis=1), 0)]),
        "minimum and maximum": _mean([_spread(column) for column in means]),
    }


def stability_rows(
    suite: str, titles: Sequence[str], overall: Floats, variants: Mapping[tuple[str, str], Floats]
) -> list[dict[str, object]]:
    """Return a row a variant: Kendall's tau with the ranking, who is first, and who moves by most places.

    Parameters
    ----------
    suite, titles
        Of the methods.
    overall
        Their overall scores, as ranked.
    variants
        Their scores by kind and name of the variant; those with a NaN are left out.
    """
    place = rankdata(-np.round(overall, 12), method="min")
    rows: list[dict[str, object]] = []
    for (kind, name), scores in variants.items():
        if not np.isfinite(scores).all():
            continue
        again = rankdata(-np.round(scores, 12), method="min")
        tau = float(kendalltau(place, again).statistic)
        moved = np.abs(again - place)
        rows.append(
            {
                "suite": suite,
                "kind": kind,
                "variant": name,
                "kendall_tau": None if np.isnan(tau) else tau,
                "first": titles[int(np.argmin(again))],
                "most_moved": titles[int(np.argmax(moved))] if moved.max() else "",
                "places_moved": int(moved.max()),
            }
        )
    return rows


def tell_stability(table: pl.DataFrame) -> list[str]:
    """Return one sentence a suite: the worst agreement, and how often another method is first."""
    told = []
    for (suite,), group in table.drop_nulls("kendall_tau").group_by(["suite"], maintain_order=True):
        worst = group.sort("kendall_tau").row(0, named=True)
        firsts = group["first"].value_counts(sort=True).rows()
        named = ", ".join(f"{title} in {n}" for title, n in firsts[:3])
        told.append(
            f"{suite}: of {group.height} other weights, metrics and normalisations, first is {named}; the order "
            f"changes most with {worst['kind']} '{worst['variant']}' (Kendall's tau {worst['kendall_tau']:.2f})"
        )
    return told


def _normal(values: Floats, ddof: int) -> Floats:
    spread = values.std(ddof=ddof)
    if spread <= 1e-12 * max(1.0, abs(values.mean())):
        return np.full(len(values), 0.5)
    return np.asarray(ndtr((values - values.mean()) / spread), dtype=np.float64)


def _spread(values: Floats) -> Floats:
    width = values.max() - values.min()
    return (values - values.min()) / width if width > 0 else np.full(len(values), 0.5)


def _mean(columns: Sequence[Floats]) -> Floats:
    return np.asarray(1 - np.mean(columns, axis=0), dtype=np.float64)
