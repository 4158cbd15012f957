"""Examples: the same test windows with their truth and every method's prediction, as outlines."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.analysis.report import tiles
from segbench.analysis.report.model import Content, Missing, Section, Source
from segbench.analysis.report.sections._filling import filled_by, missing_examples
from segbench.analysis.report.wording import count
from segbench.engine.metrics import paint_instances
from segbench.engine.results.attempts import AttemptFolder
from segbench.engine.results.folder import ResultsFolder
from segbench.errors import SegbenchError
from segbench.methods.predictions import LabelInstances, PredictionSet

_log = logging.getLogger(__name__)
_Key = tuple[str, str, int]
"""Task, fingerprint of the data and window number: the same for every method."""

_AT_ONCE = 4
"""Predictions that are drawn before it is asked whether more of them fit."""
MOST_BYTES = 17_000_000
"""Bytes of pictures (in base64), shared evenly by the runs; what goes beyond is left out, and the report says so."""

TELLING = ("worst", "median", "best")

# One run a (method, task): trained on all tissues where there is one, lowest seed
_RUNS_SQL = """\
select run_id, method, method_title, task, train_tissue, folder
from (
    select *, row_number() over (
        partition by method, task order by train_tissue = 'all' desc, train_tissue, seed, run_id) as place
    from runs_latest
    where status = 'done' and category <> 'control' and train_images is null
)
where place = 1
order by task, method_title"""

_PIXELS_SQL = """\
select dataset_fingerprint, any_value(pixel_size_um) as um_per_pixel
from tissues
where pixel_size_um > 0
group by dataset_fingerprint
having count(distinct pixel_size_um) = 1"""


@dataclass(frozen=True)
class Windows:
    """What one run left for the report: k test windows."""

    rows: npt.NDArray[np.int64]
    """(k,), window numbers."""
    images: npt.NDArray[np.uint8]
    """(k, C, H, W), display channels."""
    truth: npt.NDArray[np.int32]
    """(k, H, W), label maps."""
    prediction: npt.NDArray[np.int32]
    """(k, H, W), label maps."""
    ap50: npt.NDArray[np.float64]
    """(k,), NaN where a window has no truth."""
    tissues: tuple[str, ...]
    names: tuple[str, ...]
    """(k,) image ids."""
    dataset: str
    fingerprint: str
    channels: tuple[str, ...]
    """Names of the C channels."""
    telling: Mapping[str, int]
    """The window numbers of this run's ``worst``, ``median`` and ``best`` of the whole test set; those of an earlier
    segbench have none."""
    every_ap50: npt.NDArray[np.float32]
    """(N,), of every test window, NaN where it has no truth; (0,) where the run is of an earlier segbench."""


def read_windows(attempt: AttemptFolder) -> Windows | None:
    """Read the examples of an attempt; None where there are none, or they cannot be read (told in the log)."""
    try:
        meta = json.loads(attempt.example_facts.read_text())
        with np.load(attempt.example_arrays, allow_pickle=False) as stored:
            windows = Windows(
                rows=stored["rows"],
                images=stored["images"],
                truth=stored["truth"],
                prediction=stored["prediction"],
                ap50=stored["ap50"],
                tissues=tuple(map(str, meta["tissues"])),
                names=tuple(map(str, meta["images"])),
                dataset=str(meta["dataset"]),
                fingerprint=str(meta["fingerprint"]),
                channels=tuple(map(str, meta.get("channels", ()))),
                telling={str(kind): int(row) for kind, row in meta.get("telling", {}).items() if kind in TELLING},
                every_ap50=np.asarray(stored.get("every_ap50", ()), np.float32),
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        _log.warning("examples in %s are left out: %s", attempt.path, error)
        return None
    k = len(windows.rows)
    shapes = windows.truth.shape == windows.prediction.shape and windows.truth.shape[1:] == windows.images.shape[2:]
    arrays = (windows.images, windows.truth, windows.ap50)
    lengths = {k, len(windows.tissues), len(windows.names), *(len(array) for array in arrays)}
    if not shapes or len(lengths) > 1:
        _log.warning("examples in %s are left out: arrays do not fit each other", attempt.path)
        return None
    return windows


@dataclass
class _Example:
    """One window with the methods' predictions as they come."""

    task: str
    tissue: str
    image: str
    dataset: str
    row: int
    picture: str
    truth: npt.NDArray[np.int32]
    """(H, W), the label map."""
    truth_picture: str
    cells: int
    size: tuple[int, int]
    """Height and width in pixels."""
    channels: list[tuple[str, str]]
    """Names and colours of what the picture shows."""
    um_per_pixel: float | None
    """None where it is not known: the scale bar is in pixels."""
    panels: list[dict[str, Any]]
    telling: list[dict[str, Any]]
    """Of which methods it is the ``worst``, ``median`` or ``best`` ``of`` how many test windows."""

    def as_data(self) -> dict[str, Any]:
        scores = [panel["ap50"] for panel in self.panels if panel["ap50"] is not None]
        mean = sum(scores) / len(scores) if scores else None
        own = {**self.__dict__, "truth": self.truth_picture}
        del own["truth_picture"]
        return {**own, "mean_ap50": None if mean is None else round(mean, 4)}


def _build(source: Source) -> Content | Missing:
    runs = source.marked(_RUNS_SQL).to_dicts()
    sizes = dict(source.query(_PIXELS_SQL).rows())
    examples: dict[_Key, _Example] = {}
    left_out = 0
    scores: list[tuple[dict[str, Any], str, npt.NDArray[np.float32]]] = []
    with ThreadPoolExecutor() as pool:
        for run, windows in _windows(source.out, runs):
            left_out += _show(run, windows, examples, sizes, MOST_BYTES // len(runs), pool)
            scores.append((run, windows.fingerprint, windows.every_ap50))
        for run, fingerprint, ap50 in scores:
            same = (run["task"], fingerprint)
            others = [(key[2], example) for key, example in examples.items() if key[:2] == same]
            _show_others(run, others, ap50, source.out, MOST_BYTES // len(runs) // 2, pool)
    if not examples:
        return Missing()
    data = [example.as_data() for example in examples.values()]
    return Content(
        warnings=(f"{count(left_out, 'picture')} more did not fit the file",) if left_out else (),
        template="examples.html.j2",
        context={"kinds": [(name, colour, meaning) for name, (_, colour, meaning) in tiles.KINDS.items()]},
        data={"examples": data, "kinds": {name: colour for name, (_, colour, _) in tiles.KINDS.items()}},
    )


def _show(
    run: dict[str, Any],
    windows: Windows,
    examples: dict[_Key, _Example],
    sizes: Mapping[str, float],
    most: int,
    pool: ThreadPoolExecutor,
) -> int:
    """Put a run's windows into the examples, so many bytes of them; return how many were left out."""
    telling = [k for k, row in enumerate(windows.rows) if row in windows.telling.values()]
    order = [*telling, *(k for k in by_turns(windows.tissues) if k not in telling)]
    size = left_out = 0
    for start in range(0, len(order), _AT_ONCE):
        few = order[start : start + _AT_ONCE]
        if size > most:
            left_out += len(few)
            continue
        drawn = pool.map(tiles.prediction_overlay, windows.truth[few], windows.prediction[few])
        for k, overlay in zip(few, drawn, strict=True):
            if size > most:
                left_out += 1
            else:
                size += _put(run, windows, k, overlay, examples, sizes)
    return left_out


def _put(
    run: dict[str, Any],
    windows: Windows,
    k: int,
    overlay: tiles.Overlay,
    examples: dict[_Key, _Example],
    sizes: Mapping[str, float],
) -> int:
    """Put one of a run's windows into the examples; return the bytes of its pictures."""
    row, size = int(windows.rows[k]), len(overlay.picture)
    key = (run["task"], windows.fingerprint, row)
    if key not in examples:
        examples[key] = _example(run["task"], windows, k, sizes.get(windows.fingerprint))
        size += len(examples[key].picture) + len(examples[key].truth_picture)
    example = examples[key]
    example.panels.append(_panel(run, overlay, float(windows.ap50[k])))
    example.telling += [
        {"method": run["method"], "kind": kind, "of": int(np.count_nonzero(~np.isnan(windows.every_ap50)))}
        for kind, one in windows.telling.items()
        if one == row
    ]
    return size


def _show_others(
    run: dict[str, Any],
    examples: Sequence[tuple[int, _Example]],
    ap50: npt.NDArray[np.float32],
    out: ResultsFolder,
    most: int,
    pool: ThreadPoolExecutor,
) -> None:
    """Put a run's predictions into the telling windows of others, so many bytes, where they still lie with its record.

    Where they do not, the panel has the score alone. Windows come with their numbers; ``ap50`` (N,) is that of all.
    """
    lacking = [
        (row, example)
        for row, example in examples
        if example.telling and all(panel["method"] != run["method"] for panel in example.panels)
    ]
    maps = _maps(out.attempt_at(run["folder"]), [row for row, _ in lacking])
    there = [(row, example) for row, example in lacking if row in maps]
    drawn = pool.map(lambda one: tiles.prediction_overlay(one[1].truth, maps[one[0]]), there)
    overlays = dict(zip([row for row, _ in there], drawn, strict=True))
    size = 0
    for row, example in lacking:
        overlay = overlays.get(row) if size <= most else None
        score = float(ap50[row]) if row < ap50.size else np.nan
        if overlay is not None or not np.isnan(score):
            size += len(overlay.picture) if overlay is not None else 0
            example.panels.append(_panel(run, overlay, score))


def _maps(attempt: AttemptFolder, rows: Sequence[int]) -> dict[int, npt.NDArray[np.int32]]:
    """Return the label maps (H, W) that an attempt predicts for test windows, as far as it still has them."""
    try:
        predictions = PredictionSet(attempt.job.predictions("test"))
        found = {}
        for row in rows:
            instances = predictions[row]
            if isinstance(instances, LabelInstances):
                found[row] = np.asarray(instances.labels, np.int32)
            else:
                found[row], _ = paint_instances(instances, (predictions.height, predictions.width))
    except (OSError, ValueError, IndexError, SegbenchError):
        # Nothing is lost but a picture: its score is told
        return {}
    return found


def by_turns(tissues: Sequence[str]) -> list[int]:
    """Return the places of windows with each tissue's first before any tissue's second.

    Examples
    --------
    >>> by_turns(["Lung", "Lung", "Spleen", "Spleen"])
    [0, 2, 1, 3]
    """
    turns = [tissues[:k].count(tissue) for k, tissue in enumerate(tissues)]
    return sorted(range(len(tissues)), key=lambda k: (turns[k], k))


def _panel(run: dict[str, Any], overlay: tiles.Overlay | None, ap50: float) -> dict[str, Any]:
    return {
        "method": run["method"],
        "title": run["method_title"],
        "train_tissue": run["train_tissue"],
        "run": run["run_id"],
        "ap50": None if np.isnan(ap50) else round(ap50, 4),
        "overlay": overlay.picture if overlay else None,
        "told": tiles.told(overlay.counts) if overlay else "this window's picture was not kept",
        "counts": dict(overlay.counts) if overlay else {},
    }


def _windows(out: ResultsFolder, runs: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Windows]]:
    for run in runs:
        try:
            attempt = out.attempt_at(run["folder"])
        except ValueError as error:
            _log.warning("examples of run %s are left out: %s", run["run_id"], error)
            continue
        windows = read_windows(attempt)
        if windows is not None:
            yield run, windows


def _example(task: str, windows: Windows, k: int, um_per_pixel: float | None) -> _Example:
    height, width = windows.truth[k].shape
    return _Example(
        task=task,
        tissue=windows.tissues[k],
        image=windows.names[k],
        dataset=windows.dataset,
        row=int(windows.rows[k]),
        picture=tiles.picture(windows.images[k]),
        truth=windows.truth[k],
        truth_picture=tiles.truth_overlay(windows.truth[k]),
        cells=int(np.count_nonzero(np.unique(windows.truth[k]))),
        size=(height, width),
        channels=tiles.channel_key(windows.channels),
        um_per_pixel=um_per_pixel,
        panels=[],
        telling=[],
    )


SECTION = Section(
    key="examples",
    title="Examples",
    about=(
        "The same test windows for every method: the image, the true outlines, and what each method made of them; a "
        "cell is found from an overlap (IoU) of 0.5."
    ),
    fill=filled_by(missing_examples),
    build=_build,
)
