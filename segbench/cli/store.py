"""``segbench store``: check, repair, merge and export the store of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, OutOption, WideOption, print_table, results_folder
from segbench.engine.results.folder import ResultsFolder, is_url

if TYPE_CHECKING:
    from segbench.engine.results.store.check import Checked

app = typer.Typer(no_args_is_help=True)


@app.command()
def check(
    out: OutOption = DEFAULT_OUT,
    files: Annotated[
        bool, typer.Option("--files/--no-files", help="Read the files of finished attempts too, or the records only.")
    ] = True,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Verify the store against every attempt's record, value by value, and the files of finished attempts against the
    hashes in their records. It ends with status 1 where anything is wrong.

    Works while a launch runs; records that it has not taken in yet are not faults then.

    Examples:

      segbench store check

      segbench store check --out /shared/results --format json
    """
    from segbench.engine.results.mirror import pull_all
    from segbench.engine.results.store.check import check_store

    pull_all(out)
    driven = out.launch.is_held()
    found = check_store(out, driven=driven, files=files)
    rows = [
        {"kind": fault.kind, "run_id": fault.run_id or "-", "attempt": fault.attempt, "detail": fault.detail}
        for fault in found.faults
    ]
    for_people = format is Format.TABLE
    if not for_people:
        print_table(rows, format)
    else:
        for row in rows:
            attempt = "" if row["attempt"] is None else f" attempt {row['attempt']}"
            typer.echo(f"{row['kind']}: {row['run_id']}{attempt}: {row['detail']}")
    typer.echo(_totals(found, driven), err=not for_people)
    if rows:
        raise typer.Exit(1)


def _totals(found: Checked, driven: bool) -> str:
    told = [f"{found.records} records, {found.attempts} attempts in the store"]
    if found.superseded:
        told.append(f"{found.superseded} second results of runs left out, as they should be")
    if driven:
        told.append(f"a launch runs: {found.waiting} records wait to be taken in")
    told.append(_verdict([fault.kind for fault in found.faults]))
    if found.unhashed:
        told.append(f"{found.unhashed} finished attempts of an older segbench have no hashes: their files may change")
    if found.elsewhere:
        told.append(f"{found.elsewhere} finished attempts whose files are not here")
    return "; ".join(told)


def _verdict(kinds: list[str]) -> str:
    if not kinds:
        return "all as it should be"
    changed = kinds.count("changed")
    told = [] if changed == len(kinds) else ["'segbench store repair' rebuilds the store"]
    if changed:
        told.append("files that were changed can be had again by running the run again")
    return f"{len(kinds)} faults: {'; '.join(told)}"


@app.command()
def repair(out: OutOption = DEFAULT_OUT) -> None:
    """Rebuild the store from the records alone; the old one is replaced in one step, when the new one is whole.

    Records that cannot be used are set aside as record.json.broken, and named. Where the old store has rows that no
    record stands for, it is kept as results.duckdb.before-repair. Refused while a launch runs.

    Example:

      segbench store repair --out /shared/results
    """
    from segbench.engine.results.mirror import pull_all
    from segbench.engine.results.mirrored_launch import launching
    from segbench.engine.results.store import StoreWriter
    from segbench.engine.results.store.check import repair_store
    from segbench.errors import SegbenchError

    if not out.path.is_dir():
        raise SegbenchError(f"there is no results folder {out}: name another --out")
    out.require_writable()
    with out.launch.hold(), launching(out, lambda text: typer.echo(text, err=True)) as remote:
        pull_all(out)
        done = repair_store(out)
        remote.keep(StoreWriter(out))
    for path in done.set_aside:
        typer.echo(f"set aside: {path}")
    for path in done.left:
        typer.echo(f"left out: {path} was written by a newer segbench")
    for run_id, attempt in done.lost_rows:
        typer.echo(f"without a record: {run_id} attempt {attempt}; its rows are only in the old store")
    kept = f"; the old store is kept as {done.kept}" if done.kept else ""
    typer.echo(f"rebuilt the store from {done.records} records{kept}")


@app.command()
def merge(
    sources: Annotated[
        list[ResultsFolder],
        typer.Argument(
            metavar="OTHER...", parser=results_folder, help="Results folders or URLs, of other clusters say."
        ),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to merge into; what it holds stays.")],
    link: Annotated[bool, typer.Option("--link", help="Hard-link the artifacts instead of copying them.")] = False,
    artifacts: Annotated[
        bool, typer.Option("--artifacts/--no-artifacts", help="Bring pictures, weights and logs, or the results only.")
    ] = True,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Merge results folders into one, each run's result once. Merging again changes nothing.

    A run finished in several is taken from the first that has it; attempts are numbered anew where numbers clash.

    Examples:

      segbench store merge cluster-a cluster-b --out all-results

      segbench store merge cluster-a --out all-results --link
    """
    from segbench.engine.results.mirror import pull_all
    from segbench.engine.results.store.merge import merge_results
    from segbench.errors import SegbenchError
    from segbench.paths import gone_if_failed

    if is_url(out):
        raise SegbenchError(f"cannot merge into {out}: name a folder with --out")
    target = ResultsFolder(Path(out))
    if link and not artifacts:
        raise SegbenchError("--link and --no-artifacts exclude each other: there is nothing to link")
    if target.path.exists() and not target.path.is_dir():
        raise SegbenchError(f"{target} is a file: name a folder with --out")
    for source in sources:
        pull_all(source, artifacts=artifacts)
    target.require_writable()
    with gone_if_failed(target.path), target.make().launch.hold():
        merged = merge_results(sources, target, link=link, artifacts=artifacts)
    rows = [
        {
            "source": str(one.source),
            "new_attempts": one.new,
            "already_there": one.there,
            "run_finished_before": one.finished_before,
            "unreadable": len(one.unreadable),
        }
        for one in merged
    ]
    print_table(rows, format)
    for path in (path for one in merged for path in one.unreadable):
        typer.echo(f"unreadable, left out: {path}", err=True)
    for path in (path for one in merged for path in one.links):
        typer.echo(f"no file but a link, left out: {path}", err=True)


@app.command()
def export(
    parquet: Annotated[Path, typer.Option("--parquet", help="The folder for one Parquet file a table and view.")],
    out: OutOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Write every table and view as a Parquet file. Works while a launch runs.

    Example:

      segbench store export --parquet tables --out /shared/results
    """
    from segbench.engine.results.store.merge import export_parquet

    counts = export_parquet(out, parquet)
    rows: list[dict[str, Any]] = [
        {"file": str(parquet / f"{name}.parquet"), "rows": rows} for name, rows in counts.items()
    ]
    print_table(rows, format)
