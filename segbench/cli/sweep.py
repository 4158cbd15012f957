"""``segbench sweep``: scores predictions after every radius of a dilation or erosion, with no grid and no store."""

from __future__ import annotations

import enum
import re
from typing import Annotated, Any

import typer

from segbench.cli._common import Format, FormatOption, print_table
from segbench.cli.evaluate import (
    GroupsOption,
    LimitOption,
    PredictionsArgument,
    ScoresOption,
    ThreadsOption,
    TruthArgument,
    is_prediction_set,
    known,
    paired_with,
    progress_bar,
)


class Structure(enum.StrEnum):
    """The shape by which cells grow or shrink."""

    DISK = "disk"
    CROSS = "cross"


def sweep(
    truth: TruthArgument,
    predictions: PredictionsArgument,
    dilate: Annotated[
        str | None, typer.Option("--dilate", help="Radii in pixels: 0:20 (both included), 0:20:5, or 1,3,5.")
    ] = None,
    erode: Annotated[str | None, typer.Option("--erode", help="Radii, written as for --dilate.")] = None,
    structure: Annotated[
        Structure,
        typer.Option("--structure", help="disk: by distance. cross: so many steps by the cross-shaped element."),
    ] = Structure.DISK,
    scores: ScoresOption = None,
    groups: GroupsOption = None,
    max_detections: LimitOption = 3000,
    threads: ThreadsOption = 1,
    format: FormatOption = Format.TABLE,
) -> None:
    """Score predictions after growing or shrinking their cells by each radius; without an option, dilation by 0 to 20.

    Dilated cells stop where they meet another, as in scikit-image's expand_labels; eroded cells may vanish.

    Examples:

      segbench sweep truth/ predicted/ --dilate 0:20

      segbench sweep truth.npy predicted.npy --erode 0:5 --groups index.csv --format csv
    """
    from segbench.engine.metrics import sweep_labels, sweep_prediction_set
    from segbench.engine.metrics.io import open_label_maps, read_groups, read_scores
    from segbench.engine.metrics.postoperations import Operation
    from segbench.errors import SegbenchError
    from segbench.methods.predictions import PredictionSet

    if truth.suffix.lower() == ".json" or predictions.suffix.lower() == ".json":
        raise SegbenchError("a sweep needs label maps: COCO JSON does not say where a growing cell must stop")
    asked: list[tuple[Operation, list[int]]] = []
    if dilate is not None or erode is None:
        asked.append(("dilate", radii_of(dilate or "0:20")))
    if erode is not None:
        asked.append(("erode", radii_of(erode)))
    true_maps = open_label_maps(truth)
    names = read_groups(groups, true_maps.names) if groups else None
    rows: list[dict[str, Any]] = []
    for operation, radii in asked:
        with progress_bar(operation, len(true_maps.names)) as progress:
            if is_prediction_set(predictions):
                if scores:
                    raise SegbenchError("--scores is for label maps; a run's predictions have their scores with them")
                results = sweep_prediction_set(
                    true_maps.maps, PredictionSet(predictions), operation, radii, names, max_detections,
                    structure=structure.value, threads=threads, progress=progress,
                )  # fmt: skip
            else:
                predicted = paired_with(true_maps, open_label_maps(predictions))
                given = read_scores(scores, predicted.names) if scores else None
                results = sweep_labels(
                    true_maps.maps, predicted.maps, operation, radii, given, names, max_detections,
                    structure=structure.value, threads=threads, progress=progress,
                )  # fmt: skip
        for radius, result in results.items():
            for subset, found in [("all", result.pooled), *result.groups.items()]:
                row = {"operation": operation, "radius": radius, "subset": subset, "predictions": found.n_predictions}
                rows.append(row | known(found.metrics()))
    print_table(rows, format)


def radii_of(text: str) -> list[int]:
    """Return the radii that ``0:20``, ``0:20:5`` or ``1,3,5`` stand for; anything else raises SegbenchError.

    Examples
    --------
    >>> radii_of("0:6:3"), radii_of("4,1")
    ([0, 3, 6], [4, 1])
    """
    from segbench.errors import SegbenchError

    if match := re.fullmatch(r"(\d+):(\d+)(?::([1-9]\d*))?", text.strip()):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if first <= last <= 100_000:
            return list(range(first, last + 1, step))
    elif re.fullmatch(r"\d+(\s*,\s*\d+)*", text.strip()):
        return [int(part) for part in text.split(",")]
    raise SegbenchError(f"the radii {text!r} are not understood; write 0:20, 0:20:5 or 1,3,5")
