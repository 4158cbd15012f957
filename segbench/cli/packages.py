"""``segbench models export, test, import, list``: a trained model as a package, and packages as models."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from segbench.cli._common import (
    DEFAULT_OUT,
    Format,
    FormatOption,
    WideOption,
    print_table,
    results_folder,
    tell_error,
)
from segbench.engine.results.folder import ResultsFolder

ResultsOption = Annotated[
    ResultsFolder,
    typer.Option(
        "--results", "-r", envvar="SEGBENCH_OUT", parser=results_folder, metavar="DIR|URL",
        help="The results folder.",
    ),
]  # fmt: skip
PackageArgument = Annotated[Path, typer.Argument(metavar="PACKAGE", help="A package: the file that 'export' wrote.")]
GpuOption = Annotated[bool, typer.Option("--gpu/--cpu", help="Let the model use a GPU, or not.")]
_note = partial(typer.echo, err=True)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run's id, or as much of it as names it.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE.zip|DIR", help="The package's file, or a folder for it.")],
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", metavar="SPDX", help="Of the model, such as CC-BY-4.0.")
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option("--data-licence", "--data-license", help="Of the data that it was trained on.")
    ] = None,
    author: Annotated[list[str] | None, typer.Option("--author", help="Who made it; can be repeated.")] = None,
    data_url: Annotated[
        str | None,
        typer.Option("--data-url", help="Where the data can be had: bioimage.io's table of scores needs it."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What the package is called; else it is named.")] = None,
    gpu: GpuOption = False,
    results: ResultsOption = DEFAULT_OUT,
) -> None:
    """Write a run's model as a package: one zip file, which segbench applies anywhere, and a model of bioimage.io.

    It holds the weights, the preparation, the method's settings and lock, a test window with what the model finds
    in it, the scores by test tissue with intervals, and a card. Licences are never guessed: what is not given is told
    as missing.

    Examples:

      segbench models export 28832d --to nuclei.zip --licence CC-BY-4.0 --data-licence CC-BY-NC-4.0 --author "A. Person"

      segbench models export 28832d --to packages/ --licence MIT
    """
    from segbench.engine.models.exporting import Told, export_model
    from segbench.engine.models.strict import problems_of
    from segbench.paths import require_writable_file, require_writable_folder

    if to.suffix == ".zip":
        require_writable_file(to, f"cannot write {to}", below=True)
    else:
        require_writable_folder(to, f"cannot write to {to}")
    told = Told(licence, data_licence, tuple(author or ()), data_url, name)
    done = export_model(results, run, to, told, gpu=gpu, progress=_note)
    for note in done.notes:
        _note(f"note: {note}")
    problems = problems_of(done.path)
    if problems is None:
        _note("note: not checked by bioimageio.spec, which is not installed: pip install 'segbench[models]'")
    for problem in problems or ():
        _note(f"note: bioimageio.spec: {problem}")
    typer.echo(f"{done.path} ({done.path.stat().st_size / 1e6:.1f} MB, SHA-256 {done.sha256})")


def check(
    packages: Annotated[list[Path], typer.Argument(metavar="PACKAGE...", help="Packages: files that 'export' wrote.")],
    gpu: GpuOption = False,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Check that packages do here what they are known to do: each predicts its test window again.

    Nothing in a package is run: the method comes from segbench, its environment from segbench's lock, and weights that
    are more than data are refused. Instances agree where each overlaps its own by an IoU of 0.98 or more. Ends with
    status 1 where one does not, or is no package.

    Examples:

      segbench models test nuclei.zip

      segbench models test packages/*.zip --format json
    """
    import dataclasses

    from segbench.engine.models.packages import opened
    from segbench.engine.models.reproduce import reproduce_package
    from segbench.errors import SegbenchError

    rows = []
    for path in packages:
        try:
            with opened(path) as package:
                rows.append(dataclasses.asdict(reproduce_package(package, gpu=gpu, progress=_note)))
        except SegbenchError as error:
            if len(packages) == 1:
                raise
            tell_error(str(error))
    print_table(rows, format)
    if len(rows) < len(packages) or not all(row["agrees"] for row in rows):
        raise typer.Exit(1)


def import_(package: PackageArgument, results: ResultsOption = DEFAULT_OUT) -> None:
    """Add a package to a results folder as a model that nobody trained there, by its name.

    Examples:

      segbench models import nuclei.zip

      segbench models import nuclei.zip --results elsewhere
    """
    from segbench.engine.models.importing import import_package

    found, new = import_package(package, results)
    typer.echo(f"{found.facts.name}: {'added to' if new else 'was already in'} {results}")


def list_(results: ResultsOption = DEFAULT_OUT, format: FormatOption = Format.TABLE, _wide: WideOption = False) -> None:
    """List the models of a results folder: those that its runs have trained, and the imported ones.

    Examples:

      segbench models list

      segbench models list --results elsewhere --format json
    """
    from segbench.engine.models.importing import imported_names, model_rows
    from segbench.errors import SegbenchError

    if not results.has_store() and not imported_names(results):
        raise SegbenchError(f"no models in {results}: launch a grid, import a package, or name another --results")
    print_table(list(model_rows(results)), format)


FromOption = Annotated[
    str, typer.Option("--from", metavar="URL|DIR", help="A gallery: its address, or the folder of its site.")
]


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the gallery.")],
    gallery: FromOption,
    to: Annotated[Path, typer.Option("--to", metavar="FILE.zip|DIR", help="Where the package goes.")] = Path(),
) -> None:
    """Fetch a model's package from a gallery, and check it against the gallery's index.

    A fetch that broke off goes on where it stood. What differs from the index in size or checksum is not kept.

    Examples:

      segbench models pull swin-s-tissuenet-nuclear-1ch-all-0caf473b --from https://example.org/models

      segbench models pull cellpose-mine-nuclear-1ch-all-28832d01 --from /shared/site --to packages/
    """
    from segbench.engine.models.pulling import Gallery

    typer.echo(str(Gallery(gallery).pull(name, to, progress=_note)))


def recommend(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns ('scans/*.tif'), or a .txt file of paths."),
    ],
    gallery: FromOption,
    target: Annotated[str | None, typer.Option("--target", help="What to segment, such as nuclear.")] = None,
    channels: Annotated[
        str,
        typer.Option("--channels", metavar="NAME,...", help="For each channel that a model sees one of the images'."),
    ] = "",
    pixel_size: Annotated[
        float | None, typer.Option("--pixel-size", metavar="UM", help="Of the images, where files do not tell it.")
    ] = None,
    first: Annotated[int, typer.Option("--first", min=1, help="How many models are shown.")] = 10,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Propose models of a gallery for images, without knowing their cells.

    Models whose channels the images have are ordered by the study's guideline: those trained on the tissue that
    is the most alike, then those of all tissues, then the others; within each by the accuracy on test images of that
    tissue. The distance tells how far the images lie from what a model was trained on: 0 is an image that it has seen,
    about 1 is as far as two images of the gallery lie apart. Much above 1, no model was made for such images.

    Examples:

      segbench models recommend scans/ --from https://example.org/models --target nuclear

      segbench models recommend 'scans/*.tif' --from site --pixel-size 0.5 --format json
    """
    import dataclasses

    from segbench.engine.models.images import image_files
    from segbench.engine.models.pulling import Gallery
    from segbench.engine.models.recommending import recommend as propose

    named = tuple(name.strip() for name in channels.split(",") if name.strip())
    found = propose(
        image_files(images), Gallery(gallery), channels=named, pixel_size_um=pixel_size, target=target, note=_note
    )
    print_table([dataclasses.asdict(one) for one in found[:first]], format)


def add_to(app: typer.Typer) -> None:
    """Add the commands to a group."""
    app.command("list")(list_)
    app.command("export")(export)
    app.command("test")(check)
    app.command("import")(import_)
    app.command("pull")(pull)
    app.command("recommend")(recommend)
