"""``segbench init``: from annotated images to a prepared dataset and a first grid, by questions or by options."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli._common import MaskKind, print_table, tell_notes
from segbench.cli._progress import split_progress

if TYPE_CHECKING:
    from segbench.engine.data.importing import ImportOptions


class Target(enum.StrEnum):
    """What the masks label."""

    NUCLEAR = "nuclear"
    WHOLECELL = "wholecell"
    CELL = "cell"


class Kind(enum.StrEnum):
    """How the images are annotated."""

    FOLDER = "folder"
    SUFFIX = "suffix"
    COCO = "coco"
    GEOJSON = "geojson"
    IMAGEJ = "imagej"
    CELLPOSE = "cellpose"
    INSTANCES = "instances"
    TISSUENET = "tissuenet"
    LIVECELL = "livecell"


def init(
    images: Annotated[
        Path | None, typer.Argument(help="The folder of your images.", show_default="asked on a terminal")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="File or folder with the annotations.", show_default="with the images"),
    ] = None,
    kind: Annotated[
        Kind | None,
        typer.Option(
            "--kind",
            help="suffix: label maps (_masks, _mask, _label, _seg, or folders images and masks). coco: COCO JSON. "
            "geojson: QuPath's. imagej: ROIs. cellpose: _seg.npy. instances: a folder an image, a mask a cell. "
            "folder: index.csv. tissuenet, livecell: as they are distributed.",
            show_default="by the files' names",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The dataset's name.", show_default="the folder's name")
    ] = None,
    target: Annotated[
        Target | None, typer.Option("--target", help="What the masks label.", show_default="cell")
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            help="What each channel shows, separated by commas, in the images' order: dapi,membrane.",
            show_default="the files' names, else image or ch0,ch1,...",
        ),
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option("--pixel-size", help="Side of a pixel in micrometres.", show_default="as the files tell"),
    ] = None,
    masks: Annotated[
        MaskKind,
        typer.Option("--masks", help="suffix: labels, binary (number the pieces) or colour (each colour a cell)."),
    ] = MaskKind.LABELS,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Shares of train, val and test.", show_default="the folders', else 0.7,0.15,0.15"),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", help="What never stands in two splits, as for 'data import': folder:1, regex:..."),
    ] = None,
    tissue: Annotated[
        str | None, typer.Option("--tissue", help="The images' tissue, as for 'data import'.", show_default="unknown")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", "-m", help="A method of the grid; can be repeated.", show_default="the three of the demo"
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", help="How long the grid may take here: 30min, 1h, 2d.", show_default="1h")
    ] = None,
    cpu: Annotated[
        bool | None,
        typer.Option("--cpu/--gpu", help="Without GPUs, or with them; by default as this machine has them."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The new folder for imported annotations.", show_default="NAME-dataset"),
    ] = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="The grid file to write.", show_default="NAME.yaml")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: take what is found for what is not given.")
    ] = False,
) -> None:
    """Begin with your own images: a prepared dataset, and a grid file whose budgets fit this machine's time.

    On a terminal it asks for what no option gives; elsewhere it takes what the files tell, and says so. Nothing is
    overwritten, and nothing is left where it fails. Examples:

      segbench init

      segbench init photos --annotations annotations.json --name nuclei --target nuclear --time 30min

      segbench init slides --annotations qupath-export --channels dapi,cd3 --pixel-size 0.5 --group-by folder:1
    """
    from segbench.cli._questions import Asker, Told, annotated
    from segbench.engine.data.beginning import begin_dataset
    from segbench.engine.data.diameters import diameter_lines
    from segbench.engine.data.summary import counts
    from segbench.engine.grid.cards import method_object
    from segbench.engine.scheduler.first_grid import Machine, first_grid, in_words, seconds_of
    from segbench.paths import require_new_file

    asker = Asker(yes)
    machine = Machine.here(cpu=cpu)
    options = _options(masks, split, group_by, tissue)
    told = Told(images, annotations, kind, name, target, channels, pixel_size, to)
    asked = annotated(asker, told, options)
    seconds = asker.value(
        time, f"How long may the first grid take here ({machine.told()})?", "1h", seconds_of, option="--time"
    )
    file = grid or Path(f"{asked.name}.yaml")
    require_new_file(file, "--grid")
    for one in method or ():
        method_object(one)
    with split_progress(asked.name, "reading", "read") as progress:
        prepared, notes = begin_dataset(asked, progress)
    found = first_grid(prepared, seconds, machine, method or ())
    file.write_text(found.text)
    tell_notes((*notes, *diameter_lines(prepared)))
    print_table(counts(prepared), title=f"dataset {asked.name}: channels {', '.join(prepared.channels)}")
    print_table(found.rows, title=f"grid {file}: about {in_words(found.seconds)} here ({machine.told()})")
    tell_notes(found.notes)
    on = "" if machine.gpus else " --cpu"
    typer.echo(f"look:  segbench data show {asked.name} --png {asked.name}.png")
    typer.echo(f"begin: segbench grid launch --grid {file}{on} --out {asked.name}-results")


def _options(masks: MaskKind, split: str | None, group_by: str | None, tissue: str | None) -> ImportOptions:
    from segbench.engine.data.importing import ImportOptions
    from segbench.engine.data.importing.options import parse_split
    from segbench.engine.files.masks import Masks

    return ImportOptions(
        split=None if split is None else parse_split(split), masks=Masks(masks.value), group_by=group_by, tissue=tissue
    )
