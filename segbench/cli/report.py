"""``segbench report``: one self-contained HTML dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, OutOption


def report(
    out: OutOption = DEFAULT_OUT,
    output: Annotated[
        Path | None, typer.Option("--output", help="The file to write; report.html in the results folder by default.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="The report's title.")] = None,
    sections: Annotated[
        str, typer.Option("--sections", help="Only these sections, separated by commas, in this order.")
    ] = "",
) -> None:
    """Write the results as one HTML file that needs no server and no network.

    It works while a grid runs, too. Examples:

      segbench report

      segbench report --out my-results --title "Nuclei, March" --sections overview,ranking
    """
    from segbench.analysis.report import build_report, write_report

    path = output or out / "report.html"
    built = build_report(out, title, [key.strip() for key in sections.split(",") if key.strip()])
    write_report(built, path)
    typer.echo(f"report: {path} ({len(built.html) / 1e6:.1f} MB)")
