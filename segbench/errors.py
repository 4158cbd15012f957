"""The errors that a user can act on: one line each, shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_NEAR = 0.72
"""Of difflib's ratio: two letters of a short word, or a letter of one of four, are still near."""
_PIECE = 3
"""Letters that tell which name is meant."""


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
    unknown part of ranking 'friedmann'; did you mean friedman? Known: accuracy, components, ...
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
    names = sorted(set(allowed))
    near = near_names(str(found), names)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return SegbenchError(f"unknown {kind} {found!r}; {hint}Known: {', '.join(names) or 'none'}")


def near_names(found: str, allowed: Iterable[str]) -> list[str]:
    """Return the names that somebody may have meant, the nearest first; none where none is near.

    Near is a name that differs by a slip of the hand or two; else one of which a piece was given, or more than it.

    Examples
    --------
    >>> near_names("papr", ["demo", "paper", "full"]), near_names("gpus", ["num_cpus", "num_gpus", "memory_gb"])
    (['paper'], ['num_gpus'])
    >>> near_names("nuclei", ["tissuenet", "livecell"])
    []
    """
    names = sorted(set(allowed))
    asked = found.lower()
    alike = {name: difflib.SequenceMatcher(None, asked, name.lower()).ratio() for name in names}
    best = max(alike.values(), default=0.0)
    if best >= _NEAR:
        near = [name for name in names if alike[name] >= best - 0.1]
        return sorted(near, key=lambda name: (alike[name], name), reverse=True)[:3]
    if len(asked) < _PIECE:
        return []
    pieces = [name for name in names if asked in name.lower() or (len(name) >= _PIECE and name.lower() in asked)]
    return sorted(pieces, key=lambda name: (alike[name], name), reverse=True)[:3]
