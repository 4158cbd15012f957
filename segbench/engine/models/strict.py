"""Asks bioimage.io's own library whether a package is a model as it should be."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def problems_of(path: Path) -> list[str] | None:
    """Return what bioimageio.spec has against a package, warnings among them, a line each; None where it is not here.

    Nothing is fetched and nothing of the package is run.
    """
    try:
        # it greets on standard output and logs on standard error
        with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            from bioimageio.spec import InvalidDescr, ValidationContext, load_description
            from loguru import logger
    except ImportError:
        return None
    logger.disable("bioimageio.spec")
    try:
        with ValidationContext(perform_io_checks=True, disable_cache=True, progressbar=False, log_warnings=False):
            found = load_description(path)
    finally:
        logger.enable("bioimageio.spec")
    details = found.validation_summary.details
    told = [_line(entry.loc, entry.msg) for detail in details for entry in (*detail.errors, *detail.warnings)]
    return told or (["it is not valid"] if isinstance(found, InvalidDescr) else [])


def _line(place: tuple[int | str, ...], message: str) -> str:
    return " ".join(f"{'.'.join(map(str, place))}: {message}".split())
