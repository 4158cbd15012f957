"""``segbench models``: trained models are applied to images that nobody has annotated, and handed on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli import packages
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

if TYPE_CHECKING:
    from segbench.engine.models.applying import Applied, ApplyOptions

app = typer.Typer(no_args_is_help=True)
packages.add_to(app)

ResultsOption = Annotated[
    ResultsFolder,
    typer.Option(
        "--results", "-r", envvar="SEGBENCH_OUT", parser=results_folder, metavar="DIR|URL",
        help="The results folder of the run or imported model.",
    ),
]  # fmt: skip


@app.command()
def apply(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL... IMAGE...",
            help="One model or several: finished runs by their ids or beginnings of them, packages, imported models "
            "and those of a gallery by their names. Then the images: files, folders, patterns ('scans/*.tif'), or a "
            ".txt file of paths.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder for the results.")],
    write: Annotated[
        str,
        typer.Option(
            "--write",
            metavar="FORM,...",
            help="What is written: tiff, geojson, roi, zarr, seg-npy, coco, table, outlines, anndata; or all.",
        ),
    ] = "tiff,table",
    pixel_size: Annotated[
        float | None,
        typer.Option("--pixel-size", metavar="UM", help="Side of the images' pixels, where files do not tell it."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            metavar="NAME,...",
            help="For each channel that the model sees one of the images', by name or number from 1.",
        ),
    ] = None,
    no_rescale: Annotated[bool, typer.Option("--no-rescale", help="Leave images at their own pixel size.")] = False,
    overlap: Annotated[
        int | None, typer.Option("--overlap", metavar="PIXELS", help="Of neighbouring windows; else as cells need it.")
    ] = None,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="With or without a GPU; else as there is one.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="RAY",
            help="Of a running Ray cluster (auto: this machine's), whose nodes then share the work; or local.",
        ),
    ] = None,
    project: Annotated[str | None, typer.Option("--project", help="Join the planes of a stack: max or mean.")] = None,
    plane: Annotated[
        list[str] | None, typer.Option("--plane", metavar="AXIS=N", help="Take one plane of a stack, such as Z=3.")
    ] = None,
    rank_images: Annotated[
        bool, typer.Option("--rank-images", help="List the images, those first on which the models agree least.")
    ] = False,
    gallery: Annotated[
        str | None,
        typer.Option(
            "--from",
            envvar="SEGBENCH_GALLERY",
            metavar="URL|DIR",
            help="A gallery, whose models can be named, too: they are fetched once.",
        ),
    ] = None,
    results: ResultsOption = DEFAULT_OUT,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Segment images with a trained model: images of any size and number, none of them annotated.

    Images are prepared as the model's training images were, cut into windows that overlap, and put together again.
    Every cell is whole, whichever windows cut it, and is in all forms that are written. Each image's results are
    written as it is done; killed and started again, the command goes on where it stood. An image that cannot be
    segmented is told and left, and the status is then 1.

    With several models each has a folder of its own, and the cells that more than half of them find are in consensus/,
    with the models' agreement for a score.

    Examples:

      segbench models apply 28832d scans/ --to cells

      segbench models apply 28832d 'scans/**/*.ome.tif' --to cells --write tiff,geojson,outlines --pixel-size 0.5

      segbench models apply 28832d slide.zarr --to cells --channels DAPI --write zarr,table --cpu

      segbench models apply nuclei.zip list.txt --to cells --write all

      segbench models apply swin-s-tissuenet-nuclear-1ch-all-0caf473b scans/ --to cells --from https://example.org/models

      segbench models apply 28832d 9fa0c1 scans/ --to compared --rank-images

      segbench models apply 28832d 'slides/*.zarr' --to cells --address auto
    """
    from segbench.cli._applying import ApplyDisplay
    from segbench.engine.models.applying import apply as apply_one
    from segbench.engine.models.asked import models_and_images
    from segbench.engine.models.images import image_files
    from segbench.engine.models.several import agree, apply_several
    from segbench.errors import SegbenchError
    from segbench.paths import require_writable_folder

    gpu = True if gpu is None and address is not None else gpu  # a cluster's nodes may have what is not here
    options = _options(write, pixel_size, channels, no_rescale, overlap, gpu, project, plane)
    require_writable_folder(to, f"cannot write to {to}")
    models, images = models_and_images(arguments, results, gallery, partial(typer.echo, err=True))
    if rank_images and len(models) < 2:
        raise SegbenchError("--rank-images compares models: name two or more")
    with ApplyDisplay() as display:
        files = image_files(images, to, display.note)
        follow = display.progress, display.note, address
        if len(models) == 1:
            done = [display.told(one) for one in apply_one(models[0], files, to, options, *follow)]
        else:
            done = [display.told(one) for one in apply_several(models, files, to, options, *follow)]
            table = agree(models, files, to, options, display.agreed)
    if rank_images:
        print_table(table.drop("name"), format)
    _tell(done, to)


def _options(
    write: str, pixel_size: float | None, channels: str | None, no_rescale: bool, overlap: int | None,
    gpu: bool | None, project: str | None, plane: list[str] | None,
) -> ApplyOptions:  # fmt: skip
    from segbench.engine.files.picture import Take
    from segbench.engine.models.applying import ApplyOptions
    from segbench.engine.models.outputs import FORMS, checked_forms, missing_for, writable_forms
    from segbench.engine.scheduler.gpus import visible_gpus
    from segbench.errors import SegbenchError

    if pixel_size is not None and not 0 < pixel_size <= 1000:
        raise SegbenchError(f"--pixel-size is above 0 and up to 1000 um, found {pixel_size:g}")
    forms = writable_forms() if write == "all" else _names(write)
    for form in (form for form in FORMS if write == "all" and form not in forms):
        typer.echo(f"note: all but {form}: {missing_for(form)}", err=True)
    return ApplyOptions(
        write=checked_forms(forms),
        pixel_size_um=pixel_size,
        channels=_names(channels or ""),
        rescale=not no_rescale,
        overlap=overlap,
        take=Take.of(project, plane),
        use_gpu=bool(visible_gpus()) if gpu is None else gpu,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _tell(done: list[Applied], to: Path) -> None:
    failed = [one for one in done if one.error]
    cells, earlier = sum(one.cells or 0 for one in done), sum(one.earlier for one in done)
    before = f" ({earlier:,} were done before)" if earlier else ""
    typer.echo(f"{len(done) - len(failed):,} of {len(done):,} images, {cells:,} cells{before}: {to}", err=True)
    for one in failed:
        tell_error(f"{one.image.name} failed: {one.error}")
    if failed:
        raise typer.Exit(1)
