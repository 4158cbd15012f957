"""Turns records into the rows of the store's tables, column by column, as Polars frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segbench.engine.results.record import (
    METRICS,
    AttemptRow,
    CalibrationRow,
    DegradedRow,
    EvaluationRow,
    GapRow,
    HistoryRow,
    Record,
    ResampleTable,
    StageRow,
    StratumRow,
    TissueRow,
    WholeRow,
)

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    from pydantic import BaseModel

TABLES = (
    "attempts",
    "phases",
    "stages",
    "evaluations",
    "images",
    "resamples",
    "history",
    "whole_evaluations",
    "gaps",
    "cell_strata",
    "calibration",
    "degraded_evaluations",
    "degraded_resamples",
    "tissues",
)
_JSON_FIELDS = ("settings", "versions")


def frames(connection: duckdb.DuckDBPyConnection, records: Sequence[Record]) -> dict[str, pl.DataFrame]:
    """Return the rows that records stand for, a frame a table; the types are those of the store that is open.

    A column that a table has and a record has not is left out of the frame: the store gives it its default.
    """
    import polars as pl

    made: dict[str, pl.DataFrame] = {}
    for table, columns in _columns(records).items():
        types = connection.sql(f"select * from {table} limit 0").pl().schema
        made[table] = pl.DataFrame({name: pl.Series(name, c, dtype=types.get(name)) for name, c in columns.items()})
    return made


def _columns(records: Sequence[Record]) -> dict[str, dict[str, list[Any]]]:
    return {
        "attempts": _attempts(records),
        "phases": {
            **_keys(records, [len(record.phases) for record in records]),
            "phase": [phase for record in records for phase in record.phases],
            "seconds": [seconds for record in records for seconds in record.phases.values()],
        },
        "stages": {
            **_keys(records, [len(record.stages) for record in records]),
            **_fields(StageRow, [row for record in records for row in record.stages]),
        },
        "evaluations": {
            **_keys(records, [len(record.evaluations) for record in records]),
            **_fields(EvaluationRow, [row for record in records for row in record.evaluations]),
        },
        "images": _images(records),
        "resamples": _resamples(records),
        "history": {
            **_keys(records, [len(record.history) for record in records]),
            "point": [n for record in records for n in range(len(record.history))],
            **_fields(HistoryRow, [row for record in records for row in record.history]),
        },
        "whole_evaluations": {
            **_keys(records, [len(record.whole) for record in records]),
            **_fields(WholeRow, [row for record in records for row in record.whole]),
        },
        "gaps": {
            **_keys(records, [len(record.gaps) for record in records]),
            **_fields(GapRow, [row for record in records for row in record.gaps]),
        },
        "cell_strata": {
            **_keys(records, [len(record.cell_strata) for record in records]),
            **_fields(StratumRow, [row for record in records for row in record.cell_strata]),
        },
        "calibration": {
            **_keys(records, [len(record.calibration) for record in records]),
            **_fields(CalibrationRow, [row for record in records for row in record.calibration]),
        },
        "degraded_evaluations": {
            **_keys(records, [len(record.degraded) for record in records]),
            **_fields(DegradedRow, [row for record in records for row in record.degraded]),
        },
        "degraded_resamples": _degraded_resamples(records),
        "tissues": _fields(TissueRow, _tissues(records)),
    }


def _attempts(records: Sequence[Record]) -> dict[str, list[Any]]:
    columns = _fields(AttemptRow, [record.attempt for record in records])
    columns["status"] = [status.value for status in columns["status"]]
    for name in _JSON_FIELDS:
        columns[name] = [json.dumps(value, separators=(",", ":"), ensure_ascii=False) for value in columns[name]]
    return columns


def _images(records: Sequence[Record]) -> dict[str, list[Any]]:
    tables = [(record, table) for record in records for table in record.images]
    lengths = [len(table.columns["image"]) for _, table in tables]
    columns = _keys([record for record, _ in tables], lengths)
    columns["test_task"] = [table.test_task for (_, table), n in zip(tables, lengths, strict=True) for _ in range(n)]
    for name in dict.fromkeys(name for _, table in tables for name in table.columns):
        columns[name] = [value for _, table in tables for value in table.columns[name]]
    return columns


def _resamples(records: Sequence[Record]) -> dict[str, list[Any]]:
    return _sampled([(record, table) for record in records for table in record.resamples], ("test_task",))


def _degraded_resamples(records: Sequence[Record]) -> dict[str, list[Any]]:
    tables = [(record, table) for record in records for table in record.degraded_resamples]
    return _sampled(tables, ("test_task", "kind", "step", "clean"))


def _sampled(tables: Sequence[tuple[Record, ResampleTable]], names: Sequence[str]) -> dict[str, list[Any]]:
    lengths = [len(table.columns["map"]) for _, table in tables]
    columns = _keys([record for record, _ in tables], lengths)
    for name in names:
        columns[name] = [getattr(table, name) for (_, table), n in zip(tables, lengths, strict=True) for _ in range(n)]
    columns["resample"] = [number for n in lengths for number in range(n)]
    for name in METRICS:
        columns[name] = [value for _, table in tables for value in table.columns[name]]
    return columns


def _tissues(records: Sequence[Record]) -> list[TissueRow]:
    rows = (row for record in records for row in record.tissues)
    return list({(row.dataset_fingerprint, row.split, row.target, row.tissue): row for row in rows}.values())


def _keys(records: Sequence[Record], lengths: Sequence[int]) -> dict[str, list[Any]]:
    pairs = list(zip(records, lengths, strict=True))
    return {
        "run_id": [record.attempt.run_id for record, n in pairs for _ in range(n)],
        "attempt": [record.attempt.attempt for record, n in pairs for _ in range(n)],
    }


def _fields(model: type[BaseModel], rows: Sequence[Any]) -> dict[str, list[Any]]:
    return {name: [getattr(row, name) for row in rows] for name in model.model_fields}
