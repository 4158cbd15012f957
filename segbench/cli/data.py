"""``segbench data``: the datasets, what is in them, and their preparation."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.cli._common import Format, FormatOption, MaskKind, WideOption, print_table, tell_notes
from segbench.cli._progress import split_progress
from segbench.errors import SegbenchError, unknown_name

if TYPE_CHECKING:
    from segbench.engine.data import DatasetSpec, PreparationSettings, PreparedDataset

app = typer.Typer(no_args_is_help=True)


class Kind(enum.StrEnum):
    """What a dataset's files look like."""

    TISSUENET = "tissuenet"
    LIVECELL = "livecell"
    FOLDER = "folder"
    SYNTHETIC = "synthetic"


class Projection(enum.StrEnum):
    """How planes become one."""

    MAX = "max"
    MEAN = "mean"


_FOLDER_OPTIONS = {
    "target": "--target",
    "channels": "--channels",
    "masks": "--masks",
    "project": "--project",
    "planes": "--plane",
    "allow_identical": "--allow-identical",
}


class AnnotationKind(enum.StrEnum):
    """What people's annotations look like."""

    COCO = "coco"
    GEOJSON = "geojson"
    IMAGEJ = "imagej"
    CELLPOSE = "cellpose"
    INSTANCES = "instances"
    SUFFIX = "suffix"


class Edge(enum.StrEnum):
    """What becomes of the last window of a row."""

    SHIFT = "shift"
    DROP = "drop"


@app.command("list")
def list_datasets(format: FormatOption = Format.TABLE, _wide: WideOption = False) -> None:
    """List the datasets by name, the built-in ones first, and whether they are prepared.

    Examples:

      segbench data list

      segbench data list --format json
    """
    from segbench.engine.data import registered
    from segbench.engine.data.cache import find_prepared
    from segbench.engine.data.presence import tasks_or_why, windows_of

    rows = []
    for spec in registered():
        prepared = find_prepared(spec)
        tasks, why = tasks_or_why(spec, prepared)
        if why is not None:
            typer.echo(f"{spec.name} is not here: {why}; 'segbench data remove {spec.name}' forgets it", err=True)
        rows.append(
            {
                "name": spec.name,
                "kind": spec.kind,
                "prepared": "absent" if why is not None else "no" if prepared is None else "yes",
                "windows": None if prepared is None else windows_of(prepared),
                "tissues": None if prepared is None else len(prepared.tissues()),
                "tasks": [task.name for task in tasks],
                "fingerprint": None if prepared is None else prepared.fingerprint,
                "source": spec.source,
            }
        )
    print_table(rows, format)


@app.command()
def prepare(
    kind: Annotated[Kind, typer.Argument(help="How the data are laid out.")],
    path: Annotated[Path | None, typer.Argument(help="Their folder; none for synthetic.", show_default=False)] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="The dataset's name: lower-case letters, digits, - and _.",
            show_default="the kind, or the folder's name",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", help="folder: what the masks label: nuclear, wholecell or cell.", show_default="cell"),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            help="folder: the channels' names, separated by commas, in their order in the images.",
            show_default="image, or ch0,ch1,...",
        ),
    ] = None,
    masks: Annotated[
        MaskKind | None,
        typer.Option(
            "--masks",
            help="folder: labels (each number a cell), binary (number the pieces) or colour (each colour a cell).",
            show_default="labels",
        ),
    ] = None,
    project: Annotated[
        Projection | None,
        typer.Option("--project", help="folder: join the planes of depth or time into one, by their max or mean."),
    ] = None,
    plane: Annotated[
        list[str] | None,
        typer.Option("--plane", help="folder: take one plane, such as Z=3 (from 0); can be repeated for other axes."),
    ] = None,
    allow_identical: Annotated[
        bool, typer.Option("--allow-identical", help="folder: the same picture may stand in two splits.")
    ] = False,
    train_file: Annotated[
        str | None,
        typer.Option(
            "--train-file", help="livecell: the file with the training annotations, such as 0_train2percent.json."
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option("--pixel-size", help="Side of a pixel in micrometres.", show_default="0.5 for tissuenet"),
    ] = None,
    rescale_to_diameter: Annotated[
        float | None,
        typer.Option(
            "--rescale-to-diameter",
            help="Rescale all images by one factor, to this median diameter of the training cells, in pixels.",
        ),
    ] = None,
    rescale_to_pixel_size: Annotated[
        float | None,
        typer.Option("--rescale-to-pixel-size", help="Rescale each image to pixels of this side, in micrometres."),
    ] = None,
    edge: Annotated[
        Edge,
        typer.Option("--edge", help="Last window of a row or column: moved inward to cover every pixel, or left out."),
    ] = Edge.SHIFT,
    layout: Annotated[
        str | None, typer.Option("--layout", help="synthetic: tissuenet or livecell.", show_default="both")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="synthetic: another seed makes other images.")] = 0,
    scale: Annotated[float, typer.Option("--scale", help="synthetic: factor on the number of images.")] = 1.0,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Threads.", show_default="one a core, at most 16")
    ] = None,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Check a dataset, make its windows, and register it under its name.

    What was prepared before from the same data and settings is used again. Examples:

      segbench data prepare synthetic

      segbench data prepare tissuenet ~/tissuenet_v1.1

      segbench data prepare livecell ~/LIVECell_dataset_2021

      segbench data prepare livecell ~/LIVECell_dataset_2021 --name livecell-2pc --train-file 0_train2percent.json

      segbench data prepare folder ~/stacks --project max --masks binary

      segbench data prepare folder ~/nuclei --name nuclei --target nuclear --channels dapi --pixel-size 0.32

      segbench data prepare folder ~/u2os-40x --name u2os --rescale-to-diameter 30

      segbench data prepare synthetic --layout livecell --name culture-2 --seed 7 --scale 2
    """
    from segbench.engine.data import PreparationSettings, ensure_prepared, register
    from segbench.engine.data.diameters import diameter_lines
    from segbench.engine.data.summary import counts

    own = {
        "target": target,
        "channels": None if channels is None else [one.strip() for one in channels.split(",")],
        "masks": masks and masks.value,
        "project": project and project.value,
        "planes": plane or None,
        "allow_identical": allow_identical or None,
    }
    own = {key: value for key, value in own.items() if value is not None}
    if kind is not Kind.FOLDER and own:
        names = ", ".join(_FOLDER_OPTIONS[key] for key in own)
        raise SegbenchError(f"{names} {'is' if len(own) == 1 else 'are'} for kind folder, not {kind.value}")
    if kind is not Kind.LIVECELL and train_file is not None:
        raise SegbenchError(f"--train-file is for kind livecell, not {kind.value}")
    if kind is not Kind.SYNTHETIC and (layout is not None or seed != 0 or scale != 1.0):
        raise SegbenchError(f"--layout, --seed and --scale are for kind synthetic, not {kind.value}")
    if pixel_size is not None and not 0 < pixel_size < 1000:
        raise SegbenchError(f"--pixel-size is micrometres above 0, found {pixel_size}")
    preparation = PreparationSettings(
        edge=edge.value, rescale_to_diameter=rescale_to_diameter, rescale_to_pixel_size=rescale_to_pixel_size
    )
    if kind is Kind.SYNTHETIC:
        if path is not None:
            raise SegbenchError(f"synthetic data take no path, found {path}")
        specs = _synthetic_specs(name, layout, seed, scale, preparation)
    else:
        options = own | ({} if train_file is None else {"train_file": train_file})
        specs = [_spec(kind.value, path, name, options, pixel_size, preparation)]
    tables = []
    for spec in specs:
        with split_progress(spec.name) as progress:
            prepared = ensure_prepared(spec, progress, workers)
        register(spec)
        tell_notes(prepared.notes)
        tables.append(counts(prepared))
        if format is Format.TABLE:
            _describe(prepared)
            print_table(tables[-1], format)
        tell_notes(list(diameter_lines(prepared)))
    if format is not Format.TABLE:
        named = [
            {"dataset": spec.name, **row} for spec, table in zip(specs, tables, strict=True) for row in table.to_dicts()
        ]
        columns = dict.fromkeys(key for row in named for key in row)
        print_table([{key: row.get(key) for key in columns} for row in named], format)


@app.command("import")
def import_data(
    kind: Annotated[AnnotationKind, typer.Argument(help="What the annotations are.")],
    path: Annotated[Path, typer.Argument(help="File or folder with the annotations.")],
    to: Annotated[Path, typer.Option("--to", help="The new folder for images, label maps and index.csv.")],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder (or file) of the images, where they lie apart.", show_default="as the annotations"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Shares of train, val and test; alike in each tissue.",
            show_default="that of folders train, val, test; else 0.7,0.15,0.15",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed is another split.")] = 0,
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            help="What never stands in two splits, such as the slide: folder:1 (-1: the last), regex:EXPRESSION (its "
            "first group) of the image's path, or column:NAME of --table.",
            show_default="each image on its own",
        ),
    ] = None,
    tissue: Annotated[
        str | None,
        typer.Option(
            "--tissue",
            help="The images' tissue: a name for all, or folder:, regex:, column: as above.",
            show_default="unknown",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="CSV with a column image, for column:NAME.", show_default=False)
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern",
            help="The annotations' file names, {} for the image's name: '{}_cells.png'.",
            show_default="by the kind",
        ),
    ] = None,
    masks: Annotated[
        MaskKind,
        typer.Option("--masks", help="suffix: labels, binary (number the pieces) or colour (each colour a cell)."),
    ] = MaskKind.LABELS,
    keep_empty: Annotated[
        bool, typer.Option("--keep-empty", help="Images without annotations are images without cells, not left out.")
    ] = False,
    nuclei: Annotated[bool, typer.Option("--nuclei", help="geojson: take the nuclei of QuPath's cells.")] = False,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Make a folder that `segbench data prepare folder` reads, of annotations as other tools have them.

    KIND is coco (COCO JSON), geojson (QuPath's), imagej (ROI files and zips),
    cellpose (_seg.npy), instances (a folder an image, one mask file a cell) or
    suffix (label maps beside the images: _masks, _mask, _labels, _label, _seg;
    or folders images and masks). What is left out is told on standard error.
    The new folder must not exist, or be empty. Examples:

      segbench data import coco annotations.json --images photos --to cells

      segbench data import geojson qupath-export --images slides --to cells --group-by 'regex:^(slide[0-9]+)'

      segbench data import imagej rois --images images --to cells --split 0.8,0.2 --seed 7

      segbench data import cellpose cellpose-folder --to cells --tissue folder:1

      segbench data import instances stage1_train --to nuclei --tissue column:tissue --table images.csv

      segbench data import suffix images --pattern '{}_cells.png' --masks binary --to cells

      segbench data prepare folder cells
    """
    from segbench.engine.data.importing import ImportOptions, import_annotations
    from segbench.engine.data.importing.options import parse_split
    from segbench.engine.files.masks import Masks

    options = ImportOptions(
        images=images,
        split=None if split is None else parse_split(split),
        seed=seed,
        tissue=tissue,
        group_by=group_by,
        table=table,
        pattern=pattern,
        masks=Masks(masks.value),
        keep_empty=keep_empty,
        nuclei=nuclei,
    )
    with split_progress(to.name, "importing", "imported") as progress:
        imported = import_annotations(kind.value, path, to, options, progress)
    tell_notes(imported.notes)
    print_table(imported.rows, format)
    if format is Format.TABLE:
        typer.echo(f"next: segbench data prepare folder {to}", err=True)


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="The dataset's name.")],
) -> None:
    """Forget a dataset: grids cannot name it any more. Its files, and what was prepared of it, stay where they are.

    Example:

      segbench data remove dsb2018
    """
    from segbench.engine.data.registry import unregister

    unregister(name)
    typer.echo(f"{name} is forgotten; its files are where they were")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The dataset's name.")],
    png: Annotated[
        Path | None, typer.Option("--png", help="Also write a picture: a window of each tissue, and its outlines.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Only this split: train, val or test.", show_default="all; test in the picture"),
    ] = None,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Show a prepared dataset: images, windows, cells, and mean shapes of the cells, for each split and tissue.

    Area is in pixels; elongation is 1 for a round cell and near 0 for a long one; convexity
    is 1 for a cell without dents.
    Examples:

      segbench data show synthetic

      segbench data show synthetic --png synthetic.png

      segbench data show dsb2018 --format csv
    """
    from segbench.engine.data import open_prepared
    from segbench.engine.data.diameters import diameter_lines
    from segbench.engine.data.summary import shapes

    prepared = open_prepared(name)
    if split is not None and split not in prepared.splits:
        raise unknown_name(f"split of {name}", split, prepared.splits)
    if png is not None:
        from segbench.engine.data.picture import mosaic, save_small

        picture = mosaic(prepared, split or prepared.splits[-1])
        try:
            save_small(picture, png)
        except OSError as error:
            raise SegbenchError(f"{png} cannot be written: {error.strerror or error}") from None
        typer.echo(f"picture: {png} ({picture.width}x{picture.height} pixels)", err=True)
    if format is Format.TABLE:
        _describe(prepared)
    tell_notes(prepared.notes)
    table = shapes(prepared)
    print_table(table if split is None else table.filter(table["split"] == split), format)
    tell_notes(list(diameter_lines(prepared)))


def _spec(
    kind: str,
    path: Path | None,
    name: str | None,
    options: dict[str, Any],
    pixel_size: float | None,
    preparation: PreparationSettings,
) -> DatasetSpec:
    from segbench.engine.data import DatasetSpec
    from segbench.engine.data.registry import complete

    if path is None:
        raise SegbenchError(f"where are the data? segbench data prepare {kind} PATH")
    source = path.expanduser().resolve()
    if name is None:
        name = kind if kind != "folder" else re.sub(r"[^a-z0-9]+", "-", source.name.lower()).strip("-")
    if pixel_size is not None or kind == "tissuenet":
        options["pixel_size_um"] = 0.5 if pixel_size is None else pixel_size
    return complete(DatasetSpec(name, kind, str(source), options, preparation))


def _synthetic_specs(
    name: str | None, layout: str | None, seed: int, scale: float, preparation: PreparationSettings
) -> list[DatasetSpec]:
    from segbench.engine.data import DatasetSpec
    from segbench.engine.data.registry import BUILT_IN

    if layout is not None and layout not in ("tissuenet", "livecell"):
        raise unknown_name("layout", layout, ("tissuenet", "livecell"))
    named = {spec.name: spec for spec in BUILT_IN}
    specs = [named[name]] if name in named else list(named.values())
    if layout is not None:
        specs = [spec for spec in specs if spec.options["layout"] == layout]
        if not specs:
            raise SegbenchError(f"dataset {name!r} is of the other layout than {layout}")
    if name is not None and name not in named and layout is None:
        specs = specs[:1]
    return [
        DatasetSpec(
            name or spec.name,
            spec.kind,
            None,
            {**spec.options, "seed": seed, "scale": scale},
            preparation,
        )
        for spec in specs
    ]


def _describe(prepared: PreparedDataset) -> None:
    size = "" if prepared.pixel_size_um is None else f", {prepared.pixel_size_um:g} um a pixel"
    typer.echo(f"{prepared.spec.name}: {prepared.spec.kind}, channels {', '.join(prepared.channels)}{size}")
    typer.echo(f"tasks: {', '.join(task.name for task in prepared.tasks)}")
    typer.echo(f"folder: {prepared.folder}")
