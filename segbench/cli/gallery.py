"""``segbench gallery``: many packages as a static site."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli._common import tell_coloured

app = typer.Typer(no_args_is_help=True)


@app.callback()
def gallery() -> None:
    """Hold the commands together."""


@app.command()
def build(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Results folders, packages, or folders of packages (*.zip)."),
    ],
    site: Annotated[
        Path, typer.Option("--to", metavar="SITE", help="The site's folder: new, or an earlier gallery's.")
    ],
    title: Annotated[str, typer.Option("--title", help="Stands above the site.")] = "Cell segmentation models",
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", metavar="SPDX", help="Of the models of results folders.")
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option("--data-licence", "--data-license", help="Of the data that they were trained on.")
    ] = None,
    author: Annotated[list[str] | None, typer.Option("--author", help="Who made them; can be repeated.")] = None,
) -> None:
    """Make a gallery of models: a page to filter and sort them, a page for each, the packages, and an index.

    The site needs no server and no network: open its index.html, or copy the folder to any web server. Of a results
    folder every finished run's model is exported, as 'segbench models export' does; one that is in the gallery already
    stays, so that a build that was stopped goes on. Ends with status 1 where a model was left out, with the reason.

    Examples:

      segbench gallery build segbench-results --to site --licence CC-BY-4.0 --author "A. Person"

      segbench gallery build packages/ nuclei.zip --to site --title "Our models"
    """
    from segbench.analysis.gallery.gathering import gather
    from segbench.analysis.gallery.site import build_gallery
    from segbench.engine.models.exporting import Told
    from segbench.paths import gone_if_failed, require_writable_folder

    note = partial(typer.echo, err=True)
    told = Told(licence, data_licence, tuple(author or ()))
    require_writable_folder(site, f"cannot write to {site}")
    with gone_if_failed(site, unless="*.zip"):
        packages, failed = gather(sources, site, told, note)
        built = build_gallery(packages, site, title, note)
    for problem in (*failed, *built.problems):
        tell_coloured(f"left out: {problem}", typer.colors.RED)
    typer.echo(f"{built.page} ({built.models} models, {built.site_bytes / 1e6:.2f} MB beside the packages)")
    if failed or built.problems:
        raise typer.Exit(1)
