"""Reads tables that go with label maps: the group of each image, and the score of each label."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from segbench.engine.files.microscopy import SUFFIXES as MICROSCOPES
from segbench.errors import SegbenchError

_PICTURES = (".png", ".tif", ".tiff", ".npy", ".jpg", ".jpeg", ".bmp", ".ome.tif", ".ome.tiff", ".ome.zarr")
_SUFFIXES = (*_PICTURES, *MICROSCOPES)


def read_groups(path: Path, names: Sequence[str]) -> list[str]:
    """Return the group of each named image, from a CSV with the columns ``image`` and ``group`` (or ``tissue``).

    An image may be given with folder and suffix.

    Raises
    ------
    SegbenchError
        The table cannot be read, lacks an image, or gives one image two groups.
    """
    groups: dict[str, str] = {}
    lines: dict[str, int] = {}
    known = set(names)
    for n, row in _rows(path, "image", ("group", "tissue")):
        name = _name_in(row["image"], known)
        group = row.get("group") or row.get("tissue") or ""
        if name in lines and (name in known):
            raise SegbenchError(
                f"{path}, line {n}: image {name!r} stands in line {lines[name]} already (names are compared without "
                "folder and suffix)"
            )
        groups[name], lines[name] = group, n
    missing = [name for name in names if not groups.get(name)]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SegbenchError(f"{path} gives no group for {shown}{more}")
    return [groups[name] for name in names]


def read_scores(
    path: Path, names: Sequence[str], labels_of: Callable[[int], npt.NDArray[np.int64]] | None = None
) -> list[npt.NDArray[np.float64]]:
    """Return each named image's scores in ascending label order, from a CSV with columns ``image, label, score``.

    Parameters
    ----------
    path
        Of the table.
    names
        Of the images.
    labels_of
        Gives the labels, ascending, that the map of image ``n`` has; None where they are not known. With it, a row
        whose label the map lacks and a label without a row are errors that name them.

    Raises
    ------
    SegbenchError
        The table cannot be read, names an unknown image, gives a label two scores, or does not fit the labels.
    """
    by_name: dict[str, dict[int, float]] = {name: {} for name in names}
    for n, row in _rows(path, "image", ("score",), ("label",)):
        where = f"{path}, line {n}"
        name = _name_in(row["image"], by_name)
        if name not in by_name:
            raise SegbenchError(f"{where}: the image {name!r} is not among the label maps")
        label, score = _label_and_score(row, where)
        if label in by_name[name]:
            raise SegbenchError(f"{where}: image {name!r} has two scores for label {label}")
        by_name[name][label] = score
    if labels_of is not None:
        for n, name in enumerate(names):
            _check_labels(path, name, set(by_name[name]), set(labels_of(n).tolist()))
    return [np.array([by_name[name][label] for label in sorted(by_name[name])]) for name in names]


def _check_labels(path: Path, name: str, given: set[int], there: set[int]) -> None:
    spare, missing = sorted(given - there), sorted(there - given)
    if spare:
        raise SegbenchError(
            f"{path} scores {len(spare):,} labels of image {name!r} that its map lacks: "
            f"{', '.join(map(str, spare[:3]))}"
        )
    if missing:
        raise SegbenchError(
            f"{path} has no score for {len(missing):,} labels of image {name!r}: {', '.join(map(str, missing[:3]))}"
        )


def _label_and_score(row: dict[str, str], where: str) -> tuple[int, float]:
    try:
        label, score = float(row["label"]), float(row["score"])
    except ValueError:
        label = math.nan
        score = math.nan
    if not math.isfinite(label) or label != int(label) or math.isnan(score):
        raise SegbenchError(
            f"{where}: label {row['label']!r} and score {row['score']!r} must be numbers, the label a whole one"
        )
    if math.isinf(score):
        raise SegbenchError(f"{where}: the score is {row['score']!r}; it must be finite")
    return int(label), score


def _name_in(text: str, known: dict[str, dict[int, float]] | set[str]) -> str:
    """Return the name of an image as the label maps have it: without folder, and without the suffix of its file."""
    name = PurePosixPath(text.replace("\\", "/")).name
    if name in known:
        return name
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    stem = Path(name).stem
    return stem if stem in known else name


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return a CSV file's columns, and its rows by column with the line where each ends; blank lines are passed over.

    As spreadsheets write them: a byte order mark, semicolons or tabs instead of commas, spaces around values.

    Raises
    ------
    SegbenchError
        It cannot be read, is no UTF-8 text, or has a column twice.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SegbenchError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SegbenchError(f"{path} is not UTF-8 text: save it as CSV with UTF-8") from None
    if "\0" in text:
        raise SegbenchError(f"{path} is no CSV table: it holds NUL characters; save it as CSV with UTF-8")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count) if first else ","
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns = [(name or "").strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = [
            (reader.line_num, {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)})
            for row in reader
        ]
    except csv.Error as error:
        raise SegbenchError(f"{path} is not a CSV table: {error}") from None
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise SegbenchError(f"{path} has the column {twice!r} twice; keep one")
    return columns, [(line, row) for line, row in rows if any(row.values())]


def _rows(path: Path, needed: str, one_of: Sequence[str], also: Sequence[str] = ()) -> list[tuple[int, dict[str, str]]]:
    found, rows = read_table(path)
    if needed not in found or not set(one_of) & set(found) or not set(also) <= set(found):
        wanted = ", ".join([needed, *also, " or ".join(one_of)])
        raise SegbenchError(f"{path} has the columns {', '.join(found) or 'none'}; it needs {wanted}")
    return rows
