"""``segbench evaluate``: scores predictions against truth, with no grid and no store."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segbench.cli._common import Format, FormatOption, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from segbench.engine.metrics import AreaRanges, Evaluation, Scores
    from segbench.engine.metrics.batches import Progress
    from segbench.engine.metrics.io import LabelMapSource


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
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads that read and match.")]


def evaluate(
    truth: TruthArgument,
    predictions: PredictionsArgument,
    scores: ScoresOption = None,
    groups: GroupsOption = None,
    max_detections: LimitOption = 3000,
    areas: Annotated[Areas, typer.Option("--areas", help="Also score small, medium and large cells.")] = Areas.NONE,
    cells: Annotated[bool, typer.Option("--cells", help="Print F1, PQ, AJI, SEG, splits and merges instead.")] = False,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Print 95 % intervals from so many resamples of the images.")
    ] = 0,
    per_image: Annotated[
        Path | None, typer.Option("--per-image", help="Write each image's counts to this CSV file.")
    ] = None,
    iou_type: Annotated[IouType, typer.Option("--iou", help="COCO JSON only: compare masks or boxes.")] = IouType.SEGM,
    threads: ThreadsOption = 1,
    format: FormatOption = Format.TABLE,
) -> None:
    """Score predicted cells against true ones: AP and AR exactly as pycocotools computes them, and other cell metrics.

    Examples:

      segbench evaluate truth/ predicted/ --groups index.csv

      segbench evaluate truth.npy predicted.npy --cells --format json

      segbench evaluate instances.json results.json --areas coco
    """
    from segbench.errors import SegbenchError

    if truth.suffix.lower() == ".json" or predictions.suffix.lower() == ".json":
        if truth.suffix.lower() != predictions.suffix.lower():
            raise SegbenchError("one of truth and predictions is COCO JSON; give both as JSON or both as label maps")
        if scores or groups or cells or bootstrap or per_image:
            raise SegbenchError("--scores, --groups, --cells, --bootstrap and --per-image are for label maps")
        print_table(_json_rows(truth, predictions, max_detections, areas, iou_type), format)
        return
    if cells and bootstrap:
        raise SegbenchError("--bootstrap gives intervals of AP and AR; leave out --cells")
    result = _evaluated(truth, predictions, scores, groups, max_detections, areas, threads)
    if per_image is not None:
        import polars as pl

        pl.DataFrame(result.images.columns()).write_csv(per_image)
    if cells:
        print_table(cell_rows(result), format)
    elif bootstrap:
        print_table(interval_rows(result, bootstrap), format)
    else:
        print_table(score_rows(result), format)


def _evaluated(
    truth: Path,
    predictions: Path,
    scores: Path | None,
    groups: Path | None,
    max_detections: int,
    areas: Areas,
    threads: int,
) -> Evaluation:
    from segbench.engine.metrics import AREAS, evaluate_labels, evaluate_prediction_set
    from segbench.engine.metrics.io import open_label_maps, read_groups, read_scores
    from segbench.errors import SegbenchError
    from segbench.methods.predictions import PredictionSet

    ranges: AreaRanges | None = None if areas is Areas.NONE else AREAS[areas.value]
    true_maps = open_label_maps(truth)
    names = read_groups(groups, true_maps.names) if groups else None
    with progress_bar("evaluating", len(true_maps.names)) as progress:
        if is_prediction_set(predictions):
            if scores:
                raise SegbenchError("--scores is for label maps; a run's predictions have their scores with them")
            return evaluate_prediction_set(
                true_maps.maps, PredictionSet(predictions), names, max_detections,
                area_ranges=ranges, threads=threads, progress=progress,
            )  # fmt: skip
        predicted = paired_with(true_maps, open_label_maps(predictions))
        given = read_scores(scores, predicted.names) if scores else None
        return evaluate_labels(
            true_maps.maps, predicted.maps, given, names, max_detections,
            area_ranges=ranges, threads=threads, progress=progress,
        )  # fmt: skip


def is_prediction_set(path: Path) -> bool:
    """Tell whether a folder holds a run's predictions."""
    return (path / "predictions.json").is_file()


def paired_with(truth: LabelMapSource, predicted: LabelMapSource) -> LabelMapSource:
    """Return the predictions in the order of the truth, by file name where both are folders."""
    from segbench.engine.metrics.io import LabelMapFiles

    if isinstance(truth.maps, LabelMapFiles) and isinstance(predicted.maps, LabelMapFiles):
        return predicted.ordered_as(truth.names)
    return predicted


def score_rows(result: Evaluation) -> list[dict[str, Any]]:
    """Return one row for all images, one a group and one an area range; a metric without truth is None."""
    subsets: list[tuple[str, Scores]] = [("all", result.pooled), *result.groups.items()]
    subsets += [(f"area {name}", scores) for name, scores in result.areas.items()]
    return [
        {"subset": name, "images": scores.n_images, "truth": scores.n_truth, "predictions": scores.n_predictions}
        | known(scores.metrics())
        for name, scores in subsets
    ]


def interval_rows(result: Evaluation, n_resamples: int) -> list[dict[str, Any]]:
    """Return one row a metric of all images and of each group, with its 95 % bootstrap interval."""
    from segbench.engine.metrics import bootstrap_intervals

    rows: list[dict[str, Any]] = []
    for name, scores in [(None, result.pooled), *result.groups.items()]:
        intervals = bootstrap_intervals(result, n_resamples=n_resamples, group=name)
        for metric, value in known(scores.metrics()).items():
            ends = {"low": intervals[metric].low, "high": intervals[metric].high}
            rows.append(
                {"subset": name or "all", "metric": metric, "value": value}
                | (ends if value is not None else dict.fromkeys(ends))
            )
    return rows


def cell_rows(result: Evaluation) -> list[dict[str, Any]]:
    """Return the cell metrics of all images and of each group; one that cannot be measured is None."""
    from segbench.engine.metrics import cell_metrics

    rows = []
    for name in [None, *result.groups]:
        columns = cell_metrics(result.images, group=name).columns()
        values = {key: value.item() for key, value in columns.items()}
        rows.append(
            {"subset": name or "all"} | {key: None if value != value else value for key, value in values.items()}
        )
    return rows


def known(metrics: dict[str, float]) -> dict[str, float | None]:
    """Return the metrics with None in the place of COCO's -1, which says that there was no truth."""
    return {name: None if value == -1 else value for name, value in metrics.items()}


def progress_bar(what: str, total: int | None) -> AbstractContextManager[Progress]:
    """Return a context that gives the function to call with how many images are done; silent off a terminal."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress as Bar

    @contextmanager
    def bar() -> Iterator[Progress]:
        console = Console(stderr=True)
        with Bar(console=console, transient=True, disable=not console.is_terminal) as shown:
            task = shown.add_task(what, total=total)
            yield lambda done: shown.update(task, completed=done)

    return bar()


def _json_rows(
    truth: Path, predictions: Path, max_detections: int, areas: Areas, iou_type: IouType
) -> list[dict[str, Any]]:
    from segbench.engine.metrics import AREAS, evaluate_coco_json

    ranges: AreaRanges = {} if areas is Areas.NONE else AREAS[areas.value]
    with progress_bar("evaluating", None) as progress:
        result = evaluate_coco_json(
            truth, predictions, max_detections=[max_detections], area_ranges=ranges, iou_type=iou_type.value,
            progress=progress,
        )  # fmt: skip
    rows = []
    for name in result.areas:
        row: dict[str, Any] = {"subset": name if name == "all" else f"area {name}", "images": result.n_images}
        if name == "all":
            row |= {"truth": result.n_truth, "predictions": result.n_predictions}
        else:
            row |= {"truth": None, "predictions": None}
        rows.append(row | known(result.metrics(name)))
    return rows
