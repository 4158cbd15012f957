"""The errors that a user can act on: one line each, shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegbenchError(Exception):
    """Something the user can mend; the command line prints it as one line and exits with status 2.

    Parameters
    ----------
    message
        What was wrong and what would be right, in one line.

    Examples
    --------
    >>> import segbench
    >>> try:
    ...     segbench.Results.published().ranking(part="friedmann")
    ... except segbench.SegbenchError as error:
    ...     print(error)
    unknown part of ranking 'friedmann'; did you mean friedman? Known: components, differences, friedman
    """


class ResultsWarning(UserWarning):
    """What limits the figures of an analysis: what was left out, averaged or not computable.

    Examples
    --------
    Told once a place, as every warning; to have none of them:

    >>> import warnings
    >>> import segbench
    >>> warnings.simplefilter("ignore", segbench.ResultsWarning)
    """


def unknown_name(kind: str, found: object, allowed: Iterable[str]) -> SegbenchError:
    """Return the error for a misspelt name, with the nearest right names first.

    Examples
    --------
    >>> str(unknown_name("method", "cellpos", ["cellpose", "stardist", "watershed"]))
    "unknown method 'cellpos'; did you mean cellpose? Known: cellpose, stardist, watershed"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(found).lower(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return SegbenchError(f"unknown {kind} {found!r}; {hint}Known: {', '.join(names) or 'none'}")
