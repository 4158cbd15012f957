"""``segbench evaluate``: scores predictions against truth, with no grid and no store."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segbench.cli._common import Format, FormatOption, MaskKind, WideOption, print_table, tell_notes
from segbench.terminal import drawn, plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from segbench.engine.metrics.batches import Progress


class Areas(enum.StrEnum):
    """Which area ranges are scored apart."""

    NONE = "none"
    COCO = "coco"
    LIVECELL = "livecell"


class IouType(enum.StrEnum):
    """What COCO JSON objects are compared by."""

    SEGM = "segm"
    BBOX = "bbox"


TruthArgument = Annotated[
    Path, typer.Argument(help="Folder or stack (.npy, .tif) of true label maps, or a COCO dataset (.json).")
]
PredictionsArgument = Annotated[
    Path, typer.Argument(help="The same for the predictions; COCO results; or a run's predictions folder.")
]
ScoresOption = Annotated[
    Path | None, typer.Option("--scores", help="CSV with image, label, score. Without, every prediction scores 1.")
]
GroupsOption = Annotated[
    Path | None, typer.Option("--groups", help="CSV with image and group (or tissue): scores per group, too.")
]
LimitOption = Annotated[
    int, typer.Option("--max-detections", min=1, help="COCO's maxDets: the best so many predictions an image count.")
]
MasksOption = Annotated[
    MaskKind, typer.Option("--masks", help="Each number a cell, each piece (binary), or each colour.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads that read and match.")]


def evaluate(
    truth: TruthArgument,
    predictions: PredictionsArgument,
    scores: ScoresOption = None,
    groups: GroupsOption = None,
    max_detections: LimitOption = 3000,
    areas: Annotated[Areas, typer.Option("--areas", help="Also score small, medium and large cells.")] = Areas.NONE,
    cells: Annotated[bool, typer.Option("--cells", help="Print F1, PQ, AJI, SEG, splits and merges instead.")] = False,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Print what each gap to 1 is made of instead: kinds of error.")
    ] = False,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Print 95 % intervals from so many resamples of the images.")
    ] = 0,
    per_image: Annotated[
        Path | None, typer.Option("--per-image", help="Write each image's counts to this CSV file.")
    ] = None,
    iou_type: Annotated[IouType, typer.Option("--iou", help="COCO JSON only: compare masks or boxes.")] = IouType.SEGM,
    masks: MasksOption = MaskKind.LABELS,
    threads: ThreadsOption = 1,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Score predicted cells against true ones: AP and AR exactly as pycocotools computes them, and other cell metrics.

    Examples:

      segbench evaluate truth/ predicted/ --groups index.csv

      segbench evaluate truth.npy predicted.npy --cells --format json

      segbench evaluate truth/ predicted/ --diagnose

      segbench evaluate instances.json results.json --areas coco
    """
    from segbench.engine.metrics import cell_metrics, confidence_intervals
    from segbench.engine.metrics.scoring import evaluate as score
    from segbench.engine.metrics.scoring import evaluate_coco
    from segbench.errors import SegbenchError

    ranges = None if areas is Areas.NONE else areas.value
    if truth.suffix.lower() == ".json" or predictions.suffix.lower() == ".json":
        if any((scores, groups, cells, diagnose, bootstrap, per_image)):
            raise SegbenchError(
                "--scores, --groups, --cells, --diagnose, --bootstrap and --per-image are for label maps"
            )
        if masks is not MaskKind.LABELS:
            raise SegbenchError("--masks is for label maps; COCO JSON says itself what a cell is")
        with progress_bar("evaluating") as progress:
            found = evaluate_coco(
                truth, predictions, iou=iou_type.value, max_detections=max_detections, areas=ranges, progress=progress
            )
        tell_notes(found.notes)
        print_table(found.frame(), format)
        return
    if iou_type is not IouType.SEGM:
        raise SegbenchError("--iou bbox is for COCO JSON; label maps are compared by their pixels")
    if diagnose:
        if any((cells, bootstrap, per_image, ranges)):
            raise SegbenchError("--diagnose tells errors: leave out --cells, --bootstrap, --per-image and --areas")
        _diagnose(truth, predictions, scores, groups, max_detections, masks, format)
        return
    _check_outputs(per_image, cells and bootstrap > 0)
    with progress_bar("evaluating") as progress:
        result = score(
            truth, predictions, scores, groups, max_detections=max_detections, areas=ranges, masks=masks.value,
            threads=threads, progress=progress,
        )  # fmt: skip
    tell_notes(result.notes)
    if per_image is not None:
        result.images.frame().write_csv(per_image)
    if cells:
        print_table(cell_metrics(result), format)
    elif bootstrap:
        print_table(confidence_intervals(result, resamples=bootstrap), format)
    else:
        print_table(result.frame(), format)


def _check_outputs(per_image: Path | None, both: bool) -> None:
    from segbench.errors import SegbenchError
    from segbench.paths import require_writable_file

    if per_image is not None:
        require_writable_file(per_image, f"--per-image {per_image} cannot be written")
    if both:
        raise SegbenchError("--bootstrap gives intervals of AP and AR; leave out --cells")


def _diagnose(
    truth: Path,
    predictions: Path,
    scores: Path | None,
    groups: Path | None,
    max_detections: int,
    masks: MaskKind,
    format: Format,
) -> None:
    """Print what the gaps are made of; for people what becomes of the cells and the scores, too."""
    from segbench.engine.metrics.scoring import diagnose

    with progress_bar("diagnosing") as progress:
        told = diagnose(
            truth,
            predictions,
            scores,
            groups,
            max_detections=max_detections,
            masks=masks.value,
            progress=progress,
        )
    tell_notes(told.notes)
    print_table(told.gaps(), format)
    if format is Format.TABLE:
        print_table(told.cells(), format, title="true cells at IoU 0.5, all and by quarters of size and density")
        print_table(told.calibration(), format, title="predictions by their scores")


def progress_bar(what: str) -> AbstractContextManager[Progress]:
    """Return a context that gives the function to call with how many images are done; silent off a terminal."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Bar

    @contextmanager
    def bar() -> Iterator[Progress]:
        console = Console(file=drawn(sys.stderr))
        with Bar(console=console, transient=True, disable=not console.is_terminal) as shown:
            task = shown.add_task(escape(plain(what)), total=None)
            yield lambda done: shown.update(task, completed=done)

    return bar()
