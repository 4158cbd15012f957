"""Turns the analyses' answers into what sections hold: frames for every metric, warnings as sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from segbench.analysis.report.model import METRICS, Frame
from segbench.analysis.result import Result

BY_METHOD = {"method": ("method",), "task": ("task",), "tissue": ("test_tissue",)}


@dataclass(frozen=True)
class Answers:
    """One analysis for every metric that the reader can choose."""

    default: Result
    """The answer for accuracy: its warnings are told."""
    table: pl.DataFrame
    """The answers' tables with a column ``metric``."""
    parts: Mapping[str, pl.DataFrame]
    """The answers' parts with a column ``metric``."""


def for_every_metric(ask: Callable[[str], Result]) -> Answers:
    """Ask an analysis once a metric."""
    results = {metric: ask(metric) for metric in METRICS}
    default = results["accuracy"]

    def joined(pick: Callable[[Result], pl.DataFrame]) -> pl.DataFrame:
        tagged = [pick(result).with_columns(pl.lit(metric).alias("metric")) for metric, result in results.items()]
        return pl.concat([frame for frame in tagged if frame.height] or tagged[:1], how="diagonal_relaxed")

    return Answers(
        default,
        joined(lambda result: result.table),
        {name: joined(lambda result, name=name: result.parts[name]) for name in default.parts},  # type: ignore[misc]
    )


def answer_frame(
    name: str, data: pl.DataFrame, result: Result, filters: Mapping[str, tuple[str, ...]] = BY_METHOD
) -> Frame:
    """Return a frame with an analysis's rows; its source is the query and the command that computes the rest."""
    return Frame(name, data, f"-- computed by: segbench analyze {result.name}\n{result.sql}", filters)


def unsure(result: Result) -> tuple[str, ...]:
    """Return an analysis's warnings as sentences."""
    return tuple(_sentence(warning) for warning in result.warnings)


def why_missing(result: Result) -> str:
    """Return why an analysis has no row, in its own words."""
    return " ".join(_sentence(warning) for warning in result.warnings[-1:])


def panel(*columns: str) -> pl.Expr:
    """Return the expression that names a small multiple after these columns."""
    return pl.concat_str([pl.col(column) for column in columns], separator=", ").alias("panel")


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
