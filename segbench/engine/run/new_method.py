"""Writes a package that holds a small method, for who wants to add one."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
from pathlib import Path
from string import Template

from segbench.engine.grid.cards import method_names
from segbench.engine.run.lock_files import environment_names
from segbench.errors import SegbenchError
from segbench.methods.card import NAME

_TEMPLATE = Path(__file__).parent / "template"
_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "src/{package}/__init__.py": "module.py.txt",
    "src/{package}/locks/{name}.txt": "lock.txt",
    "tests/test_{package}.py": "test.py.txt",
}


def write_package(name: str, parent: Path) -> Path:
    """Write a package with a method that trains, its entry points, the lock of its environment and a test.

    Parameters
    ----------
    name
        Of the method, its package and its environment.
    parent
        The folder in which the package's folder is made.

    Returns
    -------
    The package's folder, ``parent / name``.

    Raises
    ------
    SegbenchError
        The name is no name of a method, is taken, or would hide another module; the folder is there already or cannot
        be written. Nothing is overwritten.
    """
    _check(name)
    folder, package = parent / name, _package_of(name)
    words = {
        "name": name,
        "package": package,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "title": " ".join(name.split("-")).capitalize(),
        # what the engine runs with is there for its Python, and is known to work together
        "numpy": importlib.metadata.version("numpy"),
        "scipy": importlib.metadata.version("scipy"),
    }
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        for target, source in _FILES.items():
            path = folder / target.format(name=name, package=package)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(Template((_TEMPLATE / source).read_text()).substitute(words))
    except FileExistsError:
        raise SegbenchError(f"{folder} is there already: give another name, or another folder by --to") from None
    except OSError as error:
        raise SegbenchError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder


def _package_of(name: str) -> str:
    return name.replace("-", "_")


def _check(name: str) -> None:
    package = _package_of(name)
    if not NAME.fullmatch(name):
        raise SegbenchError(
            f"{name!r} is no name of a method; allowed: lower case letters and digits, parts joined by hyphens"
        )
    if name in method_names():
        raise SegbenchError(f"there is a method {name!r} already; give another name")
    if name in environment_names():
        raise SegbenchError(f"there is an environment {name!r} already; give another name")
    if keyword.iskeyword(package) or importlib.util.find_spec(package) is not None:
        raise SegbenchError(f"a package {package!r} would hide what Python has of that name; give another name")
