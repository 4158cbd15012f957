"""``segbench sweep``: scores predictions after every radius of a dilation or erosion, with no grid and no store."""

from __future__ import annotations

import enum
import re
from typing import Annotated

import typer

from segbench.cli._common import Format, FormatOption, MaskKind, WideOption, print_table, tell_notes
from segbench.cli.evaluate import (
    GroupsOption,
    LimitOption,
    MasksOption,
    PredictionsArgument,
    ScoresOption,
    ThreadsOption,
    TruthArgument,
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
    masks: MasksOption = MaskKind.LABELS,
    threads: ThreadsOption = 1,
    format: FormatOption = Format.TABLE,
    _wide: WideOption = False,
) -> None:
    """Score predictions after growing or shrinking their cells by each radius; without an option, dilation by 0 to 20.

    Dilated cells stop where they meet another, as in scikit-image's expand_labels; eroded cells may vanish.

    Examples:

      segbench sweep truth/ predicted/ --dilate 0:20

      segbench sweep truth.npy predicted.npy --erode 0:5 --groups index.csv --format csv
    """
    from segbench.engine.metrics.scoring import sweep as run_sweep

    with progress_bar("sweeping") as progress:
        found = run_sweep(
            truth, predictions, radii_of(dilate), radii_of(erode),
            scores=scores, groups=groups, structure=structure.value, max_detections=max_detections, masks=masks.value,
            threads=threads, progress=progress,
        )  # fmt: skip
    tell_notes(next(iter(found.values())).notes)
    print_table(found.frame(), format)


def radii_of(text: str | None) -> list[int] | None:
    """Return the radii that ``0:20``, ``0:20:5`` or ``1,3,5`` stand for; anything else raises SegbenchError.

    Examples
    --------
    >>> radii_of("0:6:3"), radii_of("4,1")
    ([0, 3, 6], [4, 1])
    """
    from segbench.errors import SegbenchError

    if text is None:
        return None
    if match := re.fullmatch(r"(\d+):(\d+)(?::([1-9]\d*))?", text.strip()):
        first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
        if first <= last <= 100_000:
            return list(range(first, last + 1, step))
    elif re.fullmatch(r"\d+(\s*,\s*\d+)*", text.strip()):
        return [int(part) for part in text.split(",")]
    raise SegbenchError(f"the radii {text!r} are not understood; write 0:20, 0:20:5 or 1,3,5")
