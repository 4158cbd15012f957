"""What ``methods measure`` found: rows of the table ``measurements``, each measurement a file of the results folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import query
from segbench.engine.results.store.reader import read_connection
from segbench.small_files import write_whole

if TYPE_CHECKING:
    import duckdb

FOLDER = "measurements"


class Measurement(BaseModel):
    """One row: a stage of a method at one batch size; the migration that makes the table explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    measurement: str
    stage: Literal["train", "predict"]
    batch: int = Field(ge=1)
    method: str
    settings: dict[str, Any]
    precision: str
    device: str
    device_bytes: int | None = None
    num_cpus: float
    side: int
    n_channels: int
    windows_per_s: float | None = None
    bytes: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    segbench_version: str
    host: str
    measured_at: datetime


_ROWS = TypeAdapter(list[Measurement])


def keep_measurement(out: ResultsFolder, rows: Sequence[Measurement]) -> Path:
    """Write the rows of one measurement, whole, into the results folder; return the file."""
    folder = out.make().path / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{rows[0].method}-{rows[0].measurement}.json"
    write_whole(path, _ROWS.dump_json(list(rows), indent=1).decode(), sync=True)
    return path


def insert_measurements(connection: duckdb.DuckDBPyConnection, out: ResultsFolder) -> int:
    """Take the files of a results folder that the store lacks into it; return how many. Other files are left."""
    there = {name for (name,) in connection.execute("select distinct measurement from measurements").fetchall()}
    new = 0
    for path in sorted((out.path / FOLDER).glob("*.json")):
        if path.stem.rpartition("-")[2] in there:
            continue
        try:
            rows = _ROWS.validate_json(path.read_bytes())
        except ValidationError:
            continue
        for row in rows:
            values = row.model_dump() | {name: json.dumps(getattr(row, name)) for name in ("settings", "versions")}
            marks = ", ".join("?" * len(values))
            connection.execute(
                f"insert into measurements ({', '.join(values)}) values ({marks}) on conflict do nothing",
                list(values.values()),
            )
        new += 1
    return new


def bring_measurements(source: ResultsFolder, out: ResultsFolder) -> int:
    """Copy the measurements of a results folder that another lacks; return how many."""
    new = 0
    for path in sorted((source.path / FOLDER).glob("*.json")):
        target = out.path / FOLDER / path.name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            write_whole(target, path.read_text())
            new += 1
    return new


def read_measurements(out: ResultsFolder) -> list[Measurement]:
    """Return what a store holds of them, the oldest first; none of a store that an older segbench wrote last."""
    if not out.has_store():
        return []
    with read_connection(out) as connection:
        made = connection.execute("select 1 from duckdb_tables() where table_name = 'measurements'").fetchone()
    if made is None:
        return []
    rows = query(out, "select * from measurements order by measured_at").iter_rows(named=True)
    return [Measurement(**row | {name: json.loads(row[name]) for name in ("settings", "versions")}) for row in rows]
