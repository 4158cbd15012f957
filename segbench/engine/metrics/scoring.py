"""One call for whatever people have: arrays, lists, files and folders of label maps are scored or swept alike."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.label_maps import LabelMapFiles, LabelMapSource, open_label_maps
from segbench.engine.files.masks import Masks, as_labels, numbered_pieces
from segbench.engine.files.tables import read_groups, read_scores
from segbench.engine.metrics.batches import LabelMaps, Progress, refuse_type
from segbench.engine.metrics.coco_json import CocoEvaluation, IouType, evaluate_coco_json
from segbench.engine.metrics.diagnosis import Diagnosis, diagnose_labels, diagnose_prediction_set
from segbench.engine.metrics.evaluation import AREAS, MAX_DETECTIONS, AreaRanges, Evaluation
from segbench.engine.metrics.instances import evaluate_prediction_set
from segbench.engine.metrics.labels import ScoreArrays, evaluate_labels
from segbench.engine.metrics.postoperations import Operation, Structure
from segbench.engine.metrics.sweep import Sweep, sweep_labels, sweep_prediction_set
from segbench.errors import SegbenchError, unknown_name
from segbench.methods.predictions import PredictionSet

PathLike = str | os.PathLike[str]
GivenMaps = npt.NDArray[Any] | Iterable[npt.NDArray[Any]] | PathLike
"""One map (H, W), a stack (N, H, W), maps of any sizes one after the other, or the path of a file or folder."""


def evaluate(
    truth: GivenMaps,
    predictions: GivenMaps | PredictionSet,
    scores: Sequence[npt.ArrayLike] | npt.ArrayLike | PathLike | None = None,
    groups: Sequence[str] | PathLike | None = None,
    *,
    max_detections: int = MAX_DETECTIONS,
    areas: str | AreaRanges | None = None,
    masks: str = "labels",
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score predicted cells against true ones: AP and AR to the last bit as pycocotools computes them.

    Parameters
    ----------
    truth, predictions
        Label maps, paired one by one: one map (H, W), a stack (N, H, W), or a list or any iterable of maps of different
        sizes. Any integer type; 0 is background, labels may have gaps and go up to 2^31 - 1. Maps are read once and few
        at a time, so that memory-mapped stacks and generators of any length do.

        Or paths: of a stack (``.npy``, ``.tif``), or of a folder of maps (``.png``, ``.tif``, ``.npy``), where two
        folders are paired by the files' names; ``predictions`` may be the folder of a run's predictions.
    scores
        How sure each prediction is: an array a map, in ascending order of the map's labels (for one pair of maps the
        array itself), or the path of a CSV file with the columns image, label and score. Without, every prediction
        scores 1. Ties are broken by label, then by image.
    groups
        A name a map, such as its tissue, for scores per group from the same matching; or the path of a CSV file with
        the columns image and group.
    max_detections
        COCO's ``maxDets``: so many best predictions of an image count.
    areas
        ``"coco"`` or ``"livecell"``, or names with the smallest and largest area in pixels: small and large cells are
        scored apart, too.
    masks
        What the numbers of files mean: ``"labels"``, each a cell; ``"binary"``, each connected piece of what is not 0
        is a cell; ``"colour"``, each colour is.
    threads
        On how many threads maps are read and matched.
    progress
        Called now and then with how many images are done.

    Returns
    -------
    The six metrics pooled over all images, by group and by area range, and each image's counts; ``notes`` say what was
    left out, and what files of label maps are suspected of.

    Raises
    ------
    SegbenchError
        An argument is not what it should be; the message names it, what was found, and what would be right.

    See Also
    --------
    cell_metrics : F1, panoptic quality, AJI, SEG, splits and merges, from the same matching.
    confidence_intervals : how sure the metrics are.
    evaluate_coco : the same for COCO's JSON files.

    Examples
    --------
    One pair of maps, in which one of two cells is found with IoU 0.75:

    >>> import numpy as np
    >>> import segbench
    >>> truth = np.array([[1, 1, 0, 2], [1, 1, 0, 2]])
    >>> found = np.array([[7, 7, 0, 0], [7, 0, 0, 0]])
    >>> segbench.evaluate(truth, found, scores=[0.9])
    Evaluation(map=0.303, ap50=0.505, ap75=0.505, ar=0.3, ar50=0.5, ar75=0.5; 1 image, 2 true cells, 1 predicted)

    A stack of two, each in a group of its own:

    >>> result = segbench.evaluate([truth, truth], [found, truth], groups=["lung", "skin"])
    >>> result.frame().select("subset", "images", "ap50", "ar").rows()
    [('all', 2, 0.752..., 0.65), ('lung', 1, 0.504..., 0.3), ('skin', 1, 1.0, 1.0)]
    """
    pair = _paired(truth, predictions, scores, groups, masks)
    options: dict[str, Any] = {"area_ranges": _ranges(areas), "threads": threads, "progress": progress}
    if isinstance(pair.predictions, PredictionSet):
        found = evaluate_prediction_set(pair.truth, pair.predictions, pair.groups, max_detections, **options)
    else:
        found = evaluate_labels(pair.truth, pair.predictions, pair.scores, pair.groups, max_detections, **options)
    return dataclasses.replace(found, told=pair.told())


def diagnose(
    truth: GivenMaps,
    predictions: GivenMaps | PredictionSet,
    scores: Sequence[npt.ArrayLike] | npt.ArrayLike | PathLike | None = None,
    groups: Sequence[str] | PathLike | None = None,
    *,
    max_detections: int = MAX_DETECTIONS,
    masks: str = "labels",
    progress: Progress | None = None,
) -> Diagnosis:
    """Tell what the gap between a score and 1 is made of: missed, split, merged, spurious cells, and loose outlines.

    Parameters
    ----------
    truth, predictions, scores, groups, max_detections, masks, progress
        As in `evaluate`, whose scores the gaps are those of, to the last bit.

    Returns
    -------
    ``gaps()``, the shares of each kind of error, which add up to the gap; ``cells()``, what became of the true cells by
    their size and density, and how close the outlines of those found are; ``calibration()``, how often predictions of a
    score are right.

    Raises
    ------
    SegbenchError
        As `evaluate`.

    Examples
    --------
    >>> import numpy as np
    >>> import segbench
    >>> truth = np.array([[1, 1, 1, 0, 2, 2, 2, 0, 3, 3]])
    >>> found = np.array([[1, 1, 1, 1, 1, 1, 1, 0, 0, 0]])  # two cells are one, the third is missed
    >>> segbench.diagnose(truth, found)
    Diagnosis(ap50 0.000; missed 0.168, split 0.000, merged 0.832, spurious 0.000, loose 0.000)
    """
    pair = _paired(truth, predictions, scores, groups, masks)
    if isinstance(pair.predictions, PredictionSet):
        found = diagnose_prediction_set(pair.truth, pair.predictions, pair.groups, max_detections, progress=progress)
    else:
        found = diagnose_labels(
            pair.truth, pair.predictions, pair.scores, pair.groups, max_detections, progress=progress
        )
    return dataclasses.replace(found, notes=(*pair.told(), *found.notes))


def sweep(
    truth: GivenMaps,
    predictions: GivenMaps | PredictionSet,
    dilate: Iterable[int] | None = None,
    erode: Iterable[int] | None = None,
    *,
    scores: Sequence[npt.ArrayLike] | npt.ArrayLike | PathLike | None = None,
    groups: Sequence[str] | PathLike | None = None,
    structure: Structure = "disk",
    max_detections: int = MAX_DETECTIONS,
    masks: str = "labels",
    threads: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Score predictions after growing or shrinking their cells by each radius; the truth is left as it is.

    Dilated cells stop where they meet another, as in scikit-image's ``expand_labels``; eroded cells may vanish. All
    radii come from one distance computation a map.

    Parameters
    ----------
    truth, predictions, scores, groups, max_detections, masks, threads, progress
        As in `evaluate`. Maps that can be read but once (a generator) do for one operation only. Overlapping masks of a
        run's predictions are painted first, the best on top.
    dilate, erode
        Radii in whole pixels, 0 to 500, such as ``range(21)``; where both are None, ``dilate`` is ``range(21)``.
    structure
        ``"disk"``: by Euclidean distance. ``"cross"``: so many steps by the cross-shaped element.

    Returns
    -------
    An `Evaluation` for each (operation, radius), dilation first, radii ascending.

    Raises
    ------
    SegbenchError
        As `evaluate`; or radii are not whole numbers of pixels from 0 to 500.

    Examples
    --------
    Nuclei in cells that reach one pixel further, but for one neighbour:

    >>> import numpy as np
    >>> import segbench
    >>> cells = np.array([[1, 1, 1, 1, 1, 2, 2, 2]])
    >>> nuclei = np.array([[0, 1, 1, 1, 0, 0, 2, 0]])
    >>> swept = segbench.sweep(cells, nuclei, dilate=range(4))
    >>> swept.frame().select("radius", "ap50", "map").rows()
    [(0, 0.504..., 0.151...), (1, 1.0, 1.0), (2, 1.0, 1.0), (3, 1.0, 1.0)]
    >>> swept.best("map")
    ('dilate', 1)
    """
    asked: list[tuple[Operation, list[int]]] = []
    if dilate is not None or erode is None:
        asked.append(("dilate", _radii("dilate", range(21) if dilate is None else dilate)))
    if erode is not None:
        asked.append(("erode", _radii("erode", erode)))
    pair = _paired(truth, predictions, scores, groups, masks)
    if len(asked) > 1 and (iter(pair.truth) is pair.truth or iter(pair.predictions) is pair.predictions):
        raise SegbenchError(
            "dilate and erode need the maps twice, and a generator gives them once; give a list or stack"
        )
    options: dict[str, Any] = {"structure": structure, "threads": threads, "progress": progress}
    found: dict[tuple[Operation, int], Evaluation] = {}
    for operation, radii in asked:
        if isinstance(pair.predictions, PredictionSet):
            results = sweep_prediction_set(
                pair.truth, pair.predictions, operation, radii, pair.groups, max_detections, **options
            )
        else:
            results = sweep_labels(
                pair.truth, pair.predictions, operation, radii, pair.scores, pair.groups, max_detections, **options
            )
        found |= {(operation, radius): result for radius, result in results.items()}
    told = pair.told()
    return Sweep({key: dataclasses.replace(result, told=told) for key, result in found.items()})


def evaluate_coco(
    truth: PathLike,
    predictions: PathLike,
    *,
    iou: IouType = "segm",
    max_detections: int = MAX_DETECTIONS,
    areas: str | AreaRanges | None = None,
    progress: Progress | None = None,
) -> CocoEvaluation:
    """Score a COCO results file against a COCO dataset file, to the last bit as pycocotools does.

    Parameters
    ----------
    truth
        Path of a dataset (``.json``): images, categories, annotations with polygons or run lengths. ``iscrowd`` marks
        regions where predictions are neither right nor wrong.
    predictions
        Path of a list of results: image_id, category_id, score, segmentation or bbox.
    iou
        ``"segm"`` compares masks, ``"bbox"`` boxes.
    max_detections
        COCO's ``maxDets``: so many best predictions of an image and category count.
    areas
        As in `evaluate`.
    progress
        Called now and then with how many pairs of image and category are done.

    Returns
    -------
    Precision and recall by category, area range and limit; ``frame()`` has the six metrics, means over categories.

    Raises
    ------
    SegbenchError
        A file is not what it should be: which annotation, what was found and what would be right.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import segbench
    >>> square = [[2, 2, 2, 6, 6, 6, 6, 2]]
    >>> truth = {
    ...     "images": [{"id": 1, "height": 9, "width": 9}],
    ...     "categories": [{"id": 1, "name": "cell"}],
    ...     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": square, "area": 16}],
    ... }
    >>> found = [{"image_id": 1, "category_id": 1, "segmentation": square, "score": 0.5}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = pathlib.Path(folder, "truth.json"), pathlib.Path(folder, "found.json")
    ...     for path, content in zip(paths, (truth, found)):
    ...         _ = path.write_text(json.dumps(content))
    ...     segbench.evaluate_coco(*paths).frame().select("subset", "truth", "ar").rows()
    [('all', 1, 1.0)]
    """
    for name, given in (("truth", truth), ("predictions", predictions)):
        if not isinstance(given, str | os.PathLike):
            raise SegbenchError(f"{name} is of type {type(given).__name__}; give the path of a COCO JSON file")
        path = Path(given)
        if path.suffix.lower() != ".json":
            raise SegbenchError(f"{path} is no COCO JSON; give both as JSON (.json), or both as label maps to evaluate")
    ranges = _ranges(areas) or {}
    return evaluate_coco_json(
        Path(truth),
        Path(predictions),
        max_detections=[max_detections],
        area_ranges=ranges,
        iou_type=iou,
        progress=progress,
    )


@dataclass(frozen=True)
class _Pair:
    """Truth and predictions that have been looked at, ready to be matched."""

    truth: LabelMaps
    predictions: LabelMaps | PredictionSet
    scores: ScoreArrays | None
    groups: Sequence[str] | None
    sources: tuple[LabelMapSource, ...] = ()
    """Of those that are files."""

    def told(self) -> tuple[str, ...]:
        """Return what reading the files left out or suspects; raises SegbenchError where they are no label maps."""
        return tuple(
            note
            for source in self.sources
            for note in (*source.notes, *(f"{source.path}: {line}" for line in source.suspicions()))
        )


def _paired(truth: Any, predictions: Any, scores: Any, groups: Any, masks: str) -> _Pair:
    if masks not in set(Masks):
        raise unknown_name("kind of masks", masks, list(Masks))
    true, true_is_one = _opened(truth, "truth", Masks(masks))
    found, found_is_one = _opened(predictions, "predictions", Masks(masks), runs=True)
    if isinstance(true, PredictionSet):
        raise SegbenchError("truth is the folder of a run's predictions; give label maps")
    if true_is_one is not None and found_is_one is not None and true_is_one != found_is_one:
        one, more = ("truth", "predictions") if true_is_one else ("predictions", "truth")
        raise SegbenchError(f"{one} is one map (H, W), {more} are several (N, H, W); give both in the same way")
    true_maps, names = _named(true)
    if isinstance(found, PredictionSet):
        if scores is not None:
            raise SegbenchError(
                "scores are for label maps; a run's predictions have theirs with them: leave scores out"
            )
        return _Pair(true_maps, found, None, _groups(groups, names), _files(true))
    if isinstance(true, LabelMapSource) and isinstance(found, LabelMapSource):
        found = _ordered(true, found)
    found_maps, found_names = _named(found)
    given = _scores(scores, found_names, bool(found_is_one), found_maps)
    return _Pair(true_maps, found_maps, given, _groups(groups, names), (*_files(true), *_files(found)))


def _files(maps: Any) -> tuple[LabelMapSource, ...]:
    return (maps,) if isinstance(maps, LabelMapSource) else ()


def _opened(
    given: Any, what: str, masks: Masks, runs: bool = False
) -> tuple[LabelMaps | LabelMapSource | PredictionSet, bool | None]:
    """Return what was given as maps, and whether it is one map; None where only the files would tell."""
    if isinstance(given, PredictionSet):
        return given, None
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if path.suffix.lower() == ".json":
            raise SegbenchError(f"{what} is COCO JSON, {path}: score it by evaluate_coco(truth, predictions)")
        if runs and (path / "predictions.json").is_file():
            return PredictionSet(path), None
        return open_label_maps(path, masks), None
    return _opened_arrays(given if masks is Masks.LABELS else _numbered(given, what, masks), what)


def _opened_arrays(given: Any, what: str) -> tuple[LabelMaps, bool]:
    """Return maps in memory, and whether it is one map."""
    if isinstance(given, np.ma.MaskedArray):
        raise SegbenchError(f"{what} is a masked array; give its labels as a plain one, as by filled(0)")
    dimensions = getattr(given, "ndim", None)
    if dimensions == 2:
        array = np.asarray(given)
        refuse_type(array, what)
        return array[None], True
    if isinstance(given, np.ndarray):
        if dimensions != 3:
            raise SegbenchError(f"{what} has shape {given.shape}; a label map is (H, W), a stack of them (N, H, W)")
        refuse_type(given, what)
        return given, False
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise SegbenchError(
            f"{what} is of type {type(given).__name__}; "
            "give a label map (H, W), a stack (N, H, W), a list of maps or a path"
        )
    return given, False


def _numbered(given: Any, what: str, masks: Masks) -> Any:
    """Return binary masks in memory with their pieces numbered."""
    if masks is Masks.COLOUR:
        raise SegbenchError(f"{what} is an array; masks='colour' is for picture files")
    if getattr(given, "ndim", None) == 2:
        return numbered_pieces(as_labels(np.asarray(given), what))
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        return given
    return [numbered_pieces(as_labels(np.asarray(one), f"{what}[{n}]")) for n, one in enumerate(given)]


def _named(maps: Any) -> tuple[LabelMaps, Sequence[str] | None]:
    """Return maps with their names; None where they have none but their position and how many they are is not known."""
    if isinstance(maps, LabelMapSource):
        return maps.maps, maps.names
    return maps, [str(n) for n in range(len(maps))] if hasattr(maps, "__len__") else None


def _ordered(truth: LabelMapSource, found: LabelMapSource) -> LabelMapSource:
    """Return the predictions in the order of the truth, by file name where both are folders."""
    folders = isinstance(truth.maps, LabelMapFiles) and isinstance(found.maps, LabelMapFiles)
    return found.ordered_as(truth.names).sized_as(truth) if folders else found


def _scores(given: Any, names: Sequence[str] | None, one: bool, maps: LabelMaps) -> ScoreArrays | None:
    if isinstance(given, str | os.PathLike):

        def labels_of(n: int) -> npt.NDArray[np.int64]:
            assert isinstance(maps, Sequence | np.ndarray)  # their names are known
            labels: npt.NDArray[np.int64] = np.unique(np.asarray(maps[n], np.int64))
            return np.setdiff1d(labels, [0])

        return read_scores(Path(given), _known(names, "scores"), labels_of)
    if given is None:
        return None
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise SegbenchError(f"scores is of type {type(given).__name__}; give one array of numbers a map")
    arrays = list(given)
    # the scores of one map come as they are, or as a list of one array
    return [arrays] if one and all(np.ndim(each) == 0 for each in arrays) else arrays


def _groups(given: Any, names: Sequence[str] | None) -> Sequence[str] | None:
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        if isinstance(given, str) and not Path(given).is_file():
            raise SegbenchError(f"groups is the text {given!r}; give one name a map, or the path of a CSV file")
        found: Sequence[str] = read_groups(Path(given), _known(names, "groups"))
    elif isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise SegbenchError(f"groups is of type {type(given).__name__}; give one name a map")
    else:
        found = [str(name) for name in given]
    if "all" in found:
        raise SegbenchError("groups has the name 'all', which stands for all images together; give it another name")
    return found


def _known(names: Sequence[str] | None, what: str) -> Sequence[str]:
    if names is None:
        raise SegbenchError(f"{what} from a file need maps that can be counted; give a list, a stack or a folder")
    return names


def _ranges(areas: str | AreaRanges | None) -> AreaRanges | None:
    if areas is None:
        return None
    if isinstance(areas, Mapping):
        for name, bounds in areas.items():
            _check_range(name, bounds)
        return areas
    if not isinstance(areas, str):
        raise SegbenchError(f"areas is of type {type(areas).__name__}; give 'coco', 'livecell' or names with two areas")
    if areas not in AREAS:
        raise unknown_name("set of areas", areas, AREAS)
    return AREAS[areas]


def _check_range(name: str, bounds: Any) -> None:
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if name == "all" or not low <= high:
        raise SegbenchError(
            f"areas has {name!r}: {bounds!r}; give a name other than 'all' with its smallest and largest area in pixels"
        )


def _radii(what: str, given: Iterable[int]) -> list[int]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise SegbenchError(f"{what} is {given!r}; give radii in pixels, as range(21) or [1, 3]")
    return list(given)
