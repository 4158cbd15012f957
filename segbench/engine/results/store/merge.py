"""Merges results folders, each run's result once, and exports a store as a folder of Parquet files."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from segbench.engine.results.attempts import RECORD_NAME, AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.measurements import bring_measurements
from segbench.engine.results.record import Record
from segbench.engine.results.statuses import Status
from segbench.engine.results.store.opening import of_the_file, one_line
from segbench.engine.results.store.reader import query, store_copy
from segbench.engine.results.store.recovery import take_in
from segbench.engine.results.store.writer import StoreWriter
from segbench.errors import SegbenchError
from segbench.paths import gone_if_failed, require_writable_folder

_Try = tuple[str, Status, str, datetime, datetime]
"""What makes an attempt the same one in two folders, whatever its number: run, how it ended, host, start and end."""


@dataclass(frozen=True)
class Merged:
    """What ``merge_results`` took from one results folder."""

    source: ResultsFolder
    new: int
    """Attempts that were copied."""
    there: int
    """Attempts that the target had already."""
    finished_before: int
    """Finished attempts of runs that had a finished attempt in the target: left out."""
    unreadable: tuple[Path, ...]
    """Records that could not be read, or lie behind a link: left out."""
    links: tuple[Path, ...] = ()
    """Links, and what is neither file nor folder, among the artifacts: left out, whoever made the folder."""


def merge_results(
    sources: Sequence[ResultsFolder],
    out: ResultsFolder,
    link: bool = False,
    artifacts: bool = True,
    progress: Callable[[ResultsFolder, int], None] | None = None,
) -> list[Merged]:
    """Bring the attempts of several results folders together in one, and its store up to them.

    A run that is finished in several is taken once: the target's own first, then the sources' in their order. Attempts
    get the next free number of their run, and an attempt that is there already, under whatever number, is not taken
    again, so that merging twice, or after an interruption, changes nothing. The caller holds the target's driver lock.

    Parameters
    ----------
    sources
        Results folders; they are read only.
    out
        The target; results that it holds stay.
    link
        Hard-link the artifacts instead of copying them; on one file system only.
    artifacts
        False for the records alone: every table and figure, but no pictures, weights and logs.
    progress
        Is told the source and how many of its records are done.

    Raises
    ------
    SegbenchError
        A source is no results folder or is the target, or linking crosses file systems.
    """
    for source in sources:
        if not source.has_runs():
            raise SegbenchError(f"{source} is no results folder: it holds no runs/")
        if source.path.resolve() == out.path.resolve():
            raise SegbenchError(f"{source} is the target itself: name another --out, or leave it out of the sources")
    writer = StoreWriter(out)
    for staged in out.left_staged():
        shutil.rmtree(staged)
    tries, finished = _held(out)
    bring = partial(_bring, out=out, link=link, artifacts=artifacts)
    merged = [_take(source, tries, finished, bring, progress) for source in sources]
    for source in sources:
        bring_measurements(source, out)
    take_in(out, writer)
    return merged


def _take(
    source: ResultsFolder,
    tries: set[_Try],
    finished: set[str],
    bring: Callable[[Record, AttemptFolder], list[Path]],
    progress: Callable[[ResultsFolder, int], None] | None,
) -> Merged:
    """Bring what a source has and the target lacks, and add it to the target's attempts and finished runs."""
    new = there = before = 0
    unreadable, links = list[Path](), list[Path]()
    for n, attempt in enumerate(source.recorded(), 1):
        if any(path.is_symlink() for path in (attempt.run_path, attempt.path, attempt.record)):
            unreadable.append(attempt.record)
            continue
        try:
            record = attempt.read_record()
        except (OSError, ValueError):
            unreadable.append(attempt.record)
            continue
        row = record.attempt
        if _try(record) in tries:
            there += 1
        elif row.status is Status.DONE and row.run_id in finished:
            before += 1
        else:
            links += bring(record, attempt)
            tries.add(_try(record))
            finished |= {row.run_id} if row.status is Status.DONE else set()
            new += 1
        if progress is not None and n % 100 == 0:
            progress(source, n)
    return Merged(source, new, there, before, tuple(unreadable), tuple(links))


def export_parquet(out: ResultsFolder, folder: Path) -> dict[str, int]:
    """Write every table and view of a store as ``NAME.parquet`` into a folder; return their numbers of rows.

    It is a copy of the store that is read, so that a launch goes on meanwhile. Files of those names are
    replaced, each in one step; others stay. A store may come from anyone: nothing that it holds reads a file.

    Raises
    ------
    SegbenchError
        There is no store, the folder cannot be written, or the store holds a table whose name is no file's name, or a
        view that cannot be computed.
    """
    require_writable_folder(folder, f"cannot write to {folder}")
    with gone_if_failed(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as parts:
                counts = _export(out, Path(parts))
                for name in counts:
                    (Path(parts) / f"{name}.parquet").replace(folder / f"{name}.parquet")
        except OSError as error:
            raise SegbenchError(f"cannot write to {folder}: {error.strerror or error}") from None
    return counts


def _export(out: ResultsFolder, folder: Path) -> dict[str, int]:
    import duckdb

    counts: dict[str, int] = {}
    with store_copy(out, writes_into=folder) as connection:
        names = connection.execute(
            "select table_name from duckdb_tables() where not internal "
            "union all select view_name from duckdb_views() where not internal order by all"
        ).fetchall()
        for (name,) in names:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
                raise SegbenchError(f"{out.store} holds a table {name[:80]!r}, after which no file is named: rename it")
            try:
                found = connection.execute(
                    f'copy (select * from "{name}") to $path (format parquet, compression zstd)',
                    {"path": str(folder.resolve() / f"{name}.parquet")},
                ).fetchone()
            except duckdb.Error as error:
                if str(folder.resolve()) in str(error):  # the new file, not the store
                    why = one_line(error).rpartition(": ")[2]
                    raise SegbenchError(f"cannot write {name}.parquet to {folder.parent}: {why}") from None
                told = SegbenchError(f"cannot export {name} of {out.store}: {one_line(error)}")
                raise of_the_file(error, out.store) or told from None
            counts[name] = int(found[0]) if found else 0
    return counts


def _held(out: ResultsFolder) -> tuple[set[_Try], set[str]]:
    """Return the attempts of the target's store and the ids of its finished runs."""
    take_in(out, StoreWriter(out))
    rows = query(out, "select run_id, status, host, started_at, ended_at from attempts").rows()
    tries = {(run, Status(status), host, start, end) for run, status, host, start, end in rows}
    return tries, {run for run, status, *_ in tries if status is Status.DONE}


def _try(record: Record) -> _Try:
    row = record.attempt
    return row.run_id, row.status, row.host, row.started_at, row.ended_at


def _bring(record: Record, source: AttemptFolder, out: ResultsFolder, link: bool, artifacts: bool) -> list[Path]:
    """Copy one attempt's folder under the next free number of its run, all of it or nothing; return links left out."""
    links: list[Path] = []

    def left_out(folder: str, names: list[str]) -> set[str]:
        odd = {name for name in names if not _is_plain(Path(folder) / name)}
        links.extend(Path(folder) / name for name in sorted(odd))
        return odd | {name for name in names if name.startswith(RECORD_NAME)}

    target = out.next_attempt(record.attempt.run_id)
    staged = out.staged(target)
    row = record.attempt.model_copy(update={"attempt": target.number, "folder": target.relative})
    if artifacts:
        try:
            shutil.copytree(source.path, staged, ignore=left_out, copy_function=os.link if link else shutil.copy2)
        except (shutil.Error, OSError) as error:
            raise SegbenchError(_why(error, source.path, link)) from None
    else:
        staged.mkdir(parents=True)
    record.model_copy(update={"attempt": row, "claim": None}).write(staged / RECORD_NAME)
    target.claim.unlink(missing_ok=True)  # of an attempt that left no folder
    staged.rename(target.path)
    return links


def _is_plain(path: Path) -> bool:
    """Return whether a path is a file or a folder itself, not a link to one, a pipe or a device."""
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _why(error: Exception, source: Path, link: bool) -> str:
    first = str(error.args[0][0][2]) if isinstance(error, shutil.Error) and error.args[0] else str(error)
    hint = (
        "; --link works within one file system only, leave it out" if link and "cross-device" in first.lower() else ""
    )
    return f"cannot bring {source}: {first}{hint}"
