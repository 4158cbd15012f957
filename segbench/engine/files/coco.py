"""Reads COCO JSON with every value checked, so that nothing unchecked reaches pycocotools' C code.

Source of the format: cocodataset/cocoapi, ``PythonAPI/pycocotools/mask.py`` and ``common/maskApi.c`` (run lengths).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segbench.engine.files.json_files import load_json
from segbench.errors import SegbenchError

Id = int | str
Size = tuple[int, int]
"""(height, width)."""
Segmentation = list[list[float]] | dict[str, Any]
"""Polygons x, y, x, y, ... or a run-length encoding ``{"size": [h, w], "counts": list or str}``."""
_LARGEST_SIDE = 1_000_000
_LARGEST_PIXELS = 2**31 - 1
_NEAR = 1000.0
"""Pixels outside of an image that a polygon may reach, where the image is smaller than that."""


@dataclass(frozen=True)
class CocoObject:
    """One true or predicted object."""

    id: Id
    """Of the annotation; the position in a list of results."""
    image: Id
    category: Id
    segmentation: Segmentation | None
    """Checked: polygons of finite numbers near the image, or run lengths that fill it."""
    box: tuple[float, float, float, float] | None
    """x, y, width, height."""
    area: float | None
    crowd: bool = False
    score: float = 0.0


@dataclass(frozen=True)
class CocoImage:
    """One image of a dataset file."""

    id: Id
    name: str | None
    """``file_name``."""
    size: Size


@dataclass(frozen=True)
class CocoTruth:
    """A dataset file."""

    images: Mapping[Id, CocoImage]
    categories: tuple[Id, ...]
    objects: tuple[CocoObject, ...]
    """Of listed images and categories."""
    notes: tuple[str, ...] = ()
    """What was left out, each in one line."""


@dataclass(frozen=True)
class CocoResults:
    """A file of results."""

    objects: tuple[CocoObject, ...]
    by_box: bool
    """Boxes give the areas, as pycocotools' ``loadRes`` decides by the first result."""
    notes: tuple[str, ...] = field(default=())


def read_truth(path: Path, segmentations: bool = True, *, texts: bool = True) -> CocoTruth:
    """Read a COCO dataset file.

    Parameters
    ----------
    path
        Of the JSON file: an object with images, annotations (a list, or an object by id as in LIVECell's files of one
        cell type) and categories.
    segmentations
        False where boxes are compared: objects then need no segmentation.
    texts
        False leaves run lengths that are text unchecked, to be decoded and checked all at once by who asks.

    Raises
    ------
    SegbenchError
        A value is missing, of another type or out of its range: one line that names the image or annotation.
    """
    raw = load_json(path)
    if not isinstance(raw, dict) or not {"images", "annotations", "categories"} <= raw.keys():
        raise SegbenchError(f"{path} is no COCO dataset: it must be an object with images, annotations and categories")
    images = read_images(raw["images"], path)
    categories = _categories(raw["categories"], path)
    seen: set[Id] = set()
    objects: list[CocoObject] = []
    strays = {"image": 0, "category": 0}
    annotations = list(_annotations(raw["annotations"], path))
    for where, annotation in annotations:
        one = _object(annotation, where, ("id", "image_id", "category_id"))
        if one.id in seen:
            raise SegbenchError(f"{where}: this id appears twice; ids must differ")
        seen.add(one.id)
        _of_one_kind(one.image, images, f"{where}: image_id")
        _of_one_kind(one.category, categories, f"{where}: category_id")
        stray = "image" if one.image not in images else "category" if one.category not in categories else None
        if stray is not None:
            strays[stray] += 1
            continue
        if texts or not _is_text(one.segmentation, images[one.image].size):
            check_shape(one, where, images[one.image].size, segmentations)
        objects.append(one)
    _all_of_one_kind(seen, f"{path}: ids of annotations")
    told = [
        f"{path.name}: {n:,} of {len(annotations):,} annotations name {article} {what} that is not listed: left out"
        for (what, n), article in zip(strays.items(), ("an", "a"), strict=True)
        if n
    ]
    return CocoTruth(images, tuple(sorted(set(categories))), tuple(objects), tuple(told))


def read_results(path: Path, truth: CocoTruth, segmentations: bool = True, *, texts: bool = True) -> CocoResults:
    """Read a COCO results file: a list of results, or an object with them under ``annotations``.

    Raises
    ------
    SegbenchError
        As ``read_truth``; or a result's image is not in the truth, or its score is no number.
    """
    raw = load_json(path)
    results = raw.get("annotations") if isinstance(raw, dict) else raw
    if not isinstance(results, list):
        raise SegbenchError(f"{path} holds no COCO results: it must be a list of objects with image_id and score")
    by_box = bool(results) and isinstance(results[0], dict) and bool(results[0].get("bbox"))
    objects: list[CocoObject] = []
    spare: dict[Id, int] = {}
    for n, result in enumerate(results):
        where = f"{path}, result {n}"
        one = _object(result, where, ("image_id", "category_id", "score"), number=n)
        _of_one_kind(one.image, truth.images, f"{where}: image_id")
        _of_one_kind(one.category, truth.categories, f"{where}: category_id")
        if one.image not in truth.images:
            raise SegbenchError(f"{where}: image_id {one.image!r} is not in the truth")
        if by_box:
            one = _with_box_area(one, where)
        if texts or not _is_text(one.segmentation, truth.images[one.image].size):
            check_shape(one, where, truth.images[one.image].size, segmentations)
        if one.category not in truth.categories:
            spare[one.category] = spare.get(one.category, 0) + 1
        objects.append(one)
    told = [
        f"{path.name}: {n:,} of {len(results):,} results have category {category!r}, which the truth lacks: left out"
        for category, n in spare.items()
    ]
    boxes = sum(isinstance(result, dict) and result.get("segmentation") is None for result in results)
    if by_box and segmentations and boxes:
        told.append(f"{path.name}: {boxes:,} of {len(results):,} results have no mask: their boxes are scored as masks")
    return CocoResults(tuple(objects), by_box, tuple(told))


def read_images(raw: Any, path: Path) -> dict[Id, CocoImage]:
    """Return the images of a dataset file by id, each checked; raises SegbenchError where two have one id."""
    images: dict[Id, CocoImage] = {}
    for n, image in enumerate(_list(raw, f"{path}: images")):
        where = f"{path}, image number {n}"
        _require(image, ("id", "height", "width"), where)
        name = image.get("file_name")
        if name is not None and not isinstance(name, str):
            raise SegbenchError(f"{where}: file_name is {_shown(name)}; it must be text")
        number = checked_id(image["id"], f"{where}: id")
        size = tuple(_side(image[key], f"{where}: {key}") for key in ("height", "width"))
        if size[0] * size[1] > _LARGEST_PIXELS:
            raise SegbenchError(f"{where}: {size[0]} x {size[1]} pixels are more than {_LARGEST_PIXELS:,}")
        if number in images:
            raise SegbenchError(f"{where}: the id {number!r} appears twice; ids of images must differ")
        images[number] = CocoImage(number, name, (size[0], size[1]))
    _all_of_one_kind(images, f"{path}: ids of images")
    return images


def checked_id(value: Any, where: str) -> Id:
    """Return an id, a whole number or text; a float that is whole counts as its number."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise SegbenchError(f"{where} is {_shown(value)}; ids are whole numbers or text")


def _is_text(segmentation: Any, size: Size) -> bool:
    """Return whether a segmentation is run lengths in text for an image of this size."""
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str):
        return False
    given = segmentation.get("size")
    return isinstance(given, list) and given == list(size)


def check_shape(one: CocoObject, where: str, size: Size, segmentations: bool) -> None:
    """Raise SegbenchError where an object has no box or mask to compare, or one that is none."""
    if not segmentations and one.box is not None:
        return
    check_segmentation(one.segmentation, where, size)


def check_segmentation(segmentation: Any, where: str, size: Size) -> None:
    """Raise SegbenchError where polygons or run lengths would not be a mask of this size.

    Parameters
    ----------
    segmentation
        As the file has it; polygons may be arrays as well.
    where
        File and annotation, for the error.
    size
        (H, W) of its image.
    """
    if isinstance(segmentation, Mapping):
        _check_run_lengths(segmentation, where, size)
    elif isinstance(segmentation, list | tuple) and len(segmentation):
        for polygon in segmentation:
            check_polygon(polygon, where, size)
    else:
        raise SegbenchError(f"{where}: a segmentation is a list of polygons or an object with counts and size")


def check_polygon_numbers(polygon: Any, where: str) -> npt.NDArray[Any]:
    """Return a polygon x, y, x, y, ... as an array; SegbenchError unless it is three finite points or more."""
    if isinstance(polygon, str | bytes) or not isinstance(polygon, Sequence | np.ndarray):
        raise SegbenchError(f"{where}: a polygon is {_shown(polygon)}; it must be a list x, y, x, y, ...")
    if len(polygon) < 6 or len(polygon) % 2:
        raise SegbenchError(f"{where}: a polygon of {len(polygon)} numbers; it must be x, y of three points or more")
    try:
        points = np.asarray(polygon)
    except ValueError:
        points = np.zeros(0, object)
    if points.ndim != 1 or points.dtype.kind not in "iuf":
        raise SegbenchError(f"{where}: a polygon holds something else than numbers")
    if not np.isfinite(points).all():
        raise SegbenchError(f"{where}: a polygon has a coordinate that is not finite")
    return points


def check_polygon(polygon: Any, where: str, size: Size) -> None:
    """Raise SegbenchError where a polygon is no list of three finite points or more near an image of this size."""
    points = check_polygon_numbers(polygon, where)
    for axis, side in ((0, size[1]), (1, size[0])):
        low, high = float(points[axis::2].min()), float(points[axis::2].max())
        margin = max(_NEAR, float(side))
        if low < -margin or high > side + margin:
            far = low if low < -margin else high
            raise SegbenchError(
                f"{where}: a polygon reaches {'xy'[axis]} = {far:.6g}, far outside of an image of "
                f"{size[1]} x {size[0]} pixels"
            )


def _check_run_lengths(mask: Mapping[str, Any], where: str, size: Size) -> None:
    if not {"counts", "size"} <= mask.keys():
        raise SegbenchError(f"{where}: a segmentation is a list of polygons or an object with counts and size")
    if not isinstance(mask["size"], list | tuple) or list(mask["size"]) != list(size):
        raise SegbenchError(f"{where}: the mask's size is {_shown(mask['size'])}, the image's {list(size)}")
    counts = mask["counts"]
    if isinstance(counts, str | bytes):
        runs = decoded_runs(counts, where)
    elif isinstance(counts, list):
        if not all(
            isinstance(run, int) and not isinstance(run, bool) and 0 <= run <= _LARGEST_PIXELS for run in counts
        ):
            raise SegbenchError(f"{where}: run lengths are whole numbers from 0, found {_shown(counts)}")
        runs = np.asarray(counts, np.int64)
    else:
        raise SegbenchError(f"{where}: counts is {_shown(counts)}; it must be text or a list of run lengths")
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise SegbenchError(
            f"{where}: the run lengths add up to {int(runs.sum()):,}, the image has {size[0] * size[1]:,} pixels"
        )


def decoded_runs(counts: str | bytes, where: str) -> npt.NDArray[np.int64]:
    """Return the run lengths of COCO's text: five bits a character, differences from the third on.

    Raises
    ------
    SegbenchError
        It is no such text; the line begins with ``where``.
    """
    try:
        data = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    except UnicodeEncodeError:
        data = b"\xff"
    digits = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if ((digits < 0) | (digits > 63)).any() or (digits.size and digits[-1] & 32):
        raise SegbenchError(f"{where}: counts is no text of run lengths: {_shown(counts)}")
    if not digits.size:
        return digits
    last = np.flatnonzero((digits & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    if (length > 12).any():
        raise SegbenchError(f"{where}: counts is no text of run lengths: {_shown(counts)}")
    place = np.arange(digits.size) - np.repeat(first, length)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, np.left_shift(1, 5 * length), 0)
    # each run from the fourth on is told as its difference from the one two before
    for start in (1, 2):
        values[start::2] = np.cumsum(values[start::2])
    return values


def _annotations(raw: Any, path: Path) -> Iterator[tuple[str, Any]]:
    if isinstance(raw, Mapping):
        raw = list(raw.values())  # by id, as in LIVECell's files of one cell type
    for n, annotation in enumerate(_list(raw, f"{path}: annotations")):
        name = annotation.get("id", f"number {n}") if isinstance(annotation, Mapping) else f"number {n}"
        yield f"{path}, annotation {_shown(name) if not isinstance(name, int | str) else name}", annotation


def _categories(raw: Any, path: Path) -> tuple[Id, ...]:
    found = []
    for n, category in enumerate(_list(raw, f"{path}: categories")):
        _require(category, ("id",), f"{path}, category number {n}")
        found.append(checked_id(category["id"], f"{path}, category number {n}: id"))
    _all_of_one_kind(found, f"{path}: ids of categories")
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice is not None:
        raise SegbenchError(f"{path}: two categories have the id {twice!r}; ids must differ")
    return tuple(found)


def _object(raw: Any, where: str, keys: Sequence[str], number: int = 0) -> CocoObject:
    _require(raw, keys, where)
    crowd = raw.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise SegbenchError(f"{where}: iscrowd is {_shown(crowd)}; it must be 0 or 1")
    return CocoObject(
        id=checked_id(raw["id"], f"{where}: id") if "id" in keys else number,
        image=checked_id(raw["image_id"], f"{where}: image_id"),
        category=checked_id(raw["category_id"], f"{where}: category_id"),
        segmentation=raw.get("segmentation"),
        box=_box(raw.get("bbox"), where),
        area=None if raw.get("area") is None else _number(raw["area"], f"{where}: area"),
        crowd=bool(crowd),
        score=_number(raw["score"], f"{where}: the score") if "score" in keys else 0.0,
    )


def _with_box_area(one: CocoObject, where: str) -> CocoObject:
    """Return a result with its box' area and, where it has no mask, the box as its polygon, as ``loadRes`` has it."""
    if one.box is None:
        raise SegbenchError(f"{where}: 'bbox' is missing, though the first result has one")
    x, y, width, height = one.box
    outline = [[x, y, x, y + height, x + width, y + height, x + width, y]]
    segmentation = outline if one.segmentation is None else one.segmentation
    return CocoObject(one.id, one.image, one.category, segmentation, one.box, width * height, one.crowd, one.score)


def _box(raw: Any, where: str) -> tuple[float, float, float, float] | None:
    if raw is None or (isinstance(raw, list) and not raw):
        return None
    if not isinstance(raw, list) or len(raw) != 4:
        raise SegbenchError(f"{where}: the bbox is {_shown(raw)}; it must be x, y, width, height")
    x, y, width, height = (_number(value, f"{where}: bbox") for value in raw)
    if width < 0 or height < 0:
        raise SegbenchError(f"{where}: the bbox is {_shown(raw)}; its width and height must not be negative")
    return x, y, width, height


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SegbenchError(f"{where} is {_shown(value)}; it must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SegbenchError(f"{where} is {_shown(value)}; it must be finite")
    return value if isinstance(value, int) and abs(value) < 2**53 else number


def _side(value: Any, where: str) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST_SIDE:
        raise SegbenchError(
            f"{where} is {_shown(value)}; it must be a whole number of pixels from 1 to {_LARGEST_SIDE:,}"
        )
    return value


def _of_one_kind(value: Id, others: Mapping[Id, Any] | Sequence[Id], where: str) -> None:
    one = next(iter(others), None)
    if one is not None and isinstance(one, str) != isinstance(value, str):
        raise SegbenchError(f"{where} is {value!r} and others are like {one!r}: ids must all be numbers or all be text")


def _all_of_one_kind(ids: Mapping[Id, Any] | Sequence[Id] | set[Id], what: str) -> None:
    if len({isinstance(one, str) for one in ids}) > 1:
        raise SegbenchError(f"{what} are both numbers and text; they must be of one kind")


def _list(raw: Any, where: str) -> list[Any]:
    if not isinstance(raw, list):
        raise SegbenchError(f"{where} is {_shown(raw)}; it must be a list")
    return raw


def _require(record: Any, keys: Sequence[str], where: str) -> None:
    if not isinstance(record, Mapping):
        raise SegbenchError(f"{where} is {_shown(record)}; it must be an object")
    for key in keys:
        if key not in record:
            raise SegbenchError(f"{where}: {key!r} is missing; it has {', '.join(record) or 'nothing'}")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
