"""``segbench plot``: one figure of the report as a file for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segbench.cli._common import DEFAULT_OUT, Format, FormatOption, WideOption, print_table, results_folder
from segbench.engine.results.folder import ResultsFolder


def plot(
    name: Annotated[str | None, typer.Argument(help="The figure, such as accuracy or time-3; none lists them.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file: .svg, .png, .pdf, or .html for its section.")
    ] = None,
    out: Annotated[
        ResultsFolder,
        typer.Option(
            "--out",
            envvar="SEGBENCH_OUT",
            parser=results_folder,
            metavar="DIR|URL",
            help="The results folder, or a URL (s3://...).",
        ),
    ] = DEFAULT_OUT,
    metric: Annotated[str, typer.Option("--metric", help="accuracy, map, ap50, ap75, ar, ar50 or ar75.")] = "accuracy",
    train: Annotated[str, typer.Option("--train", help="The training tissue, for figures that show one.")] = "all",
    width: Annotated[
        str, typer.Option("--width", help="single or double: one column of a journal's page, or both (89 or 183 mm).")
    ] = "double",
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Draw one figure of the report, without a browser.

    Examples:

      segbench plot

      segbench plot accuracy -o accuracy.pdf

      segbench plot dilation -o dilation.svg --metric map --width single
    """
    from segbench.analysis.results import Results
    from segbench.errors import SegbenchError
    from segbench.paths import require_writable_file

    if name is None:
        from segbench.cli._completion_values import keep_figures

        figures = Results(out).figures()
        keep_figures(str(out), figures.rows())
        print_table(figures, format)
        return
    if output is None:
        raise SegbenchError("name the file: segbench plot NAME -o FILE.svg (or .png, .pdf, .html)")
    require_writable_file(output, f"cannot write {output}", below=True)
    typer.echo(f"figure: {Results(out).plot(name, output, metric=metric, train=train, width=width)}")
