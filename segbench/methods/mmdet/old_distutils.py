"""Brings distutils back, which MMEngine imports without saying so and Python 3.12 has no more."""

from __future__ import annotations

import importlib
import importlib.util


def ensure_distutils() -> None:
    """Make ``import distutils`` work where it does not, by setuptools' own copy.

    setuptools puts its copy on the path of imports when Python starts, by a .pth file, and when it is imported itself.
    The first does not happen where its folder was put on the path by another .pth file: in an environment of one's own
    that is built on top of another one.
    """
    if importlib.util.find_spec("distutils") is None:
        importlib.import_module("setuptools")
