"""What makes a tissue hard: least squares of a metric on training images, cell size and elongation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from segbench.analysis.frames import groups, median
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.scores import LEVEL, Floats, check_metric
from segbench.analysis.source import Source, read_sql
from segbench.analysis.variance import holm

EXCLUDED = ("Lung", "Spleen")
"""The tissues that the study leaves out of the TissueNet models, for they have hardly any training images."""
PREDICTORS = {"N": "n_train_images", "S": "area", "E": "elongation"}
"""The study's letters: training images, cell size in pixels, elongation."""
_TERMS = {"livecell": ("S", "E")}
_TOO_FEW = 3
"""Tissues a predictor below which a fit is warned of."""
_COLLINEAR = 10.0
"""The usual bound of the variance inflation factor."""
_KEYS = ["suite", "dataset", "dataset_fingerprint", "layout", "task", "method", "title"]
_SCHEMA = {
    "suite": pl.String,
    "dataset": pl.String,
    "dataset_fingerprint": pl.String,
    "task": pl.String,
    "method": pl.String,
    "title": pl.String,
    "formula": pl.String,
    "term": pl.String,
    "coefficient": pl.Float64,
    "std_error": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "least_without_one": pl.Float64,
    "most_without_one": pl.Float64,
    "vif": pl.Float64,
    "r2": pl.Float64,
    "r2_adjusted": pl.Float64,
    "p_model": pl.Float64,
    "tissues": pl.Int64,
}


@dataclass(frozen=True)
class Fit:
    """One ordinary least squares fit with an intercept; arrays start with the intercept."""

    coefficients: Floats
    std_errors: Floats
    low: Floats
    """Lower end of the 95 % interval."""
    high: Floats
    p: Floats
    vif: Floats
    """Variance inflation factor of each predictor; NaN for the intercept."""
    r2: float
    r2_adjusted: float
    p_model: float
    """Of the F test of all predictors together."""


def fit_regressions(source: Source, *, metric: str = "map", exclude: Sequence[str] = EXCLUDED) -> Result:
    """Fit metric ~ N + S + E over the tissues (TissueNet's layout), metric ~ S + E (LIVECell's), per method and task.

    N is the number of training images of the tissue, S the mean area and E the mean elongation of its test cells; each
    is scaled to 0..1 by its least and greatest value over the tissues of the fit, the metric is left as it is. A
    coefficient is therefore what the metric changes by from the least to the greatest value.

    Parameters
    ----------
    source
        Where the runs are; models trained on all tissues are used, averaged over seeds.
    metric
        One of ``accuracy``, ``map``, ``ap50``, ``ap75``, ``ar``, ``ar50``, ``ar75``.
    exclude
        Tissues to leave out, of any dataset.

    Returns
    -------
    ``table``: one row a fit and term, with standard error, 95 % interval, p, p by Holm over the suite's
    fits of the term, the least and the most that the coefficient is without one tissue, VIF, and the fit's R2 and
    number of tissues. A fit that cannot be made is a warning, not a row. Part ``points``: what was fitted, before
    scaling.
    """
    check_metric(metric)
    sql, health = read_sql("regression"), source.health()
    rows = source.rows(sql).with_columns(pl.col(metric).alias("value"))
    warnings = list(health.warnings)
    if source.published:
        warnings.append(
            "the published table has no scores per test tissue and no cell shapes: no regression can be fitted"
        )
    left_out = rows.filter(pl.col("tissue").is_in(exclude))["tissue"].unique().sort().to_list()
    if left_out:
        warnings.append(f"left out of the fits: {list_names(left_out)}")
    kept = rows.filter(~pl.col("tissue").is_in(exclude))
    fits: list[dict[str, Any]] = []
    troubles: dict[str, list[str]] = {}
    for key, group in groups(kept, _KEYS):
        made, trouble = _fit_group(key, group, metric)
        fits += made
        for sentence in trouble:
            troubles.setdefault(sentence, []).append(f"{key['title']} on {key['task']}")
    warnings += [f"{sentence}: {list_names(names, limit=3)}" for sentence, names in troubles.items()]
    table = _corrected(pl.DataFrame(fits, schema=_SCHEMA))
    points = kept.select([*_KEYS, "tissue", "value", *PREDICTORS.values()])
    return Result(
        "regression", source.label, table, _tell(table, metric), unique(warnings), sql, parts={"points": points}
    )


def fit_least_squares(predictors: Floats, response: Floats) -> Fit:
    """Fit the response (n) on the predictors (n x k, k at least 1) and an intercept; n must be at least k + 2."""
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    design = np.column_stack([np.ones(len(response)), predictors])
    model = OLS(response, design).fit()
    bounds = model.conf_int(1 - LEVEL)
    with np.errstate(divide="ignore"):
        vif = [math.nan, *(float(variance_inflation_factor(design, column)) for column in range(1, design.shape[1]))]
    return Fit(
        coefficients=model.params,
        std_errors=model.bse,
        low=bounds[:, 0],
        high=bounds[:, 1],
        p=model.pvalues,
        vif=np.array(vif),
        r2=float(model.rsquared),
        r2_adjusted=float(model.rsquared_adj),
        p_model=float(model.f_pvalue),
    )


def _leave_one_out(predictors: Floats, response: Floats) -> Floats:
    """Return coefficients (n x k + 1, the intercept first) without each tissue in turn; NaN where there are none."""
    design = np.column_stack([np.ones(len(response)), predictors])
    rows = []
    for left_out in range(len(response)):
        keep = np.arange(len(response)) != left_out
        found, _, rank, _ = np.linalg.lstsq(design[keep], response[keep], rcond=None)
        rows.append(found if rank == design.shape[1] else np.full(design.shape[1], np.nan))
    return np.array(rows)


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Return the fits with p values corrected by Holm's method for the number of fits of a suite and term."""
    corrected = [
        group.with_columns(pl.Series("p_holm", holm(group["p"].to_list()), dtype=pl.Float64))
        for _, group in groups(table.with_row_index("_row"), ["suite", "term"])
    ]
    return pl.concat(corrected).sort("_row").drop("_row") if corrected else table


def scale(values: Floats) -> Floats:
    """Return the values moved and scaled so that the least is 0 and the greatest 1 (columns of n x k, not constant)."""
    low = values.min(axis=0)
    return np.asarray((values - low) / (values.max(axis=0) - low), dtype=np.float64)


def _fit_group(key: dict[str, Any], group: pl.DataFrame, metric: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of one fit, and what is to be warned of (without the fit's name)."""
    terms = _TERMS.get(key["layout"], tuple(PREDICTORS))
    columns = [PREDICTORS[term] for term in terms]
    whole = group.drop_nulls(["value", *columns])
    trouble = []
    if whole.height < group.height:
        trouble.append("tissues without a score, training images or cell shapes are left out")
    constant = [term for term in terms if whole.height > 1 and whole[PREDICTORS[term]].n_unique() == 1]
    if constant:
        trouble.append(f"{list_names(constant)} is the same in all tissues and left out of the model")
        terms = tuple(term for term in terms if term not in constant)
        columns = [PREDICTORS[term] for term in terms]
    if not terms or whole.height < len(terms) + 2:
        needed = f"{len(terms)} predictors, at least {len(terms) + 2} are needed"
        return [], [*trouble, f"too few tissues ({whole.height}) to fit {needed}"]
    values = whole.select(columns).to_numpy().astype(np.float64)
    if np.linalg.matrix_rank(np.column_stack([np.ones(len(values)), scale(values)])) <= len(terms):
        return [], [*trouble, f"{', '.join(terms)} depend linearly on each other, so nothing can be fitted"]
    if whole["value"].n_unique() == 1:
        return [], [*trouble, f"{metric} is the same in all tissues, so nothing can be fitted"]
    if whole.height < _TOO_FEW * len(terms):
        trouble.append(
            f"only {whole.height} tissues for {len(terms)} predictors: coefficients and p values are weak evidence"
        )
    fit = fit_least_squares(scale(values), whole["value"].to_numpy().astype(np.float64))
    without = _leave_one_out(scale(values), whole["value"].to_numpy().astype(np.float64))
    worst = float(np.nanmax(fit.vif))
    if worst > _COLLINEAR:
        trouble.append(
            f"predictors go together (a variance inflation factor above {_COLLINEAR:.0f}): "
            "coefficients are not to be told apart"
        )
    shared = {
        **{name: key[name] for name in _KEYS if name != "layout"},
        "formula": f"{metric} ~ {' + '.join(terms)}",
        "r2": fit.r2,
        "r2_adjusted": fit.r2_adjusted,
        "p_model": fit.p_model,
        "tissues": whole.height,
    }
    rows = [
        {
            **shared,
            "term": term,
            "coefficient": float(fit.coefficients[n]),
            "std_error": float(fit.std_errors[n]),
            "low": float(fit.low[n]),
            "high": float(fit.high[n]),
            "p": float(fit.p[n]),
            "least_without_one": float(without[:, n].min()),
            "most_without_one": float(without[:, n].max()),
            "vif": None if n == 0 else float(fit.vif[n]),
        }
        for n, term in enumerate(("intercept", *terms))
    ]
    return rows, trouble


_MEANING = {"N": "the number of training images", "S": "cell size", "E": "elongation (1 is round)"}


def _tell(table: pl.DataFrame, metric: str) -> tuple[str, ...]:
    findings = []
    for key, group in groups(table.filter(pl.col("term") != "intercept"), ["suite", "dataset", "term"]):
        sure = group.filter(pl.col("p_holm") < 1 - LEVEL)
        steady = group.filter(pl.col("least_without_one") * pl.col("most_without_one") > 0)
        where = key["dataset"] if key["suite"].lower() == key["dataset"] else f"{key['suite']}, {key['dataset']}"
        up, down = (sure.filter(pl.col("coefficient") * sign > 0).height for sign in (1, -1))
        findings.append(
            f"{where}: {metric} changes by {median(group['coefficient']):+.2f} (median of {group.height} fits) from "
            f"the least to the greatest value of {_MEANING[key['term']]}; p < 0.05 in {sure.height} of them (Holm), "
            f"up in {up} and down in {down}; the sign stays whichever tissue is left out in {steady.height}"
        )
    return tuple(findings)
