"""``segbench report``: one self-contained HTML dashboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, OutOption
from segbench.engine.results.folder import ResultsFolder


def report(
    out: OutOption = DEFAULT_OUT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default one in the results folder.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="The report's title.")] = None,
    sections: Annotated[
        str, typer.Option("--sections", help="Only these sections, separated by commas, in this order.")
    ] = "",
    compare: Annotated[
        Path | None,
        typer.Option("--compare", help="Another results folder, or its DuckDB file, to show beside this one."),
    ] = None,
    with_published: Annotated[
        bool, typer.Option("--with-published", help="Show the published scores beside these.")
    ] = False,
    static_dir: Annotated[
        Path | None, typer.Option("--static-dir", help="Write a static site (index.html and its files) here instead.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again whenever results come in, until Ctrl-C.")
    ] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Show it live to a browser on this machine, anew as results come in, until Ctrl-C."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", help="For --serve; a free one by default.", min=0, max=65535, show_default=False)
    ] = 0,
) -> None:
    """Write the results as one HTML file that needs no server and no network.

    It works while a grid runs, too. Examples:

      segbench report --open

      segbench report --out my-results --title "Nuclei, March" --sections overview,ranking

      segbench report --compare last-month/results.duckdb --with-published

      segbench report --serve --open
    """
    from segbench.analysis.report.page import build_report, choose_sections
    from segbench.analysis.results import Results
    from segbench.errors import SegbenchError

    if output is not None and static_dir is not None:
        raise SegbenchError("--output and --static-dir exclude each other: one names a file, the other a folder")
    keys = [key.strip() for key in sections.split(",") if key.strip()]

    if serve:
        if output is not None or static_dir is not None or watch:
            raise SegbenchError("--serve writes no file: leave out --output, --static-dir and --watch")
        choose_sections(keys)
        _serve(out, lambda: build_report(out, title, keys, compare, with_published).html, port, open_it)
        return
    _require_writable(out, output, static_dir)

    def write() -> Path:
        path = Results(out).report(
            static_dir or output, title=title, sections=keys, compare=compare, with_published=with_published,
            static=static_dir is not None,
        )  # fmt: skip
        typer.echo(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
        return path

    path = write()
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
    if watch:
        _watch(out, write)


def _serve(out: ResultsFolder, build: Callable[[], str], port: int, open_it: bool) -> None:
    """Serve the report on the loopback interface until the user stops it."""
    from segbench.analysis.report.serving import LivePage, serving, wait_for_the_end

    with serving(LivePage(build, lambda: _stamp(out)), port) as address:
        typer.echo(f"report: {address} (on this machine alone; Ctrl-C ends it)")
        if open_it:
            import webbrowser

            webbrowser.open(address)
        wait_for_the_end()
    typer.echo("stopped serving")


def _stamp(out: ResultsFolder) -> tuple[int, int] | None:
    """Return what differs when the store does; None where there is none yet."""
    try:
        found = out.store.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _require_writable(out: ResultsFolder, output: Path | None, static_dir: Path | None) -> None:
    """Raise SegbenchError where the report could not be written: before it is built."""
    from segbench.paths import require_writable_file, require_writable_folder

    if static_dir is not None:
        require_writable_folder(static_dir, f"cannot write to {static_dir}")
    else:
        file = output or out.report
        require_writable_file(file, f"cannot write {file}", below=True)


def _watch(out: ResultsFolder, write: Callable[[], Path], every_s: float = 5.0) -> None:
    """Write again after each change of the store, until the user stops it."""
    import time

    seen = out.store.stat().st_mtime_ns
    try:
        while True:
            time.sleep(every_s)
            now = out.store.stat().st_mtime_ns
            if now != seen:
                seen = now
                write()
    except KeyboardInterrupt:
        typer.echo("stopped watching")
