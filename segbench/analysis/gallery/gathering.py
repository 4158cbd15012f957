"""Finds the packages of a gallery: files, folders of files, and the models of results folders, which are exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from segbench.analysis.gallery.index import PACKAGES
from segbench.analysis.gallery.site import claim
from segbench.engine.models.exporting import Told, export_model
from segbench.engine.models.facts import package_name
from segbench.engine.models.importing import run_models
from segbench.engine.results.folder import ResultsFolder, is_url
from segbench.engine.results.mirror import open_results
from segbench.errors import SegbenchError


def gather(sources: Sequence[str], site: Path, told: Told, note: Callable[[str], None]) -> tuple[list[Path], list[str]]:
    """Return the files of the packages that sources stand for, and a line for each model that cannot be exported.

    Parameters
    ----------
    sources
        Results folders (or their URLs), packages, and folders of packages.
    site
        The gallery's folder, into whose ``packages`` models are exported; those that are there are kept.
    told
        What is told of the models of results folders.
    note
        Is told what is done.

    Raises
    ------
    SegbenchError
        A source is none of these.
    """
    packages: list[Path] = []
    failed: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_file():
            packages.append(path)
        elif path.is_dir() and (inside := sorted(path.glob("*.zip"))):
            packages += inside
        elif is_url(source) or ResultsFolder.open(source).has_store():
            claim(site)
            found, problems = _exported(open_results(ResultsFolder.open(source)), site, told, note)
            packages, failed = packages + found, failed + problems
        else:
            raise SegbenchError(f"{source} is no results folder, no package, and no folder of packages (*.zip)")
    return packages, failed


def _exported(out: ResultsFolder, site: Path, told: Told, note: Callable[[str], None]) -> tuple[list[Path], list[str]]:
    packages, failed = [], []
    models = list(run_models(out))
    for number, row in enumerate(models, 1):
        name = package_name(row["method"], row["task"], row["train_tissue"], row["run_id"])
        path = site / PACKAGES / f"{name}.zip"
        if not path.exists():
            note(f"{number} of {len(models)}: exporting {name}")
            try:
                export_model(out, row["run_id"], path, told)
            except SegbenchError as error:
                failed.append(f"{name}: {error}")
                continue
        packages.append(path)
    return packages, failed
