"""Running time: T and its standardised form, the three scalability inputs, GPU hours, growth with N."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from segbench.analysis.frames import groups
from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.scores import Floats, normal_scores
from segbench.analysis.source import Source, read_sql
from segbench.errors import SegbenchError

INPUTS = {"nuclear": "nuclei_h", "wholecell": "wholecell_h", "livecell": "livecell_h"}
"""The study's three scalability inputs: means over the tasks of nuclei, of whole cells, and the LIVECell task."""
_FITTED = ["suite", "task", "method", "title", "batch_size", "epochs", "iterations", "num_cpus", "num_gpus", "gpus"]
_FIT_SCHEMA = {
    "suite": pl.String,
    "task": pl.String,
    "method": pl.String,
    "title": pl.String,
    "epochs": pl.Int32,
    "iterations": pl.Int32,
    "runs": pl.Int64,
    "n_min": pl.Int32,
    "n_max": pl.Int32,
    "seconds_per_image": pl.Float64,
    "intercept_s": pl.Float64,
    "r2": pl.Float64,
    "p": pl.Float64,
    "exponent": pl.Float64,
}


def measure_runtime(source: Source, *, watts: float | None = None) -> Result:
    """Return training times per method, task and training tissue, averaged over seeds.

    Parameters
    ----------
    source
        Where the runs are.
    watts
        Power of one busy GPU in watts, for the energy; None leaves the energy null, for no power is measured.

    Returns
    -------
    ``table``: ``train_s`` (T, seconds, after loading), ``standardised_s`` (T x B/8 x 50/E for epochs, T x B/8 x 50N/(I
    x B) for iterations) and the same in ``hours``, ``gpu_hours`` (T times the GPUs held), ``energy_kwh``. Parts:
    ``scalability`` (per method trained on all tissues: ``nuclei_h``, ``wholecell_h`` and ``livecell_h``, and 1 - the
    mean of their normal scores) and ``fits`` (T = a N + b and T ~ N^k by least squares, where a method was trained with
    one budget on at least three sizes N).

    Raises
    ------
    SegbenchError
        ``watts`` is not a positive number.
    """
    if watts is not None and not (math.isfinite(watts) and watts > 0):
        raise SegbenchError(f"watts must be a positive number, the power of one GPU, found {watts}")
    sql, health = read_sql("runtime"), source.health()
    runs = source.rows(sql)
    energy = pl.lit(None, pl.Float64) if watts is None else pl.col("gpu_hours") * watts / 1000
    table = (
        runs.group_by(
            ["suite", "dataset", "layout", "task", "target", "n_channels", "method", "title", "train_tissue"],
            maintain_order=True,
        )
        .agg(
            pl.len().alias("runs"),
            pl.col("train_s").mean(),
            pl.col("standardised_s").mean(),
            pl.col("gpu_hours").mean(),
            pl.col("n_train_images").mean().alias("n_train_images"),
            pl.col("num_gpus").max(),
            pl.col("gpus").filter(pl.col("gpus") != "").unique(maintain_order=True).str.join("; "),
        )
        .with_columns((pl.col("standardised_s") / 3600).alias("hours"), energy.alias("energy_kwh"))
    )
    scalability = scalability_of(table)
    fits = _fit(runs)
    warnings = [*health.warnings, *health.hardware]
    if source.published:
        warnings.append("the published table gives standardised hours only: T, GPU hours and energy are not known")
    unknown = table.filter(pl.col("standardised_s").is_null() & (pl.col("train_tissue") == "all"))
    if unknown.height:
        warnings.append(f"no standardised time for {list_names(_pairs(unknown))}: T, batch or budget is not known")
    alone = [key["suite"] for key, group in groups(scalability, ["suite"]) if group.height == 1]
    if alone:
        warnings.append(f"scalability compares methods: with one method alone ({list_names(alone)}) it is not defined")
    return Result(
        name="runtime",
        source=source.label,
        table=table,
        findings=_tell(scalability, fits),
        warnings=unique(warnings),
        sql=sql,
        parts={"scalability": scalability, "fits": fits},
    )


def scalability_of(table: pl.DataFrame) -> pl.DataFrame:
    """Return each method's scalability from the times of the models trained on all tissues.

    Parameters
    ----------
    table
        Columns suite, dataset, layout, task, target, method, title, train_tissue, hours.

    Returns
    -------
    One row a suite and method: ``nuclei_h``, ``wholecell_h``, ``livecell_h`` (hours, null where a task's time is
    missing) and ``scalability``, null where a method lacks one of its suite's inputs.
    """
    names = [*INPUTS.values(), "other_h"]
    schema = {
        "suite": pl.String,
        "method": pl.String,
        "title": pl.String,
        **dict.fromkeys([*names, "scalability"], pl.Float64),
    }
    rows: list[dict[str, object]] = []
    chosen = table.filter(pl.col("train_tissue") == "all").with_columns(input_of().alias("input"))
    for key, group in groups(chosen, ["suite"]):
        tasks = group.select("task", "input").unique(maintain_order=True)
        methods = group.select("method", "title").unique("method", maintain_order=True)
        hours = {(m, t): h for m, t, h in group.select("method", "task", "hours").iter_rows()}
        matrix = np.array([[_number(hours.get((m, t))) for t in tasks["task"]] for m in methods["method"]])
        means = group_means(matrix, tasks["input"].to_list())
        scores = scalability_scores(np.column_stack(list(means.values())))
        for row, (method, title) in enumerate(methods.iter_rows()):
            values = {name: _plain(column[row]) for name, column in means.items()}
            rows.append({**key, "method": method, "title": title, **values, "scalability": _plain(scores[row])})
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
    return frame if frame["other_h"].is_not_null().any() else frame.drop("other_h")


def input_of() -> pl.Expr:
    """Return the expression that says which scalability input a task (columns layout, target) belongs to."""
    kind = (
        pl.when(pl.col("layout") == "livecell")
        .then(pl.lit("livecell"))
        .when(pl.col("layout") == "tissuenet")
        .then(pl.col("target"))
    )
    return kind.otherwise(pl.lit("other")).replace_strict(INPUTS, default="other_h")


def group_means(matrix: Floats, groups: list[str]) -> dict[str, Floats]:
    """Return the mean over each group of columns (methods x tasks in, methods out); NaN where one is missing."""
    return {name: matrix[:, [g == name for g in groups]].mean(axis=1) for name in dict.fromkeys(groups)}


def scalability_scores(inputs: Floats) -> Floats:
    """Return 1 - the mean of the normal scores of each input (methods x inputs, hours); NaN where one is missing."""
    return np.asarray(
        1 - np.column_stack([normal_scores(column) for column in inputs.T]).mean(axis=1), dtype=np.float64
    )


def _fit(runs: pl.DataFrame) -> pl.DataFrame:
    from scipy.stats import linregress

    rows: list[dict[str, object]] = []
    usable = runs.filter(
        pl.col("trained") & (pl.col("train_s") > 0) & (pl.col("n_train_images") > 0)
    )  # a log needs positive numbers
    for key, group in groups(usable, _FITTED):
        n, t = group["n_train_images"].to_numpy().astype(float), group["train_s"].to_numpy()
        if len(np.unique(n)) < 3:
            continue
        line, power = linregress(n, t), linregress(np.log(n), np.log(t))
        rows.append(
            {
                **{name: value for name, value in key.items() if name in _FIT_SCHEMA},
                "runs": len(n),
                "n_min": int(n.min()),
                "n_max": int(n.max()),
                "seconds_per_image": float(line.slope),
                "intercept_s": float(line.intercept),
                "r2": float(line.rvalue**2),
                "p": float(line.pvalue),
                "exponent": float(power.slope),
            }
        )
    return pl.DataFrame(rows, schema=_FIT_SCHEMA)


def _tell(scalability: pl.DataFrame, fits: pl.DataFrame) -> tuple[str, ...]:
    findings: list[str] = []
    names = [name for name in (*INPUTS.values(), "other_h") if name in scalability.columns]
    for key, group in groups(scalability, ["suite"]):
        ranked = group.filter(pl.col("scalability").is_not_null()).sort(
            "scalability", "method", descending=[True, False]
        )
        if ranked.height > 1:
            first, last = ranked.row(0, named=True), ranked.row(-1, named=True)
            findings.append(
                f"{key['suite']}: {first['title']} scales best ({_hours(first, names)}) and {last['title']} worst "
                f"({_hours(last, names)}) of {ranked.height} methods"
            )
    for row in fits.sort("r2", descending=True).head(1).iter_rows(named=True):
        findings.append(
            f"training time grows with the number of training images N as N^{row['exponent']:.2f} for {row['title']} "
            f"on {row['task']} ({row['seconds_per_image']:.3g} s an image, R2 {row['r2']:.2f}, {row['runs']} runs)"
        )
    return tuple(findings)


def _hours(row: dict[str, object], names: list[str]) -> str:
    return ", ".join(f"{name[:-2]} {row[name]:.3g} h" for name in names if row[name] is not None)


def _pairs(frame: pl.DataFrame) -> list[str]:
    return [f"{title} on {task}" for title, task in frame.select("title", "task").iter_rows()]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: np.float64) -> float | None:
    return None if math.isnan(value) else float(value)
