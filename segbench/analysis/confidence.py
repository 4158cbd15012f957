"""How sure accuracies and ranks are: what seeds, test images, tissues and times scatter, and which methods differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from segbench.analysis.scores import LEVEL, Floats
from segbench.analysis.variance import IMAGES, SEEDS, TISSUES, Estimate, Part, contrast, estimate, holm, mean_estimate

TIMES = "running times"
_TISSUE_DRAWS = 400
ACCURACIES = {
    **dict.fromkeys(["suite", "task", "method", "title"], pl.String),
    **dict.fromkeys(["accuracy", "low", "high"], pl.Float64),
    "interval_of": pl.String,
    "seeds": pl.Int64,
    "images": pl.Int64,
    "tissues": pl.Int64,
    **dict.fromkeys(["sd_seeds", "sd_images", "sd_tissues"], pl.Float64),
}
PAIRS = {
    **dict.fromkeys(["suite", "method_a", "method_b"], pl.String),
    **dict.fromkeys(["difference", "low", "high", "p", "p_holm"], pl.Float64),
    "differ": pl.Boolean,
    "interval_of": pl.String,
}


@dataclass(frozen=True)
class Cell:
    """What is known of one method on one task."""

    seeds: Floats
    """(S,) accuracies."""
    hours: Floats
    """(S,) standardised times; NaN where unknown."""
    trained: bool
    images: Floats | None
    """(S, B) accuracies in the same resamples of the test images."""
    tissues: Floats | None
    """(S, B) accuracies in the same resamples of the test tissues."""
    by_tissue: Floats
    """The accuracy on each tissue, over seeds."""
    tissue_weights: Floats
    """Their images."""

    def draws(self, of: str) -> Floats | None:
        """Return the accuracies in resamples of images or of tissues."""
        return self.images if of == IMAGES else self.tissues if of == TISSUES else None


@dataclass(frozen=True)
class Evidence:
    """All cells of a suite, with what is resampled."""

    cells: Mapping[tuple[str, str], Cell]
    """By task and method."""
    of: str
    """What is resampled of every method: test images, else test tissues, else nothing ('')."""
    units: Mapping[str, int]
    """Of each task, how many of them there are."""

    def estimate(self, task: str, method: str) -> Estimate:
        """Return one method's accuracy on one task."""
        cell = self.cells[task, method]
        return estimate(cell.seeds, cell.draws(self.of), self.units.get(task), random=cell.trained, of=self.of)

    def contrast(self, weights: Mapping[tuple[str, str], float]) -> Estimate:
        """Return a weighted sum of accuracies, by task and method."""
        terms = []
        for key, weight in weights.items():
            cell = self.cells[key]
            terms.append((weight, cell.seeds, cell.draws(self.of), cell.trained))
        known = [self.units[task] for task, _ in weights if task in self.units]
        return contrast(terms, min(known, default=None), of=self.of)


def gather(seeds: pl.DataFrame, images: pl.DataFrame, tissues: pl.DataFrame, n_images: Mapping[str, int]) -> Evidence:
    """Return what is known of every method of a suite on every task.

    Parameters
    ----------
    seeds, images, tissues
        Rows of ``ranking_seeds.sql``, ``ranking_resamples.sql`` and ``ranking_tissues.sql`` of one suite.
    n_images
        Test images by task.
    """
    drawn = {(task, method): frame for (task, method), frame in images.group_by(["task", "method"])}
    parts = {(task, method): frame for (task, method), frame in tissues.group_by(["task", "method"])}
    names = {
        dataset: frame["test_tissue"].unique().sort().to_list() for (dataset,), frame in tissues.group_by(["dataset"])
    }
    rng = np.random.default_rng(0)
    counts: dict[str, npt.NDArray[np.int64]] = {}
    for dataset in seeds["dataset"].unique(maintain_order=True):
        if every := names.get(dataset, []):
            counts[dataset] = rng.multinomial(len(every), np.full(len(every), 1 / len(every)), size=_TISSUE_DRAWS)
    cells: dict[tuple[str, str], Cell] = {}
    units: dict[str, dict[str, int]] = {IMAGES: {}, TISSUES: {}}
    for (task, method, dataset), frame in seeds.group_by(["task", "method", "dataset"], maintain_order=True):
        order = frame["seed"].to_list()
        of_tissues = parts.get((task, method))
        seen = names.get(dataset, [])
        units[TISSUES][task] = len(seen)
        units[IMAGES][task] = n_images.get(task, 0)
        by_tissue = _by_tissue(of_tissues)
        cells[task, method] = Cell(
            seeds=frame["accuracy"].to_numpy(),
            hours=frame["hours"].cast(pl.Float64).fill_null(math.nan).to_numpy(),
            trained=bool(frame["trained"].any()),
            images=image_draws(drawn.get((task, method)), order),
            tissues=None
            if of_tissues is None or len(seen) < 2
            else _tissue_draws(of_tissues, order, frame["accuracy"].to_numpy(), seen, counts[dataset]),
            by_tissue=by_tissue[0],
            tissue_weights=by_tissue[1],
        )
    of = next(
        (of for of in (IMAGES, TISSUES) if cells and all(cell.draws(of) is not None for cell in cells.values())), ""
    )
    return Evidence(cells, of, {task: n for task, n in units.get(of, {}).items() if n > 1})


def accuracy_rows(suite: str, evidence: Evidence, titles: Mapping[str, str]) -> list[dict[str, object]]:
    """Return each accuracy with its interval, and its standard error split by where it comes from."""
    rows: list[dict[str, object]] = []
    for (task, method), cell in evidence.cells.items():
        found = evidence.estimate(task, method)
        over_tissues = mean_estimate(cell.by_tissue, TISSUES, cell.tissue_weights) if len(cell.by_tissue) else None
        images = estimate(cell.seeds, cell.images, evidence.units.get(task), random=cell.trained)
        rows.append(
            {
                "suite": suite,
                "task": task,
                "method": method,
                "title": titles[method],
                "accuracy": found.value,
                "low": None if found.low is None else max(0.0, found.low),
                "high": None if found.high is None else min(1.0, found.high),
                "interval_of": found.of,
                "seeds": len(cell.seeds),
                "images": evidence.units.get(task) if evidence.of == IMAGES else None,
                "tissues": len(cell.by_tissue) or None,
                "sd_seeds": 0.0 if not cell.trained else images.deviation(SEEDS),
                "sd_images": images.deviation(IMAGES),
                "sd_tissues": None if over_tissues is None else over_tissues.deviation(TISSUES),
            }
        )
    return rows


def compare_pairs(
    suite: str,
    evidence: Evidence,
    methods: Sequence[str],
    weights: Mapping[str, float],
    rest: Floats,
    times: Floats | None,
    freedom: float,
) -> list[dict[str, object]]:
    """Return the difference of every pair's overall scores with its interval, and whether the two can be told apart.

    Parameters
    ----------
    suite
        Its name.
    evidence
        Of the suite.
    methods
        Those that have everything.
    weights
        Share of each task in the overall score.
    rest
        What usability and scalability add to each method's.
    times
        Draws x methods: what scalability adds where the times scatter; None where that is not known.
    freedom
        Degrees of freedom of the times' scatter.
    """
    estimates: list[tuple[str, str, Estimate]] = []
    for i, first in enumerate(methods):
        for j in range(i + 1, len(methods)):
            both = {
                (task, name): sign * w for name, sign in ((first, 1), (methods[j], -1)) for task, w in weights.items()
            }
            found = evidence.contrast(both)
            parts = found.parts
            if times is not None:
                parts = (*parts, Part(TIMES, float(np.var(times[:, i] - times[:, j], ddof=1)), freedom))
            value = found.value + float(rest[i] - rest[j])
            estimates.append((first, methods[j], Estimate(value, parts, found.seeds_open)))
    corrected = holm([found.p for _, _, found in estimates])
    return [
        {
            "suite": suite,
            "method_a": a,
            "method_b": b,
            "difference": found.value,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "p_holm": p,
            "differ": None if p is None else p < 1 - LEVEL,
            "interval_of": found.of,
        }
        for (a, b, found), p in zip(estimates, corrected, strict=True)
    ]


def places(
    methods: Sequence[str], overall: Floats, pairs: Sequence[Mapping[str, object]]
) -> list[tuple[int, int, int]]:
    """Return each method's lowest and highest rank and its group, by which pairs can be told apart.

    A rank is as low as one below all that are surely better, as high as above all that are surely worse (Mohamad,
    Goeman and van Zwet, 2019). A group is the best method left with all those that cannot be told apart from it.
    """
    index = {name: n for n, name in enumerate(methods)}
    better = np.zeros((len(methods), len(methods)), dtype=bool)
    for pair in pairs:
        if pair["differ"]:
            a, b = index[str(pair["method_a"])], index[str(pair["method_b"])]
            ahead = (a, b) if float(pair["difference"]) > 0 else (b, a)  # type: ignore[arg-type]
            better[ahead] = True
    groups = np.zeros(len(methods), dtype=int)
    left = sorted(range(len(methods)), key=lambda n: -overall[n])
    number = 0
    while left:
        number += 1
        together = [n for n in left if not better[left[0], n]]
        groups[together] = number
        left = [n for n in left if n not in together]
    return [
        (1 + int(better[:, n].sum()), len(methods) - int(better[n].sum()), int(groups[n])) for n in range(len(methods))
    ]


def draw_accuracies(
    evidence: Evidence, methods: Sequence[str], tasks: Sequence[str], n: int, rng: np.random.Generator
) -> Floats:
    """Return accuracies (n x methods x tasks) as they may come out with other seeds and other images or tissues."""
    drawn = np.empty((n, len(methods), len(tasks)))
    for t, task in enumerate(tasks):
        chosen: npt.NDArray[np.int64] | None = None
        for m, method in enumerate(methods):
            cell = evidence.cells[task, method]
            values, size = cell.draws(evidence.of), len(cell.seeds)
            scatter: Floats | float = 0.0
            if values is not None:
                # the tasks of a dataset share their draws of images
                if chosen is None:
                    chosen = np.random.default_rng(1).integers(values.shape[1], size=n)
                means = values.mean(axis=0)
                scatter = means[chosen] - means.mean()
            noise: Floats | float = 0.0
            if cell.trained and size > 1:
                found = evidence.estimate(task, method).deviation(SEEDS)
                noise = rng.standard_t(size - 1, n) * (found or 0.0)
            drawn[:, m, t] = cell.seeds.mean() + scatter + noise
    return drawn


def draw_hours(
    evidence: Evidence, methods: Sequence[str], tasks: Sequence[str], n: int, rng: np.random.Generator
) -> tuple[Floats | None, float]:
    """Return mean times (n x methods x tasks) as they may come out again, and the degrees of freedom of their scatter.

    Times scatter by a factor, so their logarithms are drawn; None where no method has two times of a task.
    """
    drawn = np.empty((n, len(methods), len(tasks)))
    freedom = 0.0
    for t, task in enumerate(tasks):
        for m, method in enumerate(methods):
            hours = evidence.cells[task, method].hours
            mean, size = float(hours.mean()), len(hours)
            factor: Floats | float = 1.0
            if size > 1 and (hours > 0).all():
                factor = np.exp(rng.standard_normal(n) * np.log(hours).std(ddof=1) / math.sqrt(size))
                freedom = min(freedom or math.inf, size - 1)
            drawn[:, m, t] = mean * factor
    return (drawn, freedom) if freedom else (None, math.inf)


def _by_tissue(frame: pl.DataFrame | None) -> tuple[Floats, Floats]:
    if frame is None:
        return np.empty(0), np.empty(0)
    means = frame.group_by("test_tissue").agg(pl.mean("accuracy"), pl.max("n_images").fill_null(1)).sort("test_tissue")
    return means["accuracy"].to_numpy(), np.maximum(means["n_images"].to_numpy().astype(np.float64), 1)


def image_draws(frame: pl.DataFrame | None, seeds: Sequence[int], column: str = "accuracy") -> Floats | None:
    """Return the scores (S, B) of each seed in resamples of the test images; None where a seed has none."""
    if frame is None:
        return None
    wide = frame.pivot("seed", index="resample", values=column).sort("resample")
    names = [str(seed) for seed in seeds]
    if not set(names) <= set(wide.columns) or wide.height < 2:
        return None
    known = wide.select(names).drop_nulls()
    values = known.to_numpy().T
    # one image drawn again and again is no sample
    return values if known.height == wide.height and values.std(axis=1).max() > 0 else None


def _tissue_draws(
    frame: pl.DataFrame, seeds: Sequence[int], pooled: Floats, names: Sequence[str], counts: npt.NDArray[np.int64]
) -> Floats | None:
    """Return the score of each seed in resamples of tissues, weighted by their images, about its pooled one."""
    if frame["test_tissue"].n_unique() < 2:
        return None
    values = np.full((len(seeds), len(names)), np.nan)
    images = np.zeros(len(names))
    for seed, tissue, score, n in frame.select("seed", "test_tissue", "accuracy", "n_images").iter_rows():
        if seed in seeds:
            values[seeds.index(seed), names.index(tissue)] = score
            images[names.index(tissue)] = max(n or 0, 1)
    weights = np.where(np.isfinite(values), images, 0.0)
    if not (weights.sum(axis=1) > 0).all():
        return None
    values = np.nan_to_num(values)
    means = (weights * values).sum(axis=1) / weights.sum(axis=1)
    total = counts @ weights.T
    # a resample that has none of a seed's tissues says nothing of it: it stays at its mean
    drawn = np.where(total > 0, (counts @ (weights * values).T) / np.where(total > 0, total, 1), means)
    return np.asarray(drawn - means + pooled).T
