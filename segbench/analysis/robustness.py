"""How much of a method's score is left on degraded test images: curves, and one number a method."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.frames import groups
from segbench.analysis.result import Result
from segbench.analysis.scores import RESAMPLES, Floats, check_metric, interval
from segbench.analysis.source import Source

_SEED = 21
_KEYS = ("task", "method", "title", "train_tissue")
_CURVES = {
    **dict.fromkeys((*_KEYS, "kind"), pl.String), "step": pl.Int64, "amount": pl.Float64, "score": pl.Float64,
    "low": pl.Float64, "high": pl.Float64, "kept": pl.Float64, "kept_low": pl.Float64, "kept_high": pl.Float64,
    "clean": pl.Float64, "runs": pl.Int64,
}  # fmt: skip
_METHODS = {
    **dict.fromkeys(_KEYS, pl.String), "robustness": pl.Float64, "low": pl.Float64, "high": pl.Float64,
    "clean": pl.Float64, "degraded": pl.Float64, "weakest": pl.String, "weakest_kept": pl.Float64, "kinds": pl.Int64,
    "runs": pl.Int64,
}  # fmt: skip
_Point = tuple[str, int]


def measure_robustness(source: Source, *, metric: str = "accuracy") -> Result:
    """Compare each method's score on degraded test images with that on the images as they are.

    ``kept`` is the score in a step divided by the score on the images as they are, on the same part of the windows. A
    method's robustness is its mean over the steps of a kind, then over the kinds that every method of the task was
    tried with: 1 where nothing is lost. Intervals (95 %) are of a bootstrap that draws test images, the same for every
    step, and seeds where there are several.

    Parameters
    ----------
    source
        A results folder with runs of ``robustness``, or whose finished runs ``segbench runs robustness`` has tried.
    metric
        Of the scores.

    Returns
    -------
    Result
        A row a task, method, training tissue, kind and step. Part ``methods``: a row each with the one number,
        the mean score on the images as they are and on the degraded ones, and the kind that costs most.

    Raises
    ------
    SegbenchError
        The metric is unknown.
    """
    check_metric(metric)
    sql = (importlib.resources.files("segbench.analysis") / "robustness.sql").read_text()
    rows = pl.DataFrame() if source.published else source.frame(sql)
    warnings = [] if rows.height else [_nothing(source)]
    curves: list[dict[str, Any]] = []
    methods: list[dict[str, Any]] = []
    findings: list[str] = []
    rows = rows.drop_nulls([metric, f"clean_{metric}"]) if rows.height else rows
    sampled = _samples(source, metric) if rows.height else {}
    for of_task, task in groups(rows, ["task"]) if rows.height else ():
        every = [set(group["kind"]) for _, group in groups(task, _KEYS)]
        common, tried = set.intersection(*every), set.union(*every)
        if tried - common:
            warnings.append(
                f"on {of_task['task']} not every method was tried with {', '.join(sorted(tried - common))}: left out "
                "of the one number"
            )
        own = []
        for keys, group in groups(task, _KEYS):
            of_method = _Method(group, metric, sampled)
            curves += [keys | row for row in of_method.curves()]
            if common:
                own.append(keys | of_method.number(common))
        methods += sorted(own, key=lambda row: -row["robustness"])
        findings += [_tell(row, metric) for row in methods[len(methods) - len(own) :]]
    return Result(
        "robustness", source.label, pl.DataFrame(curves, schema=_CURVES), tuple(findings), tuple(warnings), sql,
        {"methods": pl.DataFrame(methods, schema=_METHODS)},
    )  # fmt: skip


class _Method:
    """The runs of one method, task and training tissue: its seeds."""

    def __init__(self, group: pl.DataFrame, metric: str, sampled: Mapping[tuple[str, str, int, bool], Floats]) -> None:
        self._rows: dict[_Point, list[dict[str, Any]]] = {}
        for row in group.sort("kind", "step", "seed").iter_rows(named=True):
            told = {"worse": row[metric], "clean": row[f"clean_{metric}"], **row}
            self._rows.setdefault((row["kind"], row["step"]), []).append(told)
        self._sampled, self.runs = sampled, group["run_id"].n_unique()
        self._drawn = self._draws()

    def curves(self) -> list[dict[str, Any]]:
        """Return a row a kind and step."""
        told = []
        for point, rows in self._rows.items():
            worse, clean = _mean(rows, "worse"), _mean(rows, "clean")
            row = {"kind": point[0], "step": point[1], "amount": rows[0]["amount"], "score": worse, "clean": clean}
            row |= {"kept": worse / clean if clean else None, "runs": len(rows)}
            if self._drawn:
                low, high = interval(self._drawn[point][0])
                kept_low, kept_high = _kept_interval(_kept(*self._drawn[point]))
                row |= {"low": float(low), "high": float(high), "kept_low": kept_low, "kept_high": kept_high}
            told.append(row)
        return told

    def number(self, kinds: set[str]) -> dict[str, Any]:
        """Return the one number, over these kinds."""
        points = {kind: [p for p in self._rows if p[0] == kind] for kind in self._kinds() if kind in kinds}
        kept = {
            kind: float(np.mean([_ratio(_mean(self._rows[p], "worse"), _mean(self._rows[p], "clean")) for p in own]))
            for kind, own in points.items()
        }
        low, high = None, None
        if self._drawn:
            of_kinds = [np.mean([_kept(*self._drawn[p]) for p in own], axis=0) for own in points.values()]
            low, high = _kept_interval(np.mean(of_kinds, axis=0))
        weakest = min(kept, key=lambda kind: kept[kind])
        every = [rows for own in points.values() for rows in (self._rows[p] for p in own)]
        clean = next((rows for rows in every if not rows[0]["of_part"]), every[0])
        return {
            "robustness": float(np.mean(list(kept.values()))), "low": low, "high": high,
            "clean": _mean(clean, "clean"),
            "degraded": float(np.mean([np.mean([_mean(self._rows[p], "worse") for p in o]) for o in points.values()])),
            "weakest": weakest, "weakest_kept": kept[weakest], "kinds": len(points), "runs": self.runs,
        }  # fmt: skip

    def _kinds(self) -> list[str]:
        return list(dict.fromkeys(kind for kind, _ in self._rows))

    def _draws(self) -> dict[_Point, tuple[Floats, Floats]]:
        """Return the scores (degraded, clean) of every point in draws of images and seeds; empty without resamples."""
        rng = np.random.default_rng(_SEED)
        found: dict[_Point, tuple[list[Floats], list[Floats]]] = {}
        for point, rows in self._rows.items():
            for row in rows:
                clean = (row["kind"], row["step"], True) if row["of_part"] else ("none", 0, True)
                of = [self._sampled.get((row["told_by"], *key)) for key in ((*point, False), clean)]
                if of[0] is None or of[1] is None:
                    return {}
                for into, values in zip(found.setdefault(point, ([], [])), of, strict=True):
                    into.append(np.asarray(values))
        if not found:
            return {}
        seeds = min(len(worse) for worse, _ in found.values())
        many = min(len(values) for pair in found.values() for of in pair for values in of)
        images = rng.integers(many, size=RESAMPLES)
        picked = rng.integers(seeds, size=(RESAMPLES, seeds))

        def drawn(of: Sequence[Floats]) -> Floats:
            return np.asarray(np.stack(of)[picked, images[:, None]].mean(axis=1))

        return {point: (drawn(worse), drawn(clean)) for point, (worse, clean) in found.items()}


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _ratio(worse: float, clean: float) -> float:
    return worse / clean if clean else 0.0


def _kept(worse: Floats, clean: Floats) -> Floats:
    return np.divide(worse, clean, out=np.zeros_like(worse), where=clean > 0)


def _kept_interval(kept: Floats) -> tuple[float, float]:
    low, high = interval(kept)
    return float(low), float(high)


def _samples(source: Source, metric: str) -> dict[tuple[str, str, int, bool], Floats]:
    """Return the metric in every resample of the test images, of each telling, kind and step."""
    value = "(map + ap50 + ap75 + ar50 + ar75) / 5" if metric == "accuracy" else metric
    keys = ["run_id", "kind", "step", "clean"]
    found = source.frame(
        f"select {', '.join(keys)}, coalesce({value}, 0) as score from degraded_resamples order by {', '.join(keys)}, "
        "resample"
    )
    return {
        (str(of["run_id"]), str(of["kind"]), int(of["step"]), bool(of["clean"])): group["score"].to_numpy()
        for of, group in groups(found, keys)
    }


def _nothing(source: Source) -> str:
    if source.published:
        return "the published scores hold none on degraded test images"
    if not source.health().runs:
        return source.health().warnings[0]
    return (
        f"{source.label} have no score on degraded test images: 'segbench runs robustness --all' applies the models of "
        "finished runs to them, or give a grid robustness: [all]"
    )


def _tell(row: Mapping[str, Any], metric: str) -> str:
    between = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return (
        f"{row['method']} on {row['task']} ({row['train_tissue']}) keeps {row['robustness']:.2f}{between} of its "
        f"{metric} of {row['clean']:.3f}, least with {row['weakest']} ({row['weakest_kept']:.2f})"
    )
