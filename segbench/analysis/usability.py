"""Usability: code maintenance, ease of use and hardware support, z-scored over methods and averaged."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import polars as pl

from segbench.analysis.result import Result, list_names, unique
from segbench.analysis.scores import normal_scores
from segbench.analysis.source import Source, read_sql
from segbench.engine.grid.cards import all_cards
from segbench.errors import SegbenchError

SCORES = ("code_maintenance", "ease_of_use", "hardware_support")
"""The three scores of the study, 1 to 10."""
_SCHEMA = {
    "method": pl.String,
    "title": pl.String,
    **dict.fromkeys(SCORES, pl.Float64),
    **{f"{name}_normal": pl.Float64 for name in SCORES},
    "usability": pl.Float64,
    "basis": pl.String,
    "source": pl.String,
}


@dataclass(frozen=True)
class RawUsability:
    """The three scores that someone gave a method."""

    method: str
    """The method's name."""
    code_maintenance: float | None
    """1..10, None where unknown."""
    ease_of_use: float | None
    """1..10."""
    hardware_support: float | None
    """1..10."""
    source: str
    """Who says so, or where it is written."""


def read_usability(path: str | PathLike[str]) -> tuple[RawUsability, ...]:
    """Read scores from a CSV with the columns method, code_maintenance, ease_of_use, hardware_support and source.

    Raises
    ------
    SegbenchError
        The file cannot be read, lacks a column, names a method twice or no source, or a score is not in 1..10 (an empty
        one is unknown).
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SegbenchError(f"cannot read the usability scores {path}: {error}") from None
    reader = csv.DictReader(text.splitlines())
    wanted = ("method", *SCORES, "source")
    lacking = [name for name in wanted if name not in (reader.fieldnames or ())]
    if lacking:
        raise SegbenchError(f"{path} lacks the columns {', '.join(lacking)}; it needs {', '.join(wanted)}")
    rows: dict[str, RawUsability] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        method, origin = (row["method"] or "").strip(), (row["source"] or "").strip()
        if not method or method in rows:
            raise SegbenchError(f"{where}: every row needs a method of its own, found {method!r}")
        if not origin:
            raise SegbenchError(f"{where}: the scores of {method} need a source: who says so, or where it is written")
        maintenance, ease, hardware = (_score(row[name], f"{where}: {name} of {method}") for name in SCORES)
        rows[method] = RawUsability(method, maintenance, ease, hardware, origin)
    return tuple(rows.values())


def score_usability(source: Source, *, scores: Sequence[RawUsability] | str | PathLike[str] | None = None) -> Result:
    """Return the usability of every method of a source.

    Each of the three scores is z-scored over the methods that have all three, mapped through the normal distribution
    function, and the three are averaged. A method that lacks one keeps the study's composite where that is known, and
    is marked so; nothing is filled in.

    Parameters
    ----------
    source
        Where the methods are.
    scores
        Raw scores, or the path of a CSV file with them (`read_usability`); None takes those of the methods' cards.

    Returns
    -------
    ``table``: raw and normal scores, ``usability`` (0..1) and its ``basis``: 'sub-scores', 'study composite'
    or 'unknown'.
    """
    sql, health = read_sql("usability"), source.health()
    if isinstance(scores, str | PathLike):
        scores = read_usability(scores)
    known = source.rows(sql)
    cards = all_cards()
    raw = _from_cards() if scores is None else {score.method: score for score in scores}
    composites = {name: value for name, value in known.select("method", "usability").iter_rows() if value is not None}
    titles = dict(known.select("method", "title").iter_rows())
    names = list(titles) if scores is None else [*titles, *(name for name in raw if name not in titles)]
    normal = _normalise({name: raw[name] for name in names if name in raw})
    rows = []
    for name in names:
        given, scored = raw.get(name), normal.get(name)
        value: float | None = composites.get(name)
        basis = "unknown" if value is None else "study composite"
        if scored is not None:
            value, basis = float(np.mean(scored)), "sub-scores"
        card = cards.get(name)
        study = card.usability.source if card is not None else ""
        rows.append(
            {
                "method": name,
                "title": titles.get(name, card.title if card is not None else name),
                **{column: getattr(given, column, None) for column in SCORES},
                **{f"{column}_normal": None if scored is None else scored[n] for n, column in enumerate(SCORES)},
                "usability": value,
                "basis": basis,
                "source": given.source if given is not None and scored is not None else study,
            }
        )
    table = pl.DataFrame(rows, schema=_SCHEMA).sort("usability", "method", descending=[True, False], nulls_last=True)
    return Result("usability", source.label, table, _tell(table), unique([*health.warnings, *_beware(table)]), sql)


def usability_of(result: Result) -> dict[str, float]:
    """Return method to usability from the analysis's result, for the ranking."""
    return {name: value for name, value in result.table.select("method", "usability").iter_rows() if value is not None}


def _score(text: str | None, what: str) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 1 <= value <= 10:
        raise SegbenchError(f"{what} must be a number from 1 to 10, or empty where unknown, found {text.strip()!r}")
    return value


def _from_cards() -> dict[str, RawUsability]:
    raw = {}
    for name, card in all_cards().items():
        given = card.usability
        values = (given.code_maintenance, given.ease_of_use, given.hardware_support)
        if any(value is not None for value in values):
            raw[name] = RawUsability(name, *values, given.source)
    return raw


def _normalise(raw: Mapping[str, RawUsability]) -> dict[str, list[float]]:
    """Return the three normal scores of each method that has all three raw ones; nothing where it is alone."""
    whole = [r for r in raw.values() if None not in (r.code_maintenance, r.ease_of_use, r.hardware_support)]
    if len(whole) < 2:
        return {}
    columns = [normal_scores([getattr(r, name) for r in whole]) for name in SCORES]
    return {r.method: [float(column[n]) for column in columns] for n, r in enumerate(whole)}


def _beware(table: pl.DataFrame) -> list[str]:
    warnings = []
    bases = set(table["basis"])
    partial = table.filter((pl.col("basis") != "sub-scores") & pl.any_horizontal(pl.col(SCORES).is_not_null()))
    if partial.height:
        warnings.append(
            f"not scored from their sub-scores, for one is missing or there is no other method to compare with: "
            f"{list_names(partial['title'])}"
        )
    if "study composite" in bases:
        names = table.filter(pl.col("basis") == "study composite")["title"]
        warnings.append(f"only the study's published composite is known, not its sub-scores, of {list_names(names)}")
    if {"sub-scores", "study composite"} <= bases:
        warnings.append(
            "composites of the study and of these sub-scores stand side by side: each was normalised over other methods"
        )
    unknown = table.filter(pl.col("basis") == "unknown")["title"]
    if len(unknown):
        warnings.append(f"no usability is known of {list_names(unknown)}")
    return warnings


def _tell(table: pl.DataFrame) -> tuple[str, ...]:
    known = table.drop_nulls("usability")
    if known.height < 2:
        return ()
    return (
        f"{known['title'][0]} is the easiest to use ({known['usability'][0]:.2f}) and {known['title'][-1]} the hardest "
        f"({known['usability'][-1]:.2f}) of {known.height} methods",
    )
