"""What an image's tissue or group is: a constant, a folder's name, a part of its path, or a column of a table."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from segbench.engine.data.importing.listing import stem_of
from segbench.engine.files.tables import read_table
from segbench.errors import SegbenchError, unknown_name

Choice = Callable[[PurePosixPath], str]
"""Gives the value of an image by its path below the images' folder."""
_WAYS = ("folder", "regex", "column")


def choice_of(text: str, option: str, table: Path | None, *, constant: bool) -> Choice:
    """Return what an option means.

    Parameters
    ----------
    text
        ``folder:1`` (the first folder below the images', ``folder:-1`` the last), ``regex:EXPRESSION`` (searched in
        the path; its first group, else all of it), ``column:NAME`` (of the table).
    option
        Its name, for errors.
    table
        CSV with the column ``image``.
    constant
        Other text is the value of every image.

    Raises
    ------
    SegbenchError
        It means nothing. What is returned raises it for an image without a value.

    Examples
    --------
    >>> choice_of("regex:^(slide[0-9]+)", "--group-by", None, constant=False)(PurePosixPath("slide7_x3.tif"))
    'slide7'
    >>> choice_of("folder:1", "--tissue", None, constant=True)(PurePosixPath("lung/a.tif"))
    'lung'
    """
    way, colon, argument = text.partition(":")
    if not colon or way not in _WAYS or not argument:
        if constant and text.strip() and not colon:
            return lambda _: text.strip()
        also = "a name, " if constant else ""
        raise SegbenchError(f"{option} takes {also}folder:1, regex:EXPRESSION or column:NAME, found {text!r}")
    if way == "folder":
        return _folder(argument, option)
    if way == "regex":
        return _regex(argument, option)
    return _column(argument, option, table)


def _folder(argument: str, option: str) -> Choice:
    if not re.fullmatch(r"-?[1-9][0-9]{0,2}", argument):
        raise SegbenchError(f"{option} folder:N counts folders from 1 (from the last with -1), found folder:{argument}")
    level = int(argument)

    def value(place: PurePosixPath) -> str:
        folders = place.parent.parts
        if len(folders) < abs(level):
            raise SegbenchError(f"{option} folder:{level}: image {place} lies in {len(folders)} folders")
        return folders[level - 1 if level > 0 else level]

    return value


def _regex(argument: str, option: str) -> Choice:
    try:
        expression = re.compile(argument)
    except (re.error, OverflowError, RecursionError) as error:
        raise SegbenchError(f"{option} {argument!r} is no regular expression: {error}") from None

    def value(place: PurePosixPath) -> str:
        found = expression.search(place.as_posix())
        text = (found[1] if expression.groups else found[0]) if found else None
        if not text:
            raise SegbenchError(f"{option} {argument!r} finds nothing in the image {place}")
        return text

    return value


def _column(argument: str, option: str, table: Path | None) -> Choice:
    if table is None:
        raise SegbenchError(f"{option} column:{argument} needs --table FILE.csv, with a column image")
    columns, rows = read_table(table)
    if "image" not in columns:
        raise SegbenchError(f"{table} lacks the column image; it has {', '.join(columns)}")
    if argument not in columns:
        raise unknown_name(f"column of {table.name}", argument, columns)
    values: dict[str, str] = {}
    for line, row in rows:
        name = row["image"].replace("\\", "/")
        if values.get(name, row[argument]) != row[argument]:
            raise SegbenchError(f"{table}, line {line}: image {name!r} has another {argument} than before")
        values[name] = row[argument]

    def value(place: PurePosixPath) -> str:
        for key in (place.as_posix(), place.name, stem_of(place.name)):
            if values.get(key):
                return values[key]
        raise SegbenchError(f"{table} gives image {place} no {argument}")

    return value
